"""What people say about findings: answers to alerts, and events that are planned ahead.

Both are definitions and lie on ``budgets.v1`` beside budgets: the last value of a key holds. Amounts are nanodollars,
instants are microseconds since 1970.
"""

from typing import Literal

import msgspec

from schemas.alerts import Rule

#: no: this is normal here. yes: this was an incident. planned: it was meant, and ``nanos`` were declared for it.
AnswerKind = Literal["yes", "no", "planned"]


class AlertAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="answer"):
    """An answer to an alert. Another answer to the same alert takes its place."""

    v: int = 1
    #: The alert's dedup key, and its rule.
    alert: str
    rule: Rule
    answer: AnswerKind
    #: What learns from it, and how large it was: as the alert said.
    teaches: str = ""
    figures: tuple[int, ...] = ()
    #: The time that it is about.
    starts: int
    until: int
    #: Of ``planned``: above the usual, for all of that time together.
    nanos: int = 0
    #: From then on it is known, in event time: a replay learns it in the same order.
    known_from: int
    team_id: str = ""
    version: int = 1
    changed_by: str = ""
    reason: str = ""
    changed_at: int = 0

    def key(self) -> str:
        """The record key: ``answer|v1:spend_spike:team:search:2026-11-21T09:00:00Z``."""
        return f"answer|{self.alert}"


class PlannedEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="planned"):
    """A launch, a re-embedding or a load test that was declared: what it may cost above the usual, and when."""

    v: int = 1
    id: str
    #: As detectors name one: ``org:a``, ``team:search``, ``feature:chat``, ``team_feature:search/chat``, ``model:o3``.
    scope: str
    starts: int
    until: int
    nanos: int
    #: When it was declared first, in event time: what it says now holds from then on.
    known_from: int
    version: int = 1
    changed_by: str = ""
    reason: str = ""
    changed_at: int = 0

    def key(self) -> str:
        """The record key: ``planned|search-launch``."""
        return f"planned|{self.id}"
