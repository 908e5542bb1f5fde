"""``sluice silences``: what is silenced until when, by whom and why."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from streams.commands.budgets import day_minute, print_json
from streams.commands.ledger_desk import ledger_desk
from streams.commands.printing import Cell, print_line, print_table
from streams.core.alert_life import LifeError
from streams.core.letters import escaped
from streams.core.silencing import silence_of
from streams.settings import Settings
from streams.web import silences

STATES = {"live": "bold yellow", "coming": "", "ended": "dim"}


async def show_list(settings: Settings, every: bool, as_json: bool, out: Console) -> int:
    """``list``: silences that hold."""
    async with ledger_desk(settings) as at:
        found = await silences.shown_all(at.pool, at.now, live=not every)
    if as_json:
        print_json(out, {"silences": found})
    elif not found:
        print_line(out, "nothing is silenced")
    else:
        columns = ("id", "", "what", "until", "by", "why", "holds back")
        print_table(out, columns, [_line(each) for each in found], columns[-1:])
    return 0


def _line(one: Mapping[str, Any]) -> list[Cell]:
    what = escaped(" ".join(one["matchers"]))
    state = (one["state"], STATES[one["state"]])
    return [
        one["id"], state, what, day_minute(one["ends"]), escaped(one["author"]), escaped(one["reason"]),
        str(one["holds_back"]),
    ]  # fmt: skip


async def add(
    settings: Settings, matchers: Sequence[str], ends: str, starts: str, why: str, by: str, as_json: bool, out: Console
) -> int:
    """``add``: silence what matches."""
    async with ledger_desk(settings) as at:
        made = silence_of(matchers, starts=starts, ends=ends, why=why, by=by, now=at.now)
        found = await silences.make(at.pool, made, at.now)
    if as_json:
        print_json(out, found)
        return 0
    print_line(
        out, f"silence {found['id']} until {day_minute(found['ends'])} UTC: {escaped(' '.join(found['matchers']))}"
    )
    print_line(
        out, f"  it holds back {found['holds_back']} open alert(s); end it with: sluice silences end {found['id']}"
    )
    return 0


async def end(settings: Settings, silence_id: str, by: str, out: Console) -> int:
    """``end``: let its alerts speak again."""
    async with ledger_desk(settings) as at:
        if not await silences.end(at.pool, silence_id, by, at.now):
            raise LifeError(f"no silence {silence_id[:64]!r} holds; see `sluice silences list`")
    print_line(out, f"silence {silence_id} is ended")
    return 0
