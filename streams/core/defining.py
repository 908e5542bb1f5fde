"""What people ask for by API and command line, made into definitions: checked field by field, and whose business it is.

Texts come as people wrote them. Every error names its field and says what to do.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from schemas.answers import AlertAnswer, PlannedEvent
from schemas.budgets import Budget, Definition, Grant, Limit, OpeningBalance, Override, Run
from schemas.commands import Target
from schemas.instants import DAY, HOUR, MINUTE, SECOND, InstantError, format_instant, parse_instant
from schemas.keys import digest
from schemas.money import MoneyError, parse_nanos
from streams.core.answers import wholes
from streams.core.definitions import Definitions

#: Runs are named by whoever starts them.
RUN_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")
AMOUNT_NANOS_MAX = 9 * 10**18
TEXT_MAX = 256
REASON_MAX = 1_000
SPAN_MAX = 400 * DAY
_UNITS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_SPAN = re.compile(r"(\d{1,6})([smhd])")
#: What a team's own key may have throttled: itself, or what only its own calls carry.
_OWN_TARGETS = ("key", "task", "session", "run", "experiment")

Result = TypeVar("Result")


class Wrong(NamedTuple):
    """What is wrong with one field."""

    where: str
    problem: str


class RequestError(ValueError):
    """Something asked for cannot be defined; ``wrongs`` has every field at once."""

    def __init__(self, wrongs: Iterable[Wrong]) -> None:
        self.wrongs = tuple(wrongs)
        super().__init__(
            "; ".join(f"{wrong.where}: {wrong.problem}" if wrong.where else wrong.problem for wrong in self.wrongs)
        )


class Fields:
    """Reads fields one by one and remembers what was wrong with each."""

    def __init__(self) -> None:
        self.wrongs: list[Wrong] = []

    def read(self, where: str, text: str, parse: Callable[[str], Result], instead: Result) -> Result:
        """What a text says, or ``instead`` where it cannot be read."""
        try:
            return parse(text)
        except ValueError as error:
            self.wrongs.append(Wrong(where, str(error)))
            return instead

    def demand(self) -> None:
        """Go on where nothing was wrong.

        Raises:
            RequestError: with every field that is.
        """
        if self.wrongs:
            raise RequestError(self.wrongs)


def amount(text: str, *, zero: bool = False) -> int:
    """Nanodollars of an amount above zero; of zero too where that means something.

    >>> amount("12.50"), amount("0", zero=True)
    (12500000000, 0)

    Raises:
        ValueError: no amount, zero or negative, or too large to be meant.
    """
    try:
        nanos = parse_nanos(text.strip().removeprefix("$"))
    except MoneyError as error:
        raise ValueError(f"{text[:40]!r} is no amount of dollars; write it as 12.50") from error
    if nanos < 0 or (nanos == 0 and not zero):
        least = "0 or more" if zero else "more than 0"
        raise ValueError(f"{text[:40]!r} has to be {least} dollars")
    if nanos > AMOUNT_NANOS_MAX:
        raise ValueError("more than 9 billion dollars is surely a typing error")
    return nanos


def span(text: str) -> int:
    """Microseconds of a span such as ``90m``, ``2h`` or ``1d12h``.

    >>> span("2h") == 2 * HOUR, span("1d12h") == 36 * HOUR
    (True, True)

    Raises:
        ValueError: it is none, or nothing, or longer than 400 days.
    """
    compact = text.replace(" ", "")
    parts = _SPAN.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise ValueError(f"{text[:40]!r} is no span of time; write 90m, 2h or 1d12h")
    found = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < found <= SPAN_MAX:
        raise ValueError(f"{text[:40]!r} is not between a second and 400 days")
    return found


def until(text: str, now: int, longest: int = SPAN_MAX) -> int:
    """The instant that ``2h`` (from now) or an RFC 3339 instant names; after now.

    Raises:
        ValueError: it is neither, or past, or further away than ``longest``.
    """
    try:
        instant = now + span(text) if _SPAN.match(text.strip()) and "T" not in text else parse_instant(text.strip())
    except (InstantError, OverflowError) as error:
        raise ValueError(
            f"{text[:40]!r} is neither a span such as 2h nor an instant such as 2026-11-21T18:00:00Z"
        ) from error
    if instant <= now:
        raise ValueError(f"{text[:40]!r} is past; it is {format_instant(now - now % SECOND)} now")
    if instant > now + longest:
        raise ValueError(f"{text[:40]!r} is more than {longest // HOUR} hours away: shorten it")
    return instant


def said(text: str) -> str:
    """Why somebody does something: not nothing, and not a novel.

    Raises:
        ValueError: it is empty or too long.
    """
    found = " ".join(text.split())
    if not found:
        raise ValueError("say why: it stands in the history for everybody to read")
    if len(found) > REASON_MAX:
        raise ValueError(f"has {len(found)} characters; at most {REASON_MAX}")
    return found


def name(text: str) -> str:
    """A name of something: neither empty nor beyond reason, without control characters.

    Raises:
        ValueError: it is not so.
    """
    found = text.strip()
    if not found or len(found) > TEXT_MAX:
        raise ValueError(f"has to have 1 to {TEXT_MAX} characters")
    if not found.isprintable():
        raise ValueError("has characters that cannot be printed")
    return found


# -- what is asked for ----------------------------------------------------------------------------------------------


def override_of(
    budget: Budget, *, extra_usd: str, lifts: bool, ends: str, value: str, why: str, by: str, now: int
) -> Override:
    """More money for a budget, or no throttling, until a time.

    Raises:
        RequestError: with every field that is wrong.
    """
    fields = Fields()
    extra = fields.read("extra_usd", extra_usd, amount, 0) if extra_usd else 0
    stop = fields.read("until", ends, lambda text: until(text, now), 0)
    reason = fields.read("reason", why, said, "")
    if not extra_usd and not lifts:
        fields.wrongs.append(Wrong("extra_usd", "give extra money, or `lifts` to end throttling for a while"))
    if value and not budget.per:
        fields.wrongs.append(Wrong("value", f"budget {budget.id} is one for all; only a `per` budget has values"))
    fields.demand()
    return Override(
        id=f"{budget.id}-{digest('override', budget.id, value, str(now), by)[:10]}", budget_id=budget.id, value=value,
        extra_nanos=extra, lifts=lifts, starts=now, until=stop, changed_by=by, reason=reason,
    )  # fmt: skip


def balance_of(
    budget: Budget, *, period_start: int, amount_usd: str, value: str, why: str, by: str,
    bounds: Callable[[int], tuple[int, int] | None] | None,
) -> OpeningBalance:  # fmt: skip
    """What was spent in a period before Sluice was there.

    Args:
        bounds: the period of an instant; None where the budget looks back and has no periods of its own.

    Raises:
        RequestError: with every field that is wrong.
    """
    fields = Fields()
    nanos = fields.read("amount_usd", amount_usd, lambda text: amount(text, zero=True), 0)
    reason = fields.read("reason", why, said, "")
    if value and not budget.per:
        fields.wrongs.append(Wrong("value", f"budget {budget.id} is one for all; only a `per` budget has values"))
    if budget.per and not value:
        fields.wrongs.append(Wrong("value", f"budget {budget.id} is for each {budget.per}: say of which one"))
    if bounds is None:
        fields.wrongs.append(Wrong("period_start", f"budget {budget.id} is rolling: it has no period to open"))
    elif (found := bounds(period_start)) is None:
        fields.wrongs.append(Wrong("period_start", f"budget {budget.id} does not count then: see its start and end"))
    elif found[0] != period_start:
        start = format_instant(found[0])
        problem = f"no period of {budget.id} starts then; the one around it starts at {start}"
        fields.wrongs.append(Wrong("period_start", problem))
    fields.demand()
    return OpeningBalance(
        budget_id=budget.id, value=value, period_start=period_start, nanos=nanos, changed_by=by, reason=reason
    )


def run_of(
    run_id: str, *, team: str, estimate_usd: str, hours: int = 0, auto_shutdown: bool = False,
    stop_at_percent: int = 150, owner: str = "",
) -> Run:  # fmt: skip
    """A training run as it is announced.

    Raises:
        RequestError: with every field that is wrong.
    """
    fields = Fields()
    if not RUN_ID.match(run_id):
        fields.wrongs.append(Wrong("id", "a run's id has 1 to 128 letters, digits, '.', '_', ':', '/' and '-'"))
    fields.read("team", team, name, "")
    nanos = fields.read("estimate_usd", estimate_usd, amount, 0)
    if not 0 <= hours <= 24 * 366:
        fields.wrongs.append(Wrong("estimate_hours", "is from 0 to a year of hours"))
    if not 100 <= stop_at_percent <= 10_000:
        fields.wrongs.append(Wrong("stop_at_percent", "is in percent of the estimate, from 100 to 10000"))
    if len(owner) > TEXT_MAX or not owner.isprintable():
        fields.wrongs.append(Wrong("owner", f"has at most {TEXT_MAX} characters, all of them printable"))
    fields.demand()
    return Run(
        id=run_id, team_id=team.strip(), estimate_nanos=nanos, estimate_hours=hours, auto_shutdown=auto_shutdown,
        stop_at_percent=stop_at_percent, owner=owner,
    )  # fmt: skip


def grant_of(*, team: str, model: str, ends: str, why: str, by: str, now: int) -> Grant:
    """A team may use a model that is marked expensive; without ``ends`` for good.

    Raises:
        RequestError: with every field that is wrong.
    """
    fields = Fields()
    who = fields.read("team", team, name, "")
    what = fields.read("model", model, name, "")
    reason = fields.read("reason", why, said, "")
    stop = fields.read("until", ends, lambda text: until(text, now), 0) if ends else 0
    for where, text in (("team", who), ("model", what)):
        if "|" in text:
            fields.wrongs.append(Wrong(where, "has no '|' in it"))
    fields.demand()
    return Grant(team_id=who, model=what, until=stop, changed_by=by, reason=reason)


# -- whose business it is -------------------------------------------------------------------------------------------


def teams_of(budget: Budget) -> frozenset[str]:
    """The teams whose money it counts; empty where it counts everybody's."""
    return frozenset(value for attribute, value in budget.match if attribute == "team")


def not_the_teams(team: str, definition: Definition, known: Definitions) -> str:
    """Why a key of this team may not touch the definition; empty where it may, and for a key of no team.

    A team has its own budgets and what hangs on them. It neither throttles others nor grants itself a model.
    """
    if not team:
        return ""
    if isinstance(definition, Budget):
        return _not_the_teams_budget(team, definition)
    if isinstance(definition, Override | OpeningBalance):
        budget = known.of_budget(definition.budget_id)
        return "" if budget is None else _not_the_teams_budget(team, budget)
    if isinstance(definition, Limit):
        return "" if definition.target == Target("team", team) else f"limit {definition.id} is not team {team}'s own"
    if isinstance(definition, AlertAnswer):
        return "" if definition.team_id == team else f"the alert {definition.alert} is not about team {team} alone"
    if isinstance(definition, PlannedEvent):
        is_own = definition.scope == f"team:{team}" or f"team:{team}" in wholes(definition.scope)
        return "" if is_own else f"{definition.scope} is not team {team}'s own"
    if isinstance(definition, Run):
        return "" if definition.team_id == team else f"run {definition.id} is team {definition.team_id}'s"
    return "a team does not grant models to itself: a key that is bound to no team does"


def _not_the_teams_budget(team: str, budget: Budget) -> str:
    if teams_of(budget) != {team}:
        return f"budget {budget.id} is not team {team}'s own: its match does not name that team alone"
    if budget.target == Target("team", team) or (budget.per and budget.target.scope_type in _OWN_TARGETS):
        return ""
    return (
        f"budget {budget.id} throttles {budget.target.key()}, where others may call too; a team's key targets its team"
    )
