"""What a generic webhook is sent: one message about one incident, or a text of its own. Signed as Standard Webhooks."""

from typing import Literal

import msgspec

from schemas.alerts import Alert

TRIGGER_TYPE = "ai.notification.trigger.v1"
ACKNOWLEDGE_TYPE = "ai.notification.acknowledge.v1"
RESOLVE_TYPE = "ai.notification.resolve.v1"
TELL_TYPE = "ai.notification.tell.v1"


class NotificationData(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message. The same ``notification_id`` is the same message: it may come twice."""

    v: int = 1
    notification_id: str
    #: One incident: what ``trigger`` opens or updates, ``resolve`` ends. After that the same key is a new incident.
    thread_key: str
    #: ``tell`` is a text of its own: ``heading`` and ``paragraphs``, a digest or a report.
    action: Literal["trigger", "acknowledge", "resolve", "tell"]
    #: Why it comes: opened, joined, left, worse, better, resolved, repeated, escalated, digest or report; there may be
    #: more of them one day.
    reason: str
    #: The receiver's name in ``routes.yaml``.
    receiver: str
    #: One line with the cause of the worst in it; at most 1024 characters.
    heading: str
    paragraphs: tuple[str, ...] = ()
    #: The labels that the alerts of the group share.
    group: dict[str, str] = {}
    #: Of all alerts of the message, whether they are here or left out.
    firing: int = 0
    ended: int = 0
    #: What fires, worst first, then what ended since the last message; each as in ``alert.v1.json``.
    alerts: tuple[Alert, ...] = ()
    #: How many alerts there was no room for.
    left_out: int = 0
    #: The same by severity; ``ended`` counts those that are over.
    left_out_by: dict[str, int] = {}
    dashboard_url: str = ""


class WebhookMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The body, as Standard Webhooks has it. Members that are not named here are to be ignored."""

    type: Literal[
        "ai.notification.trigger.v1",
        "ai.notification.acknowledge.v1",
        "ai.notification.resolve.v1",
        "ai.notification.tell.v1",
    ]
    #: When it was decided, RFC 3339 in UTC; the header ``webhook-timestamp`` is when it was sent.
    timestamp: str
    data: NotificationData
