"""What a budget does with each statement of its scope: thresholds crossed and left, throttles commanded and released.

Pure and level-triggered: the desired command follows from the state alone, so saying it again after a replay says the
same under the same id and revision. Spend is the sum of the newest total of every source slot (rule 2).
"""

from typing import Literal, NamedTuple

import msgspec

from schemas import keys
from schemas.alerts import Alert, Contributor, Severity, Status, Tier
from schemas.commands import Action, Target, ThrottleCommand
from schemas.instants import HOUR, SECOND, format_instant
from schemas.money import display_usd, format_usd
from schemas.statements import ScopeStatement

RULE: Literal["budget_threshold"] = "budget_threshold"
_SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical", "emergency")


class Threshold(NamedTuple):
    """One rung of a budget's ladder."""

    percent: int
    severity: Severity
    blocks: bool


class Terms(NamedTuple):
    """A budget as BUDGET needs it; made from the budgets file."""

    budget_id: str
    #: The scope under which METER counts it; another target, match, period or time zone is another scope.
    scope: str
    target: Target
    amount_nanos: int
    period: str
    thresholds: tuple[Threshold, ...]
    #: False in ``mode: observe``: commands are dry runs.
    enforced: bool
    owner: str = ""


class Policy(NamedTuple):
    """What holds for all budgets."""

    live_within_us: int = 3 * HOUR
    runbook: str = ""


class Slot(msgspec.Struct, array_like=True):
    """The newest total of one source slot, and the furthest offset it was ever stated at."""

    revision: int
    offset: int
    cost_nanos: int
    furthest: int


class Crossing(msgspec.Struct, array_like=True):
    """One rung: whether spend is above it now, in which episode, and as what it was told."""

    severity: Severity
    episode: int
    is_open: bool
    opened_at: int
    tier: Tier
    historic: bool


class BudgetState(msgspec.Struct, kw_only=True):
    """One budget in one period."""

    v: int = 1
    budget_id: str
    scope: str
    target: Target
    period_start: int
    period_end: int
    slots: dict[str, Slot] = {}
    crossings: dict[int, Crossing] = {}
    contributors: dict[str, dict[str, int]] = {}
    commanded: Action = "allow"
    #: Whether the command that stands is a dry run.
    dry_run: bool = False
    #: The revision of the last command; it starts above every earlier one of the same budget.
    revision: int = 0
    stream_time: int = 0

    @property
    def spent_nanos(self) -> int:
        """Spend of the period so far, over all source slots."""
        return sum(slot.cost_nanos for slot in self.slots.values())

    @property
    def is_whole(self) -> bool:
        """Whether no slot is behind what was stated before: lowering needs the whole (rule 6)."""
        return all(slot.offset >= slot.furthest for slot in self.slots.values())

    @property
    def sequence(self) -> int:
        """Grows with every statement taken in."""
        return sum(slot.offset + 1 for slot in self.slots.values())

    def crossed_percent(self) -> int:
        """The highest rung that is open; 0 for none."""
        return max((percent for percent, crossing in self.crossings.items() if crossing.is_open), default=0)


def withdrawn(state: BudgetState) -> Terms:
    """The terms of a budget that is no longer defined so: it asks for nothing, so what it blocked is let go."""
    return Terms(state.budget_id, state.scope, state.target, 0, "period", (), enforced=not state.dry_run)


class Decision(NamedTuple):
    """What follows from a step."""

    alerts: list[Alert]
    command: ThrottleCommand | None


def state_key(scope: str, period_start: int) -> str:
    """The table key of one budget, as it is defined, in one period."""
    return f"{scope}|{period_start}"


def take_in(state: BudgetState | None, terms: Terms, statement: ScopeStatement, above: int = 0) -> BudgetState:
    """The state with this statement's slot replaced, if the statement is newer than what the slot holds.

    ``above`` is the highest revision that this budget ever gave, in any period and definition: a gate ignores what is
    not above it.
    """
    if state is None:
        state = BudgetState(
            budget_id=terms.budget_id,
            scope=terms.scope,
            target=terms.target,
            revision=max(above, statement.period_start // SECOND * 1_000),
            period_start=statement.period_start,
            period_end=statement.period_end,
            slots={},
            crossings={},
            contributors={},
        )
    name = f"{statement.source.slot()}#{statement.segment}"
    slot = state.slots.get(name)
    if slot is not None and (statement.revision, statement.offset) <= (slot.revision, slot.offset):
        return state
    furthest = max(statement.offset, slot.furthest if slot else -1)
    state.slots[name] = Slot(statement.revision, statement.offset, statement.cost_nanos, furthest)
    state.contributors[name] = statement.contributors
    state.stream_time = max(state.stream_time, statement.stream_time)
    return state


def decide(state: BudgetState, terms: Terms, now: int, policy: Policy) -> Decision:
    """Compare the state with the ladder and say what changed; mutates ``state`` to remember what was said."""
    over = now >= state.period_end
    historic = over or now - state.stream_time > policy.live_within_us
    alerts = _cross(state, terms, now, historic, policy)
    alerts += _leave(state, terms, now, over, policy)
    wanted, dry_run = _wanted(state, terms, over), not terms.enforced
    # An allow that was never preceded by a block is what gates do anyway; a block changes with its mode.
    if wanted == state.commanded and (wanted == "allow" or dry_run == state.dry_run):
        return Decision(alerts, None)
    state.commanded, state.dry_run = wanted, dry_run
    state.revision += 1
    return Decision(alerts, command(state, terms, now))


def command(state: BudgetState, terms: Terms, now: int) -> ThrottleCommand:
    """What the budget wants of its scope now; the same state gives the same id and revision."""
    revision = state.revision
    key = f"{terms.target.key()}|{terms.budget_id}"
    blocked = state.commanded != "allow"
    spent, amount = display_usd(state.spent_nanos), display_usd(terms.amount_nanos)
    return ThrottleCommand(
        command_id=keys.command_id(key, revision),
        budget_id=terms.budget_id,
        target=terms.target,
        action=state.commanded,
        revision=revision,
        reason=(
            f"Budget {terms.budget_id} is spent: {spent} of {amount} this {terms.period}. "
            f"It opens again at {format_instant(state.period_end)} or when the budget is raised."
            if blocked
            else _room(state, terms, now)
        ),
        issued_at=format_instant(now),
        effective_at=format_instant(now),
        # A gate lets go by itself at the period's end, even if Sluice is gone; an allow outlives every block before it.
        expires_at=format_instant(state.period_end if blocked else state.period_end + 24 * HOUR),
        alert_id=_dedup_key(state, _blocking_percent(state, terms)) if blocked else "",
        retry_after_s=max(1, min(3600, (state.period_end - now) // SECOND)),
        dry_run=not terms.enforced,
    )


def _room(state: BudgetState, terms: Terms, now: int) -> str:
    if now >= state.period_end:
        return f"Budget {terms.budget_id} is open again: a new {terms.period} has begun."
    spent, amount = display_usd(state.spent_nanos), display_usd(terms.amount_nanos)
    return f"Budget {terms.budget_id} has room: {spent} of {amount} this {terms.period}."


def _cross(state: BudgetState, terms: Terms, now: int, historic: bool, policy: Policy) -> list[Alert]:
    spent = state.spent_nanos
    fresh = []
    for threshold in terms.thresholds:
        crossing = state.crossings.get(threshold.percent)
        # What was crossed in a backlog speaks up once the stream is live again within the same period.
        is_told = crossing is not None and crossing.is_open and (historic or not crossing.historic)
        # A period that is over is told once: what was told while it ran is closed for good, not crossed anew.
        is_told = is_told or (crossing is not None and now >= state.period_end)
        if spent * 100 >= threshold.percent * terms.amount_nanos and not is_told:
            fresh.append((threshold, crossing.episode + 1 if crossing else 1))
    alerts = []
    # One statement can pass several rungs: the gravest speaks (the highest of equals), the others are only shown.
    speaker = max((t for t, _ in fresh), key=lambda t: (_SEVERITIES.index(t.severity), t.percent), default=None)
    for threshold, episode in fresh:
        spoken = threshold is speaker and not historic
        tier = _tier(threshold.severity) if spoken else "note"
        state.crossings[threshold.percent] = Crossing(
            threshold.severity, episode, True, state.stream_time, tier, historic
        )
        alerts.append(_alert(state, terms, threshold, "opened", now, policy))
    return alerts


def _leave(state: BudgetState, terms: Terms, now: int, over: bool, policy: Policy) -> list[Alert]:
    alerts = []
    spent, whole = state.spent_nanos, state.is_whole
    known = {threshold.percent: threshold for threshold in terms.thresholds}
    for percent, crossing in sorted(state.crossings.items()):
        if not crossing.is_open:
            continue
        # A rung that was taken out of the ladder, or whose budget was, has nothing more to say.
        threshold = known.get(percent) or Threshold(percent, crossing.severity, False)
        below = whole and spent * 100 < percent * terms.amount_nanos
        if over or below or percent not in known:
            crossing.is_open = False
            alerts.append(_alert(state, terms, threshold, "resolved", now, policy))
    return alerts


def _wanted(state: BudgetState, terms: Terms, over: bool) -> Action:
    if over:
        return "allow"
    for threshold in terms.thresholds:
        crossing = state.crossings.get(threshold.percent)
        if threshold.blocks and crossing and crossing.is_open and not crossing.historic:
            return "block"
    return "allow"


def _blocking_percent(state: BudgetState, terms: Terms) -> int:
    open_rungs = [
        threshold.percent
        for threshold in terms.thresholds
        if threshold.blocks and (crossing := state.crossings.get(threshold.percent)) and crossing.is_open
    ]
    return min(open_rungs, default=100)


def _tier(severity: Severity) -> Tier:
    return {"info": "note", "warning": "ticket", "critical": "ticket", "emergency": "page"}[severity]  # type: ignore[return-value]


def _dedup_key(state: BudgetState, percent: int) -> str:
    return keys.alert_dedup_key(RULE, state.scope, format_instant(state.period_start), str(percent))


def _alert(state: BudgetState, terms: Terms, threshold: Threshold, status: Status, now: int, policy: Policy) -> Alert:
    crossing = state.crossings[threshold.percent]
    dedup_key = _dedup_key(state, threshold.percent)
    return Alert(
        alert_id=keys.alert_id(dedup_key, crossing.episode, status),
        dedup_key=dedup_key,
        episode=crossing.episode,
        status=status,
        severity=threshold.severity,
        tier=crossing.tier,
        rule=RULE,
        scope_type="budget",
        scope_id=terms.budget_id,
        summary=_summary(state, terms, threshold, status, now),
        occurred_at=format_instant(crossing.opened_at if status == "opened" else state.stream_time),
        stated_at=format_instant(now),
        period_start=format_instant(state.period_start),
        period_end=format_instant(state.period_end),
        team_id=terms.target.scope_id if terms.target.scope_type == "team" else "",
        feature=terms.target.scope_id if terms.target.scope_type == "feature" else "",
        owner=terms.owner,
        observed=format_usd(state.spent_nanos),
        expected=format_usd(terms.amount_nanos),
        threshold=f"{threshold.percent} %",
        top_contributors=_top(state),
        action=_action(terms, threshold, status, crossing),
        runbook=policy.runbook,
        historic=crossing.historic,
    )


def _summary(state: BudgetState, terms: Terms, threshold: Threshold, status: Status, now: int) -> str:
    spent, amount = display_usd(state.spent_nanos), display_usd(terms.amount_nanos)
    where = f"{terms.target.scope_type} {terms.target.scope_id}"
    if status == "resolved":
        why = f"the {terms.period} is over" if now >= state.period_end else "its spend or its terms have changed"
        return f"Budget {terms.budget_id} ({where}) is below {threshold.percent} % again: {why}"
    return f"Budget {terms.budget_id} ({where}) passed {threshold.percent} %: {spent} of {amount} this {terms.period}"


def _action(terms: Terms, threshold: Threshold, status: Status, crossing: Crossing) -> str:
    if not threshold.blocks or crossing.historic:
        return ""
    where = f"{terms.target.scope_type} {terms.target.scope_id}"
    if status == "resolved":
        return f"{where} may call again" if terms.enforced else ""
    if not terms.enforced:
        return f"{where} would have been blocked (the budget only observes)"
    return f"{where} is blocked at the gateways until the {terms.period} ends"


def _top(state: BudgetState, count: int = 5) -> list[Contributor]:
    summed: dict[str, int] = {}
    for shares in state.contributors.values():
        for name, nanos in shares.items():
            summed[name] = summed.get(name, 0) + nanos
    ranked = sorted(summed.items(), key=lambda item: (-item[1], item[0]))[:count]
    return [Contributor(name, format_usd(nanos)) for name, nanos in ranked]
