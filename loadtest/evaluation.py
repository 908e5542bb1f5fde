"""``make eval``: `sluice eval`, with its result stored beside those of the other rigs.

python -m loadtest.evaluation --data ../shared/data --quick
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from loadtest.bench.machine import describe, load_average, store
from streams.clock import elapsed_s
from streams.commands.evaluate import judged
from streams.evaluation.targets import targets


def main() -> int:
    """Run, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="the folder of recorded traces")
    parser.add_argument("--quick", action="store_true", help="one injection of each kind, without slow contenders")
    parser.add_argument("--no-store", action="store_true", help="print only")
    given = parser.parse_args()
    out, began = Console(width=180), elapsed_s()
    result = judged(given.data, given.quick, out)
    if result is None:
        return 2
    if not given.no_store:
        whole = {
            "machine": describe("none"),
            "load_average": load_average(),
            "seconds": round(elapsed_s() - began, 1),
            "targets": [target._asdict() for target in targets(result)],
            **_rounded(result),
        }
        out.print(f"stored in {store('eval', whole)}")
    return 0


def _rounded(found: object) -> object:
    if isinstance(found, dict):
        return {name: _rounded(each) for name, each in found.items()}
    return round(found, 4) if isinstance(found, float) else found


if __name__ == "__main__":
    sys.exit(main())
