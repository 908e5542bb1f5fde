"""The ratios of an hour in which habits show, and what a change of each costs."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from detectors.regime_change import RegimeScore
from schemas.money import display_usd
from schemas.statements import HourStatement
from streams.core import detect_words as words

Direction = Literal["up", "down"]
#: Models of which the usual shares are kept; the rest is one.
MODELS_KEPT = 8
OTHERS = "(others)"
#: An hour of fewer requests says nothing about a ratio.
REQUESTS_MIN = 50
#: Cached tokens cost about a quarter of what others do, and so much more is paid for what is not cached any more.
_UNCACHED = 0.75
_MILLION = 10**6


class HourTotals(msgspec.Struct, frozen=True, kw_only=True):
    """What a scope did in one UTC hour. ``input_tokens`` includes ``cached_tokens``; money is nanodollars."""

    requests: int
    errors: int = 0
    cache_hits: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_nanos: int = 0
    #: Nanodollars by model; may leave out small ones.
    models: Mapping[str, int] = {}


def totals_of(statement: HourStatement) -> HourTotals:
    """A part of an hour as ROLLUP states it."""
    of = statement.figures
    return HourTotals(
        requests=of.requests,
        errors=of.errors,
        cache_hits=of.cache_hits,
        input_tokens=of.input_tokens,
        cached_tokens=of.cached_tokens,
        output_tokens=of.output_tokens,
        cost_nanos=of.cost_nanos,
        models={name: figures.cost_nanos for name, figures in statement.models.items()},
    )


def summed(parts: Iterable[HourTotals]) -> HourTotals:
    """An hour over all partitions."""
    found = list(parts)
    models: dict[str, int] = {}
    for part in found:
        for model, nanos in part.models.items():
            models[model] = models.get(model, 0) + nanos
    numbers = {
        name: sum(getattr(part, name) for part in found) for name in HourTotals.__struct_fields__ if name != "models"
    }
    return HourTotals(**numbers, models=models)


class Ratio(NamedTuple):
    """One habit: how it is read, which way is bad, how it is called, and what a change costs in parts of the spend."""

    of: Callable[[HourTotals], float | None]
    bad: Direction
    words: str
    unit: str
    #: From what is observed and what was expected.
    waste: Callable[[float, float], float]


def _part(part: int, whole: int) -> float | None:
    return part / whole if whole > 0 and part >= 0 else None


def _per_million(totals: HourTotals) -> float | None:
    """Dollars per million tokens."""
    tokens = totals.input_tokens + totals.output_tokens
    return totals.cost_nanos / 1_000 / tokens if tokens > 0 and totals.cost_nanos > 0 else None


def _rise(observed: float, expected: float) -> float:
    return max(0.0, 1 - expected / observed) if observed > 0 else 0.0


def _difference(observed: float, expected: float) -> float:
    return min(1.0, abs(observed - expected))


#: The mix of models is a ratio as well, but against shares that are learned: ``moved``.
RATIOS: Mapping[str, Ratio] = {
    "cached_input": Ratio(
        lambda t: _part(t.cached_tokens, t.input_tokens),
        "down", "Of its input, cached", "share", lambda seen, usual: _UNCACHED * _difference(seen, usual),
    ),
    "cache_hits": Ratio(
        lambda t: _part(t.cache_hits, t.requests), "down", "Of its requests, met by the cache", "share", _difference,
    ),
    "output_ratio": Ratio(
        lambda t: _part(t.output_tokens, t.input_tokens), "up", "Output for a token of input", "tokens", _rise,
    ),
    "price": Ratio(_per_million, "up", "A million tokens", "USD", _rise),
    "error_rate": Ratio(lambda t: _part(t.errors, t.requests), "up", "Of its requests, failing", "share", _difference),
    "tokens_per_success": Ratio(
        lambda t: _part((t.input_tokens + t.output_tokens), t.requests - t.errors),
        "up", "Tokens for a success", "tokens", _rise,
    ),
    "model_mix": Ratio(lambda _: None, "up", "Of its spend, moved to other models", "share", _difference),
}  # fmt: skip


def shares_of(models: Mapping[str, int]) -> dict[str, float]:
    """What part of the money each model has.

    >>> shares_of({"large": 3, "small": 1, "free": 0})
    {'large': 0.75, 'small': 0.25}
    """
    whole = sum(nanos for nanos in models.values() if nanos > 0)
    return {model: nanos / whole for model, nanos in models.items() if nanos > 0}


def moved(now: Mapping[str, float], usual: Mapping[str, float]) -> tuple[float, str]:
    """The part of the money that went to other models than usual, and the model that gained most.

    >>> moved({"large": 0.75, "small": 0.25}, {"large": 0.25, "small": 0.75})
    (0.5, 'large')
    """
    gains = {model: share - usual.get(model, 0.0) for model, share in now.items()}
    gained = sum(gain for gain in gains.values() if gain > 0)
    return gained, max(gains, key=lambda model: (gains[model], model), default="")


def blended(usual: Mapping[str, float], now: Mapping[str, float], weight: float) -> dict[str, float]:
    """The usual shares with an hour counted in; the smallest are put together."""
    if not usual:
        found = dict(now)
    else:
        models = {*usual, *now}
        found = {m: usual.get(m, 0.0) + weight * (now.get(m, 0.0) - usual.get(m, 0.0)) for m in sorted(models)}
    order = sorted(found, key=lambda model: (-found[model], model))
    kept = {model: round(found[model], 6) for model in order[:MODELS_KEPT] if model != OTHERS and found[model] > 1e-4}
    rest = round(sum(found.values()) - sum(kept.values()), 6)
    return kept | ({OTHERS: rest} if rest > 1e-4 else {})


def plain(millionths: int) -> str:
    """A ratio as a decimal number, to four places.

    >>> plain(612_340), plain(25_000_000)
    ('0.6123', '25')
    """
    return f"{millionths / _MILLION:.4f}".rstrip("0").rstrip(".")


def figure(name: str, millionths: int) -> str:
    """A ratio for people.

    >>> figure("error_rate", 32_999), figure("price", 2_512_345), figure("tokens_per_success", 1_200_000_000)
    ('3.2 %', '$2.51', '1,200')
    """
    unit = RATIOS[name].unit
    if unit == "share":
        return f"{words.percent_words(millionths)} %"
    if unit == "USD":
        return display_usd(millionths * 1_000)
    return f"{millionths // _MILLION:,}" if millionths >= 10 * _MILLION else f"{millionths / _MILLION:.2f}"


def teaches(scope: str, name: str, score: RegimeScore) -> str:
    """What learns from an answer to a change: this ratio of this scope, in this direction."""
    return f"regime_change|{scope}|{name}|{score.direction}"


def sizes(score: RegimeScore) -> tuple[int, ...]:
    """To how many thousandths a ratio has come, or from: what that costs follows the day, and is no habit."""
    low, high = sorted((max(1, score.observed), max(1, score.expected or 0)))
    return (high * 1_000 // low,)
