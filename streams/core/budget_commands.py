"""What a budget says to gates, and what it says to commands in its name that are not its own.

All periods and definitions of a budget speak under one key at the gates, where the highest revision counts; the last
record of a key is what compaction keeps. Both have to be what stands.
"""

from collections.abc import Collection, Iterable

from schemas import keys
from schemas.commands import ThrottleCommand
from schemas.instants import DAY, SECOND, format_instant
from schemas.money import display_usd
from streams.core.budget_account import BudgetState, Standing, ends_at
from streams.core.budget_ladder import dedup_key, where
from streams.core.budget_measures import SHED
from streams.core.budget_terms import FOREVER, GRANT, LIMIT, Policy, Terms

VALID_US = Policy().valid_us


def speak(
    state: BudgetState,
    terms: Terms,
    standing: Standing,
    now: int,
    siblings: Iterable[BudgetState] = (),
    above: int = 0,
    valid_us: int = VALID_US,
) -> ThrottleCommand:
    """What the budget wants now, under a revision above every one that it is known to have given."""
    state.revision = max(state.revision, above, *(other.revision for other in siblings)) + 1
    state.has_spoken = True
    state.issued_at = state.renewed_at = now
    return command(state, terms, standing, now, valid_us)


def renewed(
    state: BudgetState, terms: Terms, standing: Standing, now: int, valid_us: int = VALID_US
) -> ThrottleCommand | None:
    """The same again with a later expiry, where it is due; None where it is not."""
    if now < renews_at(state, valid_us):
        return None
    state.renewed_at = now
    return command(state, terms, standing, now, valid_us)


def renews_at(state: BudgetState, valid_us: int = VALID_US) -> int:
    """When the command that stands has to be said again."""
    return state.renewed_at + valid_us // 3 if state.commanded != "allow" else FOREVER


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
    if heard.revision == stands.revision and _agrees(stands, heard):
        return None
    return stands


def answer(
    state: BudgetState,
    terms: Terms,
    standing: Standing,
    heard: ThrottleCommand,
    now: int,
    siblings: Iterable[BudgetState] = (),
    valid_us: int = VALID_US,
) -> ThrottleCommand | None:
    """What ``state`` says to a command that is not its own: the same again if gates know it is newer, else above it."""
    ours = command(state, terms, standing, now, valid_us)
    if heard.revision < state.revision and state.has_spoken:
        return ours
    holds_as_long = (heard.holds_until or heard.expires_at) == (ours.holds_until or ours.expires_at)
    if state.has_spoken and _agrees(state, heard) and holds_as_long:
        state.revision = heard.revision
        return None
    return speak(state, terms, standing, now, siblings, heard.revision, valid_us)


def _agrees(state: BudgetState, heard: ThrottleCommand) -> bool:
    return (heard.action, heard.dry_run, heard.measures) == (state.commanded, state.dry_run, state.asked)


def command(
    state: BudgetState, terms: Terms, standing: Standing, now: int, valid_us: int = VALID_US
) -> ThrottleCommand:
    """What the budget wants of its scope now; the same state gives the same id and revision."""
    revision = state.revision
    key = f"{terms.target.key()}|{terms.budget_id}"
    asks = state.commanded != "allow"
    issued = format_instant(state.issued_at or now)
    end = ends_at(state, terms)
    # What looks back lets go at the latest when all that was spent has left its window.
    until = now + terms.window_us if terms.window_us else end
    single = state.asked[0] if len(state.asked) == 1 else None
    return ThrottleCommand(
        command_id=keys.command_id(key, revision),
        budget_id=terms.budget_id,
        target=terms.target,
        action=state.commanded,
        revision=revision,
        reason=_reason(state, terms, standing, end) if asks else _room(state, terms, standing, now),
        issued_at=issued,
        effective_at=issued,
        # An allow outlives every command before it.
        expires_at=format_instant(
            min(now + valid_us, until) if asks else min((now if end == FOREVER else end) + DAY, FOREVER)
        ),
        alert_id=dedup_key(state, _lowest(state)) if asks and state.holds else "",
        rpm_limit=single.rpm if single else None,
        tpm_limit=single.tpm if single else None,
        retry_after_s=max(1, min(3600, (end - now) // SECOND)),
        dry_run=not terms.enforced,
        measures=state.asked,
        holds_until=format_instant(min(until, FOREVER)) if asks else "",
        on_stale=terms.on_stale,
        exempt_models=terms.exempt_models,
        match=terms.match,
    )


def _lowest(state: BudgetState) -> int:
    return min((percent for percent in state.holds if percent != SHED), default=100)


def _reason(state: BudgetState, terms: Terms, standing: Standing, end: int) -> str:
    if terms.budget_id.startswith(GRANT):
        return f"Model {terms.budget_id.removeprefix(GRANT)} is expensive: your team needs a grant to use it."
    if terms.standing or terms.nanos_per_minute:
        return f"{where(terms)} is at its standing limit {terms.budget_id.partition(':')[2]}: try again in a moment."
    spent, limit = display_usd(standing.spent), display_usd(standing.limit)
    if terms.window_us:
        opens = "It opens again as spend leaves that window"
    else:
        opens = "It opens again" + ("" if end == FOREVER else f" at {format_instant(end)}")
    verb = "spent" if state.commanded == "block" else "nearly spent"
    or_when = "or when the budget is raised" if terms.window_us or end != FOREVER else "when the budget is raised"
    return f"Budget {terms.budget_id} is {verb}: {spent} of {limit} {terms.within()}. {opens} {or_when}."


def _room(state: BudgetState, terms: Terms, standing: Standing, now: int) -> str:
    if LIMIT in terms.budget_id or GRANT in terms.budget_id:
        return f"Standing limit {terms.budget_id.partition(':')[2]} is lifted."
    if now >= state.period_end:
        return f"Budget {terms.budget_id} is open again: a new {terms.period} has begun."
    if standing.is_over:
        return f"Budget {terms.budget_id} holds nothing back: it is over, or nothing was heard of this for a long time."
    spent, limit = display_usd(standing.spent), display_usd(standing.limit)
    return f"Budget {terms.budget_id} has room: {spent} of {limit} {terms.within()}."
