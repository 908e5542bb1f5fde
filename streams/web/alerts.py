"""Alerts as they stand, each with who has it in hand, who silenced it and what was sent; and taking one in hand."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple

import asyncpg
import msgspec
from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from schemas.alerts import Alert, Rule
from schemas.instants import format_instant, to_micros
from schemas.readers import ALERTS
from streams.core.alert_life import LifeError, Standing, standing
from streams.core.defining import RequestError, Wrong
from streams.core.defining import name as a_name
from streams.core.notifying import Acknowledgement, Silence
from streams.sinks import alert_records
from streams.sinks.acknowledgements import add_word, load_acknowledgements
from streams.sinks.owing import wake
from streams.sinks.silences import load_silences
from streams.sources.access import require_scope
from streams.web import queries
from streams.web.answers import Alerts
from streams.web.reading import Parts, Reading
from streams.web.writing import Body, BoundedRoute

router = APIRouter(route_class=BoundedRoute, tags=["alerts"])
#: Any dedup key: scopes are in it, and people name scopes.
DedupKey = Annotated[str, Path(max_length=255)]
WRITES = "alerts:write"


class Teller(NamedTuple):
    """A caller that may say something about alerts; ``team`` is the only team whose alerts, empty: all."""

    name: str
    team: str

    def may(self, team: str) -> None:
        """Go on where an alert of that team is this caller's business.

        Raises:
            HTTPException: 403.
        """
        if self.team not in ("", team):
            raise HTTPException(403, f"the API key {self.name!r} belongs to team {self.team!r}: this is not its alert")

    def said_as(self, by: str) -> str:
        """Who it was: the key's name, and before it the person that it says, where it says one."""
        if not by.strip():
            return self.name
        try:
            return f"{a_name(by)} ({self.name})"
        except ValueError as error:
            raise RequestError([Wrong("by", str(error))]) from error


async def teller(request: Request, parts: Parts) -> Teller:
    """The caller, if it may say something about alerts.

    Raises:
        HTTPException: 401, 403 or 503 as ``require_scope`` says.
    """
    info = await require_scope(request, parts.keys, WRITES)
    return Teller(info.name, info.team_id)


Telling = Annotated[Teller, Depends(teller)]


class AlertQuery(BaseModel):
    """Which alerts."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["open", "opened", "updated", "resolved"] | None = Field(
        None, description="open: opened or updated, and not resolved. Without it: all."
    )
    rule: Rule | None = None
    team: str | None = None
    limit: int = Field(100, ge=1, le=1_000)


class WordBody(Body):
    """Who takes it in hand, where that is not the key's name alone."""

    by: str = Field("", max_length=256, description="The person; the key's name is added.")
    note: str = Field("", max_length=1_000)
    via: Literal["api", "page"] = "api"


class Words(NamedTuple):
    """What people and other alerts say of some alerts now."""

    silences: Sequence[Silence]
    acknowledgements: Mapping[tuple[str, int], Acknowledgement]
    #: By dedup key, what holds an alert back besides silences, as ``alert_records.held_back`` has it.
    held: Mapping[str, Sequence[Mapping[str, Any]]]
    now: int

    def of(self, alert: Alert) -> Standing:
        """Where an alert stands."""
        held = self.held.get(alert.dedup_key, ())
        # What holds back pages alone is told to others.
        above = next((each["what"] for each in held if each["by"] == "inhibition" and not each["receivers"]), "")
        return standing(alert, self.silences, self.acknowledgements, self.now, above)


async def words_on(pool: asyncpg.Pool, alerts: Iterable[Alert], now: int) -> Words:
    """What is said of these alerts."""
    keys = [alert.dedup_key for alert in alerts]
    held = await alert_records.held_back(pool, keys)
    return Words(await load_silences(pool, now), await load_acknowledgements(pool, keys), held, now)


@router.get("/v1/alerts", summary="Alerts as they stand")
async def read_alerts(parts: Parts, reader: Reading, query: Annotated[AlertQuery, Query()]) -> Alerts:
    """Open alerts first, then the newest; `stage` says whether one fires, was acknowledged, is silenced, inhibited or
    resolved. A team's key sees the team's own alerts."""
    statuses: tuple[str, ...] = ()
    if query.status is not None:
        statuses = queries.OPEN_STATUSES if query.status == "open" else (query.status,)
    team = reader.team or query.team
    rows = await queries.alerts(parts.pool, statuses, query.rule, team, query.limit + 1)
    found = await shown_all(parts.pool, rows[: query.limit], parts.clock.now())
    return Alerts(alerts=found, truncated=len(rows) > query.limit)


async def shown_all(pool: asyncpg.Pool, rows: Sequence[asyncpg.Record], now: int) -> list[dict[str, Any]]:
    """Alerts for people, each with where it stands."""
    alerts = [read(row) for row in rows]
    words = await words_on(pool, alerts, now)
    return [
        shown(row, words.of(alert)) | {"held_back": list(words.held.get(alert.dedup_key, ()))}
        for row, alert in zip(rows, alerts, strict=True)
    ]


def read(row: asyncpg.Record) -> Alert:
    """The alert of a row; its columns are the newest word."""
    alert: Alert = ALERTS.decode(row["body_text"].encode())
    return msgspec.structs.replace(alert, status=row["status"], severity=row["severity"], episode=row["episode"])


def shown(row: asyncpg.Record, where: Standing) -> dict[str, Any]:
    """One alert: the members of Alert v1, and where it stands."""
    body: dict[str, Any] = msgspec.json.decode(row["body_text"])
    names = ("dedup_key", "episode", "status", "rule", "severity", "tier", "scope_type", "scope_id")
    columns = {name: row[name] for name in (*names, "team_id", "feature", "summary", "historic")}
    times = {name: text(row[name]) for name in ("occurred_at", "opened_at", "stated_at")}
    resolved = text(row["resolved_at"]) if row["resolved_at"] else None
    return {"id": row["short_id"]} | body | columns | times | {"resolved_at": resolved} | stood(where)


def stood(where: Standing) -> dict[str, Any]:
    """The members that say where an alert stands."""
    word, silence = where.acknowledged, where.silenced
    return {
        "stage": where.stage,
        "acknowledged": word and {"by": word.by, "at": format_instant(word.at), "via": word.via},
        "silenced": silence
        and {
            "id": silence.id, "until": format_instant(silence.ends), "by": silence.author, "reason": silence.reason,
        },
        "inhibited_by": where.inhibited_by or None,
    }  # fmt: skip


@router.get("/v1/alerts/{dedup_key:path}", summary="One alert: its episodes, the words on it, what was sent")
async def read_alert(parts: Parts, reader: Reading, dedup_key: DedupKey) -> dict[str, Any]:
    """What was sent to whom, when, and with which receipt or error, the newest first."""
    row = await _found(parts.pool, dedup_key, reader.team)
    return await whole(parts.pool, row, parts.clock.now())


async def whole(pool: asyncpg.Pool, row: asyncpg.Record, now: int) -> dict[str, Any]:
    """Everything that is known of one alert, for people."""
    (alert,) = await shown_all(pool, [row], now)
    key = row["dedup_key"]
    return {
        "alert": alert,
        "episodes": _episodes(await alert_records.history(pool, key)),
        "words": [_word(each) for each in await alert_records.words_on(pool, key)],
        "deliveries": [_delivery(each) for each in await alert_records.deliveries(pool, key)],
    }


def _episodes(rows: Iterable[asyncpg.Record]) -> list[dict[str, Any]]:
    """The newest episode first; in each what was said of it, the newest first."""
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        said = {name: row[name] for name in ("status", "severity", "tier", "summary", "action")}
        found.setdefault(row["episode"], []).append(said | {"at": text(row["stated_at"])})
    return [
        {
            "episode": episode,
            "opened_at": said[-1]["at"],
            "resolved_at": said[0]["at"] if said[0]["status"] == "resolved" else None,
            "statements": said,
        }
        for episode, said in found.items()
    ]


def _word(row: asyncpg.Record) -> dict[str, Any]:
    said = {"by": row["said_by"], "at": text(row["said_at"]), "via": row["via"], "note": row["note"]}
    return {"episode": row["episode"], "kind": "withdrawn" if row["withdrawn"] else "acknowledged"} | said


def _delivery(row: asyncpg.Record) -> dict[str, Any]:
    names = ("notification_id", "receiver", "action", "reason", "state", "attempts", "receipt", "last_error")
    times = {name: text(row[name]) if row[name] else None for name in ("owed_at", "due_at", "sent_at")}
    others = {name: row[name] or None for name in ("copy_of", "digest_id")}
    return {name: row[name] for name in names} | times | others


@router.put("/v1/alerts/{dedup_key:path}/acknowledgement", summary="Take an alert in hand")
async def put_word(parts: Parts, caller: Telling, dedup_key: DedupKey, body: WordBody) -> dict[str, Any]:
    """Its present episode: escalation and repeats end. Needs a key of scope `alerts:write`."""
    return await _say(parts, caller, dedup_key, body)


@router.delete("/v1/alerts/{dedup_key:path}/acknowledgement", summary="Give an alert back")
async def delete_word(
    parts: Parts, caller: Telling, dedup_key: DedupKey, by: Annotated[str, Query(max_length=256)] = ""
) -> dict[str, Any]:
    """Nobody has it in hand any more: escalation and repeats go on."""
    return await _say(parts, caller, dedup_key, WordBody(by=by), withdrawn=True)


async def _say(
    parts: Parts, caller: Teller, dedup_key: str, body: WordBody, *, withdrawn: bool = False
) -> dict[str, Any]:
    row = await _found(parts.pool, dedup_key, "")
    caller.may(row["team_id"])
    by = caller.said_as(body.by)
    return await say(parts.pool, row, by, body.via, parts.clock.now(), note=body.note, withdrawn=withdrawn)


async def say(
    pool: asyncpg.Pool, row: asyncpg.Record, by: str, via: str, now: int, *, note: str = "", withdrawn: bool = False
) -> dict[str, Any]:
    """Keep somebody's word on the present episode of an alert, and let NOTIFY look at it at once.

    Raises:
        LifeError: it is resolved.
    """
    key = row["dedup_key"]
    if row["status"] == "resolved":
        raise LifeError(f"episode {row['episode']} of {key} is resolved: nobody has to take it in hand")
    said = Acknowledgement(dedup_key=key, episode=row["episode"], by=by, at=now, via=via)
    async with pool.acquire() as connection, connection.transaction():
        await add_word(connection, said, withdrawn=withdrawn, note=" ".join(note.split()))
        await wake(connection, [key])
    (found,) = await shown_all(pool, [row], now)
    return found


async def _found(pool: asyncpg.Pool, dedup_key: str, team: str) -> asyncpg.Record:
    row = await alert_records.find_alert(pool, dedup_key)
    if row is None or team not in ("", row["team_id"]):
        # Whether another team has such an alert is that team's business.
        raise HTTPException(404, {"detail": f"there is no alert {dedup_key[:255]!r}", "action": "See /v1/alerts."})
    return row


def text(moment: datetime) -> str:
    """A column's instant in RFC 3339."""
    return format_instant(to_micros(moment))
