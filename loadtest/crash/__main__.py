"""``python -m loadtest.crash --seeds 25``: run seeds one after the other; exit 1 if one does not hold."""

import argparse
import asyncio
import logging
import shutil
import sys
from pathlib import Path

from loadtest.crash.disk import own_namespace
from loadtest.crash.plan import KINDS, Plan, make_plan
from loadtest.crash.run import Run, Verdict

DIFFERENCES_SHOWN = 10
REASONS_SHOWN = 3
WORDS_MAX = 200
SHORT = {"events": 12_000, "duration_s": 14.0, "faults": 4}


def main() -> int:
    """Run what the command line asks for."""
    given = _arguments()
    reason = own_namespace()
    if reason:
        print(f"no small disk can be mounted here ({reason}): a full disk is left out", flush=True)
    seeds = [given.seed] if given.seed is not None else list(range(given.first, given.first + given.seeds))
    failed = []
    for number, seed in enumerate(seeds, 1):
        asked = {"events": given.events, "duration_s": given.seconds, "faults": given.faults}
        terms = SHORT if given.short else asked
        plan = make_plan(seed, only=given.only, **terms)
        print(f"\nseed {seed} ({number} of {len(seeds)})", flush=True)
        _print_plan(plan)
        verdict = _run(plan, given.state / "crash" / f"seed-{seed}", small_disk=not reason, keep=given.keep)
        _print_verdict(verdict, given.state)
        if not verdict.holds:
            failed.append(seed)
    print(f"\n{len(seeds) - len(failed)} of {len(seeds)} seeds hold{f'; not: {failed}' if failed else ''}", flush=True)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--short", action="store_true", help="fewer events and faults, for `make test`")
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="of load")
    parser.add_argument("--faults", type=int, default=7)
    parser.add_argument("--only", action="append", default=[], choices=list(KINDS), help="choose from these faults")
    parser.add_argument("--state", type=Path, default=Path(".sluice"), help="state folder; logs of failures stay there")
    parser.add_argument("--keep", action="store_true", help="keep the logs of seeds that hold, too")
    return parser.parse_args()


def _run(plan: Plan, folder: Path, small_disk: bool, keep: bool) -> Verdict:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "logs").mkdir(parents=True)
    log = logging.FileHandler(folder / "logs" / "rig.log")
    log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(log)
    root.setLevel(logging.INFO)
    # Each line of a client that waits for its broker would be one of thousands.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        return asyncio.run(
            Run(plan, folder, lambda line: print(line, flush=True), small_disk=small_disk, keep=keep).verdict()
        )
    finally:
        root.removeHandler(log)
        log.close()


def _print_plan(plan: Plan) -> None:
    print(f"  plan: {plan.events:,} events in {plan.duration_s:.0f} s; reproduced by the seed, its interleaving is not")
    for item in sorted((*plan.faults, *plan.jumps), key=lambda item: item[0] if hasattr(item, "at_s") else item.from_s):
        print(f"    {item}", flush=True)


def _print_verdict(verdict: Verdict, state: Path) -> None:
    print(f"  {'compared':<36}{'expected':>20}{'found':>20}  differences")
    for check in verdict.checks:
        print(f"  {check.what:<36}{check.expected:>20,}{check.found:>20,}  {len(check.differences) or '-'}")
    differences = [f"{check.what}: {line}" for check in verdict.checks for line in check.differences]
    for line in differences[:DIFFERENCES_SHOWN]:
        print(f"    {line}")
    if len(differences) > DIFFERENCES_SHOWN:
        print(f"    and {len(differences) - DIFFERENCES_SHOWN} more")
    if verdict.broken:
        print(f"  broken off: {verdict.broken}")
    facts = ", ".join(f"{name} {value}" for name, value in verdict.facts.items())
    print(f"  seed {verdict.seed} {'holds' if verdict.holds else 'DOES NOT HOLD'}: {facts}", flush=True)
    if not verdict.holds:
        for line in last_words(state / "crash" / f"seed-{verdict.seed}" / "logs"):
            print(f"  a worker's last words: {line}")
        print(f"  logs: crash/seed-{verdict.seed}/logs in the state folder ({state})", flush=True)


def last_words(logs: Path) -> list[str]:
    """Why workers stopped themselves, each reason once, without its time."""
    found: dict[str, None] = {}
    for log in sorted(logs.glob("*worker*.log")):
        for line in log.read_text(errors="replace").splitlines():
            _, critical, reason = line.partition(" CRITICAL ")
            if critical:
                found[reason[:WORDS_MAX]] = None
    return list(found)[-REASONS_SHOWN:]


if __name__ == "__main__":
    sys.exit(main())
