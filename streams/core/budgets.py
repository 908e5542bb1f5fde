"""What a budget does with each statement of its scope: thresholds crossed and left, throttles commanded and released.

Pure and level-triggered: the desired command follows from the state alone, so saying it again after a replay says the
same under the same id and revision. Spend is the sum of the newest total of every source slot (rule 2).
"""

from collections.abc import Collection, Iterable
from typing import Literal, NamedTuple

import msgspec

from schemas import keys
from schemas.alerts import Alert, Contributor, Severity, Status, Tier
from schemas.commands import Action, Target, ThrottleCommand
from schemas.instants import HOUR, SECOND, format_instant
from schemas.money import display_usd, format_usd
from schemas.statements import ScopeStatement
from streams.core import slots as stated
from streams.core.slots import Slot

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

    v: int = 2
    budget_id: str
    scope: str
    target: Target
    period_start: int
    period_end: int
    slots: dict[str, Slot] = {}
    crossings: dict[int, Crossing] = {}
    commanded: Action = "allow"
    #: Whether the command that stands is a dry run.
    dry_run: bool = False
    #: Whether any command was given.
    has_spoken: bool = False
    #: The revision of the last command; it starts above every earlier one of the same budget.
    revision: int = 0
    #: Grows with every statement taken in, and from one definition of a budget to the next.
    sequence: int = 0
    stream_time: int = 0

    @property
    def spent_nanos(self) -> int:
        """Spend of the period so far, over all source slots."""
        return stated.total(self.slots.values())

    @property
    def is_whole(self) -> bool:
        """Whether no slot is behind what was stated before: lowering needs the whole (rule 6)."""
        return all(slot.is_whole for slot in self.slots.values())

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
    #: Another period or definition of the budget that now has to say again what it wants of the same gates.
    stands: BudgetState | None = None


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
            revision=max(above, first_revision(statement.period_start)),
            period_start=statement.period_start,
            period_end=statement.period_end,
            slots={},
            crossings={},
        )
    if stated.take_in(state.slots, statement):
        state.sequence = max(state.sequence + 1, stated.offsets(state.slots.values()))
        state.stream_time = max(state.stream_time, statement.stream_time)
    return state


def first_revision(period_start: int) -> int:
    """Where the revisions of a period begin: above those of the periods before it."""
    return period_start // SECOND * 1_000


def decide(
    state: BudgetState, terms: Terms, now: int, policy: Policy, siblings: Iterable[BudgetState] = ()
) -> Decision:
    """Compare the state with the ladder and say what changed; mutates ``state`` to remember what was said.

    ``siblings`` are all states of the same budget, in any period and definition: their commands lie under one key at
    the gates, where the highest revision counts.
    """
    over = now >= state.period_end
    historic = over or now - state.stream_time > policy.live_within_us
    alerts = _cross(state, terms, now, historic, policy)
    alerts += _leave(state, terms, now, over, policy)
    wanted, dry_run = _wanted(state, terms, over), not terms.enforced
    # An allow that was never preceded by a block is what gates do anyway; a block changes with its mode.
    if wanted == state.commanded and (wanted == "allow" or dry_run == state.dry_run):
        return Decision(alerts, None)
    state.commanded, state.dry_run = wanted, dry_run
    others = [other for other in siblings if other is not state]
    blocking = [other for other in others if other.target == terms.target and other.commanded != "allow"]
    if wanted == "allow" and blocking:
        # Letting go would open what another one has closed: it stands, and says so if it was not the last to speak.
        stands = max(blocking, key=lambda other: other.revision)
        return Decision(alerts, None, stands if stands.revision < state.revision else None)
    return Decision(alerts, speak(state, terms, now, others))


def speak(
    state: BudgetState, terms: Terms, now: int, siblings: Iterable[BudgetState] = (), above: int = 0
) -> ThrottleCommand:
    """What the budget wants now, under a revision above every one that it is known to have given."""
    state.revision = max(state.revision, above, *(other.revision for other in siblings)) + 1
    state.has_spoken = True
    return command(state, terms, now)


def answerer(known: Collection[BudgetState], heard: ThrottleCommand) -> BudgetState | None:
    """Whose word ``heard`` contradicts, of all states of that budget and target; None where it is what stands.

    Somebody who was overtaken can still have spoken: above what stands, so that gates obey it, or below, so that
    compaction keeps it and not what stands.
    """
    spoken = [state for state in known if state.has_spoken]
    if not spoken:
        # Nobody here ever closed it.
        is_open = heard.action == "allow" or heard.dry_run
        return None if is_open or not known else max(known, key=lambda state: state.period_start)
    stands = max(spoken, key=lambda state: state.revision)
    if heard.revision == stands.revision and heard.action == stands.commanded:
        return None
    return stands


def answer(
    state: BudgetState, terms: Terms, heard: ThrottleCommand, now: int, siblings: Iterable[BudgetState] = ()
) -> ThrottleCommand | None:
    """What ``state`` says to a command that is not its own: the same again if gates know it is newer, else above it."""
    if heard.revision < state.revision and state.has_spoken:
        return command(state, terms, now)
    is_same = (heard.action, heard.dry_run) == (state.commanded, state.dry_run) and state.has_spoken
    if is_same and heard.expires_at == command(state, terms, now).expires_at:
        state.revision = heard.revision
        return None
    return speak(state, terms, now, siblings, heard.revision)


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
    ranked = stated.contributors(state.slots.values())[:count]
    return [Contributor(name, format_usd(nanos)) for name, nanos in ranked]
