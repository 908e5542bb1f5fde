"""The operator's rate card: contract prices of models, prices of GPUs, exchange rates, each from a date on.

Dates make the past immovable: a new line changes nothing before its ``from``. ``examples/rate-card.yaml``
explains every key; ``docs/prices.md`` says which line wins.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Annotated, Protocol, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from schemas.instants import to_micros
from streams.core.catalogue import model_names, provider_id, standard_tier
from streams.core.marked_yaml import Document, DocumentError, Problem
from streams.core.rates import DollarRates

_NUMBER = re.compile(r"[+-]?\d{1,12}(\.\d{1,18})?")
_SINCE_EVER = date(1970, 1, 1)
_RATE_KEYS = (
    "input",
    "output",
    "cache_read",
    "cache_creation",
    "reasoning",
    "audio_input",
    "audio_cache_read",
)
_OTHER_RATE_KEYS = ("audio_output", "per_request")


class RateCardError(DocumentError):
    """The rate card cannot be used; ``problems`` has one line for every error found."""


def _read_number(value: object) -> object:
    if isinstance(value, bool | float):
        raise ValueError("write the amount as text or in YAML; a float has lost digits already")
    if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        raise ValueError(f"{value[:40]!r} is not a plain decimal number such as 2.50 (no thousands, no currency sign)")
    return value


def _not_negative(value: Decimal) -> Decimal:
    if value < 0:
        raise ValueError("must not be negative")
    return value


def _above_zero(value: Decimal) -> Decimal:
    if value <= 0:
        raise ValueError("must be above zero")
    return value


Number = Annotated[Decimal, BeforeValidator(_read_number)]
Dollars = Annotated[Number, AfterValidator(_not_negative)]
Pattern = Annotated[str, Field(min_length=1, max_length=256)]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    #: The first day (UTC) on which the line holds; without it, since ever.
    since: date = Field(_SINCE_EVER, alias="from")

    @property
    def starts(self) -> int:
        """The first instant at which the line holds, microseconds since 1970."""
        return to_micros(datetime(self.since.year, self.since.month, self.since.day, tzinfo=UTC))


class ModelLine(_Line):
    """What a model, or all models of a pattern, cost by contract: own rates, or a discount off the catalogue.

    Rates are dollars per million tokens; ``per_request`` is dollars per call.
    """

    provider: Pattern
    model: Pattern
    service_tier: str | None = Field(None, max_length=64)
    input: Dollars | None = None
    output: Dollars | None = None
    cache_read: Dollars | None = None
    cache_creation: Dollars | None = None
    reasoning: Dollars | None = None
    audio_input: Dollars | None = None
    audio_cache_read: Dollars | None = None
    audio_output: Dollars | None = None
    per_request: Dollars | None = None
    #: Off the catalogue's price of the day; below zero it is a surcharge.
    discount_percent: Annotated[Number, Field(ge=-1000, le=100)] | None = None

    @model_validator(mode="after")
    def _prices_something(self) -> "ModelLine":
        given = [name for name in DollarRates._fields if getattr(self, name) is not None]
        if self.discount_percent is not None and given:
            raise ValueError(f"give either discount_percent or rates of its own ({', '.join(given)}), not both")
        if self.discount_percent is None and self.input is None and self.per_request is None:
            raise ValueError("give input (dollars per million tokens), per_request or discount_percent")
        if self.output is None and self.reasoning is not None:
            raise ValueError("reasoning tokens are a part of output: give output as well")
        if self.output is None and self.audio_output is not None:
            raise ValueError("audio_output tokens are a part of output: give output as well")
        return self

    @property
    def rates(self) -> DollarRates | None:
        """The line's own rates; None where it is a discount."""
        if self.discount_percent is not None:
            return None
        return DollarRates(
            input=self.input,
            output=self.output,
            cache_read=self.cache_read,
            cache_creation=self.cache_creation,
            reasoning=self.reasoning,
            audio_input=self.audio_input,
            audio_cache_read=self.audio_cache_read,
            audio_output=self.audio_output,
            per_request=self.per_request,
        )

    @property
    def factor(self) -> Decimal:
        """What the discount leaves of a list price."""
        return (100 - (self.discount_percent or Decimal(0))).scaleb(-2)

    def matches(self, seller: str, model: str, tier: str) -> bool:
        """Whether the line is about this model of this seller (catalogue names) in this tier."""
        if self.provider != "*" and provider_id(self.provider) != seller:
            return False
        if self.service_tier is not None and standard_tier(self.service_tier) != tier:
            return False
        return any(_fits(self.model, name) for name in model_names(seller, model))

    @property
    def rank(self) -> tuple[int, ...]:
        """Which of two matching lines in force wins: the more exact one, then the later one."""
        literal = _literal(self.model)
        exact = literal == len(self.model)
        return exact, literal, self.provider != "*", self.service_tier is not None, self.starts


class GpuLine(_Line):
    """What a GPU costs per hour while it is allocated."""

    model: Pattern
    #: Of a MIG slice with a price of its own; other slices pay their part of the whole GPU.
    mig_profile: str | None = Field(None, max_length=64)
    usd_per_hour: Dollars

    def matches(self, model: str, mig_profile: str) -> bool:
        """Whether the line is about this GPU or slice; case does not matter."""
        if self.mig_profile is not None and not _fits(self.mig_profile, mig_profile):
            return False
        return _fits(self.model, model)

    @property
    def rank(self) -> tuple[int, ...]:
        """Which of two lines in force wins: a slice's own price, the longer pattern, then the later one."""
        return (
            self.mig_profile is not None,
            sum(character not in "*?[]" for character in self.model),
            self.starts,
        )


class FxLine(_Line):
    """What one unit of a currency is worth in dollars."""

    currency: Annotated[str, Field(pattern=r"^[A-Za-z]{3,12}$")]
    usd: Annotated[Number, AfterValidator(_above_zero)]

    @field_validator("currency")
    @classmethod
    def _in_capitals(cls, value: str) -> str:
        if value.upper() == "USD":
            raise ValueError("a dollar is a dollar: USD needs no rate")
        return value.upper()

    @property
    def rank(self) -> tuple[int, ...]:
        """The later rate wins."""
        return (self.starts,)


class RateCard(BaseModel):
    """All lines of a rate card; without any, the catalogue alone sets prices."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: tuple[ModelLine, ...] = ()
    gpus: tuple[GpuLine, ...] = ()
    fx: tuple[FxLine, ...] = ()


def load_rate_card(text: str) -> RateCard:
    """Read a rate card from YAML; amounts are read from their text, so no digit is lost.

    Raises:
        RateCardError: with every error found, one line each, each naming its line.
    """
    try:
        document = Document(text)
        return document.validate(RateCard, _repeated(document))
    except DocumentError as error:
        raise RateCardError(error.problems) from error


def _repeated(document: Document) -> Iterator[Problem]:
    keys: dict[str, tuple[str, ...]] = {
        "models": ("provider", "model", "service_tier", "from"),
        "gpus": ("model", "mig_profile", "from"),
        "fx": ("currency", "from"),
    }
    for section, names in keys.items():
        seen: set[tuple[str, ...]] = set()
        for path, entry in document.items(section):
            key = tuple(str(entry.get(name, "")).lower() for name in names)
            if key in seen:
                said = ", ".join(f"{name} {value}" for name, value in zip(names, key, strict=True) if value)
                yield Problem(path, f"a second line for {said}: which one holds would be a guess")
            seen.add(key)


class Dated(Protocol):
    """A line with a beginning and a rank."""

    @property
    def starts(self) -> int: ...

    @property
    def rank(self) -> tuple[int, ...]: ...


AnyLine = TypeVar("AnyLine", bound=Dated)


def in_force(lines: Iterable[AnyLine], instant: int) -> AnyLine | None:
    """Of lines that match, the one that holds at an instant; None before the first of them."""
    return max((line for line in lines if line.starts <= instant), key=lambda line: line.rank, default=None)


def _literal(pattern: str) -> int:
    return sum(character not in "*?[]" for character in pattern)


def _fits(pattern: str, name: str) -> bool:
    return fnmatchcase(name.lower(), pattern.lower())
