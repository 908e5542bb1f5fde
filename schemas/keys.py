"""Derived ids: the same facts give the same names after any replay (rule 5). A changed derivation is a new version."""

from hashlib import blake2b

import msgspec

from schemas.statements import Dimensions

_ENCODE = msgspec.json.Encoder().encode


def digest(*parts: str) -> str:
    """128 bits over the parts as 32 hex digits, each part length-framed so that no two lists collide."""
    hasher = blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hasher.update(len(data).to_bytes(4, "big"))
        hasher.update(data)
    return hasher.hexdigest()


def cell_id(dimensions: Dimensions, hour: int) -> str:
    """The id of one cell: its dimensions and its hour.

    >>> from schemas.statements import Dimensions
    >>> d = Dimensions("", "", "search", "", "chat", "gpt-4o", "openai", "prod", "interactive", "", "llm")
    >>> cell_id(d, 0) == cell_id(d, 0), cell_id(d, 0) == cell_id(d, 3_600_000_000)
    (True, False)
    """
    return blake2b(_ENCODE(dimensions) + b"|%d" % hour, digest_size=16).hexdigest()


def alert_dedup_key(rule: str, scope: str, period_start: str, threshold: str = "") -> str:
    """The dedup key of an alert, at most 255 characters as PagerDuty requires; long ones are digested.

    >>> alert_dedup_key("budget_threshold", "budget:search-daily", "2026-11-21T00:00:00Z", "100")
    'v1:budget_threshold:budget:search-daily:2026-11-21T00:00:00Z:100'
    """
    key = f"v1:{rule}:{scope}:{period_start}" + (f":{threshold}" if threshold else "")
    if len(key) <= 255:
        return key
    return f"v1:{rule}:{digest(rule, scope, period_start, threshold)}"


def alert_id(dedup_key: str, episode: int, status: str, step: int = 0) -> str:
    """The id of one statement about an alert."""
    return digest("alert", dedup_key, str(episode), status, str(step))


def command_id(command_key: str, revision: int) -> str:
    """The id of a throttle command."""
    return digest("command", command_key, str(revision))


def notification_id(dedup_key: str, episode: int, status: str, receiver: str, step: int = 0) -> str:
    """The id of one message to one receiver: what the outbox is unique in."""
    return digest("notification", dedup_key, str(episode), status, receiver, str(step))
