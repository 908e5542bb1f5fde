"""What usage costs: the operator's contract first, then the catalogue, then the gateway's own figure.

Pure and exact: prices are those of the event's own time, money is integer nanodollars, and each event is
rounded once, half to even. Memos make it fast and change nothing about the result; they are bounded, since
anybody can invent model names. ``docs/prices.md`` tells operators the same in words.
"""

import re
from bisect import bisect_right
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import NamedTuple

from schemas.events import BillingRecord, GpuSample, UsageEvent
from schemas.instants import DAY
from schemas.keys import digest
from schemas.money import NANOS, MoneyError, parse_nanos
from streams.core.bills import bill_category, source_of_record
from streams.core.catalogue import Boundaries, Catalogue, ListedModel, provider_id, standard_tier
from streams.core.rate_card import ModelLine, RateCard, in_force
from streams.core.rates import FREE, FlatTerms, PriceError, Tariff, round_half_even

#: A changed way of pricing is a new version, so that totals priced differently are told apart.
_METHOD = "1"
_KNOWN_MAX = 16_384
_STRANGERS_MAX = 4_096
#: Longer names are no model's and are not remembered.
_NAME_LENGTH_MAX = 256
_SLICE = re.compile(r"(\d)g\.\d+gb", re.IGNORECASE)
_ALWAYS = 1 << 62
_AMOUNT_MAX = 10**12
_DECIMALS_MAX = 60
_Key = tuple[str, str, str]


class Basis(StrEnum):
    """On what ground a price stands."""

    CONTRACT = "contract"
    CATALOGUE = "catalogue"
    #: The gateway's own figure, for want of a price: an estimate.
    REPORTED = "reported"
    #: Tokens of self-hosted models: they allocate GPU money and never add to it (rule 7).
    ALLOCATED = "allocated"
    #: No price is known: zero money, counted and reported, never silently free.
    UNPRICED = "unpriced"
    #: A line of a bill.
    BILLED = "billed"
    #: Nothing was bought: the gateway's cache answered, or the call failed before any token.
    NO_CHARGE = "no_charge"


class UnknownCurrency(PriceError):
    """An amount in a currency for which the rate card has no rate at that time."""


class Priced(NamedTuple):
    """An amount of nanodollars and the ground it stands on."""

    nanos: int
    basis: Basis


#: What ``Priced(...)`` calls in the end; half the time.
_new = tuple.__new__
_NO_CHARGE = Priced(0, Basis.NO_CHARGE)
_ALLOCATED = Priced(0, Basis.ALLOCATED)
_UNPRICED = Priced(0, Basis.UNPRICED)


class _Ground(NamedTuple):
    basis: Basis
    tariff: Tariff


class _Offer:
    """What one (provider, model, tier) costs over time; ``grounds`` hold from ``start`` to ``end``."""

    __slots__ = (
        "_grounds",
        "_lines",
        "_listed",
        "_sure",
        "_tier",
        "_when",
        "end",
        "first",
        "grounds",
        "is_own",
        "start",
    )

    def __init__(self, is_own: bool, lines: tuple[ModelLine, ...], listed: ListedModel | None, tier: str) -> None:
        self.is_own = is_own
        self._lines, self._listed, self._tier = lines, listed, tier
        dated = listed.boundaries() if listed else Boundaries()
        days = tuple(sorted({*dated.days, *(line.starts for line in lines)}))
        self._when, self._sure = (days, dated.times), dated.is_known
        self._grounds: dict[tuple[int, int], tuple[_Ground, ...]] = {}
        self.start, self.end = 0, 0
        self.grounds: tuple[_Ground, ...] = ()
        self.first: _Ground | None = None

    @property
    def is_known(self) -> bool:
        """Whether anything but the gateway's figure can price it."""
        return self.is_own or bool(self._lines) or self._listed is not None

    def move(self, instant: int) -> None:
        """Make the grounds of an instant the present ones, and say for how long they hold."""
        days, times = self._when
        if not self._sure:
            self.start, self.end = instant, instant + 1
            self.grounds = self._at(instant)
        else:
            day = bisect_right(days, instant)
            start = days[day - 1] if day else -_ALWAYS
            end = days[day] if day < len(days) else _ALWAYS
            part = 0
            if times:
                midnight = instant - instant % DAY
                part = bisect_right(times, instant - midnight)
                start = max(start, midnight + (times[part - 1] if part else 0))
                end = min(end, midnight + (times[part] if part < len(times) else DAY))
            grounds = self._grounds.get((day, part))
            if grounds is None:
                grounds = self._grounds[(day, part)] = self._at(instant)
            self.start, self.end, self.grounds = start, end, grounds
        self.first = self.grounds[0] if self.grounds else None

    def _at(self, instant: int) -> tuple[_Ground, ...]:
        line = in_force(self._lines, instant)
        steps = self._listed.steps_at(instant, self._tier) if self._listed else None
        grounds = []
        if line is not None:
            rates = line.rates
            if rates is not None:
                grounds.append(_Ground(Basis.CONTRACT, Tariff.flat(rates)))
            elif steps is not None:
                factor = line.factor
                discounted = tuple((over, dollars.scaled(factor)) for over, dollars in steps)
                grounds.append(_Ground(Basis.CONTRACT, Tariff(discounted)))
        if steps is not None:
            grounds.append(_Ground(Basis.CATALOGUE, Tariff(steps)))
        return tuple(grounds)


class PriceBook:
    """Prices of calls, GPUs and bill lines under one rate card and one catalogue.

    ``version`` is a digest of the rate card's content (not its comments), the self-hosted providers, the
    catalogue's version and the method: equal versions price equally.
    """

    def __init__(
        self, card: RateCard, self_hosted: frozenset[str] = frozenset(), catalogue: Catalogue | None = None
    ) -> None:
        self._card = card
        self._self_hosted = frozenset(provider_id(name) for name in self_hosted)
        self._catalogue = catalogue or Catalogue()
        self._known: dict[_Key, _Offer] = {}
        self._strangers: dict[_Key, _Offer] = {}
        names = "\n".join(sorted(self._self_hosted))
        self.version = digest("prices", _METHOD, self._catalogue.version, names, card.model_dump_json())

    @property
    def remembered(self) -> int:
        """How many (provider, model, tier) the memos hold."""
        return len(self._known) + len(self._strangers)

    def price_usage(self, event: UsageEvent, event_time: int) -> Priced:
        """What a call cost at its own time (microseconds since 1970).

        Raises:
            PriceError: the token counts contradict each other.
        """
        model = event.response_model or event.request_model
        offer = self._known.get((event.provider, model, event.service_tier))
        if offer is None:
            offer = self._offer(event.provider, model, event.service_tier)
        if event_time >= offer.end or event_time < offer.start:
            offer.move(event_time)
        ground = offer.first
        if ground is None or event.cache_hit or event.status != "success":
            return self._unusual(event, event_time, offer)
        tariff = ground.tariff
        paid_in, paid_out = event.input_tokens, event.output_tokens
        rates = tariff.base
        if tariff.long_from is not None and paid_in > tariff.long_from:
            rates = tariff.rates(paid_in)
        if not rates.is_simple:
            return self._unusual(event, event_time, offer)
        # The sum of UnitRates.nanos, written out: this is the hot path, and a test holds the two together.
        units = rates.per_request + paid_in * rates.input + paid_out * rates.output
        cached, written = event.cache_read_input_tokens, event.cache_creation_input_tokens
        if cached or written:
            if cached + written > paid_in or cached < 0 or written < 0:
                raise PriceError(f"{cached + written} cached tokens cannot be part of {paid_in} input tokens")
            units += cached * rates.cache_read_more + written * rates.cache_creation_more
        if paid_in < 0 or paid_out < 0:
            raise PriceError("a token count is negative; credits are bill lines")
        divisor = rates.divisor
        nanos = units // divisor
        rest = (units - nanos * divisor) * 2
        if rest > divisor or (rest == divisor and nanos & 1):
            nanos += 1
        return _new(Priced, (nanos, ground.basis))

    def flat_terms(self, event: UsageEvent, event_time: int) -> FlatTerms | None:
        """The rates that price every call with the attributes of this one, and how long they hold; None: price each.

        What they give equals ``price_usage`` for calls without reasoning and audio tokens, and for all calls where the
        rates are plain. A call that failed pays for its tokens, and nothing where it has none.
        """
        if event.cache_hit:
            return FlatTerms(-_ALWAYS, _ALWAYS, FREE, _ALWAYS)
        key = (event.provider, event.model, event.service_tier)
        offer = self._known.get(key) or self._offer(*key)
        if offer.is_own:
            return FlatTerms(-_ALWAYS, _ALWAYS, FREE, _ALWAYS)
        if event_time >= offer.end or event_time < offer.start:
            offer.move(event_time)
        if offer.first is None:
            return None
        base = offer.first.tariff.base
        if not (base.prices_input and base.prices_output):
            return None
        # An estimate stands on each call's own figure, so contract and catalogue are all that can be flat.
        tariff = offer.first.tariff
        if event.status != "success" and base.per_request:
            return None
        return FlatTerms(offer.start, offer.end, base, _ALWAYS if tariff.long_from is None else tariff.long_from)

    def price_gpu(self, sample: GpuSample, event_time: int) -> Priced:
        """What one GPU, or a pod's share of it, cost over its window: allocated time at the hourly price.

        A MIG slice without a price of its own pays its compute slices' part of the whole GPU.

        Raises:
            PriceError: the allocated time is negative or no believable number, or nobody shares the GPU.
        """
        seconds = _exact(sample.allocated_seconds, "allocated_seconds")
        if seconds < 0 or sample.shared_by < 1:
            raise PriceError("allocated_seconds is at least 0 and shared_by at least 1")
        lines = [line for line in self._card.gpus if line.matches(sample.model, sample.mig_profile)]
        line = in_force(lines, event_time)
        if line is None:
            return _UNPRICED
        share = Fraction(1) if line.mig_profile is not None else _share(sample)
        dollars = seconds * Fraction(line.usd_per_hour) * share / (3600 * sample.shared_by)
        return Priced(round_half_even(dollars * NANOS), Basis.CONTRACT)

    def price_bill(self, record: BillingRecord, event_time: int) -> Priced:
        """What a bill line bills (``billed_cost``), in dollars of its time; credits are negative.

        Raises:
            UnknownCurrency: the rate card has no rate for the currency at that time.
            PriceError: the amount is no believable number.
        """
        amount = _exact(record.billed_cost, "billed_cost")
        return Priced(round_half_even(amount * self._rate(record.billing_currency, event_time) * NANOS), Basis.BILLED)

    def reported_nanos(self, event: UsageEvent, event_time: int) -> int | None:
        """The gateway's own figure for a call, in nanodollars; None where it gave none that can be read."""
        if event.reported_cost is None:
            return None
        try:
            if event.currency == "USD":
                nanos = parse_nanos(event.reported_cost)
            else:
                amount = _exact(Decimal(event.reported_cost), "reported_cost")
                nanos = round_half_even(amount * self._rate(event.currency, event_time) * NANOS)
        except (MoneyError, PriceError, ArithmeticError):
            return None
        return nanos if 0 <= nanos <= _AMOUNT_MAX * NANOS else None

    def _rate(self, currency: str, instant: int) -> Fraction:
        code = currency.strip().upper()
        if code == "USD":
            return Fraction(1)
        line = in_force([line for line in self._card.fx if line.currency == code], instant)
        if line is None:
            raise UnknownCurrency(f"no exchange rate for {code[:16]!r} at that time: add it under fx in the rate card")
        return Fraction(line.usd)

    def _unusual(self, event: UsageEvent, event_time: int, offer: _Offer) -> Priced:
        """Calls that the hot path leaves: nothing bought, self-hosted, special tokens, or no price."""
        if event.cache_hit:
            return _NO_CHARGE
        if event.status != "success" and not (event.input_tokens or event.output_tokens):
            return _NO_CHARGE
        if offer.is_own:
            return _ALLOCATED
        for ground in offer.grounds:
            rates = ground.tariff.rates(event.input_tokens)
            if rates.covers(event):
                return Priced(rates.nanos(event), ground.basis)
        reported = self.reported_nanos(event, event_time)
        # A gateway that does not know a model reports 0: that is no evidence that it is free.
        return Priced(reported, Basis.REPORTED) if reported else _UNPRICED

    def _offer(self, provider: str, model: str, service_tier: str) -> _Offer:
        key = (provider, model, service_tier)
        offer = self._strangers.get(key)
        if offer is not None:
            return offer
        if max(len(part) for part in key) > _NAME_LENGTH_MAX:
            return _Offer(provider_id(provider) in self._self_hosted, (), None, "")
        seller, tier = self._catalogue.seller(provider, model), standard_tier(service_tier)
        is_own = provider_id(provider) in self._self_hosted or seller in self._self_hosted
        lines = () if is_own else tuple(line for line in self._card.models if line.matches(seller, model, tier))
        listed = None if is_own else self._catalogue.find(seller, model)
        offer = _Offer(is_own, lines, listed, tier)
        # Two memos, so that invented names never push out the real ones.
        if offer.is_known:
            _remember(self._known, key, offer, _KNOWN_MAX)
        else:
            _remember(self._strangers, key, offer, _STRANGERS_MAX)
        return offer


def _remember(memo: dict[_Key, _Offer], key: tuple[str, str, str], offer: _Offer, limit: int) -> None:
    if len(memo) >= limit:
        del memo[next(iter(memo))]
    memo[key] = offer


def _exact(amount: Decimal, name: str) -> Fraction:
    """A believable amount as a fraction; the bounds keep a crafted exponent from becoming a huge integer."""
    exponent = amount.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -_DECIMALS_MAX or amount.copy_abs() > _AMOUNT_MAX:
        raise PriceError(f"{name} is no believable number: up to {_AMOUNT_MAX:,}, with up to {_DECIMALS_MAX} decimals")
    return Fraction(amount)


def _share(sample: GpuSample) -> Fraction:
    """A MIG slice's part of its GPU's compute: ``3g.40gb`` is three of seven slices, of four on an A30."""
    found = _SLICE.search(sample.mig_profile)
    if found is None:
        return Fraction(1)
    slices = 4 if "a30" in sample.model.lower() else 7
    return min(Fraction(1), Fraction(int(found[1]), slices))


__all__ = [
    "Basis",
    "PriceBook",
    "PriceError",
    "Priced",
    "UnknownCurrency",
    "bill_category",
    "source_of_record",
]
