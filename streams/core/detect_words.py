"""The sentences of alerts: what a person reads first when woken. Numbers stay integers until they are
written.
"""

from schemas.instants import format_instant
from schemas.money import display_usd

UNATTRIBUTED = "__unattributed__"
SUMMARY_MAX = 1024
_NAME_MAX = 120


def scope_words(scope_type: str, scope_id: str) -> str:
    """The scope as the subject of a sentence.

    >>> scope_words("team", "search"), scope_words("team", "__unattributed__"), scope_words("feature", "")
    ('Team search', 'Spend without a team', 'Spend without a feature')
    """
    if scope_id in ("", UNATTRIBUTED):
        return f"Spend without a {scope_type}"
    return f"{scope_type.capitalize()} {clip(scope_id)}"


def times_words(ratio_percent: int | None) -> str:
    """A ratio for people, rounded down to tenths: nobody is woken by a number that is rounded up.

    >>> times_words(310), times_words(156), times_words(2_400), times_words(None)
    ('3.1×', '1.5×', '24×', '')
    """
    if ratio_percent is None:
        return ""
    if ratio_percent >= 1_000:
        return f"{ratio_percent // 100:,}×"
    return f"{ratio_percent // 100}.{ratio_percent % 100 // 10}×"


def against_words(expected_nanos: int, ratio_percent: int | None) -> str:
    """What was expected, as the second half of a sentence.

    >>> against_words(27_100_000_000, 310), against_words(0, None)
    ('3.1× the expected $27.10', 'where nothing was expected')
    """
    if ratio_percent is None:
        return "where nothing was expected"
    return f"{times_words(ratio_percent)} the expected {display_usd(expected_nanos)}"


def hour_words(hour: int) -> str:
    """An hour that is over.

    >>> hour_words(1_800_000_000_000_000 // 3_600_000_000 * 3_600_000_000)
    'in the hour from 2027-01-15 08:00 UTC'
    """
    return f"in the hour from {format_instant(hour)[:16].replace('T', ' ')} UTC"


def percent_words(millionths: int) -> str:
    """A share in percent with one decimal, rounded down.

    >>> percent_words(32_999), percent_words(0)
    ('3.2', '0.0')
    """
    tenths = millionths // 1_000
    return f"{tenths // 10}.{tenths % 10}"


def clip(text: str, length: int = _NAME_MAX) -> str:
    """A name from outside, on one line and bounded.

    >>> clip("a\\nb"), clip("abcdef", 4)
    ('a b', 'abc…')
    """
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def explained(finding: str) -> str:
    """The last word on what people have explained.

    >>> explained("Team search spends $60.00")
    'Normal here or planned, as was answered: Team search spends $60.00'
    """
    return f"Normal here or planned, as was answered: {finding}"[:SUMMARY_MAX]
