"""Where an alert stands for people, what others' words on it mean, and the review that a critical one leads to."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from schemas.alerts import Alert
from schemas.keys import digest
from streams.core.notifying import Acknowledgement, Silence, labels_of

#: In this order, since the first that is true is what a person has to know first.
Stage = Literal["resolved", "inhibited", "silenced", "acknowledged", "firing"]
#: What PagerDuty says of an incident, and whether somebody has it in hand after it.
IN_HAND: Mapping[str, bool] = {
    "incident.acknowledged": True,
    "incident.resolved": True,
    "incident.unacknowledged": False,
    "incident.reopened": False,
}
#: Clocks of others: a word that is older than an episode by less than this may be about it.
SKEW_US = 5_000_000
REVIEWED = ("critical", "emergency")


class LifeError(ValueError):
    """What is asked of an alert or a review cannot be, as it stands; the message says why."""


class Standing(NamedTuple):
    """Where one alert stands now, and because of whom."""

    stage: Stage
    acknowledged: Acknowledgement | None = None
    #: The one that ends last.
    silenced: Silence | None = None
    #: The dedup key of the alert that makes this one needless.
    inhibited_by: str = ""


def standing(
    alert: Alert,
    silences: Iterable[Silence],
    acknowledgements: Mapping[tuple[str, int], Acknowledgement],
    now: int,
    inhibited_by: str = "",
) -> Standing:
    """Where an alert stands. All that is true of it is in the answer; ``stage`` is what counts first."""
    word = acknowledgements.get((alert.dedup_key, alert.episode))
    if alert.status == "resolved":
        return Standing("resolved", word)
    labels = labels_of(alert)
    muting = max((each for each in silences if each.mutes(labels, now)), key=lambda each: each.ends, default=None)
    stage: Stage = "firing"
    if inhibited_by:
        stage = "inhibited"
    elif muting is not None:
        stage = "silenced"
    elif word is not None:
        stage = "acknowledged"
    return Standing(stage, word, muting, inhibited_by)


class IncidentWord(NamedTuple):
    """What PagerDuty's webhook said of one incident."""

    event_type: str
    #: The dedup key that the incident was triggered with.
    incident_key: str
    at: int
    #: Who did it, for people; and whether it was a person, and not an integration or a timeout.
    by: str
    is_person: bool


class Said(NamedTuple):
    """A word on one episode, to be kept."""

    acknowledgement: Acknowledgement
    withdrawn: bool
    note: str


def said_by_pagerduty(word: IncidentWord, episodes: Mapping[str, Sequence[tuple[int, int]]]) -> tuple[Said, ...]:
    """What a word on an incident says of the alerts in it; nothing where it is not for us, or of an earlier time.

    A resolve by a person there ends no alert here, since the money still flows; but somebody has it in hand. What an
    integration acknowledges or resolves is Sluice's own word coming back.

    Args:
        word: what was said.
        episodes: of each alert of the incident (episode, when it began here), the oldest first.
    """
    in_hand = IN_HAND.get(word.event_type)
    if in_hand is None or (in_hand and not word.is_person):
        return ()
    note = word.event_type.removeprefix("incident.") + " in PagerDuty"
    found = []
    for dedup_key, known in episodes.items():
        # A webhook that comes late is about the episode of its own time.
        begun = [episode for episode, began in known if began <= word.at + SKEW_US]
        if begun:
            kept = Acknowledgement(dedup_key=dedup_key, episode=begun[-1], by=word.by, at=word.at, via="pagerduty")
            found.append(Said(kept, not in_hand, note))
    return tuple(found)


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody looks into a critical alert until a day, and says what came of it. Times are microseconds."""

    review_id: str
    dedup_key: str
    episode: int
    rule: str
    severity: str
    team_id: str
    summary: str
    owner: str
    opened_at: int
    due_at: int
    outcome: str = ""
    closed_at: int | None = None
    closed_by: str = ""

    def is_overdue(self, now: int) -> bool:
        """Whether it should have been closed."""
        return self.closed_at is None and self.due_at <= now


def review_of(alert: Alert, opened_at: int, due_us: int, owners: Mapping[str, str]) -> Review | None:
    """The review that an alert leads to; None where it needs none, or is history.

    Args:
        alert: as it stands.
        opened_at: when its episode began.
        due_us: how long there is for it.
        owners: by team, who answers for it where the alert names nobody; ``*``: of all other teams.
    """
    if alert.severity not in REVIEWED or alert.historic:
        return None
    return Review(
        review_id=digest("review", alert.dedup_key, str(alert.episode))[:12],
        dedup_key=alert.dedup_key,
        episode=alert.episode,
        rule=alert.rule,
        severity=alert.severity,
        team_id=alert.team_id,
        summary=alert.summary,
        owner=alert.owner or owners.get(alert.team_id, "") or owners.get("*", ""),
        opened_at=opened_at,
        due_at=opened_at + due_us,
    )
