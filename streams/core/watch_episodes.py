"""Episodes of what is wrong with Sluice itself: an alert opens once, may get worse, and ends once.

Every check says what it finds as a ``Symptom``; here it becomes alerts under derived ids (rule 5). Who steps the same
state with the same symptoms says the same, so a watcher that died between saying and keeping is repeated word for word
by its successor.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from schemas import keys
from schemas.alerts import Alert, Contributor, Rule, Severity, Status, Tier
from schemas.instants import format_instant

SUMMARY_MAX = 1_000
#: Things that are remembered; those that ended longest ago are let go first.
EPISODES_MAX = 5_000
_TIERS: tuple[Tier, ...] = ("note", "ticket", "page")
_SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical", "emergency")


class Symptom(NamedTuple):
    """What one check says of one thing. Neither bad nor well: between the bounds, where nothing changes."""

    rule: Rule
    scope_type: str
    scope_id: str
    is_bad: bool
    is_well: bool
    summary: str
    #: What is said at its end.
    ended: str
    tier: Tier = "ticket"
    severity: Severity = "warning"
    observed: str = ""
    expected: str = ""
    threshold: str = ""
    unit: str = ""
    contributors: tuple[Contributor, ...] = ()
    action: str = ""
    labels: Mapping[str, str] = {}
    #: When it began, where that is known better than by looking.
    since: int = 0
    historic: bool = False
    #: So long it has to be bad before it is told, and well before it has ended.
    hold_us: int = 0
    settle_us: int = 0

    def key(self) -> str:
        """The dedup key: these things have no periods, which is period 0."""
        return keys.alert_dedup_key(self.rule, f"{self.scope_type}:{self.scope_id}", "0")


class Episode(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is remembered of one dedup key."""

    rule: Rule
    #: How many there have been; the present one where it is open.
    number: int = 0
    #: How often the present one was updated.
    updates: int = 0
    is_open: bool = False
    #: Since when it has been bad or well without a break, and when it was first seen bad; 0 while it is not.
    bad_since: int = 0
    seen_at: int = 0
    well_since: int = 0
    #: When it was opened, got worse or ended.
    changed_at: int = 0
    #: What was said last of an open one.
    last: Alert | None = None


def follow(
    episodes: Mapping[str, Episode], symptoms: Sequence[Symptom], looked_at: Collection[Rule], now: int
) -> tuple[dict[str, Episode], list[Alert]]:
    """Take in what was found; returns the episodes after it and what there is to say.

    Args:
        looked_at: the rules whose checks could be made; of these, what has no symptom any more is over.
    """
    after = dict(episodes)
    said: list[Alert] = []
    named = set()
    for symptom in symptoms:
        key = symptom.key()
        named.add(key)
        before = after.get(key)
        episode, alerts = _step(before or Episode(rule=symptom.rule), key, symptom, now)
        said += alerts
        if episode.number or episode.bad_since:
            after[key] = episode
        else:
            after.pop(key, None)
    for key in sorted(after.keys() - named):
        episode = after[key]
        if episode.rule in looked_at:
            after[key], alerts = _over(episode, now)
            said += alerts
            if not episode.number:
                del after[key]
    return _bounded(after), said


def _step(episode: Episode, key: str, symptom: Symptom, now: int) -> tuple[Episode, list[Alert]]:
    bad_since = (episode.bad_since or symptom.since or now) if symptom.is_bad else 0
    # Held by looks: when it began may be long ago, and the first look still be unlucky.
    seen_at = (episode.seen_at or now) if symptom.is_bad else 0
    well_since = (episode.well_since or now) if symptom.is_well else 0
    stepped = msgspec.structs.replace(episode, bad_since=bad_since, seen_at=seen_at, well_since=well_since)
    if not episode.is_open:
        if not symptom.is_bad or now - seen_at < symptom.hold_us:
            return stepped, []
        opened = msgspec.structs.replace(stepped, is_open=True, number=episode.number + 1, updates=0, changed_at=now)
        return _say(opened, key, symptom, "opened", now)
    if symptom.is_well and now - well_since >= symptom.settle_us:
        return _over(stepped, now, symptom.ended)
    last = episode.last
    if symptom.is_bad and last is not None and _is_graver(symptom, last):
        worse = msgspec.structs.replace(stepped, updates=episode.updates + 1, changed_at=now)
        return _say(worse, key, symptom, "updated", now)
    return stepped, []


def _is_graver(symptom: Symptom, last: Alert) -> bool:
    if symptom.historic or last.historic:
        return False
    return _gravity(symptom.tier, symptom.severity) > _gravity(last.tier, last.severity)


def _gravity(tier: Tier, severity: Severity) -> tuple[int, int]:
    return _TIERS.index(tier), _SEVERITIES.index(severity)


def _say(episode: Episode, key: str, symptom: Symptom, status: Status, now: int) -> tuple[Episode, list[Alert]]:
    tier, severity = symptom.tier, symptom.severity
    if symptom.historic:
        tier = "note"
    alert = Alert(
        alert_id=keys.alert_id(key, episode.number, status, episode.updates),
        dedup_key=key,
        episode=episode.number,
        status=status,
        severity=severity,
        tier=tier,
        rule=symptom.rule,
        scope_type=symptom.scope_type,
        scope_id=symptom.scope_id,
        summary=symptom.summary[:SUMMARY_MAX],
        # An update may come between the bounds of the entry: when it began stays as it was said.
        occurred_at=episode.last.occurred_at if episode.last else format_instant(episode.bad_since),
        stated_at=format_instant(now),
        observed=symptom.observed,
        expected=symptom.expected,
        threshold=symptom.threshold,
        unit=symptom.unit,
        top_contributors=list(symptom.contributors),
        action=symptom.action,
        labels=dict(symptom.labels),
        historic=symptom.historic,
    )
    return msgspec.structs.replace(episode, last=alert), [alert]


def _over(episode: Episode, now: int, words: str = "") -> tuple[Episode, list[Alert]]:
    """The end of an episode; it goes the way that its last word went."""
    last = episode.last
    if not episode.is_open or last is None:
        return msgspec.structs.replace(episode, bad_since=0, seen_at=0, well_since=0), []
    closed = msgspec.structs.replace(
        episode, is_open=False, bad_since=0, seen_at=0, well_since=0, changed_at=now, last=None
    )
    alert = msgspec.structs.replace(
        last,
        alert_id=keys.alert_id(last.dedup_key, episode.number, "resolved"),
        status="resolved",
        stated_at=format_instant(now),
        summary=(words or f"{last.scope_type} {last.scope_id} is not there any more")[:SUMMARY_MAX],
        action="",
    )
    return closed, [alert]


def _bounded(episodes: dict[str, Episode]) -> dict[str, Episode]:
    while len(episodes) > EPISODES_MAX:
        oldest = min(episodes, key=lambda key: (episodes[key].is_open, episodes[key].changed_at, key))
        del episodes[oldest]
    return episodes
