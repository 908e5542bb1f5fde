"""``make eval``: `sluice eval`, with its result stored beside those of the other rigs.

python -m loadtest.evaluation --data ../shared/data --quick
"""

import argparse
import sys
from pathlib import Path
from typing import Any

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
            **_rounded(_short(result)),
        }
        out.print(f"stored in {store('eval', whole)}")
    return 0


def _short(result: dict[str, Any]) -> dict[str, Any]:
    """The result without what a file need not keep: by kind, of other bars than the contender's own, only recall."""
    spend = {}
    for panel, found in result["spend"].items():
        own = {name: _bars(contender) for name, contender in found["contenders"].items()}
        spend[panel] = found | {"contenders": own}
    return result | {"spend": spend}


def _bars(contender: dict[str, Any]) -> dict[str, Any]:
    kept = dict(contender)
    for choice in ("held_out", "in_sample"):
        kept[choice] = {budget: each and _recalls(each) for budget, each in contender[choice].items()}
    return kept


def _recalls(figures: dict[str, Any]) -> dict[str, Any]:
    by_kind = " ".join(f"{kind} {each['recall']:.3f}" for kind, each in figures["kinds"].items())
    return figures | {"kinds": by_kind}


def _rounded(found: object) -> object:
    if isinstance(found, dict):
        return {name: _rounded(each) for name, each in found.items()}
    return round(found, 4) if isinstance(found, float) else found


if __name__ == "__main__":
    sys.exit(main())
