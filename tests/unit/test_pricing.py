"""What a call, a GPU window and a bill line cost, and on what ground."""

from typing import Any

import pytest

from schemas.events import UsageEvent
from schemas.instants import parse_instant
from streams.core.pricing import Basis, PriceBook, Priced, PriceError
from streams.core.rate_card import RateCard, load_rate_card

NOW = parse_instant("2026-11-21T12:00:00Z")


def call(**fields: Any) -> UsageEvent:
    return UsageEvent(**({"provider": "openai", "response_model": "gpt-4o-mini", "input_tokens": 1000} | fields))


def price(card: str = "", at: int = NOW, **fields: Any) -> Priced:
    return PriceBook(load_rate_card(card), frozenset({"vllm"})).price_usage(call(**fields), at)


@pytest.mark.parametrize(
    ("fields", "nanos", "basis"),
    [
        # gpt-4o-mini: $0.15 in, $0.075 cached, $0.60 out per million tokens.
        pytest.param({}, 150_000, Basis.CATALOGUE, id="input alone"),
        pytest.param({"output_tokens": 10}, 156_000, Basis.CATALOGUE, id="input and output"),
        pytest.param({"cache_read_input_tokens": 400}, 120_000, Basis.CATALOGUE, id="cached is cheaper"),
        pytest.param(
            {"output_tokens": 10, "reasoning_output_tokens": 9}, 156_000, Basis.CATALOGUE, id="reasoning is output"
        ),
        pytest.param({"input_tokens": 0}, 0, Basis.CATALOGUE, id="no tokens cost nothing"),
        pytest.param(
            {"status": "failure", "output_tokens": 10}, 156_000, Basis.CATALOGUE, id="an aborted stream is billed"
        ),
        pytest.param({"status": "failure", "input_tokens": 0}, 0, Basis.NO_CHARGE, id="a refused call"),
        pytest.param(
            {"status": "failure", "input_tokens": 0, "response_model": "no-such-model"},
            0,
            Basis.NO_CHARGE,
            id="a refused call of an unknown model is not unpriced",
        ),
        pytest.param({"cache_hit": True}, 0, Basis.NO_CHARGE, id="the gateway's own cache answered"),
        pytest.param({"provider": "vllm", "reported_cost": "1"}, 0, Basis.ALLOCATED, id="self-hosted tokens"),
        pytest.param({"provider": "VLLM"}, 0, Basis.ALLOCATED, id="self-hosted in capitals"),
        pytest.param({"response_model": "no-such-model"}, 0, Basis.UNPRICED, id="unknown model"),
        pytest.param({"provider": "custom_openai"}, 0, Basis.UNPRICED, id="another's endpoint is not OpenAI"),
        pytest.param(
            {"response_model": "no-such-model", "reported_cost": "0.0123"},
            12_300_000,
            Basis.REPORTED,
            id="unknown model with the gateway's figure",
        ),
        pytest.param({"reported_cost": "9"}, 150_000, Basis.CATALOGUE, id="our price goes before the gateway's figure"),
        pytest.param(
            {"response_model": "no-such-model", "reported_cost": "0"},
            0,
            Basis.UNPRICED,
            id="a reported zero is no price",
        ),
        pytest.param(
            {"response_model": "no-such-model", "reported_cost": "-1"}, 0, Basis.UNPRICED, id="a negative figure"
        ),
        pytest.param(
            {"response_model": "no-such-model", "reported_cost": "many"}, 0, Basis.UNPRICED, id="a figure that is none"
        ),
        pytest.param(
            {"response_model": "no-such-model", "reported_cost": "1", "currency": "XYZ"},
            0,
            Basis.UNPRICED,
            id="a figure in an unknown currency",
        ),
        pytest.param({"response_model": "whisper-1"}, 0, Basis.UNPRICED, id="a model billed by the minute"),
        pytest.param(
            {"response_model": "whisper-1", "input_tokens": 0}, 0, Basis.UNPRICED, id="minutes are never silently free"
        ),
        pytest.param(
            {"response_model": "text-embedding-3-small"}, 20_000, Basis.CATALOGUE, id="an embedding has input only"
        ),
        pytest.param({"response_model": "x" * 300}, 0, Basis.UNPRICED, id="a name that is too long"),
        pytest.param(
            {"response_model": "", "request_model": "gpt-4o-mini"}, 150_000, Basis.CATALOGUE, id="model asked for"
        ),
        pytest.param(
            {"provider": "perplexity", "response_model": "sonar"}, 13_000_000, Basis.CATALOGUE, id="a price per request"
        ),
    ],
)
def test_a_call_costs(fields: dict[str, Any], nanos: int, basis: Basis) -> None:
    assert price(**fields) == (nanos, basis)


@pytest.mark.parametrize(
    ("provider", "model", "nanos"),
    [
        pytest.param("azure.ai.openai", "gpt-4o-mini", 150_000, id="OpenTelemetry's name of Azure"),
        pytest.param("azure", "azure/gpt-4o-mini", 150_000, id="LiteLLM's azure/ prefix"),
        pytest.param("openai", "openai/gpt-4o-mini", 150_000, id="LiteLLM's openai/ prefix"),
        pytest.param("litellm", "openai/gpt-4o-mini", 150_000, id="a gateway's name, the provider in the prefix"),
        pytest.param("", "gpt-4o-mini", 150_000, id="no provider, a model that only one makes"),
        pytest.param("aws.bedrock", "anthropic.claude-3-haiku-20240307-v1:0", 250_000, id="OpenTelemetry's Bedrock"),
        pytest.param("bedrock", "bedrock/anthropic.claude-3-haiku-20240307-v1:0", 250_000, id="LiteLLM's Bedrock"),
        pytest.param("gcp.gemini", "gemini-2.0-flash", 100_000, id="OpenTelemetry's Gemini"),
        pytest.param("vertex_ai", "publishers/google/models/gemini-2.0-flash", 100_000, id="a Vertex resource name"),
        pytest.param("vertex_ai-anthropic_models", "claude-3-haiku@20240307", 250_000, id="Claude sold by Google"),
        pytest.param("mistral_ai", "mistral-large-2411", 2_000_000, id="OpenTelemetry's Mistral"),
        pytest.param("x_ai", "grok-3", 3_000_000, id="OpenTelemetry's xAI"),
    ],
)
def test_a_provider_is_known_under_the_names_that_gateways_use(provider: str, model: str, nanos: int) -> None:
    assert price(provider=provider, response_model=model) == (nanos, Basis.CATALOGUE)


@pytest.mark.parametrize(
    ("model", "tier", "at", "nanos"),
    [
        pytest.param("o3", "", "2025-05-01T00:00:00Z", 10_000_000, id="o3 before its price fell"),
        pytest.param("o3", "", "2025-06-09T23:59:59.999999Z", 10_000_000, id="the last microsecond of the old price"),
        pytest.param("o3", "", "2025-06-10T00:00:00Z", 2_000_000, id="the first microsecond of the new price"),
        pytest.param("o3", "default", "2026-11-21T00:00:00Z", 2_000_000, id="the ordinary tier by name"),
        pytest.param("o3", "flex", "2026-11-21T00:00:00Z", 1_000_000, id="flex"),
        pytest.param("o3", "batch", "2026-11-21T00:00:00Z", 1_000_000, id="batch"),
        pytest.param("o3", "Priority", "2026-11-21T00:00:00Z", 3_500_000, id="priority, whatever its case"),
    ],
)
def test_the_price_is_that_of_the_time_and_the_tier(model: str, tier: str, at: str, nanos: int) -> None:
    assert price(at=parse_instant(at), response_model=model, service_tier=tier).nanos == nanos


def test_prices_by_the_hour_of_day_follow_the_clock_in_any_order() -> None:
    book = PriceBook(RateCard())
    event = call(provider="deepseek", response_model="deepseek-chat")
    cheap, dear = 135_000, 270_000
    hours = {"00:29:59.999999": cheap, "00:30:00": dear, "16:29:59": dear, "16:30:00": cheap, "23:59:59": cheap}
    days = ("2025-02-01", "2024-12-31", "2025-02-01")
    seen = [
        book.price_usage(event, parse_instant(f"{day}T{hour}Z")).nanos == nanos
        for day in days
        for hour, nanos in hours.items()
    ]
    # The catalogue may give another base rate to some day; the pattern is what this holds.
    assert all(seen)


@pytest.mark.parametrize(
    ("tokens", "nanos"),
    [
        pytest.param(200_000, 250_000_000, id="at the step: the base rate"),
        pytest.param(200_001, 500_002_500, id="above it: all tokens at the higher rate"),
    ],
)
def test_a_long_prompt_pays_the_higher_rate_for_all_its_tokens(tokens: int, nanos: int) -> None:
    assert price(provider="google", response_model="gemini-2.5-pro", input_tokens=tokens).nanos == nanos


@pytest.mark.parametrize(
    ("tokens", "rate", "nanos"),
    [
        pytest.param(1, "0.0005", 0, id="half a nanodollar rounds to even zero"),
        pytest.param(3, "0.0005", 2, id="one and a half rounds to two"),
        pytest.param(5, "0.0005", 2, id="two and a half rounds to two"),
        pytest.param(1, "0.000500000000000001", 1, id="a hair above a half rounds up"),
        pytest.param(3, "0.000333333333333333", 1, id="eighteen decimals are kept"),
        pytest.param(100_000_000, "123456.789", 12_345_678_900_000_000, id="large sums are exact"),
    ],
)
def test_a_call_is_rounded_once_half_to_even(tokens: int, rate: str, nanos: int) -> None:
    card = f"models: [{{provider: openai, model: mine, input: {rate}}}]"
    assert price(card, response_model="mine", input_tokens=tokens) == (nanos, Basis.CONTRACT)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({"cache_read_input_tokens": 1001}, "1001 cached", id="more cached than input"),
        pytest.param(
            {"cache_read_input_tokens": 600, "cache_creation_input_tokens": 600},
            "1200 cached",
            id="both kinds of cached",
        ),
        pytest.param({"output_tokens": -1}, "negative", id="negative output"),
        pytest.param({"input_tokens": -1}, "negative", id="negative input"),
        pytest.param({"cache_read_input_tokens": -1}, "cached", id="negative cached"),
        pytest.param(
            {"response_model": "gpt-audio", "audio_input_tokens": 1001}, "1001 audio", id="more audio than input"
        ),
    ],
)
def test_usage_that_cannot_have_happened_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(PriceError, match=said):
        price(**fields)


CARD = """
models:
  - {provider: openai, model: gpt-4o*, from: 2026-01-01, discount_percent: 20}
  - {provider: openai, model: gpt-4o-mini, from: 2026-06-01, input: 0.10, cache_read: 0.01, output: 0.40}
  - {provider: openai, model: gpt-4o-mini, from: 2026-06-01, service_tier: batch, input: 0.03, output: 0.2}
  - {provider: openai, model: gpt-4o-mini, from: 2026-09-01, discount_percent: 0}
  - {provider: azure.ai.openai, model: "*", discount_percent: 100}
  - {provider: aws, model: "eu.*", discount_percent: -10}
  - {provider: acme, model: per-call, per_request: 0.25}
  - {provider: acme, model: mixed, input: 2, per_request: 0.001}
"""


@pytest.mark.parametrize(
    ("at", "fields", "nanos", "basis"),
    [
        pytest.param("2025-12-31", {}, 150_000, Basis.CATALOGUE, id="before the contract"),
        pytest.param("2026-01-01", {}, 120_000, Basis.CONTRACT, id="a discount by pattern"),
        pytest.param("2026-06-01", {}, 100_000, Basis.CONTRACT, id="the exact model goes before the pattern"),
        pytest.param("2026-06-01", {"cache_read_input_tokens": 500}, 55_000, Basis.CONTRACT, id="contract cache rate"),
        pytest.param(
            "2026-06-01", {"cache_creation_input_tokens": 500}, 100_000, Basis.CONTRACT, id="no rate: as input"
        ),
        pytest.param("2026-06-01", {"service_tier": "batch"}, 30_000, Basis.CONTRACT, id="the tier's own line"),
        pytest.param("2026-06-01", {"response_model": "openai/gpt-4o-mini"}, 100_000, Basis.CONTRACT, id="prefix"),
        pytest.param("2026-09-01", {}, 150_000, Basis.CONTRACT, id="back to the list price"),
        pytest.param(
            "2026-10-01", {"response_model": "gpt-4o"}, 2_000_000, Basis.CONTRACT, id="the pattern still holds"
        ),
        pytest.param("2026-10-01", {"response_model": "o3"}, 2_000_000, Basis.CATALOGUE, id="a model without contract"),
        pytest.param("2026-10-01", {"provider": "azure"}, 0, Basis.CONTRACT, id="capacity paid elsewhere"),
        pytest.param(
            "2026-10-01",
            {"provider": "bedrock", "response_model": "eu.anthropic.claude-3-haiku-20240307-v1:0"},
            275_000,
            Basis.CONTRACT,
            id="a surcharge",
        ),
        pytest.param(
            "2026-10-01",
            {"provider": "acme", "response_model": "per-call", "input_tokens": 0},
            250_000_000,
            Basis.CONTRACT,
            id="a price per call",
        ),
        pytest.param(
            "2026-10-01",
            {"provider": "acme", "response_model": "mixed"},
            3_000_000,
            Basis.CONTRACT,
            id="call and tokens",
        ),
        pytest.param(
            "2026-10-01",
            {"provider": "acme", "response_model": "per-call"},
            0,
            Basis.UNPRICED,
            id="tokens that the line has no rate for are not free",
        ),
        pytest.param(
            "2026-10-01",
            {"response_model": "gpt-4o-no-such"},
            0,
            Basis.UNPRICED,
            id="a discount off nothing is no price",
        ),
    ],
)
def test_the_contract_goes_before_the_catalogue(at: str, fields: dict[str, Any], nanos: int, basis: Basis) -> None:
    assert price(CARD, parse_instant(f"{at}T00:00:00Z"), **fields) == (nanos, basis)


def test_a_later_line_re_prices_nothing_that_is_past() -> None:
    before = price("models: [{provider: openai, model: gpt-4o-mini, input: 1}]")
    line = "{provider: openai, model: gpt-4o-mini, from: 2026-11-22, input: 2}"
    assert price(f"models: [{{provider: openai, model: gpt-4o-mini, input: 1}}, {line}]") == before


def test_special_tokens_have_their_own_rates_and_overlap_as_little_as_they_can() -> None:
    card = """
models:
  - {provider: openai, model: voice, input: 1, output: 2, cache_read: 0.5, audio_input: 10, audio_cache_read: 3,
     audio_output: 20, reasoning: 4}
"""
    plain = {"response_model": "voice", "input_tokens": 100, "output_tokens": 50}
    assert price(card, **plain).nanos == 200_000
    assert price(card, **plain, audio_input_tokens=10).nanos == 290_000
    assert price(card, **plain, audio_output_tokens=10, reasoning_output_tokens=5).nanos == 390_000
    # 60 cached and 60 audio of 100: at least 20 were both. 40 x 0.5 + 40 x 10 + 20 x 3 + 50 x 2.
    assert price(card, **plain, cache_read_input_tokens=60, audio_input_tokens=60).nanos == 580_000


def test_invented_model_names_neither_fill_the_memory_nor_push_out_the_real_ones() -> None:
    book = PriceBook(RateCard())
    book.price_usage(call(), NOW)
    for number in range(4_200):
        assert book.price_usage(call(response_model=f"invented-{number}"), NOW).basis is Basis.UNPRICED
    assert book.remembered <= 4_096 + 1
    assert book.price_usage(call(), NOW) == (150_000, Basis.CATALOGUE)
    assert book.price_usage(call(response_model="y" * 100_000), NOW).basis is Basis.UNPRICED
    assert book.remembered <= 4_096 + 1


def test_equal_versions_price_equally_and_a_changed_price_is_another_version() -> None:
    line = "{provider: openai, model: gpt-4o, input: %s}"
    versions = {
        PriceBook(load_rate_card(text), hosts).version
        for text in ("", f"models: [{line % 1}]", f"models: [{line % 2}]")
        for hosts in (frozenset[str](), frozenset({"vllm"}))
    }
    assert len(versions) == 6
    commented = PriceBook(load_rate_card(f"# a comment\nmodels:\n  - {line % 1}\n")).version
    assert commented == PriceBook(load_rate_card(f"models: [{line % 1}]")).version
