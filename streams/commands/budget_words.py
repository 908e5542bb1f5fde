"""Budgets in words: the tree that a file's budgets make, what each asks of whom, and where one stands."""

import json
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree as Drawing

from schemas.budgets import Budget, Limit, Period
from schemas.commands import Measure
from schemas.instants import format_instant
from schemas.money import display_usd, parse_nanos
from streams.core.budget_file import BudgetFile
from streams.core.budget_rows import WEEKDAYS
from streams.core.tree import Tree
from streams.web.answers import Budget as Standing
from streams.web.answers import Estimate, MeasureNow

#: A longer tree is no overview.
SHOWN_MAX = 60


def drawing(file: BudgetFile) -> RenderableType:
    """The budgets as the tree they make, and the limits and grants below."""
    tree = Tree(file.budgets)
    by_id = {budget.id: budget for budget in file.budgets}
    drawn = Drawing(Text("Budgets", style="bold"))
    left = SHOWN_MAX
    under = [(drawn, name) for name in reversed(tree.children())]
    while under and left:
        above, name = under.pop()
        branch = above.add(Text(words_of(by_id[name])))
        left -= 1
        under += [(branch, child) for child in reversed(tree.children(name))]
    if under:
        drawn.add(f"and {len(by_id) - SHOWN_MAX} more")
    parts: list[RenderableType] = [drawn] if by_id else []
    parts += [Text(f"limit {limit_words(limit)}") for limit in file.limits[:SHOWN_MAX]]
    expensive = [grant.model for grant in file.grants if not grant.team_id]
    if expensive:
        parts.append(Text(f"expensive models: {', '.join(expensive)}"))
    parts += [
        Text(f"grant: {grant.team_id} may use {grant.model}{_until(grant.until)}")
        for grant in file.grants[:SHOWN_MAX]
        if grant.team_id
    ]
    return Group(*parts)


def words_of(budget: Budget) -> str:
    """One budget in one line: its money, period, match and what it does."""
    each = f" for each {budget.per}" if budget.per else ""
    dates = f" from {format_instant(budget.starts)}" if budget.starts else ""
    dates += _until(budget.ends)
    match = f", of {_match(budget)}" if budget.match else ""
    said = f"{budget.id}: {display_usd(budget.amount_nanos)} {period_words(budget.period)}{each}{dates}{match}"
    rungs = [
        f"{rung.percent} % {' and '.join(map(_measure, rung.measures))}" for rung in budget.thresholds if rung.measures
    ]
    return f"{said} ({budget.mode}{'; ' if rungs else ''}{', '.join(rungs)})"


def period_words(period: Period) -> str:
    """A period as people say it, with its zone where it has one that counts.

    >>> period_words(Period("week", "Asia/Tokyo", 6)), period_words(Period("rolling", hours=72))
    ('a week from sunday in Asia/Tokyo', 'in any 72 h')
    """
    if period.kind == "total":
        return "in all"
    if period.kind == "rolling":
        days, hours = divmod(period.hours, 24)
        return f"in any {period.hours} h" if hours or days < 7 else f"in any {days} d"
    article = "an" if period.kind == "hour" else "a"
    day = f" from {WEEKDAYS[period.week_start]}" if period.kind == "week" else ""
    return f"{article} {period.kind}{day}" + ("" if period.timezone == "UTC" else f" in {period.timezone}")


def limit_words(limit: Limit) -> str:
    """One limit in one line."""
    most = [
        f"{count} {unit} a minute"
        for count, unit in ((limit.rpm, "requests"), (limit.tpm, "tokens"))
        if count is not None
    ]
    if limit.nanos_per_minute is not None:
        most.append(f"{display_usd(limit.nanos_per_minute)} a minute")
    return f"{limit.id}: {limit.target.key()} has {', '.join(most)} ({limit.mode})"


def _match(budget: Budget) -> str:
    values: dict[str, list[str]] = {}
    for attribute, value in budget.match:
        values.setdefault(attribute, []).append(value)
    return ", ".join(f"{attribute} {' or '.join(found)}" for attribute, found in values.items())


def _measure(measure: Measure) -> str:
    name = measure.action.replace("_", " ")
    of = [*measure.request_types, *measure.environments]
    return f"{name} of {' and '.join(of)}" if of else name


def _until(instant: int) -> str:
    return f" until {format_instant(instant)}" if instant else ""


def details(one: Standing) -> Iterator[str]:
    """Where a budget stands, line by line: what holds of it, what is foreseen, and what BUDGET measured."""
    if one.measures:
        held = "; ".join(map(_held, one.measures))
        yield f"{'would hold' if one.measures[0].dry_run else 'holds'}: {held}"
    for estimate in one.forecasts:
        yield _foreseen(estimate)
    for key, value in one.details.items():
        if value in (None, "", "0", 0, {}, []):
            continue
        name = _DETAILS.get(key, key.replace("_", " "))
        if key == "ack_delay_ms":
            yield f"{name}: {int(value) / 1000:.2f} s"
        elif key in _MONEY:
            yield f"{name}: {display_usd(parse_nanos(value))}"
        else:
            yield f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"


_MONEY = frozenset({"burn_per_hour", "overshoot", "gap", "carried", "override", "opening", "estimated"})
_DETAILS = {
    "ack_delay_ms": "obeyed after",
    "burn_per_hour": "burns in an hour",
    "carried": "carried over from the period before",
    "estimated": "of it on gateways' own figures",
    "exhausted_at": "used up at",
    "gap": "spent after every gateway had obeyed",
    "opening": "of it spent before Sluice was here",
    "override": "of the amount by overrides",
    "overshoot": "spent beyond the rung that blocks",
}


def _held(measure: MeasureNow) -> str:
    name = measure.action.replace("_", " ")
    most = [
        f"{count:,} {unit}"
        for count, unit in (
            (measure.rpm, "calls a minute"), (measure.tpm, "tokens a minute"), (measure.max_tokens, "output tokens"),
        )
        if count is not None
    ]  # fmt: skip
    most += [f"{asked} to {instead}" for asked, instead in measure.models.items()]
    names = [*measure.request_types, *measure.environments]
    of = [name for name in names if not name.startswith("!")]
    but = [name[1:] for name in names if name.startswith("!")]
    whom = (f" of {' and '.join(of)}" if of else "") + (f", but not of {' and '.join(but)}" if but else "")
    return f"{name}{' ' if most else ''}{', '.join(most)}{whom}"


def _foreseen(estimate: Estimate) -> str:
    past = estimate.past_error
    record = f"was {past.mean_percent} % off ({past.statements} judged)" if past.statements else "no history yet"
    best = ", the best" if estimate.is_best else ""
    projected = display_usd(parse_nanos(estimate.projected))
    said = f"{projected}, {estimate.projected_percent} %, {estimate.exhausts}"
    return f"forecast ({estimate.method}{best}): {said}; {record}"
