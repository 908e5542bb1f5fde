"""What people say about alerts, and what they plan, made into definitions: checked field by field.

Texts come as people wrote them. Every error names its field and says what to do.
"""

import re
from collections.abc import Container, Iterable
from urllib.parse import quote

from schemas.alerts import Alert
from schemas.answers import AlertAnswer, AnswerKind, PlannedEvent
from schemas.instants import DAY, HOUR, InstantError, format_instant, parse_instant
from schemas.keys import digest
from streams.core.defining import Fields, Wrong, amount, name, said, span, until

#: What can be planned for: what spend is watched by.
SCOPES = ("org", "team", "feature", "team_feature", "model")
EVENT_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
#: An event lasts no longer, and is declared no later than so long after its beginning: bars look back two weeks.
LONGEST, LATEST = 60 * DAY, 14 * DAY
#: What is planned goes on for so long after it was found, where nobody says otherwise.
USUALLY = DAY


def answer_of(
    alert: Alert, *, kind: AnswerKind, amount_usd: str, ends: str, why: str, by: str, now: int
) -> AlertAnswer:
    """Somebody's word on an alert.

    Args:
        amount_usd: of ``planned`` what was declared above the usual; else empty.
        ends: of ``planned`` until when; empty: a day from its beginning, or until it ended.
        now: of the stream that the alert is from.

    Raises:
        RequestError: with every field that is wrong.
    """
    fields = Fields()
    starts = parse_instant(alert.period_start or alert.occurred_at)
    stop = max(parse_instant(alert.period_end or alert.stated_at), starts + 1)
    nanos = 0
    if kind == "planned":
        nanos = fields.read("amount_usd", amount_usd, amount, 0)
        stop = max(stop, starts + USUALLY)
        if ends:
            stop = fields.read("until", ends, lambda text: until(text, now, LONGEST), stop)
        if not teaches(alert):
            problem = f"nothing that is planned quietens {alert.rule}: answer yes or no, or change what it measures"
            fields.wrongs.append(Wrong("answer", problem))
    elif amount_usd or ends:
        where = "amount_usd" if amount_usd else "until"
        fields.wrongs.append(Wrong(where, f"goes with `planned`, not with `{kind}`"))
    reason = fields.read("reason", why, said, "")
    fields.demand()
    # Of history nothing is heard at the present time: what was found there is learned where it was found.
    known_from = min(now, stop) if alert.historic else now
    return AlertAnswer(
        alert=alert.dedup_key, rule=alert.rule, answer=kind, teaches=teaches(alert), figures=alert.figures,
        starts=starts, until=stop, nanos=nanos, known_from=known_from, team_id=alert.team_id, changed_by=by,
        reason=reason,
    )  # fmt: skip


def answers_of(
    alert: Alert, parts: Iterable[Alert], answered: Container[str], *, kind: AnswerKind, amount_usd: str, ends: str,
    why: str, by: str, now: int,
) -> list[AlertAnswer]:  # fmt: skip
    """Somebody's word on an alert, and the same on what told of parts of it: else these would wake people for the same
    next time, when the whole is quiet.

    What is planned covers its parts by itself, and parts that have an answer of their own (``answered``, by record key)
    keep it. The word on the alert itself is the first.

    Raises:
        RequestError: with every field that is wrong.
    """
    said_of = [
        answer_of(each, kind=kind, amount_usd=amount_usd, ends=ends, why=why, by=by, now=now)
        for each in (alert, *(part for part in parts if kind != "planned" and _is_alike(alert, part)))
    ]
    return [said_of[0], *(each for each in said_of[1:] if each.key() not in answered)]


def _is_alike(alert: Alert, part: Alert) -> bool:
    """Whether both are about the same: of habits the same ratio, changed in the same direction."""
    return alert.rule == "spend_spike" or alert.teaches.rsplit("|", 2)[1:] == part.teaches.rsplit("|", 2)[1:]


def teaches(alert: Alert) -> str:
    """What learns from an answer to an alert; empty: nothing does, and the answer is only recorded."""
    if alert.rule == "spend_spike":
        return f"{alert.scope_type}:{alert.scope_id}"
    return alert.teaches


def planned_of(
    *, scope: str, starts: str, ends: str, amount_usd: str, why: str, by: str, now: int, event_id: str = ""
) -> PlannedEvent:
    """An event that is declared.

    Args:
        scope: such as ``team:search``; of a team's feature ``team_feature:search/chat``.
        starts: ``now``, a span from now, or an instant; at most two weeks ago.
        ends: a span from its beginning, or an instant.
        event_id: empty: one is made of what it says.

    Raises:
        RequestError: with every field that is wrong.
    """
    fields = Fields()
    where = fields.read("scope", scope, scope_named, "")
    first = fields.read("from", starts, lambda text: _first(text, now), now)
    last = fields.read("until", ends, lambda text: until(text, first, LONGEST), first + HOUR)
    nanos = fields.read("amount_usd", amount_usd, amount, 0)
    reason = fields.read("reason", why, said, "")
    if event_id and not EVENT_ID.match(event_id):
        fields.wrongs.append(Wrong("id", "has 1 to 64 letters, digits, '.', '_' and '-'"))
    if last <= now and not any(wrong.where == "until" for wrong in fields.wrongs):
        fields.wrongs.append(Wrong("until", f"is past: {format_instant(last)}; answer the alert itself with `planned`"))
    fields.demand()
    slug = re.sub(r"[^a-z0-9]+", "-", where.partition(":")[2].lower()).strip("-")[:40] or "event"
    return PlannedEvent(
        id=event_id or f"{slug}-{digest('planned', where, str(first), str(now), by)[:8]}", scope=where, starts=first,
        until=last, nanos=nanos, known_from=now, changed_by=by, reason=reason,
    )  # fmt: skip


def scope_named(text: str) -> str:
    """A scope as detectors name it.

    >>> scope_named("team:search"), scope_named("team_feature:R&D/chat")
    ('team:search', 'team_feature:R&D/chat')

    Raises:
        ValueError: it is none.
    """
    kind, colon, rest = text.strip().partition(":")
    if not colon or kind not in SCOPES:
        raise ValueError(f"{text[:40]!r} is none of {', '.join(each + ':NAME' for each in SCOPES)}")
    found = name(rest)
    if kind == "team_feature" and found.count("/") != 1:
        example = f"team_feature:{quote('a/b', safe='')}/chat"
        raise ValueError(f"of a team's feature write team_feature:TEAM/FEATURE; a / in a name is %2F: {example}")
    return f"{kind}:{found}"


def _first(text: str, now: int) -> int:
    found = text.strip()
    if found in ("", "now"):
        return now
    try:
        first = parse_instant(found) if "T" in found else now + span(found)
    except (InstantError, OverflowError, ValueError) as error:
        raise ValueError(
            f"{text[:40]!r} is neither now, nor a span from now such as 2h, nor an instant such as 2026-11-21T18:00:00Z"
        ) from error
    if first < now - LATEST:
        raise ValueError(f"{text[:40]!r} is more than {LATEST // DAY} days ago: nothing learns from it any more")
    return first
