"""Folding one event into the cumulative totals of its cell. Every total adds; nothing is compared or taken away."""

from bisect import bisect_right
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

from schemas.events import BillingRecord, GpuSample, UsageEvent
from schemas.keys import cell_id
from schemas.money import MoneyError, parse_nanos
from schemas.statements import COST_BOUNDS_NANOS, LATENCY_BOUNDS_MS, CellStatement, Dimensions, Source, Totals

UNATTRIBUTED = "__unattributed__"


class Charge(NamedTuple):
    """What one event costs, and on what ground."""

    nanos: int
    #: No price was known and the gateway's own figure stands in.
    estimated: bool = False
    #: No price was known at all: zero money, and said loudly.
    unpriced: bool = False
    #: Billed for what is metered here already: reconciled, never added (rule 7).
    reconciled_nanos: int = 0


def usage_dimensions(event: UsageEvent, subject: str, org_id: str) -> Dimensions:
    """The cell of a call. Money without an owner is counted under ``__unattributed__``."""
    return Dimensions(
        event.org_id or org_id,
        event.cost_center,
        event.team_id or subject or UNATTRIBUTED,
        event.project_id,
        event.feature or UNATTRIBUTED,
        event.model,
        event.provider,
        event.environment,
        event.request_type,
        event.user_tier,
        "llm",
    )


def gpu_dimensions(sample: GpuSample, org_id: str) -> Dimensions:
    """The cell of a GPU window: who held the GPU; an idle pool belongs to nobody."""
    return Dimensions(
        sample.org_id or org_id,
        sample.cost_center,
        sample.team_id or UNATTRIBUTED,
        sample.project_id,
        sample.feature or UNATTRIBUTED,
        sample.model,
        "gpu",
        sample.environment,
        "background",
        "",
        "gpu",
    )


def bill_dimensions(bill: BillingRecord, category: str, org_id: str) -> Dimensions:
    """The cell of a bill line."""
    return Dimensions(
        bill.org_id or org_id,
        bill.cost_center,
        bill.team_id or UNATTRIBUTED,
        bill.project_id,
        bill.feature or UNATTRIBUTED,
        bill.service_name,
        bill.service_provider_name,
        bill.environment,
        "background",
        "",
        category,
    )


def own_dimensions(
    event: GpuSample | BillingRecord, category_of: Callable[[BillingRecord], str], org_id: str
) -> Dimensions:
    """The cell of what is no call."""
    if isinstance(event, GpuSample):
        return gpu_dimensions(event, org_id)
    return bill_dimensions(event, category_of(event), org_id)


Counted = UsageEvent | GpuSample | BillingRecord


def new_cell(dimensions: Dimensions, hour: int, source: Source, segment: int, revision: int) -> CellStatement:
    """A cell without anything in it, whose segment begins at this offset."""
    return CellStatement(
        cell_id=cell_id(dimensions, hour),
        hour=hour,
        dimensions=dimensions,
        source=source,
        segment=segment,
        revision=revision,
        offset=-1,
        totals=Totals(),
    )


def fold(totals: Totals, event: Counted, charge: Charge, late: bool) -> None:
    """Add one event of any kind to its cell."""
    if isinstance(event, UsageEvent):
        fold_usage(totals, event, charge, late)
    elif isinstance(event, GpuSample):
        fold_gpu(totals, event, charge, late)
    else:
        fold_bill(totals, charge, late)


def fold_usage(totals: Totals, event: UsageEvent, charge: Charge, late: bool) -> None:
    """Add one call to its cell."""
    totals.requests += 1
    if event.status == "success":
        totals.successes += 1
    else:
        totals.errors += 1
    if event.cache_hit:
        totals.cache_hits += 1
    totals.input_tokens += event.input_tokens
    totals.cache_read_input_tokens += event.cache_read_input_tokens
    totals.cache_creation_input_tokens += event.cache_creation_input_tokens
    totals.output_tokens += event.output_tokens
    totals.reasoning_output_tokens += event.reasoning_output_tokens
    totals.audio_tokens += event.audio_input_tokens + event.audio_output_tokens
    if event.reported_cost is not None:
        totals.reported_cost_nanos += reported_nanos(event)
    if event.duration_ms is not None:
        totals.latency_histogram[bisect_right(LATENCY_BOUNDS_MS, event.duration_ms)] += 1
    totals.cost_histogram[bisect_right(COST_BOUNDS_NANOS, charge.nanos)] += 1
    _charge(totals, charge, late)


def fold_gpu(totals: Totals, sample: GpuSample, charge: Charge, late: bool) -> None:
    """Add one GPU window to its cell: GPU-milliseconds, half even, and its money."""
    totals.gpu_milliseconds += gpu_milliseconds(sample)
    _charge(totals, charge, late)


def fold_bill(totals: Totals, charge: Charge, late: bool) -> None:
    """Add one bill line to its cell."""
    _charge(totals, charge, late)


def gpu_milliseconds(sample: GpuSample) -> int:
    """The part of the GPU's time that this sample stands for, in whole milliseconds."""
    share = sample.allocated_seconds * 1000 / sample.shared_by
    return int(share.to_integral_value(ROUND_HALF_EVEN))


def _charge(totals: Totals, charge: Charge, late: bool) -> None:
    totals.cost_nanos += charge.nanos
    totals.reconciled_cost_nanos += charge.reconciled_nanos
    if charge.estimated:
        totals.estimated_cost_nanos += charge.nanos
    if charge.unpriced:
        totals.unpriced_requests += 1
    if late:
        totals.unverified_late += 1


def reported_nanos(event: UsageEvent) -> int:
    """The gateway's figure is kept for comparison only, so a malformed one is no reason to refuse the event."""
    text = event.reported_cost
    if text is None or event.currency != "USD":
        return 0
    # Nearly every figure is below ten dollars, with at most nine decimals: exact without a decimal's detour.
    if text[1:2] == "." and len(text) <= _PLAIN_LENGTH_MAX and text[2:].isdecimal() and text.isascii():
        return int(text[0] + text[2:]) * _SCALES[len(text)] if text[0] in _DIGITS else 0
    try:
        nanos = parse_nanos(text)
    except MoneyError:
        return 0
    return nanos if abs(nanos) < _REPORTED_MAX else 0


_DIGITS = frozenset("0123456789")
#: ``d.ddddddddd``: the text's length says what its digits are multiples of.
_PLAIN_LENGTH_MAX = 11
_SCALES = {length: 10 ** (_PLAIN_LENGTH_MAX - length) for length in range(3, _PLAIN_LENGTH_MAX + 1)}
_REPORTED_MAX = parse_nanos(Decimal(10) ** 6)
