"""The bundled genai-prices catalogue: which model a gateway means, and what it cost when. No network.

Models are looked up with the library's public matching; its snapshot is not used, since that remembers every
name it is asked for, without bound. Provider names are mapped by this table alone: the library's fuzzy
matching would price any ``custom_openai`` endpoint as OpenAI.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import NamedTuple

from genai_prices import __version__ as GENAI_PRICES_VERSION
from genai_prices.data import providers as _BUNDLED
from genai_prices.types import (
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)

from schemas.instants import DAY, SECOND, to_datetime, to_micros
from streams.core.rates import BASE, DollarRates

#: Names that gateways and OpenTelemetry use, and the catalogue's own.
_ALIASES = {
    "aws.bedrock": "aws",
    "amazon": "aws",
    "amazon_bedrock": "aws",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "az.ai.inference": "azure",
    "az.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "azure_ai": "azure",
    "azure_openai": "azure",
    "azure_text": "azure",
    "gemini": "google",
    "google_ai_studio": "google",
    "vertex_ai": "google",
    "vertex_ai_beta": "google",
    "vertexai": "google",
    "text-completion-openai": "openai",
    "mistral_ai": "mistral",
    "mistralai": "mistral",
    "codestral": "mistral",
    "x_ai": "x-ai",
    "xai": "x-ai",
    "cohere_chat": "cohere",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "moonshot": "moonshotai",
    "moonshot_ai": "moonshotai",
    "voyage": "voyageai",
    "github_copilot": "github-copilot",
    "meta_llama": "meta",
    "z_ai": "zai",
}
#: Prefixes of whole families: ``gcp.vertex_ai``, ``gcp.gemini``, ``vertex_ai-anthropic_models``.
_FAMILIES = (("gcp.", "google"), ("vertex_ai-", "google"))
#: Gateways that say nothing about who answered; the model's name does.
_NOBODY = frozenset({"", "litellm", "litellm_proxy", "unknown"})
#: What stands between a provider's prefix and the model's name without changing its price.
_ROUTING = frozenset(
    {
        "models",
        "publishers",
        "anthropic",
        "converse",
        "converse_like",
        "invoke",
        "global",
        "global-standard",
        "responses",
    }
)
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
_STANDARD_TIERS = frozenset({"", "auto", "default", "standard", "on_demand"})

#: The catalogue's price key of each rate. Units that no usage event counts (searches, pages) have none here.
_MTOK_KEYS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_creation": "cache_write_mtok",
    "reasoning": "output_reasoning_mtok",
    "audio_input": "input_audio_mtok",
    "audio_cache_read": "cache_audio_read_mtok",
    "audio_output": "output_audio_mtok",
}
_KILO_REQUESTS_KEY = "requests_kcount"
_FREE = DollarRates(input=Decimal(0), output=Decimal(0))


def provider_id(name: str) -> str:
    """The catalogue's name of a provider; an unknown one is given back in lower case.

    >>> [provider_id(name) for name in ("aws.bedrock", "gcp.vertex_ai", "OpenAI", "custom_openai")]
    ['aws', 'google', 'openai', 'custom_openai']
    """
    lowered = name.strip().lower()
    for prefix, family in _FAMILIES:
        if lowered.startswith(prefix):
            return family
    return _ALIASES.get(lowered, lowered)


def standard_tier(service_tier: str) -> str:
    """The service tier in lower case; the several names of the ordinary tier are all empty.

    >>> standard_tier("Flex"), standard_tier("default"), standard_tier("")
    ('flex', '', '')
    """
    lowered = service_tier.strip().lower()
    return "" if lowered in _STANDARD_TIERS else lowered


def model_names(provider: str, model: str) -> Iterator[str]:
    """The names a model may be listed under, the longest first, without prefixes that only route.

    >>> list(model_names("azure", "azure/gpt-4o"))
    ['azure/gpt-4o', 'gpt-4o']
    >>> list(model_names("aws", "bedrock/us-east-1/amazon.nova"))
    ['bedrock/us-east-1/amazon.nova', 'us-east-1/amazon.nova', 'amazon.nova']
    """
    yield model
    head, slash, rest = model.partition("/")
    while slash and (provider_id(head) == provider or head in _ROUTING or _REGION.fullmatch(head)):
        yield rest
        head, slash, rest = rest.partition("/")


class Boundaries(NamedTuple):
    """When a price may change: on which days (microseconds since 1970), at which times of day."""

    days: tuple[int, ...] = ()
    times: tuple[int, ...] = ()
    #: False where the catalogue has a condition that this code does not know: nothing may be remembered.
    is_known: bool = True


class ListedModel:
    """One model of the catalogue, as one provider sells it."""

    __slots__ = ("_has_context", "_info")

    def __init__(self, info: ModelInfo, provider: Provider) -> None:
        self._info = info
        # A model borrowed from another provider has no tiers here, as in the library: they are the lender's.
        self._has_context = any(info is own for own in provider.models)

    def steps_at(self, instant: int, tier: str) -> tuple[tuple[int, DollarRates], ...]:
        """The rates in force at an instant, ``(input tokens, rates above them)``, the first for any call."""
        # The catalogue calls the same word tier, processing or speed, depending on the provider.
        context = {"service_tier": tier, "processing": tier, "speed": tier} if tier and self._has_context else None
        prices = self._info.get_prices(to_datetime(instant), context)
        values = [value for value in vars(prices).values() if value is not None]
        if not values:
            # Listed without any price: free of charge, as its name or note says.
            return ((BASE, _FREE),)
        starts = {rung.start for value in values if isinstance(value, TieredPrices) for rung in value.tiers}
        return tuple((start, _dollars(prices, start)) for start in (BASE, *sorted(starts)))

    def boundaries(self) -> Boundaries:
        """When this model's prices may change."""
        prices = self._info.prices
        conditional = [] if isinstance(prices, ModelPrice) else prices
        days: set[int] = set()
        times: set[int] = set()
        is_known = True
        for dated in (*conditional, *(self._info.price_variants or ())):
            constraint = dated.constraint
            if isinstance(constraint, StartDateConstraint):
                days.add(_midnight(constraint.start_date))
            elif isinstance(constraint, TimeOfDateConstraint):
                times |= {_since_midnight(constraint.start_time), _since_midnight(constraint.end_time)}
            elif constraint is not None:
                is_known = False
        return Boundaries(tuple(sorted(days)), tuple(sorted(times)), is_known)


class Catalogue:
    """List prices by provider and model. Without arguments, those bundled with genai-prices."""

    def __init__(self, providers: Sequence[Provider] | None = None) -> None:
        self._providers = list(_BUNDLED if providers is None else providers)
        self._by_id = {provider.id: provider for provider in self._providers}
        #: Of the price data; part of the price book's version.
        self.version = GENAI_PRICES_VERSION

    def seller(self, provider: str, model: str) -> str:
        """The seller of a call, by its catalogue name; read off the model's name where it is not said."""
        known = provider_id(provider)
        if known not in _NOBODY:
            return known
        prefix = provider_id(model.partition("/")[0])
        if prefix in self._by_id:
            return prefix
        lowered = model.lower()
        for listed in self._providers:
            if listed.model_match is not None and listed.model_match.is_match(lowered):
                return listed.id
        return known

    def find(self, seller: str, model: str) -> ListedModel | None:
        """The model as this seller lists it; None where the catalogue does not know it."""
        provider = self._by_id.get(seller)
        if provider is None:
            return None
        for name in model_names(seller, model):
            info = provider.find_model(name, all_providers=self._providers)
            if info is not None:
                return ListedModel(info, provider)
        return None


def _dollars(prices: ModelPrice, over: int) -> DollarRates:
    """The rates for calls with more than ``over`` input tokens, up to the next step."""
    rates = {name: _rate(getattr(prices, key), over) for name, key in _MTOK_KEYS.items()}
    per_thousand = _rate(getattr(prices, _KILO_REQUESTS_KEY), over)
    return DollarRates(**rates, per_request=None if per_thousand is None else per_thousand.scaleb(-3))


def _rate(price: Decimal | TieredPrices | None, over: int) -> Decimal | None:
    if not isinstance(price, TieredPrices):
        return price
    reached = [rung.price for rung in price.tiers if rung.start <= over]
    return reached[-1] if reached else price.base


def _midnight(day: date) -> int:
    return to_micros(datetime(day.year, day.month, day.day, tzinfo=UTC))


def _since_midnight(moment: time) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    utc = datetime.combine(date(2000, 1, 2), aware).astimezone(UTC)
    return ((utc.hour * 60 + utc.minute) * 60 + utc.second) * SECOND % DAY + utc.microsecond
