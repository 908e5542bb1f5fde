"""Why an hour cost more than it should have: an excess split exactly into what drove it.

What models cost is taken apart into factors: how many calls, which models they went to, how many tokens each took, how
much of that was served from caches, and what a token then cost. The factors of the hour before are exchanged for those
of the hour after, one after the other in this order, and what the cost changes by at each exchange is that factor's
part. So parts add up to the excess by construction, and where one factor alone changed it has all of it. What several
factors do together goes to the later one.

A token's weight is its price in relation to that of an uncached input token of the same model. Where nobody knows
prices, what most models ask for is assumed: a wrong weight moves money between ``tokens``, ``cache`` and ``price``, and
never out of the sum.

All arithmetic is in fractions; parts are rounded where they are cut, so that they add up to the nanodollar.
"""

from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from schemas.alerts import Driver, Drivers
from schemas.money import format_usd


class Usage(NamedTuple):
    """What calls of one model amount to in an hour. GPUs have none, and ``units`` says how much they were used."""

    requests: int = 0
    #: Of those the calls that a response cache answered.
    cache_hits: int = 0
    input_tokens: int = 0
    #: Of those the ones that were read from a prompt cache.
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_nanos: int = 0
    #: Of what is not asked call by call: GPU-milliseconds.
    units: int = 0


class Weights(NamedTuple):
    """What tokens cost in relation to an uncached input token."""

    cached: Fraction = Fraction(1, 10)
    output: Fraction = Fraction(4)


class Parts(NamedTuple):
    """The parts of an excess, in nanodollars; they add up to it."""

    volume: int = 0
    model_mix: int = 0
    tokens_per_request: int = 0
    cache: int = 0
    price: int = 0


class Contribution(NamedTuple):
    """By how much one team, feature, model or key changed."""

    kind: str
    name: str
    nanos: int


USUAL = Weights()
_ONE = Fraction(1)


class _Factors(NamedTuple):
    """One model's calls, taken apart."""

    #: Of all calls, those that went to it.
    share: Fraction
    input: Fraction
    output: Fraction
    #: Of the input tokens, those from a prompt cache.
    cached: Fraction
    #: Of its calls, those that a response cache did not answer.
    paid: Fraction
    #: Nanodollars of a weighted token (of a call that takes none); None where no call was paid for.
    price: Fraction | None


def split(
    before: Mapping[str, Usage], after: Mapping[str, Usage], weights: Mapping[str, Weights] | None = None
) -> Parts:
    """Split what ``after`` cost more than ``before`` (or less), both by model.

    The parts add up to the difference of the two costs, to the nanodollar.

    >>> split({"gpt-4o": Usage(10, 0, 1_000, 0, 100, 700)}, {"gpt-4o": Usage(30, 0, 3_000, 0, 300, 2_100)})
    Parts(volume=1400, model_mix=0, tokens_per_request=0, cache=0, price=0)
    """
    return _split(_fractions(before), _fractions(after), weights or {})


def split_against(
    expected_nanos: int,
    before: Mapping[str, Usage],
    after: Mapping[str, Usage],
    weights: Mapping[str, Weights] | None = None,
) -> Parts:
    """Split what ``after`` cost more than was expected. ``before`` says what the expected calls are like: an hour that
    is typical, at its own mix, tokens and prices, with as many calls as make it cost what was expected.
    """
    cost = sum(usage.cost_nanos for usage in before.values())
    if cost <= 0 or expected_nanos < 0:
        return Parts(volume=sum(usage.cost_nanos for usage in after.values()) - expected_nanos)
    scale = Fraction(expected_nanos, cost)
    scaled = {model: [number * scale for number in numbers] for model, numbers in _fractions(before).items()}
    return _split(scaled, _fractions(after), weights or {})


def contributions(
    before: Mapping[tuple[str, str], int], after: Mapping[tuple[str, str], int], scale: Fraction = _ONE, most: int = 3
) -> list[Contribution]:
    """By whom the excess came: for each kind those that cost most more than before, the largest first.

    Args:
        before: nanodollars by (kind, name), such as ``("team", "search")``.
        scale: by what ``before`` is multiplied to be what was expected.
        most: so many of each kind; only who costs more is named.
    """
    found: dict[str, list[Contribution]] = {}
    for kind, name in sorted(before.keys() | after.keys()):
        more = after.get((kind, name), 0) - round(before.get((kind, name), 0) * scale)
        if more > 0:
            found.setdefault(kind, []).append(Contribution(kind, name, more))
    largest = [sorted(each, key=lambda one: (-one.nanos, one.name))[:most] for each in found.values()]
    return sorted((one for each in largest for one in each), key=lambda one: (-one.nanos, one.kind, one.name))


def told(parts: Parts, by: list[Contribution]) -> Drivers:
    """The drivers as an alert tells them, in dollars."""
    return Drivers(
        volume=format_usd(parts.volume),
        model_mix=format_usd(parts.model_mix),
        tokens_per_request=format_usd(parts.tokens_per_request),
        cache=format_usd(parts.cache),
        price=format_usd(parts.price),
        by=[Driver(one.kind, one.name, format_usd(one.nanos)) for one in by],
    )


def main_cause(parts: Parts) -> str:
    """The largest part in words, where it is most of the excess; else nothing.

    >>> main_cause(Parts(volume=10, price=90)), main_cause(Parts(volume=40, model_mix=30, price=30))
    ('a higher price per token', '')
    """
    name, nanos = max(zip(Parts._fields, parts, strict=True), key=lambda item: item[1])
    return _WORDS[name] if nanos * 2 > sum(parts) > 0 else ""


_WORDS = {
    "volume": "more requests",
    "model_mix": "dearer models",
    "tokens_per_request": "more tokens per request",
    "cache": "fewer cache hits",
    "price": "a higher price per token",
}


def _fractions(usages: Mapping[str, Usage]) -> dict[str, list[Fraction]]:
    return {model: [Fraction(number) for number in usage] for model, usage in usages.items()}


def _split(
    before: Mapping[str, list[Fraction]], after: Mapping[str, list[Fraction]], weights: Mapping[str, Weights]
) -> Parts:
    steps = [_metered(before, after, weights), _used(before, after)]
    # Rounded where they are cut: what one part gains so, its neighbour loses.
    cuts = [round(sum(each)) for each in zip(*steps, strict=True)]
    return Parts(*(later - earlier for earlier, later in pairwise(cuts)))


def _metered(
    before: Mapping[str, list[Fraction]], after: Mapping[str, list[Fraction]], weights: Mapping[str, Weights]
) -> list[Fraction]:
    """What calls cost with the factors of before, and with one more of those of after at a time."""
    old = {model: numbers for model, numbers in before.items() if numbers[0]}
    new = {model: numbers for model, numbers in after.items() if numbers[0]}
    calls_old, calls_new = _sum(old, 0), _sum(new, 0)
    cost_old, cost_new = _sum(old, 5), _sum(new, 5)
    if not calls_old or not calls_new:
        return [cost_old, *[cost_new] * 5]
    was = {model: _factors(numbers, calls_old, weights.get(model, USUAL)) for model, numbers in old.items()}
    is_ = {model: _factors(numbers, calls_new, weights.get(model, USUAL)) for model, numbers in new.items()}
    found = [cost_old, cost_old * calls_new / calls_old]
    stages = [{"share"}, {"share", "input", "output"}, {"share", "input", "output", "cached", "paid"}]
    for names in stages:
        total = Fraction()
        for model, now in is_.items():
            then = was.get(model)
            if then is None or bool(then.input + then.output) != bool(now.input + now.output):
                # What nobody used before, or not so, has no other tokens, caches and prices than its own.
                then = now
            mixed = then._replace(**{name: getattr(now, name) for name in names})
            price = now.price if then.price is None else then.price
            total += calls_new * _weight(mixed, weights.get(model, USUAL)) * (price or 0)
        found.append(total)
    return [*found, cost_new]


def _factors(numbers: list[Fraction], calls: Fraction, weights: Weights) -> _Factors:
    requests, hits, input_, cached, output, cost, _ = numbers
    found = _Factors(
        requests / calls,
        input_ / requests,
        output / requests,
        cached / input_ if input_ else Fraction(),
        # Where all were answered from a cache and cost something all the same, hits tell nothing.
        _ONE if cost and hits == requests else (requests - hits) / requests,
        None,
    )
    weight = _weight(found, weights)
    return found._replace(price=cost / calls / weight) if weight else found


def _weight(factors: _Factors, weights: Weights) -> Fraction:
    """The weighted tokens of one call among all."""
    tokens = factors.input * (1 - factors.cached + factors.cached * weights.cached) + factors.output * weights.output
    return factors.share * factors.paid * (tokens or _ONE)


def _sum(usages: Mapping[str, list[Fraction]], place: int) -> Fraction:
    return sum((numbers[place] for numbers in usages.values()), Fraction())


def _used(before: Mapping[str, list[Fraction]], after: Mapping[str, list[Fraction]]) -> list[Fraction]:
    """The same of what has no calls: more of it is volume, and all else its price."""
    old = {model: numbers for model, numbers in before.items() if not numbers[0]}
    new = {model: numbers for model, numbers in after.items() if not numbers[0]}
    cost_old, cost_new = _sum(old, 5), _sum(new, 5)
    used = cost_new
    for model, numbers in new.items():
        then = old.get(model)
        if then is not None and then[6] and numbers[6]:
            used += then[5] / then[6] * numbers[6] - numbers[5]
    return [cost_old, used, used, used, used, cost_new]
