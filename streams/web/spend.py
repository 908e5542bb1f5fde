"""Spend, as JSON and as CSV."""

import csv
import io
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, field_validator

from schemas.instants import format_instant
from schemas.money import format_usd
from streams.settings_sources import did_you_mean
from streams.web import queries
from streams.web.answers import Amounts, Spend, SpendRow
from streams.web.problems import problem
from streams.web.reading import Parts, Period, Reader, Reading, Span, present, span_of

router = APIRouter(tags=["spend"])

GROUPS = (*queries.DIMENSIONS, *queries.TIMES)
#: Columns of spend.csv. Their meaning is docs for people: the endpoint's description is made of it.
CSV_COLUMNS: Mapping[str, str] = {
    "day": "UTC day, YYYY-MM-DD",
    "team": "team; `__unattributed__` where nobody owns the usage",
    "feature": "feature, empty where none was named",
    "model": "model that was billed",
    "currency": "USD",
    "cost": "spend, exact decimal",
    "estimated_cost": "part of cost that stands on the gateway's own figure",
    "reported_cost": "the gateway's figure for the same calls, never part of cost",
    "reconciled_cost": "billed for usage that is metered already, never part of cost",
    "requests": "calls",
    "successes": "calls that succeeded",
    "errors": "calls that failed",
    "cache_hits": "calls that the gateway's cache answered",
    "input_tokens": "all input tokens, cached ones included",
    "cache_read_input_tokens": "input tokens read from the provider's cache",
    "cache_creation_input_tokens": "input tokens written to the provider's cache",
    "output_tokens": "all output tokens, reasoning included",
    "reasoning_output_tokens": "output tokens spent on reasoning",
    "audio_tokens": "audio tokens, in and out",
    "gpu_milliseconds": "allocated GPU time",
    "unpriced_requests": "calls without a price: not in cost",
    "unverified_late": "counted, but too late to be checked for duplicates",
}
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_CSV_CHUNK_ROWS = 500


class SpanQuery(BaseModel):
    """Which hours, and of whom."""

    model_config = ConfigDict(extra="forbid")

    start: str | None = Field(None, alias="from", description="Date or RFC 3339 instant; down to the whole hour.")
    end: str | None = Field(None, alias="to", description="Date or RFC 3339 instant, not included; up to the hour.")
    period: Period = Field("today", description="Instead of from and to. Days are UTC and include today.")
    team: str | None = None
    feature: str | None = None
    model: str | None = None
    provider: str | None = None
    org: str | None = None
    cost_center: str | None = None
    project: str | None = None
    environment: str | None = None
    request_type: str | None = None
    user_tier: str | None = None
    category: str | None = None

    def filters(self, reader: Reader) -> dict[str, str]:
        """Equality filters by dimension; a team's own key overrides what it asks for."""
        asked = {name: getattr(self, name) for name in queries.DIMENSIONS}
        found = {name: value for name, value in asked.items() if value is not None}
        return found | ({"team": reader.team} if reader.team else {})


class SpendQuery(SpanQuery):
    """Which hours, of whom, and grouped how."""

    group_by: str = Field("", description=f"Names with commas between them, of: {', '.join(GROUPS)}.")
    limit: int = Field(1_000, ge=1, le=10_000, description="Groups in the answer; the total is of all groups.")

    @field_validator("group_by")
    @classmethod
    def _known(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",") if name.strip()]
        for name in names:
            if name not in GROUPS:
                guess = did_you_mean(name, GROUPS)
                raise ValueError(f"cannot group by {name[:40]!r}{guess} There are: {', '.join(GROUPS)}")
        return ",".join(dict.fromkeys(names))


class CsvQuery(SpanQuery):
    """Which hours, and of whom; the last 30 days unless said otherwise."""

    period: Period = "30d"


@router.get("/v1/spend", summary="Spend, grouped as asked")
async def read_spend(parts: Parts, reader: Reading, query: Annotated[SpendQuery, Query()]) -> Any:
    """Exact sums over whole UTC hours, the dearest group first (in order of time when grouped by hour or day)."""
    span = await _span(parts, query)
    if not isinstance(span, Span):
        return span
    group_by = [name for name in query.group_by.split(",") if name]
    total, rows = await queries.spend(parts.pool, span.bounds(), group_by, query.filters(reader), query.limit + 1)
    return Spend(
        start=format_instant(span.start),
        end=format_instant(span.end),
        group_by=group_by,
        total=Amounts(**_amounts(total)),
        rows=[SpendRow(**{name: row[name] for name in group_by}, **_amounts(row)) for row in rows[: query.limit]],
        truncated=len(rows) > query.limit,
    )


@router.get(
    "/v1/spend.csv",
    summary="Spend by day, team, feature and model, for chargeback",
    description="Amounts are exact decimals. A text that a spreadsheet would run as a formula gets a leading `'`."
    " Columns:\n\n" + "\n".join(f"- `{name}`: {meaning}" for name, meaning in CSV_COLUMNS.items()),
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {}}}},
)
async def read_spend_csv(parts: Parts, reader: Reading, query: Annotated[CsvQuery, Query()]) -> Any:
    span = await _span(parts, query)
    if not isinstance(span, Span):
        return span
    chunks = _csv(parts, span, query.filters(reader))
    # The query runs before the answer starts: a database that is away is still a 503.
    first = await anext(chunks)
    return StreamingResponse(
        _followed_by(first, chunks),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="spend.csv"'},
    )


async def _span(parts: Parts, query: SpanQuery) -> Any:
    """The span that is asked for, or the problem with it."""
    try:
        return span_of(query.start, query.end, query.period, await present(parts))
    except ValueError as error:
        return problem(422, str(error))


def _amounts(row: Mapping[str, Any]) -> dict[str, Any]:
    """The sums of a row: money as decimal strings, counts as integers."""
    money = {name.removesuffix("_nanos"): format_usd(int(row[name])) for name in queries.MONEY}
    counts = {name: int(row[name]) for name in queries.COUNTS}
    return money | counts | {"tokens": counts["input_tokens"] + counts["output_tokens"]}


async def _csv(parts: Parts, span: Span, filters: Mapping[str, str]) -> AsyncIterator[bytes]:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(CSV_COLUMNS), extrasaction="ignore")
    writer.writeheader()
    waiting = 0
    async for row in queries.spend_by_day(parts.pool, span.bounds(), filters):
        names = {name: _inert(row[name]) for name in ("team", "feature", "model")}
        writer.writerow({"day": row["day"], "currency": "USD"} | names | _amounts(row))
        waiting += 1
        if waiting == _CSV_CHUNK_ROWS:
            yield _taken(buffer)
            waiting = 0
    yield _taken(buffer)


def _inert(text: str) -> str:
    """A producer chose this text; a spreadsheet must not run it."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _taken(buffer: io.StringIO) -> bytes:
    data = buffer.getvalue().encode()
    buffer.seek(0)
    buffer.truncate()
    return data


async def _followed_by(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
