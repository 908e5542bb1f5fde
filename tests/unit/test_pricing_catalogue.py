"""The memoised integer prices equal the catalogue's own arithmetic, for every model that gateways commonly sell."""

from datetime import date, datetime, time
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data import providers
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import UsageEvent
from schemas.instants import DAY, parse_instant, to_datetime
from schemas.money import NANOS
from streams.core.catalogue import Catalogue
from streams.core.pricing import Basis, PriceBook
from streams.core.rate_card import RateCard

SELLERS = ("openai", "anthropic", "google", "mistral", "azure", "aws", "deepseek")
FROM, UNTIL = parse_instant("2024-01-01T00:00:00Z"), parse_instant("2027-01-01T00:00:00Z")
TIERS = ("", "default", "batch", "flex", "priority", "fast", "no-such-tier")
BOOK = PriceBook(RateCard())


def literals(clause: object) -> list[str]:
    """The texts in a matching rule: names that some of its models go by."""
    if isinstance(clause, list):
        return [text for part in clause for text in literals(part)]
    return [
        text for value in vars(clause).values() for text in ([value] if isinstance(value, str) else literals(value))
    ]


def called(provider: Provider, model: ModelInfo) -> str | None:
    """A name under which the library itself finds this model; not every id is one (``regional.…`` stands for many)."""
    texts = [model.id, *literals(model.match)]
    for text in (*texts, *(text.replace("regional.", "us.") for text in texts), *(f"{text}:org::id" for text in texts)):
        if provider.find_model(text, all_providers=list(providers)) is model:
            return text
    return None


MODELS = [
    (provider.id, name)
    for provider in providers
    if provider.id in SELLERS
    for model in provider.models
    if (name := called(provider, model)) is not None
]
LISTED = sum(len(provider.models) for provider in providers if provider.id in SELLERS)


@st.composite
def calls(draw: st.DrawFn, provider: str, model: str) -> UsageEvent:
    """Any call whose special tokens need not overlap; sizes go beyond every step in the catalogue."""
    plain, cached, written, audio = draw(st.lists(st.integers(0, 400_000), min_size=4, max_size=4))
    text, reasoning, spoken = draw(st.lists(st.integers(0, 100_000), min_size=3, max_size=3))
    return UsageEvent(
        provider=provider,
        response_model=model,
        input_tokens=plain + cached + written + audio,
        cache_read_input_tokens=cached,
        cache_creation_input_tokens=written,
        audio_input_tokens=audio,
        output_tokens=text + reasoning + spoken,
        reasoning_output_tokens=reasoning,
        audio_output_tokens=spoken,
        service_tier=draw(st.sampled_from(TIERS)),
    )


def by_the_library(event: UsageEvent, instant: int) -> tuple[int, ModelPrice]:
    """The library's price, rounded once, and the prices it used."""
    tier = event.service_tier
    usage = Usage(
        input_tokens=event.input_tokens,
        cache_read_tokens=event.cache_read_input_tokens,
        cache_write_tokens=event.cache_creation_input_tokens,
        input_audio_tokens=event.audio_input_tokens,
        cache_audio_read_tokens=0,
        output_tokens=event.output_tokens,
        output_reasoning_tokens=event.reasoning_output_tokens,
        output_audio_tokens=event.audio_output_tokens,
    )
    found = calc_price(
        usage,
        event.response_model,
        provider_id=event.provider,
        genai_request_timestamp=to_datetime(instant),
        price_context={"service_tier": tier, "processing": tier, "speed": tier},
    )
    return int((found.total_price * NANOS).to_integral_value(ROUND_HALF_EVEN)), found.model_price


def test_the_commonly_sold_models_are_all_here() -> None:
    assert LISTED > 400
    assert len(MODELS) > 0.97 * LISTED


@pytest.mark.parametrize("seller", SELLERS)
@settings(max_examples=400, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_memoised_price_is_the_librarys_price(seller: str, data: st.DataObject) -> None:
    names = [model for provider, model in MODELS if provider == seller]
    event = data.draw(calls(seller, data.draw(st.sampled_from(names))))
    instant = data.draw(st.integers(FROM, UNTIL))
    nanos, prices = by_the_library(event, instant)
    priced = BOOK.price_usage(event, instant)
    is_free = not any(value is not None for value in vars(prices).values())
    lacks_input = prices.input_mtok is None and not is_free
    lacks_output = prices.output_mtok is None and not is_free
    if (lacks_input and (event.input_tokens or lacks_output)) or (lacks_output and event.output_tokens):
        assert priced == (0, Basis.UNPRICED)
    else:
        assert priced == (nanos, Basis.CATALOGUE)


def test_every_model_has_the_librarys_price_on_every_tier_and_step() -> None:
    compared = 0
    for provider, model in MODELS:
        for tier in TIERS:
            for size in (1, 200_000, 200_001, 272_001, 600_000):
                event = UsageEvent(
                    provider=provider, response_model=model, service_tier=tier, input_tokens=size,
                    cache_read_input_tokens=size // 3, cache_creation_input_tokens=size // 7, output_tokens=size // 11,
                )  # fmt: skip
                nanos, prices = by_the_library(event, UNTIL - DAY)
                if prices.input_mtok is not None and prices.output_mtok is not None:
                    assert BOOK.price_usage(event, UNTIL - DAY) == (nanos, Basis.CATALOGUE), (
                        provider,
                        model,
                        tier,
                        size,
                    )
                    compared += 1
    assert compared > 10_000


def own_catalogue(prices: ModelPrice | list[ConditionalPrice]) -> Catalogue:
    model = ModelInfo(id="mine", match=ClauseEquals(equals="mine"), prices=prices)
    return Catalogue([Provider(id="acme", name="Acme", api_pattern="acme", models=[model])])


def rate(dollars: str) -> ModelPrice:
    return ModelPrice(input_mtok=Decimal(dollars), output_mtok=Decimal(dollars))


def million(catalogue: Catalogue, at: str, **fields: Any) -> int:
    event = UsageEvent(provider="acme", response_model="mine", **({"input_tokens": 1_000_000} | fields))
    return PriceBook(RateCard(), catalogue=catalogue).price_usage(event, parse_instant(at)).nanos // NANOS


@pytest.mark.parametrize(
    ("at", "dollars"),
    [
        pytest.param("2026-01-31T21:59:59Z", 1, id="before the change"),
        pytest.param("2026-02-01T00:00:00Z", 4, id="the change falls into the window"),
        pytest.param("2026-02-01T02:00:00Z", 2, id="the window ends after the change"),
        pytest.param("2026-02-01T21:59:59Z", 2, id="the last second before the evening"),
        pytest.param("2026-02-01T22:00:00Z", 4, id="the evening"),
        pytest.param("2026-02-02T01:59:59Z", 4, id="past midnight"),
        pytest.param("2026-02-02T02:00:00Z", 2, id="the end of the window"),
    ],
)
def test_a_window_over_midnight_and_a_dated_change_both_hold(at: str, dollars: int) -> None:
    prices = [
        ConditionalPrice(prices=rate("1")),
        ConditionalPrice(StartDateConstraint(date(2026, 2, 1)), prices=rate("2")),
        ConditionalPrice(TimeOfDateConstraint(time(22), time(2)), prices=rate("4")),
    ]
    # The later entry goes first: the window holds on every day.
    assert million(own_catalogue(prices), at) == dollars


class FullMoon:
    """A condition that a later version of the library may bring."""

    def active(self, request_timestamp: datetime) -> bool:
        return request_timestamp.second == 7


def test_a_condition_that_is_not_known_is_asked_every_time() -> None:
    unknown: Any = FullMoon()
    catalogue = own_catalogue([ConditionalPrice(prices=rate("1")), ConditionalPrice(unknown, prices=rate("3"))])
    book = PriceBook(RateCard(), catalogue=catalogue)
    event = UsageEvent(provider="acme", response_model="mine", input_tokens=1_000_000)
    seconds = (6, 7, 8, 7, 6)
    dollars = [book.price_usage(event, parse_instant(f"2026-02-01T00:00:0{s}Z")).nanos // NANOS for s in seconds]
    assert dollars == [1, 3, 1, 3, 1]


@pytest.mark.parametrize(
    ("tokens", "nanos"),
    [
        pytest.param(0, 0, id="none"),
        pytest.param(1, 2_000, id="a step at zero begins with the first token"),
        pytest.param(100, 200_000, id="at the next step"),
        pytest.param(101, 505_000, id="above it"),
    ],
)
def test_steps_hold_above_their_start(tokens: int, nanos: int) -> None:
    tiers = [Tier(start=100, price=Decimal(5)), Tier(start=0, price=Decimal(2))]
    catalogue = own_catalogue(ModelPrice(input_mtok=TieredPrices(base=Decimal(1), tiers=tiers), output_mtok=Decimal(1)))
    event = UsageEvent(provider="acme", response_model="mine", input_tokens=tokens)
    assert PriceBook(RateCard(), catalogue=catalogue).price_usage(event, UNTIL).nanos == nanos


def test_a_model_of_another_maker_has_no_tiers_of_its_makers() -> None:
    event = UsageEvent(provider="azure", response_model="gpt-4o-mini", input_tokens=1000, service_tier="batch")
    nanos, _ = by_the_library(event, UNTIL - DAY)
    assert BOOK.price_usage(event, UNTIL - DAY).nanos == nanos == 150_000
