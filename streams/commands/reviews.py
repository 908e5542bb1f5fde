"""``sluice reviews``: what critical alerts led to, and what came of it."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from streams.commands.alerts import SEVERITIES
from streams.commands.budgets import day_minute, print_json
from streams.commands.ledger_desk import LedgerDesk, ledger_desk
from streams.commands.printing import Cell, print_line, print_table
from streams.core.alert_life import LifeError
from streams.core.letters import escaped
from streams.settings import Settings
from streams.sinks.reviews import list_reviews
from streams.web import reviews


async def show_list(settings: Settings, closed: bool, team: str, as_json: bool, out: Console) -> int:
    """``list``: reviews, the first due first."""
    async with ledger_desk(settings) as at:
        found = [reviews.shown(row, at.now) for row in await list_reviews(at.pool, team=team, closed=closed)]
    overdue = sum(each["overdue"] for each in found)
    if as_json:
        print_json(out, {"reviews": found, "overdue": overdue})
        return 0
    if not found:
        print_line(out, "no review is open" if not closed else "there was no review yet")
        return 0
    print_table(out, ("id", "severity", "due", "owner", "team", "what", "outcome"), [_line(each) for each in found])
    if overdue:
        print_line(out, f"{overdue} overdue", "bold red")
    return 0


def _line(one: Mapping[str, Any]) -> list[Cell]:
    due: Cell = (
        day_minute(one["due_at"]) + (" overdue" if one["overdue"] else ""),
        "bold red" if one["overdue"] else "",
    )
    outcome = f"{one['outcome']} ({one['closed_by']})" if one["closed_at"] else "open"
    return [
        one["id"], (one["severity"], SEVERITIES.get(one["severity"], "")), due, escaped(one["owner"] or "nobody"),
        escaped(one["team_id"]), escaped(one["summary"])[:90], escaped(outcome),
    ]  # fmt: skip


async def close(settings: Settings, review_id: str, outcome: str, by: str, out: Console) -> int:
    """``close``: say what came of it."""
    async with ledger_desk(settings) as at:
        found = await reviews.close(at.pool, await _named(at, review_id), outcome, by, at.now)
    print_line(out, f"review {found['id']} is closed: {escaped(found['outcome'])}")
    return 0


async def assign(settings: Settings, review_id: str, owner: str, due: str, out: Console) -> int:
    """``assign``: another owner, another day."""
    async with ledger_desk(settings) as at:
        found = await reviews.hand_over(at.pool, await _named(at, review_id), owner, due, at.now)
    print_line(
        out, f"review {found['id']}: {escaped(found['owner'] or 'nobody')} until {day_minute(found['due_at'])} UTC"
    )
    return 0


async def _named(at: LedgerDesk, text: str) -> str:
    likes = [row["review_id"] for row in await list_reviews(at.pool, closed=True) if row["review_id"].startswith(text)]
    if len(likes) != 1 or not text:
        raise LifeError(
            f"there is no review {text[:64]!r}; see `sluice reviews list --closed`"
            if not likes
            else f"{text[:64]!r} is the beginning of {len(likes)} reviews: write more of it"
        )
    return str(likes[0])
