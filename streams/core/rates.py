"""Token rates as exact integers: dollars per million tokens in, nanodollars out, one rounding per call.

Every set of rates has a scale of its own that holds all digits, so there is no rate that does not fit and no
rounding before the last step (docs/architecture.md, rule 3).
"""

from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from typing import NamedTuple

from schemas.events import UsageEvent

#: Of one dollar per million tokens, at least: 10^-15 dollars per token.
_PLACES_MIN = 9
#: Dollars per million tokens with n decimals are whole multiples of 10^-(n + 6) dollars per token.
_PLACES_OF_MTOK = 6
_PLACES_OF_NANOS = 9
#: The step that every call is above, even one without input tokens.
BASE = -1
_EXACT = Context(prec=80, rounding=ROUND_HALF_EVEN)


class PriceError(ValueError):
    """Usage that cannot be priced because it cannot have happened; the message says what contradicts what."""


class DollarRates(NamedTuple):
    """Dollars per million tokens, and dollars per request. None: no price of its own.

    Cached, reasoning and audio tokens without a price of their own are billed as what they are part of.
    """

    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_creation: Decimal | None = None
    reasoning: Decimal | None = None
    audio_input: Decimal | None = None
    #: Audio read from the cache.
    audio_cache_read: Decimal | None = None
    audio_output: Decimal | None = None
    per_request: Decimal | None = None

    def scaled(self, factor: Decimal) -> "DollarRates":
        """All rates times a factor, exactly: a discount or a surcharge."""
        return DollarRates(*(None if rate is None else _EXACT.multiply(rate, factor) for rate in self))


def divide_half_even(numerator: int, divisor: int) -> int:
    """The quotient of two integers, halves to the even one; the divisor is above zero.

    >>> divide_half_even(5, 2), divide_half_even(7, 2), divide_half_even(-5, 2), divide_half_even(-8, 3)
    (2, 4, -2, -3)
    """
    quotient, rest = divmod(numerator, divisor)
    rest *= 2
    if rest > divisor or (rest == divisor and quotient & 1):
        quotient += 1
    return quotient


def round_half_even(value: Fraction) -> int:
    """A fraction as the nearest integer, halves to the even one."""
    return divide_half_even(value.numerator, value.denominator)


class UnitRates:
    """Rates compiled for the hot path: whole units of ``1 / divisor`` nanodollars per token.

    Partial counts (cached, audio, reasoning) carry the *difference* to the rate of what they are part of, so
    that the common call is two products and one division.
    """

    __slots__ = (
        "audio_cached_more",
        "audio_input_more",
        "audio_output_more",
        "audio_written_more",
        "cache_creation_more",
        "cache_read_more",
        "divisor",
        "input",
        "is_plain",
        "is_simple",
        "output",
        "per_request",
        "prices_input",
        "prices_output",
        "reasoning_more",
    )

    def __init__(self, dollars: DollarRates) -> None:
        places = max([_PLACES_MIN, *(_decimal_places(rate) for rate in dollars if rate is not None)])
        self.divisor = 10 ** (places + _PLACES_OF_MTOK - _PLACES_OF_NANOS)

        def units(rate: Decimal | None, otherwise: int) -> int:
            return otherwise if rate is None else int(rate.scaleb(places, _EXACT))

        self.prices_input = dollars.input is not None
        self.prices_output = dollars.output is not None
        self.input = paid_in = units(dollars.input, 0)
        self.output = paid_out = units(dollars.output, 0)
        cached, written = units(dollars.cache_read, paid_in), units(dollars.cache_creation, paid_in)
        audio = units(dollars.audio_input, paid_in)
        self.cache_read_more = cached - paid_in
        self.cache_creation_more = written - paid_in
        self.audio_input_more = audio - paid_in
        #: Corrections for tokens that are audio and cached at once.
        self.audio_cached_more = units(dollars.audio_cache_read, cached) - cached - audio + paid_in
        self.audio_written_more = paid_in - audio
        self.reasoning_more = units(dollars.reasoning, paid_out) - paid_out
        self.audio_output_more = units(dollars.audio_output, paid_out) - paid_out
        self.per_request = units(dollars.per_request, 0) * 10**_PLACES_OF_MTOK
        self.is_plain = not (
            self.audio_input_more or self.audio_cached_more or self.reasoning_more or self.audio_output_more
        )
        #: Whether input, cached and output tokens all have a price and say it all.
        self.is_simple = self.is_plain and self.prices_input and self.prices_output

    def covers(self, event: UsageEvent) -> bool:
        """Whether all tokens of this call have a price; a model billed by the minute or page has none."""
        if event.input_tokens and not self.prices_input:
            return False
        if event.output_tokens and not self.prices_output:
            return False
        return self.prices_input or self.prices_output or self.per_request != 0

    def nanos(self, event: UsageEvent) -> int:
        """What a call costs, in nanodollars, rounded once, half to even.

        Raises:
            PriceError: parts exceed what they are part of, or a count is negative.
        """
        check_usage(event)
        units = (
            self.per_request
            + event.input_tokens * self.input
            + event.output_tokens * self.output
            + event.cache_read_input_tokens * self.cache_read_more
            + event.cache_creation_input_tokens * self.cache_creation_more
        )
        if not self.is_plain:
            units += self._special(event)
        return divide_half_even(units, self.divisor)

    def _special(self, event: UsageEvent) -> int:
        audio, cached = event.audio_input_tokens, event.cache_read_input_tokens
        # Nobody says how much of the audio was cached: as little as the counts allow.
        both = max(0, cached + event.cache_creation_input_tokens + audio - event.input_tokens)
        both_read = min(both, cached)
        reasoning, spoken = event.reasoning_output_tokens, event.audio_output_tokens
        return (
            audio * self.audio_input_more
            + both_read * self.audio_cached_more
            + (both - both_read) * self.audio_written_more
            + spoken * self.audio_output_more
            + (reasoning - max(0, reasoning + spoken - event.output_tokens)) * self.reasoning_more
        )


class FlatTerms(NamedTuple):
    """Rates that say all about a call's price while its time lies in ``[start, end)``, microseconds since 1970."""

    start: int
    end: int
    rates: UnitRates
    #: Calls with more input tokens than this are charged otherwise.
    long_from: int


class Tariff:
    """Rates by the size of the call: some models charge all tokens of a long prompt at a higher rate."""

    __slots__ = ("_steps", "base", "long_from")

    def __init__(self, steps: tuple[tuple[int, DollarRates], ...]) -> None:
        """``steps`` are ``(input tokens, rates above them)``, ascending; the first is ``BASE``."""
        compiled = tuple((over, UnitRates(dollars)) for over, dollars in steps)
        self.base = compiled[0][1]
        self._steps = tuple(reversed(compiled[1:]))
        #: Input tokens up to which ``base`` holds; None where it always does.
        self.long_from = compiled[1][0] if len(compiled) > 1 else None

    @classmethod
    def flat(cls, dollars: DollarRates) -> "Tariff":
        """The same rates for every size of call."""
        return cls(((BASE, dollars),))

    def rates(self, input_tokens: int) -> UnitRates:
        """The rates for a call with this many input tokens in total."""
        for over, rates in self._steps:
            if input_tokens > over:
                return rates
        return self.base


def check_usage(event: UsageEvent) -> None:
    """Refuse counts that contradict each other.

    Raises:
        PriceError: saying which count exceeds which, or which is negative.
    """
    sums = (
        (
            "cached",
            event.cache_read_input_tokens + event.cache_creation_input_tokens,
            "input",
            event.input_tokens,
        ),
        ("audio input", event.audio_input_tokens, "input", event.input_tokens),
        ("reasoning", event.reasoning_output_tokens, "output", event.output_tokens),
        ("audio output", event.audio_output_tokens, "output", event.output_tokens),
    )
    for part, count, whole, total in sums:
        if count > total:
            raise PriceError(f"{count} {part} tokens cannot be part of {total} {whole} tokens")
    if (
        min(
            event.cache_read_input_tokens,
            event.cache_creation_input_tokens,
            *(count for _, count, _, _ in sums),
        )
        < 0
    ):
        raise PriceError("a token count is negative; credits are bill lines")


def _decimal_places(rate: Decimal) -> int:
    exponent = rate.as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError(f"a rate is a finite number of dollars, not {rate}")
    return -exponent


#: For calls that cost nothing: answered by the gateway's cache, or by a model that is self-hosted.
FREE = UnitRates(DollarRates(input=Decimal(0), output=Decimal(0)))
