"""Throttles and sources as they stand."""

from datetime import datetime
from typing import Any

import asyncpg
import msgspec
from fastapi import APIRouter

from schemas.instants import SECOND, format_instant, parse_instant, to_datetime, to_micros
from streams.web import queries
from streams.web.answers import Ack, Source, Sources, Throttles
from streams.web.reading import Parts, Reading, present

router = APIRouter()


@router.get("/v1/throttles", summary="Restrictions that are live now", tags=["throttles"])
async def read_throttles(parts: Parts, reader: Reading) -> Throttles:
    """Commands that are neither `allow`, nor expired, nor a dry run, with what gateways acknowledged."""
    now = await present(parts)
    rows = await queries.throttles(parts.pool, to_datetime(now), reader.team)
    return Throttles(now=format_instant(now), throttles=[_throttle(row) for row in rows])


def _throttle(row: asyncpg.Record) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(row["body_text"])
    acks = [Ack(**ack) for ack in msgspec.json.decode(row["acks"])]
    for ack in acks:
        ack.applied_at = format_instant(parse_instant(ack.applied_at))
    names = (
        "command_key",
        "command_id",
        "revision",
        "budget_id",
        "scope_type",
        "scope_id",
        "action",
        "reason",
    )
    columns = {name: row[name] for name in names}
    times = {name: _text(row[name]) for name in ("issued_at", "expires_at")}
    return body | columns | times | {"acks": acks}


@router.get("/v1/sources", summary="How far the ledger is in every source partition", tags=["sources"])
async def read_sources(parts: Parts, reader: Reading) -> Sources:
    """Watermarks, lag, dead letters and duplicates. Needs a key that is not bound to a team, where keys count."""
    reader.sees_all()
    now = await present(parts)
    rows = await queries.sources(parts.pool)
    return Sources(
        now=format_instant(now),
        dead_letters=sum(row["dead_letters"] for row in rows),
        duplicates=sum(row["duplicates"] for row in rows),
        sources=[_source(row, now, parts.clock.now()) for row in rows],
    )


def _source(row: asyncpg.Record, now: int, wall: int) -> Source:
    # A partition that has had no event yet states the beginning of time.
    stream_time = to_micros(row["stream_time"]) or None
    topic, _, rest = row["slot"].rpartition("@")
    partition = rest.rpartition("-")[2]
    return Source(
        slot=row["slot"],
        topic=topic,
        partition=int(partition) if partition.isdecimal() else -1,
        next_offset=row["next_offset"],
        revision=row["revision"],
        stream_time=None if stream_time is None else format_instant(stream_time),
        lag_seconds=None if stream_time is None else _seconds(stream_time, now),
        updated_at=_text(row["updated_at"]),
        silent_seconds=_seconds(to_micros(row["updated_at"]), wall),
        dead_letters=row["dead_letters"],
        duplicates=row["duplicates"],
    )


def _seconds(since: int, now: int) -> int:
    return max(now - since, 0) // SECOND


def _text(moment: datetime) -> str:
    return format_instant(to_micros(moment))
