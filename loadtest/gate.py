"""``make bench-gate``: what a throttle gate costs each call of a gateway, with thousands of commands in force.

python -m loadtest.gate
"""

import argparse
import random
import sys
import timeit

from rich.console import Console

from gateway.commands import CommandBook
from loadtest.bench.machine import describe, store
from schemas.commands import Action, Measure, ScopeType, Target, ThrottleCommand
from schemas.instants import HOUR, format_instant

COMMANDS = 1_000
CALLS = 200_000
ROUNDS = 5
NOW = 1_800_000_000_000_000
#: What a graded budget asks for at its end: batch is slowed, output is capped, the dear model replaced.
GRADED = (
    Measure("rate_limit", request_types=("batch",), rpm=10),
    Measure("cap_tokens", max_tokens=512),
    Measure("downgrade", models={"gpt-4o": "gpt-4o-mini"}),
)


def command(scope: ScopeType, name: str, action: Action, measures: tuple[Measure, ...] = ()) -> ThrottleCommand:
    """A command for an hour."""
    return ThrottleCommand(
        command_id=f"{scope}:{name}",
        budget_id=f"of-{name}",
        target=Target(scope, name),
        action=action,
        measures=measures,
        exempt_models=("self-hosted/*",) if measures else (),
        revision=1,
        issued_at=format_instant(NOW),
        effective_at=format_instant(NOW),
        expires_at=format_instant(NOW + HOUR),
        reason="spent",
    )


def book_with(commands: int, graded: bool = False) -> CommandBook:
    """Every budget is another team's: blocked, or graded; and as many of keys, sessions and features, blocked."""
    book = CommandBook(clock=lambda: NOW)
    for number in range(commands):
        team = f"team-{number}"
        found = [command("team", team, "downgrade", GRADED) if graded else command("team", team, "block")]
        if graded:
            scopes: tuple[ScopeType, ...] = ("key", "session", "feature")
            found += [command(scope, f"{scope}-{number}", "block") for scope in scopes]
        for one in found:
            book.apply(one.key(), one, NOW)
    return book


def cost(book: CommandBook, names: list[str]) -> float:
    """Microseconds a check, in the best of all rounds."""

    def ask() -> None:
        for name in names:
            book.check(name, "chat", "gpt-4o", "org", "key", "user-1", environment="prod", session="s", now=NOW)

    return min(timeit.repeat(ask, number=CALLS // len(names), repeat=ROUNDS)) / CALLS * 1e6


def main(arguments: list[str]) -> int:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(prog="make bench-gate", description=__doc__)
    parser.add_argument("--no-store", action="store_true", help="do not write a result file")
    options, out = parser.parse_args(arguments), Console(highlight=False)
    chance = random.Random(1)
    tenth = [f"team-{chance.randrange(COMMANDS * 10)}" for _ in range(1_000)]
    cases = {
        "1,000 teams blocked, one call in ten of theirs": (book_with(COMMANDS), tenth),
        "4,000 commands in four kinds of scope, nothing applies": (book_with(COMMANDS, True), ["nobody"] * 1_000),
        "the same, three measures apply to one call in ten": (book_with(COMMANDS, True), tenth),
        "the same, three measures apply to every call": (
            book_with(COMMANDS, True),
            [f"team-{n}" for n in range(1_000)],
        ),
    }
    found = {}
    for name, (book, names) in cases.items():
        found[name] = round(cost(book, names), 3)
        out.print(f"{found[name]:6.2f} us a check: {name}")
    if not options.no_store:
        out.print(f"stored as {store('gate', {'machine': describe(''), 'microseconds_per_check': found})}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
