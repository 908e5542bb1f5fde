"""What NOTIFY speaks of: labels, matchers, silences, acknowledgements, groups, and the notifications that they make.

Values only. How alerts find their routes is in ``routes``, what a group says when is in ``notify_pipeline``, and how a
message that is owed gets through is in ``delivery``.
"""

import re
from typing import Literal

import msgspec

from schemas.alerts import Alert

MatchOp = Literal["=", "!=", "=~", "!~"]
#: ``trigger`` opens or updates an incident at the receiver, ``resolve`` ends it; ``tell`` is a text of its own.
Action = Literal["trigger", "acknowledge", "resolve", "tell"]
#: Why a group speaks: the first word of an incident, another alert in it, one that ended, a step up or down in
#: severity, new figures of the same severity, all ended, somebody has it in hand, said again after the repeat interval,
#: nobody acknowledged, a summary of what was held back, or a weekly report.
Reason = Literal[
    "opened", "joined", "left", "worse", "better", "updated", "resolved", "acknowledged", "repeated", "escalated",
    "digest", "report",
]  # fmt: skip

#: Attributes that have another name as labels; matchers take both.
LABEL_NAMES = {"cost_center": "cost_centre"}


def labels_of(alert: Alert) -> dict[str, str]:
    """The labels that routes, silences and inhibition match on; those that are empty are there, and empty.

    ``alert`` is the dedup key without its version, so that one alert can be named.
    """
    return {
        "alert": alert.dedup_key,
        "rule": alert.rule,
        "severity": alert.severity,
        "tier": alert.tier,
        "scope_type": alert.scope_type,
        "scope": alert.scope_id,
        "team": alert.team_id,
        "feature": alert.feature,
        "owner": alert.owner,
        **alert.labels,
    }


def standing_of(alert: Alert) -> str:
    """What an alert counts as among many: its severity, or ``ended``."""
    return "ended" if alert.status == "resolved" else alert.severity


class Matcher(msgspec.Struct, frozen=True):
    """One condition on a label, as in Alertmanager; a label that is missing is an empty one. Patterns match whole."""

    label: str
    op: MatchOp
    value: str

    def holds(self, labels: dict[str, str]) -> bool:
        """Whether labels fulfil it."""
        found = labels.get(self.label, "")
        if self.op in ("=", "!="):
            return (found == self.value) is (self.op == "=")
        return (re.fullmatch(self.value, found) is not None) is (self.op == "=~")


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody's word that matching alerts need no message for a while. Times are microseconds."""

    id: str
    matchers: tuple[Matcher, ...]
    starts: int
    ends: int
    author: str
    reason: str

    def mutes(self, labels: dict[str, str], now: int) -> bool:
        """Whether it is in force and every matcher holds."""
        return self.starts <= now < self.ends and all(matcher.holds(labels) for matcher in self.matchers)


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody has one episode of an alert in hand; escalation and repeats end with it."""

    dedup_key: str
    episode: int
    by: str
    at: int
    #: ``api``, ``cli``, ``page`` or ``pagerduty``.
    via: str


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """One message that one receiver is owed. Ids are derived (rule 5): said twice, it is owed once."""

    #: From the group, the receiver, the episode of its incident and what it says.
    notification_id: str
    #: The integration's id (``routes.Integration``): ``pagerduty``, or ``on-call/slack``.
    receiver: str
    #: One incident at the receiver: PagerDuty's dedup key, a mail's thread, Slack's thread. At most 255 characters.
    thread_key: str
    action: Action
    reason: Reason
    #: What is firing, worst first, and then what ended since the last message. Never empty but for ``tell``.
    alerts: tuple[Alert, ...]
    #: How many more it is about, of a group too large to be told whole: by severity, or ``ended`` (``standing_of``).
    held_back: dict[str, int] = {}
    #: The labels that the group's alerts share by ``group_by``.
    group: dict[str, str] = {}
    #: The heading and paragraphs of a ``tell``: a digest of what was held back, or a weekly report.
    heading: str = ""
    paragraphs: tuple[str, ...] = ()
    #: When it was decided, in microseconds.
    decided_at: int = 0


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What one receiver was last told of one group; kept with the group, written with the message that it speaks of."""

    #: The integration's id (``routes.Integration``).
    receiver: str
    #: Alert (dedup key) to ``episode:severity:alert_id`` of those that were firing; those that had ended by then are
    #: not there.
    firing: dict[str, str]
    at: int
    #: The number of its last incident of this group, and a part of the thread where it knows no reopening: the episode
    #: where every alert is a group of its own, else counted.
    incident: int
    #: Alert to when this receiver was first told of its present episode: escalation counts from there.
    since: dict[str, int] = {}
    #: Those among ``firing`` that it knows to be acknowledged.
    acknowledged: tuple[str, ...] = ()
    #: How many messages it was owed of this group: the next one's id follows from it.
    messages: int = 0
