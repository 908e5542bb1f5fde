"""Rows of a FOCUS bill, version 1.0 to 1.4, as bill lines. Pure; FOCUS names are in ``docs/formats.md``."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

import msgspec

from schemas.events import BillingRecord
from schemas.instants import format_instant, to_micros

#: Field of a bill line -> FOCUS columns, the newest name first.
COLUMNS: dict[str, tuple[str, ...]] = {
    "billing_account_id": ("BillingAccountId",),
    "billing_currency": ("BillingCurrency",),
    "service_provider_name": ("ServiceProviderName", "ProviderName"),
    "host_provider_name": ("HostProviderName",),
    "invoice_issuer_name": ("InvoiceIssuerName", "InvoiceIssuer"),
    "charge_category": ("ChargeCategory",),
    "charge_class": ("ChargeClass",),
    "charge_description": ("ChargeDescription",),
    "service_name": ("ServiceName",),
    "service_category": ("ServiceCategory",),
    "service_subcategory": ("ServiceSubcategory",),
    "consumed_unit": ("ConsumedUnit",),
    "pricing_unit": ("PricingUnit",),
    "sub_account_id": ("SubAccountId",),
    "sub_account_name": ("SubAccountName",),
    "sku_id": ("SkuId",),
    "sku_meter": ("SkuMeter",),
    "sku_price_id": ("SkuPriceId",),
    "region_id": ("RegionId", "Region"),
    "resource_id": ("ResourceId",),
    "resource_type": ("ResourceType",),
    "invoice_id": ("InvoiceId",),
    "invoice_detail_id": ("InvoiceDetailId",),
}
AMOUNTS = {
    "billed_cost": "BilledCost",
    "effective_cost": "EffectiveCost",
    "list_cost": "ListCost",
    "contracted_cost": "ContractedCost",
    "consumed_quantity": "ConsumedQuantity",
    "pricing_quantity": "PricingQuantity",
}
INSTANTS = {
    "billing_period_start": "BillingPeriodStart",
    "billing_period_end": "BillingPeriodEnd",
    "charge_period_start": "ChargePeriodStart",
    "charge_period_end": "ChargePeriodEnd",
}
#: Whose money it is, where the bill's tags say so; keys are compared in lower case without ``user:``.
TAGS = {
    "org_id": ("org_id", "org"),
    "cost_center": ("cost_center", "costcenter", "cost-center"),
    "team_id": ("team_id", "team"),
    "project_id": ("project_id", "project"),
    "feature": ("feature",),
    "environment": ("environment", "env"),
}
_MISSING = frozenset({"", "NULL", "null", "None"})


class FocusError(ValueError):
    """A row that is no FOCUS charge; the message names the column and what is wrong with it."""


def focus_row(row: Mapping[str, str]) -> BillingRecord:
    """The bill line of one row. ``NULL`` and empty texts are missing; columns without a field are left out.

    Raises:
        FocusError: a mandatory column is missing, or a value is no number, instant, JSON or allowed word.
    """
    found: dict[str, object] = {"origin": "focus"}
    for field, columns in COLUMNS.items():
        for column in columns:
            if (text := _text(row, column)) is not None:
                found[field] = text
                break
    for field, column in AMOUNTS.items():
        if (text := _text(row, column)) is not None:
            found[field] = _amount(column, text)
    for field, column in INSTANTS.items():
        if (text := _text(row, column)) is not None:
            found[field] = _instant(column, text)
    tags = _tags(_text(row, "Tags"))
    if tags:
        found["tags"] = tags
        found |= _owner(tags)
    try:
        return msgspec.convert(found, BillingRecord)
    except msgspec.ValidationError as error:
        raise FocusError(f"not a FOCUS charge: {error}") from error


def is_focus(row: Mapping[str, object]) -> bool:
    """Whether a mapping has FOCUS column names rather than those of a bill line."""
    return "BilledCost" in row


def _text(row: Mapping[str, str], column: str) -> str | None:
    value = row.get(column)
    if value is None:
        return None
    return None if value.strip() in _MISSING else value.strip()


def _amount(column: str, text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise FocusError(f"{column} is no number: {text[:64]!r}") from error
    if not value.is_finite():
        raise FocusError(f"{column} is not finite: {text[:64]!r}")
    return value


def _instant(column: str, text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise FocusError(f"{column} is no instant such as 2026-11-21T00:00:00Z: {text[:64]!r}") from error
    # FOCUS is in UTC; version 1.0 exports write it without saying so.
    return format_instant(to_micros(moment if moment.tzinfo else moment.replace(tzinfo=UTC)))


def _tags(text: str | None) -> dict[str, str]:
    if text is None:
        return {}
    try:
        tags = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise FocusError(f"Tags is no JSON: {error}") from error
    if not isinstance(tags, dict):
        raise FocusError(f"Tags is no JSON object: {text[:64]!r}")
    return {
        name.strip(): value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in tags.items()
        if value is not None
    }


def _owner(tags: Mapping[str, str]) -> dict[str, str]:
    plain = {name.lower().removeprefix("user:"): value for name, value in tags.items()}
    owner = {}
    for field, names in TAGS.items():
        for name in names:
            if plain.get(name):
                owner[field] = plain[name]
                break
    return owner
