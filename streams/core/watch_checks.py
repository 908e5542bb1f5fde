"""What is wrong with Sluice itself, check by check: each says what it finds as symptoms, and decides nothing else.

What is a page and what a ticket is written down in docs/watching.md: a page is what lets money through unseen or
unstopped now, and that somebody who is awake can mend.
"""

from collections.abc import Iterable, Mapping, Sequence

from schemas.alerts import Contributor
from schemas.instants import HOUR, MINUTE, SECOND
from schemas.money import display_usd, format_usd
from schemas.topics import SPEND_CELLS
from streams.core.diagnosis_service import span
from streams.core.watch_episodes import Symptom
from streams.core.watch_look import TopicLag, WatchPolicy
from streams.core.watch_rhythm import DAY_MINUTES, allowed_pause, last_heard
from streams.watch_ports import ReceiverOwed, SourceHeard, UnpricedCalls

#: After a week without a word a source is taken for gone.
GONE_MINUTES = 7 * DAY_MINUTES
#: A source that may be silent for longer than this is no steady one.
STEADY_MINUTES = 60
UNPRICED_HOURS = 2
#: Unpriced calls of that share of all are critical.
UNPRICED_CRITICAL_PERCENT = 20
#: A learned rhythm needs a week; until then its alerts are warnings.
KNOWN_MINUTES = 7 * DAY_MINUTES
_NAMED_MAX = 5


def lag(lags: Iterable[TopicLag], policy: WatchPolicy, now: int) -> Symptom:
    """How long the oldest record that a stage has not read has waited; LEDGER's own input is ``ledger_behind``'s."""
    waiting = sorted((each for each in lags if each.topic != SPEND_CELLS), key=lambda each: -each.oldest_us)
    worst = waiting[0].oldest_us if waiting else 0
    is_page = worst >= policy.lag_page_us
    named = ", ".join(
        f"{each.topic} for {span(each.oldest_us / SECOND)} ({each.unread:,} unread)"
        for each in waiting[:_NAMED_MAX]
        if each.oldest_us * 2 >= min(worst, policy.lag_us)
    )
    return Symptom(
        rule="pipeline_lag",
        scope_type="pipeline",
        scope_id=policy.app_id,
        is_bad=worst >= policy.lag_us,
        is_well=worst * 2 < policy.lag_us,
        summary=f"Sluice is {span(worst / SECOND)} behind what arrives: {named}",
        ended=f"Sluice keeps up again: nothing waits for longer than {span(worst / SECOND)}",
        tier="page" if is_page else "ticket",
        severity="emergency" if is_page else "warning",
        observed=str(worst // SECOND),
        threshold=str((policy.lag_page_us if is_page else policy.lag_us) // SECOND),
        unit="s",
        action="Nothing is lost, and every total will be exact; budgets and detectors act as late as this.",
        since=now - worst,
        hold_us=policy.hold_us,
        settle_us=policy.settle_us,
    )


def ledger(silent_us: int | None, behind_us: int, policy: WatchPolicy, now: int) -> Symptom:
    """How long ago METER's watermarks, and what METER had counted, should have been in the ledger."""
    worst = max(silent_us or 0, behind_us)
    if behind_us >= (silent_us or 0):
        found = f"The ledger lacks what METER had counted {span(behind_us / SECOND)} ago"
    else:
        found = f"The ledger has heard nothing of METER for {span((silent_us or 0) / SECOND)}"
    return Symptom(
        rule="ledger_behind",
        scope_type="pipeline",
        scope_id=policy.app_id,
        is_bad=worst >= policy.ledger_us,
        is_well=worst * 2 < policy.ledger_us,
        summary=f"{found}: queries, reports and forecasts are as old as that",
        ended="The ledger has what METER has counted again",
        severity="critical",
        observed=str(worst // SECOND),
        threshold=str(policy.ledger_us // SECOND),
        unit="s",
        action="Budgets go on: they do not read the ledger.",
        since=now - worst,
        hold_us=policy.hold_us,
        settle_us=policy.settle_us,
    )


def silences(sources: Sequence[SourceHeard], policy: WatchPolicy, now: int) -> list[Symptom]:
    """Sources that are silent for longer than their own rhythm; and whether all of them are."""
    floor = -(-policy.silence_us // MINUTE)
    found: list[Symptom] = []
    judged: list[tuple[bool, int]] = []
    for source in sources:
        since = last_heard(source.days)
        if since is None:
            continue
        # It may have spoken until the end of that minute.
        silent = (now - (since + 1) * MINUTE) // MINUTE
        # Rhythms are made out for those that nobody has heard for a while.
        allowed = floor if silent < floor else allowed_pause(source.days, floor)
        if allowed is None or silent >= GONE_MINUTES:
            continue
        judged.append((silent >= allowed, allowed))
        found.append(_silence(source, silent, allowed, policy, since))
    if not judged:
        return found
    pipeline = _all_silent(judged, policy, since=max(last_heard(source.days) or 0 for source in sources))
    if pipeline.is_bad:
        # One page says it all: of each of them nothing new is said meanwhile.
        found = [symptom._replace(is_bad=False, is_well=False) for symptom in found]
    return [*found, pipeline]


def _silence(source: SourceHeard, silent: int, allowed: int, policy: WatchPolicy, since: int) -> Symptom:
    is_known = since - min(source.days) * DAY_MINUTES >= KNOWN_MINUTES
    return Symptom(
        rule="source_silent",
        scope_type="source",
        scope_id=source.name,
        is_bad=silent >= allowed,
        is_well=silent < allowed,
        summary=(
            f"{source.name} has sent nothing that counts for {span(silent * 60)};"
            f" at this time of the week it pauses for at most {span(allowed * 60)}"
        ),
        ended=f"{source.name} is heard again",
        severity="critical" if is_known else "warning",
        observed=str(silent),
        expected=str(allowed),
        unit="min",
        labels={"source": source.name, "topic": source.topic},
        since=(since + 1) * MINUTE,
    )


def _all_silent(judged: Sequence[tuple[bool, int]], policy: WatchPolicy, since: int) -> Symptom:
    """Where not even the steady ones are heard it is our own way in, more likely than all of theirs."""
    is_bad = all(silent for silent, _ in judged) and any(allowed <= STEADY_MINUTES for _, allowed in judged)
    count = len(judged)
    return Symptom(
        rule="source_silent",
        scope_type="pipeline",
        scope_id=policy.app_id,
        is_bad=is_bad,
        is_well=not is_bad,
        summary=f"No usage arrives at all: {'the only source is' if count == 1 else f'all {count} sources are'} silent",
        ended="Usage arrives again",
        tier="page",
        severity="emergency",
        action="What is spent meanwhile is in no budget, and no gate closes for it.",
        since=(since + 1) * MINUTE,
    )


def unpriced(
    found: Sequence[UnpricedCalls], requests: Mapping[int, int], policy: WatchPolicy, now: int
) -> list[Symptom]:
    """Models whose calls have no price: of the last hours, and of hours long over (a replay), which is history."""
    present = now - now % HOUR
    live_from = present - policy.live_within_us
    by_model: dict[tuple[str, str], list[UnpricedCalls]] = {}
    for each in found:
        by_model.setdefault((each.provider, each.model), []).append(each)
    symptoms = []
    for (provider, model), rows in sorted(by_model.items()):
        recent = [row for row in rows if row.hour > present - UNPRICED_HOURS * HOUR]
        if recent or any(row.hour >= live_from for row in rows):
            total = sum(count for hour, count in requests.items() if hour > present - UNPRICED_HOURS * HOUR)
            symptoms.append(_unpriced(provider, model, recent, total, policy, historic=False))
        else:
            symptoms.append(_unpriced(provider, model, rows, sum(requests.values()), policy, historic=True))
    return symptoms


def _unpriced(
    provider: str, model: str, rows: Sequence[UnpricedCalls], total: int, policy: WatchPolicy, *, historic: bool
) -> Symptom:
    count, estimated = sum(row.requests for row in rows), sum(row.estimated_nanos for row in rows)
    percent = count * 100 // total if total else 0
    name = f"{provider}/{model}" if provider else model
    stands = f"{display_usd(estimated)} of it stands on the gateways' own figures" if estimated else "it counts as $0"
    when = "long ago" if historic else f"in the last {UNPRICED_HOURS} hours"
    return Symptom(
        rule="unpriced_usage",
        scope_type="model",
        scope_id=name,
        is_bad=count >= policy.unpriced_min and count * 100 >= policy.unpriced_percent * total,
        is_well=count == 0,
        summary=f"{count:,} calls of {name} {when} have no price ({percent} % of all calls): {stands}",
        ended=f"No call of {name} was without a price for {UNPRICED_HOURS} hours",
        severity="critical" if percent >= UNPRICED_CRITICAL_PERCENT else "warning",
        observed=str(count),
        threshold=f"{policy.unpriced_min} calls and {policy.unpriced_percent} %",
        unit="calls",
        contributors=(Contributor(name, format_usd(estimated)),) if estimated else (),
        action="Tokens are counted; budgets see only what has a price.",
        labels={"model": model, "provider": provider},
        historic=historic,
    )


def deliveries(receivers: Iterable[ReceiverOwed], policy: WatchPolicy, now: int) -> list[Symptom]:
    """Receivers that are owed messages for too long, or to which some were given up."""
    return [_delivery(each, policy, now) for each in sorted(receivers)]


def _delivery(found: ReceiverOwed, policy: WatchPolicy, now: int) -> Symptom:
    is_page = found.pages > 0
    waiting = f"{found.waiting:,} messages to {found.name} wait, the oldest for {span(found.oldest_us / SECOND)}"
    given_up = f"{found.given_up:,} messages to {found.name} were given up within the hour"
    why = f": {found.last_error}" if found.last_error else ""
    stuck = bool(found.waiting) and found.oldest_us >= policy.delivery_us
    return Symptom(
        rule="delivery_failing",
        scope_type="receiver",
        scope_id=found.name,
        is_bad=stuck or found.given_up > 0,
        is_well=not found.given_up and found.oldest_us * 2 < policy.delivery_us,
        summary=(waiting if stuck else given_up) + why,
        ended=f"Messages to {found.name} go out again",
        tier="page" if is_page else "ticket",
        severity="emergency" if is_page else "critical",
        observed=str(found.oldest_us // SECOND if stuck else found.given_up),
        threshold=str(policy.delivery_us // SECOND) if stuck else "",
        unit="s" if stuck else "messages",
        action="They are kept, and tried again until they are taken." if stuck else "",
        since=now - found.oldest_us,
        labels={"receiver": found.name},
        hold_us=policy.hold_us,
        settle_us=policy.settle_us,
    )
