"""The habits of an hour that are looked at together, and how people hear of them."""

from typing import NamedTuple

from detectors.multivariate import HourVector, MultivariateScore, Part
from schemas.instants import HOUR
from schemas.money import NANOS, display_usd
from streams.core import detect_words as words
from streams.core.detect_regime_ratios import REQUESTS_MIN, HourTotals

_MILLION = 10**6
#: A number that is so many usual deviations off is named, in thousandths; at most so many are.
NAMED_FROM, NAMED_MAX = 2_000, 4


class Habit(NamedTuple):
    """One number of an hour."""

    name: str
    words: str
    unit: str


HABITS = (
    Habit("requests", "requests", "requests"),
    Habit("cost", "cost", "USD"),
    Habit("tokens_per_request", "tokens for a request", "tokens"),
    Habit("output_ratio", "output for a token of input", "tokens"),
    Habit("cached_input", "cached input", "share"),
    Habit("error_rate", "failing requests", "share"),
    Habit("price", "a million tokens", "USD"),
)
COST = [habit.name for habit in HABITS].index("cost")


def vector_of(hour: int, totals: HourTotals) -> HourVector:
    """An hour as its detector reads it, in the order of ``HABITS``; of too few requests a hole.

    >>> vector_of(0, HourTotals(requests=100, input_tokens=50_000, output_tokens=10_000, cost_nanos=3_000_000_000)).rest
    (3.0, 600.0, 0.2, 0.0, 0.0, 50.0)
    >>> vector_of(0, HourTotals(requests=3)).value is None
    True
    """
    if totals.requests < REQUESTS_MIN:
        return HourVector(hour, hour + HOUR, None)
    tokens, usd = totals.input_tokens + totals.output_tokens, totals.cost_nanos / NANOS
    return HourVector(
        hour,
        hour + HOUR,
        totals.requests,
        (
            usd if usd > 0 else None,
            tokens / totals.requests if tokens > 0 else None,
            _part(totals.output_tokens, totals.input_tokens),
            _part(totals.cached_tokens, totals.input_tokens),
            _part(totals.errors, totals.requests),
            usd * _MILLION / tokens if tokens > 0 and usd > 0 else None,
        ),
    )


def _part(part: int, whole: int) -> float | None:
    return part / whole if whole > 0 and part >= 0 else None


def direction(part: Part) -> str:
    """Which way a number is off."""
    return "up" if part.deviation >= 0 else "down"


def sizes(part: Part) -> tuple[int, ...]:
    """To how many thousandths a number has come, or from."""
    low, high = sorted((max(1, part.observed), max(1, part.expected)))
    return (high * 1_000 // low,)


def said_of(score: MultivariateScore) -> str:
    """The numbers that are farthest from usual, in a line.

    >>> parts = Part(0, 9_000, 4_000_000_000, 1_000_000_000), Part(5, 500, 9, 9)
    >>> said_of(MultivariateScore(0, 0, 0, None, 1_200, parts))
    'requests 4,000 and not 1,000 (4.0×)'
    """
    far = [part for part in score.parts if abs(part.deviation) >= NAMED_FROM] or list(score.parts[:1])
    named = [_number_words(part) for part in far[:NAMED_MAX]]
    return ", ".join(named[:-1]) + (" and " if len(named) > 1 else "") + named[-1]


def _number_words(part: Part) -> str:
    habit = HABITS[part.place]
    seen, usual = figure(habit, part.observed), figure(habit, part.expected)
    times = words.times_words(part.observed * 100 // part.expected) if part.expected > 0 else ""
    is_told = times and habit.unit != "share"
    return f"{habit.words} {seen} and not {usual}" + (f" ({times})" if is_told else "")


def figure(habit: Habit, millionths: int) -> str:
    """A number for people.

    >>> [figure(HABITS[place], 1_234_500_000) for place in (0, 1, 2)], figure(HABITS[5], 32_999)
    (['1,234', '$1,234.50', '1,234'], '3.2 %')
    """
    if habit.unit == "share":
        return f"{words.percent_words(millionths)} %"
    if habit.unit == "USD":
        return display_usd(millionths * (NANOS // _MILLION))
    return f"{millionths // _MILLION:,}" if millionths >= 10 * _MILLION else f"{millionths / _MILLION:.2f}"
