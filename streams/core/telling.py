"""One receiver of one group: whether it needs a message, why, and what it knows afterwards.

The question is Alertmanager's (``needsUpdate`` of its deduplication stage), asked of every integration by itself.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from schemas import keys
from schemas.alerts import Alert
from schemas.money import parse_nanos
from streams.core.notifying import Acknowledgement, Action, Notification, Reason, Told, standing_of
from streams.core.placing import EACH, Group
from streams.core.routes import Kind

#: Lowest first.
SEVERITIES = ("info", "warning", "critical", "emergency")
_TIERS = ("note", "ticket", "page")
#: A message names so many alerts and counts the rest: no channel has room for more, and a group may have thousands.
ALERTS_MAX = 100
#: So many of these places are for what has ended, where more fires than there is room for.
ENDED_PLACES = 20
#: A key that a receiver knows again after a resolve opens a new incident there; elsewhere each incident has its own.
_KNOWS_REOPENING: tuple[Kind, ...] = ("pagerduty",)
#: Who is told that somebody has it in hand; a mail about it would only be one more.
_HEARS_OF_HANDS: tuple[Kind, ...] = ("pagerduty", "slack", "webhook")
_ACTIONS: dict[Reason, Action] = {"resolved": "resolve", "acknowledged": "acknowledge"}
_VIA = {"api": "API", "cli": "command line", "page": "dashboard", "pagerduty": "PagerDuty"}
THREAD_KEY_MAX = 255


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One alert of a group: its newest statement."""

    alert: Alert
    #: When the first statement of its episode was recorded, in microseconds.
    since: int
    #: ``Placement.receivers``.
    receivers: tuple[str, ...]
    #: Its newest statement is placed in other groups; it ends here.
    departed: bool = False

    def fires(self) -> bool:
        """Whether it is to be told as firing here, muted or not."""
        return not (self.alert.status == "resolved" or self.departed or self.alert.historic)


class Standing(NamedTuple):
    """How a group stands at a flush, as one receiver may see it; all by dedup key."""

    members: Mapping[str, Member]
    #: Those that fire, are not muted for this receiver, and concern it.
    shown: Mapping[str, Member]
    #: Of those that fire, by their present episode.
    acknowledged: Mapping[str, Acknowledgement]
    kind: Kind
    #: Whether it is told because nobody acknowledged.
    is_escalation: bool = False
    #: 0: never said again.
    repeat_us: int = 0

    def is_all_acknowledged(self) -> bool:
        """Whether somebody has everything in hand that this receiver may see."""
        return all(key in self.acknowledged for key in self.shown)


def mark(alert: Alert) -> str:
    """What ``Told`` keeps of a firing alert: another mark is news."""
    return f"{alert.episode}:{alert.severity}:{alert.alert_id}"


def knows(told: Told | None, member: Member) -> bool:
    """Whether a receiver was told of the alert's present episode."""
    marked = told.firing.get(member.alert.dedup_key) if told else None
    return marked is not None and _episode(marked) == member.alert.episode


def needs_update(told: Told | None, stands: Standing, now: int) -> Reason | None:
    """Why a receiver has to be told something now; None: it knows everything.

    Asked again after each message, until it knows everything: the end of an episode and the opening of the next are
    two. While other alerts of the group fire, the group's incident goes on, whatever has ended in it.
    """
    known = told.firing if told else {}
    ended = ended_of(told, stands)
    if not known:
        # What has fired and ended in between is unknown to it, and stays so.
        return _first(stands) if stands.shown else None
    if len(ended) == len(known) and stands.shown.keys() <= known.keys():
        return "resolved"
    fresh = [key for key, member in stands.shown.items() if not knows(told, member)]
    changed = [key for key, member in stands.shown.items() if known.get(key) != mark(member.alert)]
    if changed or ended:
        before, after = _worst(known.values()), _worst(_next(known, ended, stands).values())
        if fresh and stands.is_escalation:
            return "escalated"
        if after > before:
            return "worse"
        if fresh:
            return "joined"
        if after < before:
            return "better"
        return "left" if ended else "updated"
    if stands.shown and stands.is_all_acknowledged():
        return "acknowledged" if _is_news(told, stands) else None
    if stands.shown and stands.repeat_us and told is not None and told.at + stands.repeat_us <= now:
        return "repeated"
    return None


def say(
    told: Told | None, reason: Reason, stands: Standing, group: Group, receiver: str, now: int
) -> tuple[Notification, Told]:
    """The message that a receiver is owed for a reason, and what it knows after it."""
    before = told or Told(receiver=receiver, firing={}, at=0, incident=0)
    ended = ended_of(told, stands)
    over = _ranked([(_as_ended(before, stands.members[key]), stands.members[key].since) for key in ended])
    fires = [] if reason == "resolved" else _ranked([(one.alert, one.since) for one in stands.shown.values()])
    named, held_back = _bounded(fires, over)
    incident = before.incident if before.firing else _next_incident(before, stands, group)
    notification = Notification(
        notification_id=keys.digest("notification", group.key, receiver, str(incident), str(before.messages)),
        receiver=receiver,
        thread_key=thread_key(group, stands.kind, incident),
        action=_ACTIONS.get(reason, "trigger"),
        reason=reason,
        alerts=named,
        held_back=held_back,
        group=group.labels,
        paragraphs=_hands(stands) if reason == "acknowledged" else (),
        decided_at=now,
    )
    firing = {} if reason == "resolved" else _next(before.firing, ended, stands)
    kept = {key: at for key, at in before.since.items() if _episode_in(before.firing, key) == _episode_in(firing, key)}
    in_hand = {key for key in before.acknowledged if key in kept}
    if reason == "acknowledged":
        in_hand.update(stands.acknowledged)
    after = Told(
        receiver=receiver,
        firing=firing,
        at=now,
        incident=incident,
        since={key: kept.get(key, now) for key in firing},
        acknowledged=tuple(sorted(in_hand & firing.keys())),
        messages=before.messages + 1,
    )
    return notification, after


def ended_of(told: Told | None, stands: Standing) -> tuple[str, ...]:
    """The alerts that a receiver knows as firing and that have ended, or begun anew; what is not loaded is not over."""
    found = []
    for key, marked in (told.firing if told else {}).items():
        member = stands.members.get(key)
        if member is not None and (not member.fires() or member.alert.episode != _episode(marked)):
            found.append(key)
    return tuple(sorted(found))


def thread_key(group: Group, kind: Kind, incident: int) -> str:
    """The thread of a group's incident at a receiver of this kind; at most 255 characters."""
    if incident <= 1 or kind in _KNOWS_REOPENING:
        return group.thread
    key = f"{group.thread}#{incident}"
    return key if len(key) <= THREAD_KEY_MAX else "v1:thread:" + keys.digest("thread", group.thread, str(incident))


def _next_incident(told: Told, stands: Standing, group: Group) -> int:
    """The number of the incident that opens: an alert by itself has its episode's, whichever of its groups tells it."""
    if EACH in group.labels:
        return max(member.alert.episode for member in stands.shown.values())
    return told.incident + 1


def _first(stands: Standing) -> Reason:
    return "escalated" if stands.is_escalation else "opened"


def _next(known: Mapping[str, str], ended: tuple[str, ...], stands: Standing) -> dict[str, str]:
    """What a receiver knows after it was told; of what is muted it keeps what it knew."""
    over = set(ended)
    kept = {key: marked for key, marked in known.items() if key not in over}
    return kept | {key: mark(member.alert) for key, member in stands.shown.items()}


def _is_news(told: Told | None, stands: Standing) -> bool:
    """Whether a receiver does not know yet who has it in hand; one who said so knows."""
    if stands.kind not in _HEARS_OF_HANDS:
        return False
    known = told.acknowledged if told else ()
    return any(key not in known and stands.acknowledged[key].via != stands.kind for key in stands.shown)


def _hands(stands: Standing) -> tuple[str, ...]:
    found = {(one.by, _VIA.get(one.via, one.via)) for key, one in stands.acknowledged.items() if key in stands.shown}
    return tuple(f"Acknowledged by {by} ({via})." for by, via in sorted(found))


def _ranked(found: Iterable[tuple[Alert, int]]) -> list[Alert]:
    """The worst first: by severity and tier, then what it costs if it goes on, then age; alike in any order."""

    def rank(one: tuple[Alert, int]) -> tuple[int, int, int, int, str]:
        alert, since = one
        return (
            -SEVERITIES.index(alert.severity), -_TIERS.index(alert.tier), -_at_stake(alert), since, alert.dedup_key
        )  # fmt: skip

    return [alert for alert, _ in sorted(found, key=rank)]


def _at_stake(alert: Alert) -> int:
    try:
        return parse_nanos(alert.at_stake_per_hour) if alert.at_stake_per_hour else 0
    except ValueError:
        return 0


def _bounded(fires: list[Alert], over: list[Alert]) -> tuple[tuple[Alert, ...], dict[str, int]]:
    """The alerts that a message names, what fires first, and how many there are besides."""
    first = min(len(fires), ALERTS_MAX - min(len(over), ENDED_PLACES))
    last = min(len(over), ALERTS_MAX - first)
    rest = Counter(standing_of(alert) for alert in (*fires[first:], *over[last:]))
    return (*fires[:first], *over[:last]), dict(sorted(rest.items()))


def _as_ended(told: Told, member: Member) -> Alert:
    """The alert of an episode that is over, also where the next one has begun."""
    alert = member.alert
    episode = _episode(told.firing[alert.dedup_key])
    if alert.episode == episode:
        return alert
    ended = keys.alert_id(alert.dedup_key, episode, "resolved")
    return msgspec.structs.replace(alert, alert_id=ended, episode=episode, status="resolved")


def _episode(marked: str) -> int:
    return int(marked.partition(":")[0])


def _episode_in(firing: Mapping[str, str], key: str) -> int | None:
    return _episode(firing[key]) if key in firing else None


def _worst(marks: Iterable[str]) -> int:
    return max((SEVERITIES.index(each.split(":", 2)[1]) for each in marks), default=-1)
