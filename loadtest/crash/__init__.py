"""The crash rig: a seeded load and seeded faults on a real service, and an independent judgement of what is left.

``make crash SEEDS=25``; docs/crash-rig.md says what is done, what is compared, and what a seed reproduces.
"""
