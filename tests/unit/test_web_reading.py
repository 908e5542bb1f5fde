"""Spans of time that requests ask for, who may read without a key, and texts that spreadsheets must not run."""

from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import HTTPException
from pydantic import ValidationError
from starlette.requests import Request

from schemas.instants import format_instant, parse_instant
from streams.ports import RetryableError
from streams.settings import load_settings
from streams.sinks.api_keys import KeyInfo
from streams.web.reading import Reader, reader, span_of
from streams.web.spend import CSV_COLUMNS, GROUPS, SpendQuery, _inert

NOW = parse_instant("2026-11-21T14:35:10Z")
KEYS = {
    "slk_reader": KeyInfo("1", "finance", ("read",)),
    "slk_team": KeyInfo("2", "search's own", ("read",), "search"),
    "slk_writer": KeyInfo("3", "gateway", ("ingest",)),
}


class KnownKeys:
    async def find(self, presented: str) -> KeyInfo | None:
        if presented == "slk_away":
            raise RetryableError("the database with the API keys does not answer")
        return KEYS.get(presented)


@pytest.mark.parametrize(
    ("start", "end", "period", "expected"),
    [
        (None, None, "hour", ("2026-11-21T14:00:00Z", "2026-11-21T15:00:00Z")),
        (None, None, "today", ("2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z")),
        (None, None, "7d", ("2026-11-15T00:00:00Z", "2026-11-22T00:00:00Z")),
        (None, None, "30d", ("2026-10-23T00:00:00Z", "2026-11-22T00:00:00Z")),
        (None, None, "all", ("1970-01-01T00:00:00Z", "9999-01-01T00:00:00Z")),
        ("2026-11-01", "2026-12-01", "hour", ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")),
        ("2026-11-01T10:59:59Z", "2026-11-01T11:00:01Z", "hour", ("2026-11-01T10:00:00Z", "2026-11-01T12:00:00Z")),
        ("2026-11-01T10:00:00Z", "2026-11-01T11:00:00Z", "hour", ("2026-11-01T10:00:00Z", "2026-11-01T11:00:00Z")),
        ("2026-11-01T01:00:00+01:00", None, "hour", ("2026-11-01T00:00:00Z", "9999-01-01T00:00:00Z")),
        ("2026-11-01T01:00:00 01:00", None, "hour", ("2026-11-01T00:00:00Z", "9999-01-01T00:00:00Z")),
        (None, "2026-11-01", "hour", ("1970-01-01T00:00:00Z", "2026-11-01T00:00:00Z")),
    ],
    ids=[
        "the running hour",
        "today",
        "seven days with today",
        "thirty days with today",
        "all there is",
        "dates are days in UTC",
        "part of an hour is the whole hour",
        "whole hours stay as they are",
        "another zone",
        "a plus sign that arrived as a space",
        "from the beginning",
    ],
)
def test_a_span_is_whole_hours(start: Any, end: Any, period: Any, expected: tuple[str, str]) -> None:
    span = span_of(start, end, period, NOW)
    assert (format_instant(span.start), format_instant(span.end)) == expected


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("yesterday", None, "`from` is not a date or an instant"),
        ("2026-11-01T10:00:00", None, "`from` is not a date or an instant with an offset"),
        (None, "2026-02-30", "`to` is not a date"),
        ("2026-11-02", "2026-11-01", "`to` must be after `from`"),
        ("2026-11-02", "2026-11-02", "`to` must be after `from`"),
        ("1969-12-31", None, "`from` lies outside the years 1970 to 9998"),
        (None, "9999-12-31", "`to` lies outside the years 1970 to 9998"),
    ],
)
def test_a_span_that_makes_no_sense_is_refused(start: Any, end: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        span_of(start, end, "today", NOW)


def asking(host: str, key: str = "") -> Request:
    headers = [(b"host", host.encode())] + ([(b"authorization", f"Bearer {key}".encode())] if key else [])
    return Request(
        {
            "type": "http",
            "method": "GET",
            "path": "/v1/spend",
            "query_string": b"",
            "scheme": "http",
            "headers": headers,
        }
    )


@pytest.mark.parametrize(
    ("flags", "host", "key", "outcome"),
    [
        ({}, "127.0.0.1:8686", "", ""),
        ({}, "localhost", "", ""),
        ({}, "[::1]:8686", "", ""),
        ({}, "evil.example", "", 401),
        ({}, "evil.example", "slk_reader", ""),
        ({"api_open_reads": False}, "127.0.0.1", "", 401),
        ({"api_open_reads": False}, "127.0.0.1", "slk_reader", ""),
        ({"api_host": "0.0.0.0"}, "127.0.0.1", "", 401),
        ({"api_host": "0.0.0.0"}, "sluice.example", "slk_team", "search"),
        ({"api_host": "0.0.0.0"}, "sluice.example", "slk_writer", 403),
        ({"api_host": "0.0.0.0"}, "sluice.example", "slk_guessed", 401),
        ({"api_host": "0.0.0.0"}, "sluice.example", "slk_away", 503),
    ],
    ids=[
        "loopback needs no key",
        "localhost needs no key",
        "IPv6 loopback needs no key",
        "another name on a loopback socket (DNS rebinding) needs a key",
        "another name with a key",
        "closed reads need a key on loopback too",
        "closed reads with a key",
        "listening everywhere needs a key even when called by a loopback name",
        "a team's key reads that team",
        "a key without the scope read",
        "an unknown key",
        "keys cannot be looked up",
    ],
)
async def test_who_may_read(flags: dict[str, Any], host: str, key: str, outcome: str | int) -> None:
    parts: Any = SimpleNamespace(settings=load_settings(**flags), keys=KnownKeys())
    if isinstance(outcome, str):
        assert await reader(asking(host, key), parts) == Reader(outcome)
        return
    with pytest.raises(HTTPException) as refused:
        await reader(asking(host, key), parts)
    assert refused.value.status_code == outcome


def test_a_key_of_one_team_does_not_see_what_concerns_all() -> None:
    Reader("").sees_all()
    with pytest.raises(HTTPException, match="search"):
        Reader("search").sees_all()


def test_a_team_s_key_overrides_the_team_that_is_asked_for() -> None:
    query = SpendQuery(team="risk", model="gpt-4o")
    assert query.filters(Reader("search")) == {"team": "search", "model": "gpt-4o"}
    assert query.filters(Reader("")) == {"team": "risk", "model": "gpt-4o"}


@pytest.mark.parametrize(
    ("text", "names"),
    [("", ""), ("team", "team"), (" team , feature ", "team,feature"), ("team,team,day", "team,day")],
    ids=["nothing", "one", "spaces", "twice is once"],
)
def test_group_by_takes_names_with_commas(text: str, names: str) -> None:
    assert SpendQuery(group_by=text).group_by == names


@pytest.mark.parametrize("text", ["taem", "team;drop table", "cost_nanos", "team_id", "*"])
def test_group_by_takes_known_names_only_and_lists_them(text: str) -> None:
    with pytest.raises(ValidationError, match=", ".join(GROUPS)):
        SpendQuery(group_by=text)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@sum", "\t=1", "\r=1"])
def test_a_producer_s_formula_is_inert_in_a_spreadsheet(text: str) -> None:
    assert _inert(text) == f"'{text}"


@pytest.mark.parametrize("text", ["search", "", "team-1", "a=b"])
def test_an_ordinary_name_stays_as_it_is(text: str) -> None:
    assert _inert(text) == text


def test_every_column_of_the_csv_is_documented() -> None:
    assert all(meaning for meaning in CSV_COLUMNS.values())
    assert list(CSV_COLUMNS)[:6] == ["day", "team", "feature", "model", "currency", "cost"]
