"""Raw records as the transport delivers them, and rules for folding them, for unit tests."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from schemas.cloudevents import binary_headers
from schemas.events import USAGE_TYPE, BillingRecord, UsageEvent
from schemas.instants import HOUR, SECOND, format_instant
from schemas.statements import Source
from streams.core.cells import Charge
from streams.core.meter import PartitionState
from streams.core.rates import DollarRates, FlatTerms, UnitRates
from streams.core.reading import Limits
from streams.core.rules import Rules
from streams.core.scopes import ScopeWatchlist, WatchedBudget
from streams.transport.fetching import Unread

#: 2026-11-21T10:00:00Z
NOON = 1_795_255_200 * SECOND
SOURCE = Source("usage.events.v1", 0, 0)


@dataclass
class RawRecord:
    """What aiokafka hands over, as far as the core looks."""

    offset: int
    timestamp: int
    value: bytes | None
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    key: bytes | None = b"k"


_RATES = UnitRates(DollarRates(input=Decimal("0.01"), output=Decimal("0.04")))


class FlatPricing:
    """Ten nanodollars per input token, forty per output token: linear, so an oracle is one line."""

    def charge(self, event: Any, event_time: int) -> Charge:
        if isinstance(event, UsageEvent):
            return Charge(event.input_tokens * 10 + event.output_tokens * 40)
        return Charge(0)

    def flat(self, event: Any, event_time: int) -> FlatTerms | None:
        """Flat for half an hour and up to 4 000 tokens, so that lanes end and some calls are priced one by one."""
        if event.status != "success":
            return None
        start = event_time - event_time % (HOUR // 2)
        return FlatTerms(start, start + HOUR // 2, _RATES, 4_000)

    def bill_category(self, bill: BillingRecord) -> str:
        return "tooling"


def usage_record(
    offset: int,
    *,
    id: str | None = None,
    at: int = NOON,
    arrived: int | None = None,
    team: str = "search",
    **fields: Any,
) -> RawRecord:
    """One LLM call as a record; it arrives when it happens unless said otherwise."""
    event = UsageEvent(provider="openai", request_model="gpt-4o", team_id=team, **fields)
    headers = binary_headers(
        id=id or f"e{offset}", source="//gw/1", type=USAGE_TYPE, time=format_instant(at), subject=team
    )
    return RawRecord(offset, (at if arrived is None else arrived) // 1_000, msgspec.json.encode(event), headers)


def rules(**changes: Any) -> Rules:
    """Folding rules with one daily budget on team search."""
    day = 24 * HOUR
    budget = WatchedBudget("search-daily", (("team", "search"),), lambda t: (t - t % day, t - t % day + day))
    return Rules(Limits(), FlatPricing(), ScopeWatchlist([budget]))._replace(**changes)


def state(**changes: Any) -> PartitionState:
    """An empty partition."""
    return PartitionState(SOURCE, rules(**changes))


def cost(partition: PartitionState) -> int:
    """All money in the live cells."""
    return sum(cell.totals.cost_nanos for cell in partition.cells.values())


def unread(first: int, *, last: int | None = None, gaps: tuple[int, ...] = ()) -> Unread:
    """A fetch as the transport hands it over: one record batch in the broker's format, with offsets left out."""
    end = (first if last is None else last) + 1
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=1_000_000,
    )  # fmt: skip
    for offset in range(first, end):
        if offset not in gaps:
            builder.append(offset, 0, None, b"v", [])
    batch = MemoryRecords(bytes(builder.build())).next_batch()
    return Unread(first, end, 0, [batch])
