"""The tape: all that is due goes out once and in order, past the gate, and the clock waits for a slow service."""

import asyncio
import io
import json
from typing import Any, NamedTuple

import pytest

from schemas.instants import HOUR, MINUTE, SECOND
from streams.demo.raw import RawFile
from streams.demo.tape import PlayedClock, Tape, as_allowed
from streams.demo.traffic import Moment
from streams.sources.publisher import Record


class _Metadata(NamedTuple):
    partition: int
    offset: int


class _Broker:
    """Acknowledges at once, in one partition."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.fails = False

    async def send(self, record: Record) -> "asyncio.Future[Any]":
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.fails:
            done.set_exception(ConnectionError("gone"))
        else:
            done.set_result(_Metadata(2, len(self.records)))
            self.records.append(record)
        return done


class _Answer(NamedTuple):
    allowed: bool
    action: str = "allow"
    model_fallback: str | None = None
    max_tokens: int | None = None


class _Gate:
    """Refuses one team between two instants, and has cheaper models for its batch calls at all times."""

    def __init__(self, clock: PlayedClock, team: str, begins: int, ends: int) -> None:
        self._clock, self._team, self._begins, self._ends = clock, team, begins, ends

    def check(self, team: str = "", *_: str, request_type: str = "", **__: object) -> _Answer:
        if team == self._team and self._begins <= self._clock.now() < self._ends:
            return _Answer(False, "block")
        return _Answer(True, "downgrade", "small") if request_type == "batch" else _Answer(True)


class _Wall:
    def now(self) -> int:
        return 77

    def observe(self, event_time: int, source: str = "") -> None: ...


def _moment(at: int, team: str = "") -> Moment:
    headers = [("ce_id", str(at).encode()), ("ce_source", b"/t")]
    return Moment(at, Record("usage", b"k", b'{"a":1}', headers), team)


@pytest.fixture
def parts() -> tuple[Tape, _Broker, io.StringIO, PlayedClock]:
    clock, broker, file = PlayedClock(_Wall()), _Broker(), io.StringIO()
    gate = _Gate(clock, "mobile", HOUR, 2 * HOUR)
    return Tape(broker, gate, RawFile(file), clock), broker, file, clock


async def test_everything_goes_out_once_in_order_and_into_the_raw_file(parts: Any) -> None:
    tape, broker, file, clock = parts
    assert clock.now() == 77, "before the tape plays it is the wall's time"
    moments = [_moment(at) for at in range(SECOND, 3 * HOUR, 7 * MINUTE)]
    await tape.play(moments, (0, 3 * HOUR), 0.5, clock.now, lag_max=HOUR)
    await tape.settle(1)
    assert [dict(record.headers)["ce_id"] for record in broker.records] == [str(m.at).encode() for m in moments]
    assert [json.loads(line)["id"] for line in file.getvalue().splitlines()] == [str(m.at) for m in moments]
    assert (tape.published, tape.failed, tape.ends) == (len(moments), 0, {"usage": {2: len(moments)}})
    assert clock.now() == 3 * HOUR


async def test_refused_calls_are_counted_and_neither_published_nor_in_the_raw_file(parts: Any) -> None:
    tape, broker, file, clock = parts
    moments = [_moment(at, team) for at in range(SECOND, 3 * HOUR, 5 * MINUTE) for team in ("mobile", "search")]
    await tape.play(moments, (0, 3 * HOUR), 0.5, clock.now, lag_max=HOUR)
    assert set(tape.refused) == {"mobile"}
    assert len(broker.records) == len(moments) - tape.refused["mobile"] == len(file.getvalue().splitlines())
    assert 8 <= tape.refused["mobile"] <= 16
    assert tape.throttled == {"block": tape.refused["mobile"]}
    assert tape.let_through_again["mobile"] >= 8
    assert "search" not in tape.let_through_again


async def test_the_clock_waits_while_the_service_is_behind(parts: Any) -> None:
    tape, broker, _, clock = parts
    reached = 0
    moments = [_moment(at) for at in range(SECOND, 6 * HOUR, 10 * MINUTE)]
    playing = asyncio.create_task(tape.play(moments, (0, 6 * HOUR), 0.2, lambda: reached, lag_max=HOUR))
    async with asyncio.timeout(5):
        while not tape.waited_s:
            await asyncio.sleep(0.01)
    assert HOUR < clock.now() <= HOUR + 10 * MINUTE
    assert len(broker.records) <= 8
    reached = 6 * HOUR
    async with asyncio.timeout(5):
        await playing
    assert len(broker.records) == len(moments)


async def test_a_record_that_the_broker_does_not_take_is_counted(parts: Any) -> None:
    tape, broker, _, clock = parts
    broker.fails = True
    await tape.play([_moment(SECOND)], (0, MINUTE), 0.05, clock.now, lag_max=HOUR)
    await tape.settle(1)
    assert (tape.published, tape.failed) == (0, 1)


async def test_a_call_that_is_let_through_with_a_cheaper_model_is_published_with_it(parts: Any) -> None:
    tape, broker, file, clock = parts
    moments = [_moment(SECOND, "search"), _moment(2 * SECOND, "search")._replace(request_type="batch")]
    await tape.play(moments, (0, MINUTE), 0.05, clock.now, lag_max=HOUR)
    assert [json.loads(record.value).get("response_model") for record in broker.records] == [None, "small"]
    raw = [json.loads(line)["value"].encode() for line in file.getvalue().splitlines()]
    assert raw == [record.value for record in broker.records], "what is counted is what the oracle reads"
    assert tape.throttled == {"downgrade": 1}


@pytest.mark.parametrize(
    ("answer", "model", "tokens"),
    [
        pytest.param(_Answer(True), "big", 70, id="nothing changes"),
        pytest.param(_Answer(True, "downgrade", "small"), "small", 70, id="another model answers"),
        pytest.param(_Answer(True, "cap_tokens", None, 50), "big", 50, id="the answer is cut"),
        pytest.param(_Answer(True, "downgrade", "small", 90), "small", 70, id="a shorter answer than the cap stays"),
    ],
)
def test_a_call_is_recorded_as_its_gate_allowed_it(answer: _Answer, model: str, tokens: int) -> None:
    event = {"request_model": "big", "response_model": "big", "output_tokens": 70}
    record = as_allowed(Record("usage", b"k", json.dumps(event).encode(), []), answer)
    assert json.loads(record.value) == event | {"response_model": model, "output_tokens": tokens}


async def test_the_tape_knows_when_the_day_was_at_an_instant(parts: Any) -> None:
    tape, _, _, clock = parts
    await tape.play([], (0, HOUR), 0.1, clock.now, lag_max=2 * HOUR)
    early, late = tape.real_s(10 * MINUTE), tape.real_s(HOUR)
    assert 0 < late - early < 60
    assert tape.real_s(HOUR + 1) is None
