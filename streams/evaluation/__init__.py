"""How detectors are judged: recorded series, incidents put into them, baselines, and what came of it."""
