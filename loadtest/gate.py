"""``make bench-gate``: what a throttle gate costs each call of a gateway, with a thousand commands in force.

python -m loadtest.gate
"""

import argparse
import random
import sys
import timeit

from rich.console import Console

from gateway.commands import CommandBook
from loadtest.bench.machine import describe, store
from schemas.commands import Target, ThrottleCommand
from schemas.instants import HOUR, format_instant

COMMANDS = 1_000
CALLS = 200_000
ROUNDS = 5


def book_with(commands: int, now: int) -> CommandBook:
    """A book that blocks so many teams, each by one budget, for an hour."""
    book = CommandBook(clock=lambda: now)
    for number in range(commands):
        command = ThrottleCommand(
            command_id=f"c{number}",
            budget_id=f"b{number}",
            target=Target("team", f"team-{number}"),
            action="block",
            revision=1,
            issued_at=format_instant(now),
            effective_at=format_instant(now),
            expires_at=format_instant(now + HOUR),
            reason="spent",
        )
        book.apply(command.key(), command, now)
    return book


def main(arguments: list[str]) -> int:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(prog="make bench-gate", description=__doc__)
    parser.add_argument("--no-store", action="store_true", help="do not write a result file")
    options, out = parser.parse_args(arguments), Console(highlight=False)
    now = 1_800_000_000_000_000
    book, chance = book_with(COMMANDS, now), random.Random(1)
    # One call in ten is of a team that is blocked.
    names = [f"team-{chance.randrange(COMMANDS * 10)}" for _ in range(1_000)]

    def ask() -> None:
        for name in names:
            book.check(name, "chat", "gpt-4o", "org", "key-1", "user-1", now=now)

    best = min(timeit.repeat(ask, number=CALLS // len(names), repeat=ROUNDS)) / CALLS * 1e6
    refused = sum(not book.check(name, now=now).allowed for name in names)
    out.print(f"{best:.2f} us a check, {COMMANDS:,} commands in force, {refused} of {len(names):,} calls refused")
    if not options.no_store:
        found = {"microseconds_per_check": round(best, 3), "commands": COMMANDS, "refused_of_thousand": refused}
        out.print(f"stored as {store('gate', {'machine': describe(''), 'gate': found})}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
