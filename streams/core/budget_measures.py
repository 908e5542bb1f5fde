"""What a budget asks of gates: which rungs' measures hold, and how they are softened.

A rung's measures take hold when spend, with what is in flight and what is spent until gates obey, reaches it. That
reserve is kept with the hold: it ends when spend with it is below the rung again, because the amount was raised or the
spend corrected, and never because a throttle made the burn rate fall.

Before anything is blocked concurrency is shed: batch work first, and all calls where so much is under way that nobody
could say within a few percent where it will end. They glide then: what is let go falls with what is left, so that the
block finds little under way.
"""

from collections.abc import Iterable

import msgspec

from schemas.commands import Action, Measure
from schemas.instants import MINUTE, SECOND
from streams.core.budget_account import BudgetState, Hold, Standing
from streams.core.budget_terms import Terms

#: Environments that are rate-limited where others are blocked, unless a budget is hard.
PRODUCTION = ("prod", "production")
#: Calls a minute that a softened block leaves each gateway.
SOFT_RPM = 60
#: Calls a minute of batch and background work while concurrency is shed.
SHED_RPM = 6
_SHED = Measure("rate_limit", request_types=("batch", "background"), rpm=SHED_RPM)
#: A glide begins where so many times what is under way is left, and lets so small a part of what is left be under way.
#: Tried on made-up crowds (tests/unit/crowd.py): it has to begin before its own effect can be seen.
_GLIDE_FROM, _GLIDE_SHARE = 4, 8
#: A glide outside of the last tenth is over where less than such a part of what it lets be under way is: callers may
#: all be at one gateway of many, so a fraction of it may be all that it lets go.
_CALM_SHARE = 8
#: In percent of the amount: less under way than this needs no glide, and a glide ends with half of it.
_GLIDE_PERCENT = 2
#: The key of that hold: no rung is at 0 percent.
SHED = 0
#: No reserve is more than so many percent of the amount: a rate taken over seconds may be wrong.
RESERVE_PERCENT_MAX = 25

_GRADE = {"rate_limit": 1, "cap_tokens": 2, "downgrade": 3, "block": 4}
_encode = msgspec.json.Encoder().encode


def reserve_of(standing: Standing, delay_us: int) -> int:
    """What is spent before gates obey, and by the calls that they have let go already."""
    reserve = standing.burn * (standing.took_us + delay_us) // SECOND
    return max(0, min(reserve, standing.limit * RESERVE_PERCENT_MAX // 100))


def hold(state: BudgetState, terms: Terms, standing: Standing, delay_us: int) -> None:
    """Bring the holds up to date."""
    if standing.is_over:
        state.holds.clear()
        return
    # Gates limit what they let go by now: what came before says nothing of what is under way.
    reserve = reserve_of(_gliding_at(standing) if state.glide_rpm else standing, delay_us)
    rungs = {rung.percent for rung in terms.thresholds if rung.measures and rung.on == "spent"}
    block = blocking_percent(terms)
    was_blocked = block in state.holds
    for percent, kept in list(state.holds.items()):
        at = block if percent == SHED else percent
        is_known = at is not None and (percent == SHED or percent in rungs)
        # A rung that was taken out of the ladder holds nothing; lowering otherwise needs the whole.
        if not is_known or (standing.is_whole and not standing.reaches(at or 0, kept.reserve_nanos)):
            del state.holds[percent]
        elif standing.is_whole or not kept.is_sure:
            kept.is_sure = _is_sure(standing, percent, kept.reserve_nanos)
    # What was shed on the way to a block that has held and is lifted says nothing of the next way there.
    is_lifted = was_blocked and block not in state.holds
    if SHED in state.holds and block is not None and (is_lifted or _is_calm(standing, block, delay_us)):
        del state.holds[SHED]
    if standing.is_historic:
        return
    for percent in rungs - state.holds.keys():
        if standing.reaches(percent, reserve):
            # Money that is spent already needs no reserve to hold.
            least = 0 if standing.reaches(percent) else reserve
            state.holds[percent] = Hold(least, _is_sure(standing, percent, least))
    if block is not None and SHED not in state.holds and _is_close(standing, block, delay_us):
        left = block * standing.limit // 100 - standing.spent
        state.holds[SHED] = Hold(max(left, standing.limit // 10), True)


def _is_sure(standing: Standing, percent: int, reserve: int) -> bool:
    """Whether what has a price is enough."""
    return (standing.spent - standing.estimated + reserve) * 100 >= percent * standing.limit


def pace(state: BudgetState, terms: Terms, standing: Standing, gateways: int) -> None:
    """Turn a limit of money a minute into calls a minute, while more than that is spent.

    Calls cost what they cost on average in the last hour. It ends when half the money is spent; a rate that is still
    right to a quarter is left alone.
    """
    limit, minute = terms.nanos_per_minute, standing.burn * 60
    if not limit or minute * 2 < limit or not standing.requests or standing.spent <= 0:
        state.paced_rpm = 0
    elif state.paced_rpm or minute > limit:
        rpm = max(1, limit * standing.requests // standing.spent // max(1, gateways))
        if abs(rpm - state.paced_rpm) * 4 > state.paced_rpm:
            state.paced_rpm = rpm


def _is_close(standing: Standing, block: int, delay_us: int) -> bool:
    """Within the last tenth before the block, with more than a fiftieth of the rest spent until gates obey; or earlier,
    where much is under way.
    """
    left = block * standing.limit // 100 - standing.spent
    is_near = _is_last_tenth(standing, block) and standing.burn * delay_us // SECOND * 50 > left
    return left > 0 and (is_near or _glides(standing, left, delay_us))


def _is_last_tenth(standing: Standing, block: int) -> bool:
    return block * standing.limit // 100 - standing.spent <= standing.limit // 10


def _is_calm(standing: Standing, block: int, delay_us: int) -> bool:
    """Whether a glide that began early is over: far less is under way than it lets be, so not because of it."""
    left = block * standing.limit // 100 - standing.spent
    is_low = reserve_of(standing, delay_us) * _GLIDE_SHARE * _CALM_SHARE < left
    return is_low and standing.is_whole and not _is_last_tenth(standing, block)


def _glides(standing: Standing, left: int, delay_us: int) -> bool:
    """Whether so much is under way that it cannot be said where it will end."""
    reserve = reserve_of(standing, delay_us)
    return reserve * _GLIDE_FROM >= left and reserve * 100 > standing.limit * _GLIDE_PERCENT


def _gliding_at(standing: Standing) -> Standing:
    """What is under way while gates limit it, as it is and not as it may be: twice careful would end too early."""
    return msgspec.structs.replace(standing, burn=standing.recent_burn, took_us=standing.took_mean_us)


def glide(state: BudgetState, terms: Terms, standing: Standing, delay_us: int, gateways: int) -> None:
    """Let each gateway let go as many calls as cost an eighth of what is left while they are under way.

    It follows what is left, how long calls take and how many gateways there are, by a quarter at least, so that
    commands are few; it ends with the hold that it belongs to, and not because calls have become fewer.
    """
    block = blocking_percent(terms)
    if SHED not in state.holds or block is None:
        state.glide_rpm = 0
        return
    left, under_way = block * standing.limit // 100 - standing.spent, standing.took_us + delay_us
    if standing.requests <= 0 or standing.spent <= 0 or not (state.glide_rpm or _glides(standing, left, delay_us)):
        return
    least = standing.limit * _GLIDE_PERCENT // 200
    nanos_per_minute = max(left // _GLIDE_SHARE, least) * MINUTE // max(under_way, SECOND)
    rpm = max(1, nanos_per_minute * standing.requests // standing.spent // max(1, gateways))
    if abs(rpm - state.glide_rpm) * 4 >= state.glide_rpm:
        state.glide_rpm = rpm


def blocking_percent(terms: Terms) -> int | None:
    """The lowest rung that blocks anything; None where none does."""
    return min(
        (
            rung.percent
            for rung in terms.thresholds
            if rung.on == "spent" and any(measure.action == "block" for measure in rung.measures)
        ),
        default=None,
    )


def wanted(state: BudgetState, terms: Terms, standing: Standing) -> tuple[Measure, ...]:
    """What is asked for now: the measures of all rungs that hold, softened; empty to let all go."""
    if standing.is_over or terms.lifted:
        return ()
    found = list(terms.standing)
    if state.paced_rpm:
        found.append(Measure("rate_limit", rpm=state.paced_rpm))
    for rung in terms.thresholds:
        if rung.on == "spent" and rung.percent in state.holds:
            for measure in rung.measures:
                found += softened(measure, terms.hard, state.holds[rung.percent].is_sure)
    if SHED in state.holds:
        block = blocking_percent(terms)
        if block is not None and _is_last_tenth(standing, block):
            # Not in an early glide: less burn because of it would end it.
            found.append(_SHED)
        found += _gliding(state, terms)
    return ordered(found)


def _gliding(state: BudgetState, terms: Terms) -> list[Measure]:
    """The limit of a glide, for those calls that the block will be for; none once it holds."""
    rpm, percent = state.glide_rpm, blocking_percent(terms)
    if not rpm or percent in state.holds:
        return []
    blocks = [rung.measures for rung in terms.thresholds if rung.on == "spent" and rung.percent == percent]
    return [
        msgspec.structs.replace(each, action="rate_limit", rpm=rpm, burst=max(1, rpm // 60))
        for measures in blocks
        for measure in measures
        for each in softened(measure, terms.hard, is_sure=True)
        if each.action == "block"
    ]


def softened(measure: Measure, hard: bool, is_sure: bool) -> list[Measure]:
    """A measure as it may be taken: production is blocked only by hard budgets, and nothing by estimates alone."""
    if measure.action != "block":
        return [measure]
    soft = msgspec.structs.replace(measure, action="rate_limit", rpm=SOFT_RPM)
    if not is_sure:
        return [soft]
    if hard:
        return [measure]
    live = tuple(name for name in PRODUCTION if _is_in(name, measure.environments))
    named = tuple(name for name in measure.environments if name not in PRODUCTION)
    # With names of its own, those that are left are enough; else all that are not production.
    takes_named = any(not name.startswith("!") for name in measure.environments)
    rest = named if takes_named else tuple(dict.fromkeys([*named, *(f"!{name}" for name in PRODUCTION)]))
    found = [msgspec.structs.replace(measure, environments=rest)] if rest else []
    return [*found, *([msgspec.structs.replace(soft, environments=live)] if live else [])]


def _is_in(name: str, environments: tuple[str, ...]) -> bool:
    """Whether a measure for these environments (``!name``: all but that) is about this one."""
    if f"!{name}" in environments:
        return False
    return name in environments or not any(not each.startswith("!") for each in environments)


def ordered(measures: Iterable[Measure]) -> tuple[Measure, ...]:
    """Each measure once, in an order that does not depend on how they were found."""
    return tuple(measure for _, measure in sorted({_encode(measure): measure for measure in measures}.items()))


def strictest(measures: Iterable[Measure]) -> Action:
    """The action of a command that has these measures."""
    return max((measure.action for measure in measures), key=lambda action: _GRADE[action], default="allow")


def closes_all(measures: Iterable[Measure]) -> bool:
    """Whether no call of the scope may go."""
    return any(
        measure.action == "block" and not (measure.request_types or measure.environments) for measure in measures
    )
