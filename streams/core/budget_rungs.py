"""The thresholds of a budget as people write them, and what gateways are to do from each of them on."""

from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from schemas.alerts import Severity
from schemas.budgets import Rung
from schemas.commands import Measure
from schemas.money import MoneyError, parse_nanos

BLOCK = Measure("block")
DEFAULT_LADDER = (
    Rung(50, "info"),
    Rung(75, "warning"),
    Rung(90, "critical"),
    Rung(100, "emergency", (BLOCK,)),
)

#: What a measure needs, and is nothing without: one of each group at least.
NEEDED: dict[str, tuple[str, ...]] = {
    "rate_limit": ("rpm", "tpm"), "downgrade": ("models",), "cap_tokens": ("max_tokens",), "block": (),
}  # fmt: skip


def listed(value: object) -> object:
    """One text is a list of one."""
    return [value] if isinstance(value, str) else value


def nanos_of(value: object) -> int:
    """Nanodollars of an amount that is more than nothing.

    Raises:
        ValueError: it is none, or beyond belief.
    """
    try:
        nanos = parse_nanos(str(value))
    except MoneyError as error:
        raise ValueError(str(error)) from error
    if nanos <= 0:
        raise ValueError("a budget is more than 0 dollars; to forbid all spending, revoke the key instead")
    if nanos > 9 * 10**18:
        raise ValueError("a budget of more than 9 billion dollars is surely a typing error")
    return nanos


def permille_of(value: object) -> int:
    """Thousandths of a factor such as ``1.2``.

    Raises:
        ValueError: it is none between 0.1 and 10, or has more than three decimals.
    """
    try:
        factor = Decimal(str(value))
    except InvalidOperation as error:
        raise ValueError("growth is a factor such as 1.2, which is 20 % more") from error
    if not factor.is_finite() or not Decimal("0.1") <= factor <= 10:
        raise ValueError("growth lies between 0.1 and 10; 1.2 is 20 % more")
    if factor * 1_000 % 1:
        raise ValueError("growth has at most three decimals, such as 1.025")
    return int(factor * 1_000)


Text = Annotated[str, Field(min_length=1, max_length=256)]
Texts = Annotated[list[Text], BeforeValidator(listed), Field(min_length=1, max_length=100)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]


class MeasureRow(BaseModel):
    """One measure."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["rate_limit", "cap_tokens", "downgrade", "block"]
    request_types: Annotated[list[Literal["interactive", "batch", "background"]] | None, BeforeValidator(listed)] = None
    environments: Texts | None = None
    rpm: Count | None = None
    tpm: Count | None = None
    max_tokens: Count | None = None
    models: dict[Text, Text] = {}

    def measure(self) -> Measure:
        """As gateways are told."""
        return Measure(
            self.action,
            request_types=tuple(self.request_types or ()),
            environments=tuple(self.environments or ()),
            rpm=self.rpm,
            tpm=self.tpm,
            max_tokens=self.max_tokens,
            models=self.models,
        )


class RungRow(BaseModel):
    """One threshold."""

    model_config = ConfigDict(extra="forbid")

    percent: int = Field(ge=1, le=1_000)
    severity: Severity
    on: Literal["spent", "forecast"] = "spent"
    #: ``block`` is short for the measure of that name, of all calls.
    action: Literal["notify", "block"] = "notify"
    measures: list[MeasureRow] = Field(default=[], max_length=16)

    def rung(self) -> Rung:
        """As BUDGET takes it."""
        measures = [row.measure() for row in self.measures]
        if self.action == "block" and BLOCK not in measures:
            measures.append(BLOCK)
        return Rung(self.percent, self.severity, tuple(measures), self.on)


def measure_problem(row: dict[str, Any]) -> tuple[str, str] | None:
    """What does not fit together in a measure as written: the field, and the words; None where all does."""
    action = row.get("action")
    needed = NEEDED.get(action) if isinstance(action, str) else None
    if needed is None:
        return None
    if needed and not any(row.get(name) for name in needed):
        return "action", f"{action} needs {' or '.join(needed)}"
    for name in ("rpm", "tpm", "max_tokens", "models"):
        if name in row and name not in needed:
            owner = next(other for other, fields in NEEDED.items() if name in fields)
            return name, f"belongs to {owner}, not to {action}"
    models = row.get("models")
    if isinstance(models, dict):
        for asked, instead in models.items():
            if asked == instead or instead == "*":
                return "models", f"{asked} is replaced by {instead}: name a cheaper model"
    return None
