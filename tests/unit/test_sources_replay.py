"""Recorded traces: what each format's rows become, when they happened, and what is said of a broken one."""

import asyncio
import csv
import gzip
import json
from pathlib import Path

import pytest

from schemas.instants import format_instant, parse_instant
from streams.sources.replay import ReplayError, replay
from streams.sources.traces import TraceError, read_team_map, read_trace

AZURE = Path(__file__).parents[2].parent / "shared" / "data" / "azure-llm-2023"
NOW = parse_instant("2026-11-21T12:00:00Z")
AZURE_HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURST_HEAD = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
AZURE_TEXT = AZURE_HEAD + "2023-11-16 18:17:03.9799609,4808,10\n2023-11-16 18:17:13.9799600,3180,8"
BURST_TEXT = BURST_HEAD + "5,ChatGPT,472,18,490,Conversation log\n45.5,GPT-4,1087,0,1087,API log\n"
EVENT = {
    "specversion": "1.0",
    "id": "call-1",
    "source": "//gateway/a",
    "type": "ai.usage.recorded.v1",
    "time": "2026-11-20T00:00:00Z",
    "data": {"provider": "openai", "response_model": "gpt-4o", "input_tokens": 3},
}


class Clock:
    def now(self):
        return NOW

    def observe(self, event_time, source=""):
        raise AssertionError("a replay does not move the clock")


class Acknowledging:
    """Keeps what it is handed, and acknowledges all but the record at ``fails_at``."""

    def __init__(self, fails_at=-1):
        self.records = []
        self.fails_at = fails_at

    async def send(self, record):
        future = asyncio.get_running_loop().create_future()
        if len(self.records) == self.fails_at:
            future.set_exception(OSError("broker gone"))
        else:
            future.set_result(None)
        self.records.append(record)
        return future

    def times(self):
        return [dict(record.headers)["ce_time"].decode() for record in self.records]


def rows(kind, text, team_map=""):
    return list(read_trace(kind, text.splitlines(keepends=True), "f1", read_team_map(team_map)))


async def run(tmp_path, text, kind="azure-llm", publisher=None, **options):
    path = tmp_path / "trace"
    path.write_text(text)
    publisher = publisher or Acknowledging()
    return await replay(path, kind, publisher, clock=Clock(), **options), publisher


def test_azure_rows_have_seven_decimals_and_no_zone():
    first, second = rows("azure-llm", AZURE_TEXT)
    assert format_instant(first.time) == "2023-11-16T18:17:03.979960Z"
    assert (first.event.input_tokens, first.event.output_tokens) == (4808, 10)
    assert (first.id, second.id) == ("f1:1", "f1:2")
    assert (first.event.provider, first.event.model) == ("openai", "gpt-4o")


def test_burstgpt_rows_name_a_model_and_a_failed_call_has_no_response():
    first, second = rows("burstgpt", BURST_TEXT)
    assert (first.time, second.time) == (5_000_000, 45_500_000)
    assert (first.event.model, first.event.feature, first.event.status) == (
        "gpt-3.5-turbo",
        "conversation",
        "success",
    )
    assert (second.event.model, second.event.feature, second.event.status) == ("gpt-4", "api", "failure")


def test_cloudevents_keep_their_own_names_and_owners():
    (row,) = rows("cloudevents", json.dumps(EVENT | {"subject": "search"}) + "\n\n", "default: {team: other}")
    assert (row.id, row.source, row.event.team_id) == ("call-1", "//gateway/a", "search")


def test_a_team_map_gives_rows_to_teams_by_a_column_and_the_rest_to_the_default():
    text = """
      column: Model
      default: {team: rest, feature: misc}
      values:
        GPT-4: {team: research, model: gpt-4-turbo}
    """
    first, second = rows("burstgpt", BURST_TEXT, text)
    assert (first.event.team_id, first.event.feature, first.event.model) == ("rest", "misc", "gpt-3.5-turbo")
    assert (second.event.team_id, second.event.feature, second.event.model) == (
        "research",
        "misc",
        "gpt-4-turbo",
    )


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        pytest.param("azure-llm", "a,b\n1,2\n", "line 1: no column TIMESTAMP", id="another file"),
        pytest.param("azure-llm", "", "line 1: no column", id="an empty file"),
        pytest.param("azure-llm", AZURE_HEAD + "soon,1,2\n", "line 2: TIMESTAMP", id="no instant"),
        pytest.param("azure-llm", AZURE_HEAD + "2023-13-16 18:17:03.9,1,2\n", "line 2: TIMESTAMP", id="month 13"),
        pytest.param("azure-llm", AZURE_HEAD + "2023-11-16 18:17:03.9,x,2\n", "ContextTokens", id="no count"),
        pytest.param("azure-llm", AZURE_HEAD + "2023-11-16 18:17:03.9,-1,2\n", "ContextTokens", id="negative"),
        pytest.param("azure-llm", AZURE_HEAD + "2023-11-16 18:17:03.9,1\n", "number of columns", id="a short row"),
        pytest.param("burstgpt", BURST_HEAD + "5,GPT-4,1,2,4,API log\n", "not the sum", id="a wrong total"),
        pytest.param("burstgpt", BURST_HEAD + "x,GPT-4,1,2,3,API log\n", "Timestamp", id="no seconds"),
        pytest.param("cloudevents", "{}\n", "line 1: not a structured", id="no CloudEvent"),
        pytest.param("cloudevents", json.dumps(EVENT | {"type": "other"}), "line 1: type is", id="another type"),
        pytest.param("cloudevents", json.dumps(EVENT | {"time": ""}), "line 1: not an RFC", id="no time"),
    ],
)
def test_a_row_that_can_not_be_read_is_named(kind, text, said):
    with pytest.raises(TraceError, match=said):
        rows(kind, text)


@pytest.mark.parametrize("text", ["teams: {}", "default: {team: 7}", "- a", "a: ["], ids=str)
def test_a_team_map_with_a_mistake_is_refused(text):
    with pytest.raises(TraceError, match="team map"):
        read_team_map(text)


@pytest.mark.parametrize(
    ("options", "times"),
    [
        pytest.param({}, ["2026-11-21T11:59:50Z", "2026-11-21T12:00:00Z"], id="by default the trace ends now"),
        pytest.param(
            {"at": "original"},
            ["2023-11-16T18:17:03.979960Z", "2023-11-16T18:17:13.979960Z"],
            id="original keeps its times",
        ),
        pytest.param(
            {"at": "2026-01-01T00:00:00+01:00"},
            ["2025-12-31T23:00:00Z", "2025-12-31T23:00:10Z"],
            id="an instant is when it begins",
        ),
        pytest.param(
            {"speed": 1_000.0},
            ["2026-11-21T11:59:50.010000Z", "2026-11-21T12:00:00.010000Z"],
            id="paced, its last row happens as it is published",
        ),
    ],
)
async def test_a_replay_can_be_moved_in_time(tmp_path, options, times):
    summary, publisher = await run(tmp_path, AZURE_TEXT, **options)
    assert publisher.times() == times
    assert [format_instant(t) for t in (summary.first_time, summary.last_time)] == times


async def test_a_trace_without_a_date_can_not_keep_it(tmp_path):
    with pytest.raises(TraceError, match="seconds since its beginning"):
        await run(tmp_path, BURST_TEXT, "burstgpt", at="original")


async def test_the_same_content_gives_the_same_ids_wherever_it_lies(tmp_path):
    (tmp_path / "a").mkdir()
    _, first = await run(tmp_path, AZURE_TEXT, at="original")
    _, second = await run(tmp_path / "a", AZURE_TEXT, at="original")
    assert first.records == second.records


async def test_a_broken_row_is_found_before_anything_is_published(tmp_path):
    publisher = Acknowledging()
    with pytest.raises(TraceError, match="line 4"):
        await run(tmp_path, AZURE_TEXT + "\n2023-11-16 18:17:03.9,1,\n", publisher=publisher)
    assert publisher.records == []


async def test_rows_that_the_broker_refused_are_not_called_published(tmp_path):
    with pytest.raises(ReplayError, match="took 1 of 2 rows"):
        await run(tmp_path, AZURE_TEXT, publisher=Acknowledging(fails_at=1))


async def test_a_packed_trace_and_its_progress(tmp_path):
    path = tmp_path / "trace.csv.gz"
    many = AZURE_HEAD + "".join(f"2023-11-16 18:{n // 60:02d}:{n % 60:02d}.5,10,2\n" for n in range(1_234))
    path.write_bytes(gzip.compress(many.encode()))
    seen = []
    summary = await replay(path, "azure-llm", Acknowledging(), clock=Clock(), on_progress=seen.append)
    assert (summary.rows, summary.published, summary.input_tokens, summary.output_tokens) == (
        1234,
        1234,
        12340,
        2468,
    )
    assert [progress.rows for progress in seen] == [500, 1000, 1234]
    assert {progress.rows_total for progress in seen} == {1234}


@pytest.mark.parametrize("name", ["missing.csv", "missing.csv.gz"])
async def test_a_file_that_is_not_there_is_said_so(tmp_path, name):
    with pytest.raises(TraceError, match="can't be read"):
        await replay(tmp_path / name, "azure-llm", Acknowledging(), clock=Clock())


@pytest.mark.skipif(not AZURE.is_dir(), reason="the Azure trace is not at hand")
async def test_every_row_of_the_real_azure_trace_is_published_once():
    path = next(AZURE.glob("*.csv"))
    publisher = Acknowledging()
    summary = await replay(path, "azure-llm", publisher, at="original", clock=Clock())
    with path.open(newline="") as file:
        expected = list(csv.DictReader(file))
    assert summary.rows == summary.published == len(publisher.records) == len(expected) == 8_819
    assert summary.input_tokens == sum(int(row["ContextTokens"]) for row in expected)
    assert summary.output_tokens == sum(int(row["GeneratedTokens"]) for row in expected)
    assert len({dict(record.headers)["ce_id"] for record in publisher.records}) == 8_819
