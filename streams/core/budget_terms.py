"""A budget's terms at an instant: its definition with the overrides that hold, and what its period opened with."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, get_args

from schemas.budgets import Budget, Grant, Limit, Model, OpeningBalance, Override, Period, Run, Rung
from schemas.commands import Measure, OnStale, ScopeType, Target
from schemas.instants import HOUR, MINUTE
from schemas.money import NANOS
from streams.core.definitions import Definitions
from streams.core.matching import pattern_of

#: What stands before the id of a standing limit, of a model that needs a grant, and of a training run, where they are
#: treated as budgets. No other budget's id has a colon.
LIMIT = "limit:"
GRANT = "grant:"
RUN = "run-"
_LABELS = {"limits": LIMIT, "runs": RUN}
_OWNERS = {"overrides": "budget_id", "balances": "budget_id"}
_MEMO_MAX = 100_000
_AT_GATES = frozenset(get_args(ScopeType))
#: Instants that gates and databases can still write: what never ends, ends then.
FOREVER = 253_402_300_799_000_000


class Terms(NamedTuple):
    """A budget as BUDGET needs it, at one instant."""

    budget_id: str
    #: The scope under which METER counts it; another target, match, period or time zone is another scope.
    scope: str
    target: Target
    #: With the overrides that hold, and without what rolled over.
    amount_nanos: int
    #: ``day``, ``total``, ``rolling``: the kind of period, as people call it.
    period: str
    thresholds: tuple[Rung, ...]
    #: False in ``mode: observe``: commands are dry runs.
    enforced: bool
    owner: str = ""
    #: The amount that was defined; at most so much rolls over.
    defined_nanos: int = 0
    rollover: bool = False
    #: What was spent in the period before Sluice was there.
    opening_nanos: int = 0
    #: It counts and holds within [starts, ends); 0: no bound.
    starts: int = 0
    ends: int = 0
    #: How far a rolling budget looks back.
    window_us: int = 0
    #: Whether an override lifts all measures.
    lifted: bool = False
    hard: bool = False
    #: What a call must have besides the target, as far as gates can tell.
    match: tuple[tuple[ScopeType, str], ...] = ()
    on_stale: OnStale = "open"
    exempt_models: tuple[str, ...] = ()
    pages: bool = True
    model: Model = "fixed"
    #: When it was defined so: revisions begin above it, should all memory of it be gone.
    defined_at: int = 0
    #: What is asked for at any spend: a standing limit.
    standing: tuple[Measure, ...] = ()
    #: Above so much in a minute a standing limit holds calls back; 0: it does not look at money.
    nanos_per_minute: int = 0
    #: When the last override ended; 0: none has.
    overridden_until: int = 0
    #: The training run that this is the estimate of.
    run: Run | None = None
    #: The next instant at which these terms change by themselves.
    until: int = FOREVER

    def covers(self, now: int) -> bool:
        """Whether the budget counts and holds at this instant."""
        return self.starts <= now and (not self.ends or now < self.ends)

    def within(self) -> str:
        """When the money is spent, in words.

        >>> Terms("b", "s", Target("team", "x"), 1, "rolling", (), True, window_us=24 * HOUR).within()
        'in the last 24 hours'
        """
        if self.period == "total":
            return "in all"
        if self.period == "rolling":
            return f"in the last {self.window_us // HOUR} hours"
        return f"this {self.period}"


class Policy(NamedTuple):
    """What holds for all budgets."""

    live_within_us: int = 3 * HOUR
    runbook: str = ""
    #: What a command asks for is void after this, unless it is renewed, which happens after a third of it.
    valid_us: int = 15 * MINUTE
    #: A training run above this has to be on record, and above the second its team's lead has to approve it.
    record_above: int = 50 * NANOS
    approve_above: int = 200 * NANOS


class Book:
    """The terms of every budget of one snapshot, found by scope. ``scope_of`` names the scope of a definition."""

    def __init__(self, definitions: Definitions, scope_of: Callable[[Budget], str]) -> None:
        self.definitions = definitions
        self._budgets = {scope_of(budget): budget for budget in decided_budgets(definitions).values()}
        #: What lies here without METER's having counted anything: standing limits, and runs that want an approval.
        self.standing = tuple(
            scope
            for scope, budget in self._budgets.items()
            if budget.id.startswith((LIMIT, GRANT, RUN)) and not budget.per
        )
        self._limits = {LIMIT + limit.id: limit for limit in definitions.limits.values()}
        self._runs = {RUN + run.id: run for run in definitions.runs.values()}
        self._grants = tuple(definitions.grants.values())
        self._overrides: dict[str, list[Override]] = {}
        for override in definitions.overrides.values():
            self._overrides.setdefault(override.budget_id, []).append(override)
        self._known: dict[tuple[str, int], tuple[int, Terms]] = {}
        self._balances: dict[tuple[str, str], list[OpeningBalance]] = {}
        for balance in definitions.balances.values():
            self._balances.setdefault((balance.budget_id, balance.value), []).append(balance)

    def budget(self, scope: str) -> Budget | None:
        """The definition that a statement's scope belongs to; None: it is no longer defined so."""
        return self._budgets.get(scope.partition("#")[0])

    def terms(self, scope: str, period_start: int, now: int) -> Terms | None:
        """The terms of a scope's period; None where its budget is no longer defined so."""
        known = self._known.get((scope, period_start))
        if known is not None and known[0] <= now < known[1].until:
            return known[1]
        found = self._terms(scope, period_start, now)
        if found is not None and not (found.window_us and found.opening_nanos):
            if len(self._known) >= _MEMO_MAX:
                self._known.clear()
            self._known[(scope, period_start)] = now, found
        return found

    def _terms(self, scope: str, period_start: int, now: int) -> Terms | None:
        budget = self.budget(scope)
        if budget is None:
            return None
        if budget.id in self._limits:
            return _of_limit(terms_of(budget, scope, now), self._limits[budget.id])
        if budget.id.startswith(GRANT):
            return _of_grants(terms_of(budget, scope, now), self._grants, now)
        balances = self._balances.get((budget.id, value_of(scope)), ())
        opening = opening_of(budget, balances, period_start, now) if balances else 0
        found = terms_of(budget, scope, now, self._overrides.get(budget.id, ()), opening)
        run = self._runs.get(budget.id)
        if run is None or budget is self.definitions.of_budget(budget.id):
            return found
        # What a run passes is told and, where it allows that, stopped; gates have nothing to do with it.
        return found._replace(run=run)


def changed_budgets(before: Definitions, after: Definitions) -> set[str]:
    """The ids of the budgets whose terms may differ between two snapshots."""
    found: set[str] = set()
    for name in ("budgets", "overrides", "balances", "limits", "runs"):
        old, new = getattr(before, name), getattr(after, name)
        if old is new:
            continue
        changed = [old.get(key) or new[key] for key in old.keys() | new.keys() if old.get(key) != new.get(key)]
        found.update(_LABELS.get(name, "") + getattr(each, _OWNERS.get(name, "id")) for each in changed)
    if before.grants != after.grants:
        found.update(GRANT + grant.model for grant in (*before.grants.values(), *after.grants.values()))
    return found


def value_of(scope: str) -> str:
    """The value that a scope of a ``per`` budget stands for; empty for all others.

    >>> value_of("budget:agents@0a1b#s-17"), value_of("budget:search-daily@0a1b")
    ('s-17', '')
    """
    return scope.partition("#")[2]


def decided_budgets(definitions: Definitions) -> dict[str, Budget]:
    """Every budget that BUDGET decides about: those that are defined, one for each run, one for each standing limit."""
    found = {budget.id: budget for budget in definitions.budgets.values()}
    for run in definitions.runs.values():
        if run.state not in ("refused", "ended") and run.estimate_nanos > 0:
            found.setdefault(RUN + run.id, _of_run(run))
    for limit in definitions.limits.values():
        found.setdefault(LIMIT + limit.id, _counter_of(limit.target, LIMIT + limit.id, limit))
    for model in _guarded(definitions.grants.values()):
        found.setdefault(GRANT + model, _counter_of(Target("model", "*"), GRANT + model))
    return found


def counted_budgets(definitions: Definitions) -> dict[str, Budget]:
    """Every budget that METER has to count: as ``decided_budgets``, without those that do not look at money."""
    blind = {LIMIT + limit.id for limit in definitions.limits.values() if limit.nanos_per_minute is None}
    found = decided_budgets(definitions).items()
    return {id: budget for id, budget in found if id not in blind and not id.startswith(GRANT)}


def _of_run(run: Run) -> Budget:
    further = (Rung(run.stop_at_percent, "critical"),) if run.stop_at_percent > 100 else ()
    return Budget(
        id=RUN + run.id,
        match=(("run", run.id),),
        target=Target("run", run.id),
        amount_nanos=run.estimate_nanos,
        period=Period("total"),
        thresholds=(Rung(100, "warning"), *further),
        mode="enforce",
        pages=False,
        owner=run.owner,
        changed_at=run.announced_at,
    )


def _counter_of(target: Target, id: str, limit: Limit | None = None) -> Budget:
    """What stands in the table for something that is asked for at any spend."""
    return Budget(
        id=id,
        match=((target.scope_type, target.scope_id),),
        target=target,
        amount_nanos=1,
        period=Period("rolling", hours=1),
        thresholds=(),
        mode=limit.mode if limit else "enforce",
        owner=limit.owner if limit else "",
        changed_at=limit.changed_at if limit else 0,
    )


def _guarded(grants: Iterable[Grant]) -> list[str]:
    """The models, or patterns, that are refused without a grant: those marked (a grant of no team marks one), and those
    among them that somebody was granted."""
    marked = [grant.model for grant in grants if not grant.team_id]
    is_marked = pattern_of(marked)
    return sorted({*marked, *(grant.model for grant in grants if grant.team_id and is_marked(grant.model))})


def _of_grants(terms: Terms, grants: Sequence[Grant], now: int) -> Terms:
    """The model is refused to every team that has no grant now, for it or for a pattern that it falls under."""
    model = terms.budget_id.removeprefix(GRANT)
    is_in = pattern_of([model])
    held = [grant for grant in grants if grant.team_id and (not grant.until or now < grant.until)]
    teams = sorted({grant.team_id for grant in held if grant.model == model or pattern_of([grant.model])(model)})
    return terms._replace(
        standing=(Measure("block"),),
        match=(("model", model), *(("team", f"!{team}") for team in teams)),
        # What is guarded by itself answers for itself.
        exempt_models=tuple(other for other in _guarded(grants) if other != model and is_in(other)),
        until=min((grant.until for grant in grants if grant.until > now), default=FOREVER),
    )


def _of_limit(terms: Terms, limit: Limit) -> Terms:
    standing: tuple[Measure, ...] = ()
    if limit.rpm is not None or limit.tpm is not None:
        standing = (Measure("rate_limit", limit.request_types, limit.environments, rpm=limit.rpm, tpm=limit.tpm),)
    return terms._replace(standing=standing, nanos_per_minute=limit.nanos_per_minute or 0)


def narrowed(budget: Budget) -> tuple[tuple[ScopeType, str], ...]:
    """The part of a budget's match that calls at a gate are known by, besides the target; tags are not."""
    target = (budget.target.scope_type, budget.target.scope_id)
    return tuple((name, value) for name, value in budget.match if name in _AT_GATES and (name, value) != target)  # type: ignore[misc]


def opening_of(budget: Budget, balances: Iterable[OpeningBalance], period_start: int, now: int) -> int:
    """What was spent before Sluice was there: in the period; in all; or where the window still looks back so far."""
    kind, since = budget.period.kind, now - budget.period.hours * HOUR
    if kind == "rolling":
        return sum(balance.nanos for balance in balances if balance.period_start > since)
    return sum(balance.nanos for balance in balances if kind == "total" or balance.period_start == period_start)


def budget_of(scope: str) -> str:
    """The budget's id in a scope.

    >>> budget_of("budget:agents@0a1b#s-17")
    'agents'
    """
    return scope.partition("@")[0].partition(":")[2]


def terms_of(
    budget: Budget,
    scope: str,
    now: int,
    overrides: Sequence[Override] = (),
    opening_nanos: int = 0,
) -> Terms:
    """What a definition asks for at this instant, under the scope that METER counts it under."""
    value = value_of(scope)
    ours = [each for each in overrides if each.value in ("", value)]
    held = [each for each in ours if each.starts <= now < each.until]
    bounds = [bound for each in ours for bound in (each.starts, each.until)] + [budget.starts, budget.ends]
    return Terms(
        budget_id=budget.id,
        scope=scope,
        target=Target(budget.target.scope_type, value) if budget.per else budget.target,
        amount_nanos=budget.amount_nanos + sum(each.extra_nanos for each in held),
        period=budget.period.kind,
        thresholds=budget.thresholds,
        enforced=budget.mode == "enforce",
        owner=budget.owner,
        defined_nanos=budget.amount_nanos,
        rollover=budget.rollover,
        opening_nanos=opening_nanos,
        starts=budget.starts,
        ends=budget.ends,
        window_us=budget.period.hours * HOUR,
        lifted=any(each.lifts for each in held),
        hard=budget.hard,
        match=narrowed(budget),
        on_stale=budget.on_stale,
        exempt_models=budget.exempt_models,
        pages=budget.pages,
        model=budget.model,
        defined_at=budget.changed_at,
        overridden_until=max((each.until for each in ours if each.until <= now), default=0),
        until=min((bound for bound in bounds if bound > now), default=FOREVER),
    )
