"""The rhythm of a source: for how long it is usually silent from this time of the week on.

What is known of a source is in which minutes it was heard, for up to a fortnight. A silence that began at some minute
is compared with what came after the same time of day on the days before: the longest pause that began within an hour of
it, or what was left of the pause that it fell into. So a gateway that rests every night, and from Friday to Monday, is
missed at none of these times, and within the floor at noon.
"""

import re
from collections.abc import Mapping

DAY_MINUTES = 1_440
#: How far back a rhythm is learned from, in days; what is older is deleted.
LEARNED_DAYS = 14
#: A source that was heard in fewer minutes has no rhythm yet.
MINUTES_MIN = 10
#: Silences that begin within so many minutes of the same time of day are compared.
NEAR = 60
#: So much longer than usual may it be silent at most, in minutes, and half as long again at most.
GRACE_MAX = 60
NAME_MAX = 200
#: What instances of one program differ in: the ends that Kubernetes gives its pods, UUIDs, long numbers, ports.
_INSTANCE = re.compile(
    r"[-_./:](?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|[0-9a-f]{8,10}-[bcdfghjklmnpqrstvwxz2456789]{5}"
    r"|(?=[0-9a-z]*[0-9])(?=[0-9a-z]*[a-z])[bcdfghjklmnpqrstvwxz2456789]{5}"
    r"|[0-9a-f]{12,64}|[0-9]{4,})(?=$|[/?#])"
)


def source_name(source: str) -> str:
    """The name under which a source is known: without what tells its short-lived instances apart.

    >>> source_name("//gateway/litellm/proxy-7d9c6b5f4d-x2v9z"), source_name("//gateway/edge-eu-1")
    ('//gateway/litellm/proxy-*', '//gateway/edge-eu-1')
    >>> source_name("//jobs/0b0e6a34-1e5c-4f8a-9d2f-2f6f1f0c9b11"), source_name("http://10.0.0.7:9400/metrics")
    ('//jobs/*', 'http://10.0.0.7:*/metrics')
    """
    return _INSTANCE.sub(lambda found: found[0][0] + "*", source)[:NAME_MAX]


def first_heard(days: Mapping[int, int]) -> int | None:
    """The first minute since 1970 in which it was heard."""
    known = [day for day, mask in days.items() if mask]
    return None if not known else min(known) * DAY_MINUTES + _lowest(days[min(known)])


def last_heard(days: Mapping[int, int]) -> int | None:
    """The last minute since 1970 in which it was heard.

    >>> last_heard({20_000: 0b1001, 20_001: 0}) == 20_000 * 1_440 + 3, last_heard({})
    (True, None)
    """
    known = [day for day, mask in days.items() if mask]
    return None if not known else max(known) * DAY_MINUTES + days[max(known)].bit_length() - 1


def usual_pause(days: Mapping[int, int]) -> int | None:
    """For how many minutes it usually pauses after a last word at this time of the week.

    None where that is not known: it was heard for less than a day, or in too few minutes.
    """
    since, known_from = last_heard(days), first_heard(days)
    if since is None or known_from is None or sum(mask.bit_count() for mask in days.values()) < MINUTES_MIN:
        return None
    pauses: dict[int, int] = {}
    for back in range(1, LEARNED_DAYS + 1):
        then = since - back * DAY_MINUTES
        if then >= known_from:
            pauses[back] = _pause_at(days, then)
    if not pauses:
        return None
    same_weekday = [pauses[back] for back in (7, 14) if back in pauses]
    if not same_weekday:
        # It has not been here for a week: what it did on any day may be what it does on this one.
        return max(pauses.values())
    is_weekend = _is_weekend(since)
    alike = sorted(pause for back, pause in pauses.items() if _is_weekend(since - back * DAY_MINUTES) is is_weekend)
    return max(min(same_weekday), alike[-(-len(alike) * 8 // 10) - 1])


def allowed_pause(days: Mapping[int, int], floor: int) -> int | None:
    """For how many minutes it may be silent before it is missed; None where no rhythm is known.

    >>> noon = {day: (1 << 1_440) - 1 for day in range(20_000, 20_010)}
    >>> allowed_pause(noon, 15)
    15
    """
    usual = usual_pause(days)
    return None if usual is None else max(floor, usual + min(usual // 2, GRACE_MAX))


def _pause_at(days: Mapping[int, int], minute: int) -> int:
    """The longest pause that begins near a minute; else what is left then of the pause that it lies in."""
    first = minute - NEAR
    day, place = divmod(first, DAY_MINUTES)
    near = (days.get(day, 0) | days.get(day + 1, 0) << DAY_MINUTES) >> place & (1 << 2 * NEAR + 1) - 1
    if not near:
        return _next(days, minute) - minute
    # Minutes between two in which it was heard are a run of zeros; the last one's pause ends beyond.
    within = max(map(len, f"{near:b}".rstrip("0").split("1")))
    last = first + near.bit_length() - 1
    return max(within + 1, _next(days, last) - last)


def _next(days: Mapping[int, int], minute: int) -> int:
    """The first minute after one in which it was heard; there is one."""
    day, place = divmod(minute + 1, DAY_MINUTES)
    rest = days.get(day, 0) >> place
    if rest:
        return minute + 1 + _lowest(rest)
    later = min((found for found, mask in days.items() if mask and found > day), default=day + LEARNED_DAYS)
    return later * DAY_MINUTES + _lowest(days.get(later, 1))


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _is_weekend(minute: int) -> bool:
    """Saturday or Sunday in UTC; 1970 began on a Thursday."""
    return (minute // DAY_MINUTES + 3) % 7 >= 5
