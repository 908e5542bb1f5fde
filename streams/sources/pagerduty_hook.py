"""PagerDuty's V3 webhooks: whether one is PagerDuty's, and what it says. What that means is decided elsewhere.

Signatures are HMAC-SHA256 over the body as it came, in ``X-PagerDuty-Signature: v1=<hex>``; while a secret is being
rotated there is one for each secret, with commas between.
"""

import hashlib
import hmac
from typing import NamedTuple

import msgspec

from schemas.instants import InstantError, parse_instant

HEADER = "x-pagerduty-signature"
SIGNATURES_MAX = 16
TEXT_MAX = 256
#: PagerDuty's own bound of a dedup key.
KEY_MAX = 255


class _Agent(msgspec.Struct):
    type: str = ""
    summary: str | None = None
    id: str = ""


class _Data(msgspec.Struct):
    type: str = ""
    incident_key: str | None = None


class _Event(msgspec.Struct):
    id: str
    event_type: str
    occurred_at: str
    data: msgspec.Raw = msgspec.Raw(b"{}")
    agent: _Agent | None = None


class _Body(msgspec.Struct):
    event: _Event


_decode = msgspec.json.Decoder(_Body).decode
_decode_data = msgspec.json.Decoder(_Data).decode


class Heard(NamedTuple):
    """What one webhook says of one incident; ``at`` is in microseconds."""

    event_type: str
    incident_key: str
    at: int
    by: str
    is_person: bool


def is_signed(secret: str, header: str, body: bytes) -> bool:
    """Whether one of the signatures is of this body and secret; takes as long whichever of them it is.

    >>> good = "v1=" + hmac.new(b"s", b"{}", hashlib.sha256).hexdigest()
    >>> is_signed("s", "v1=00, " + good, b"{}"), is_signed("s", good, b"{ }"), is_signed("s", "", b"{}")
    (True, False, False)
    """
    wanted = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest().encode()
    found = False
    for given in header.split(",")[:SIGNATURES_MAX]:
        version, _, digest = given.strip().partition("=")
        # Bytes, since text with letters beyond ASCII cannot be compared in constant time.
        found |= hmac.compare_digest(digest.encode(), wanted) and version == "v1"
    return found


def read_webhook(body: bytes) -> Heard | None:
    """What a webhook says; None where it is not about an incident (a ping, a service).

    Raises:
        ValueError: it has another form than V3 webhooks have.
    """
    try:
        event = _decode(body).event
        if not event.event_type.startswith("incident."):
            return None
        data = _decode_data(event.data)
        at = parse_instant(event.occurred_at)
    except (msgspec.DecodeError, UnicodeDecodeError, InstantError, OverflowError) as error:
        raise ValueError(f"this is no V3 webhook of PagerDuty: {error}") from error
    if data.type != "incident" or not data.incident_key or len(data.incident_key) > KEY_MAX:
        return None
    agent = event.agent or _Agent()
    by = " ".join("".join(c if c.isprintable() else " " for c in agent.summary or agent.id).split())[:TEXT_MAX]
    return Heard(event.event_type, data.incident_key, at, by or "PagerDuty", agent.type.startswith("user"))
