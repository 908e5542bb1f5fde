"""Instants on the wire are RFC 3339 in UTC; in memory they are integer microseconds since 1970."""

from datetime import UTC, datetime, timedelta

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 3600 * SECOND
DAY = 24 * HOUR

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class InstantError(ValueError):
    """A text that is not an RFC 3339 instant."""


def parse_instant(text: str) -> int:
    """Microseconds since 1970 of an RFC 3339 instant; an instant without an offset is refused.

    >>> parse_instant("2026-11-21T00:00:00Z") == parse_instant("2026-11-21T01:00:00+01:00")
    True

    Raises:
        InstantError: the text is not RFC 3339 or has no offset.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InstantError(f"not an RFC 3339 instant: {text[:64]!r}") from error
    if moment.tzinfo is None:
        raise InstantError(f"an instant needs an offset such as Z: {text[:64]!r}")
    return to_micros(moment)


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970 of an aware datetime."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def to_datetime(micros: int) -> datetime:
    """The aware UTC datetime of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=micros)


def format_instant(micros: int) -> str:
    """RFC 3339 in UTC with ``Z``; fractions only where there are any.

    >>> format_instant(0), format_instant(1_500_000)
    ('1970-01-01T00:00:00Z', '1970-01-01T00:00:01.500000Z')
    """
    return to_datetime(micros).isoformat().replace("+00:00", "Z")


def hour_of(micros: int) -> int:
    """The start of the UTC hour that holds this instant."""
    return micros - micros % HOUR
