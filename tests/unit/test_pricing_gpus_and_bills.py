"""What GPU windows and bill lines cost."""

from decimal import Decimal
from typing import Any

import pytest

from schemas.events import BillingRecord, GpuSample, UsageEvent
from schemas.instants import parse_instant
from streams.core.pricing import Basis, PriceBook, PriceError, UnknownCurrency
from streams.core.rate_card import RateCard, load_rate_card

NOW = parse_instant("2026-11-21T12:00:00Z")


def gpu(**fields: Any) -> GpuSample:
    window = {"window_start": "2026-11-21T12:00:00Z", "window_end": "2026-11-21T12:01:00Z"}
    given = {"gpu_uuid": "GPU-1", "model": "NVIDIA H100 80GB HBM3", "allocated_seconds": Decimal(60)} | window
    return GpuSample(**(given | fields))


GPU_CARD = """
gpus:
  - {model: "*H100*", usd_per_hour: 3.60}
  - {model: "*H100*", usd_per_hour: 1.80, from: 2026-12-01}
  - {model: "*h100*", mig_profile: 3g.40gb, usd_per_hour: 2}
  - {model: "NVIDIA A30", usd_per_hour: 1}
"""


@pytest.mark.parametrize(
    ("fields", "at", "nanos", "basis"),
    [
        pytest.param({}, "2026-11-21", 60_000_000, Basis.CONTRACT, id="a minute at $3.60 an hour"),
        pytest.param({}, "2026-12-01", 30_000_000, Basis.CONTRACT, id="the price of that day"),
        pytest.param({"allocated_seconds": Decimal("0.5")}, "2026-11-21", 500_000, Basis.CONTRACT, id="half a second"),
        pytest.param({"shared_by": 3}, "2026-11-21", 20_000_000, Basis.CONTRACT, id="three pods share it"),
        pytest.param({"mig_profile": "3g.40gb"}, "2026-11-21", 33_333_333, Basis.CONTRACT, id="a slice's own price"),
        pytest.param({"mig_profile": "1g.10gb"}, "2026-11-21", 8_571_429, Basis.CONTRACT, id="a seventh of the GPU"),
        pytest.param(
            {"model": "NVIDIA A30", "mig_profile": "1g.6gb"},
            "2026-11-21",
            4_166_667,
            Basis.CONTRACT,
            id="a quarter of an A30",
        ),
        pytest.param({"model": "NVIDIA T4"}, "2026-11-21", 0, Basis.UNPRICED, id="a GPU without a price"),
        pytest.param({"allocated_seconds": Decimal(0)}, "2026-11-21", 0, Basis.CONTRACT, id="no time allocated"),
    ],
)
def test_a_gpu_costs_its_allocated_time(fields: dict[str, Any], at: str, nanos: int, basis: Basis) -> None:
    book = PriceBook(load_rate_card(GPU_CARD))
    assert book.price_gpu(gpu(**fields), parse_instant(f"{at}T00:00:00Z")) == (nanos, basis)


@pytest.mark.parametrize("seconds", ["-1", "NaN", "Infinity", "1E+999999", "1E-999999"])
def test_an_unbelievable_gpu_time_is_refused(seconds: str) -> None:
    with pytest.raises(PriceError):
        PriceBook(load_rate_card(GPU_CARD)).price_gpu(gpu(allocated_seconds=Decimal(seconds)), NOW)


def bill(amount: str, currency: str = "USD") -> BillingRecord:
    return BillingRecord(
        billing_account_id="a",
        charge_period_start="2026-11-21T00:00:00Z",
        charge_period_end="2026-11-22T00:00:00Z",
        billed_cost=Decimal(amount),
        billing_currency=currency,
        service_provider_name="AWS",
    )


FX = """
fx:
  - {currency: EUR, usd: 1.10}
  - {currency: eur, usd: 1.0825, from: 2026-11-01}
  - {currency: JPY, usd: 0.0066, from: 2026-12-01}
"""


@pytest.mark.parametrize(
    ("amount", "currency", "at", "nanos"),
    [
        pytest.param("12.34", "USD", "2026-11-21", 12_340_000_000, id="dollars"),
        pytest.param("-12.34", "usd", "2026-11-21", -12_340_000_000, id="a credit"),
        pytest.param("0.0000000005", "USD", "2026-11-21", 0, id="half a nanodollar"),
        pytest.param("-0.0000000015", "USD", "2026-11-21", -2, id="rounding a credit"),
        pytest.param("100", "EUR", "2026-10-31", 110_000_000_000, id="euros at the rate of October"),
        pytest.param("100", "EUR", "2026-11-01", 108_250_000_000, id="euros at the rate of November"),
    ],
)
def test_a_bill_line_is_billed_in_dollars_of_its_day(amount: str, currency: str, at: str, nanos: int) -> None:
    book = PriceBook(load_rate_card(FX))
    assert book.price_bill(bill(amount, currency), parse_instant(f"{at}T00:00:00Z")) == (nanos, Basis.BILLED)


@pytest.mark.parametrize("currency", ["GBP", "JPY", "", "tokens"])
def test_a_currency_without_a_rate_on_that_day_is_unknown(currency: str) -> None:
    with pytest.raises(UnknownCurrency, match="fx"):
        PriceBook(load_rate_card(FX)).price_bill(bill("1", currency), NOW)


@pytest.mark.parametrize("amount", ["NaN", "1E+40", "1E-99999999"])
def test_an_unbelievable_amount_is_refused(amount: str) -> None:
    with pytest.raises(PriceError):
        PriceBook(RateCard()).price_bill(bill(amount), NOW)


def test_a_reported_cost_in_another_currency_is_converted() -> None:
    event = UsageEvent(
        provider="openai", response_model="no-such-model", input_tokens=9, reported_cost="0.02", currency="EUR"
    )
    assert PriceBook(load_rate_card(FX)).price_usage(event, NOW) == (21_650_000, Basis.REPORTED)
