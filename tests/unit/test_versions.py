"""What an earlier release wrote can be read for ever, and what a later one wrote is refused with what to do.

``golden/<kind>.v<n>.json`` are frozen: each is what a release of that version wrote. A new version adds a file; none is
ever changed or taken away.
"""

import re
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from detectors.runaway_request import ONE
from detectors.spend_spike import SpendSpike
from schemas import readers
from schemas.commands import Measure
from schemas.instants import HOUR
from schemas.versions import UnknownVersionError, Versioned
from streams.agents.ledger import _readable
from streams.core.budget_account import Hold
from streams.core.budget_states import BUDGET_STATES
from streams.core.composition import USUALS
from streams.core.detect_gpu import GPU_STATES
from streams.core.detect_idle import IDLE_STATES
from streams.core.detect_loop_state import LOOP_STATES
from streams.core.detect_multivariate import UNUSUAL_STATES
from streams.core.detect_regime import REGIME_STATES
from streams.core.detect_runaway import RUNAWAY_STATES
from streams.core.detect_spike_state import SPIKE_STATES
from streams.core.forecast_state import FORECAST_STATES
from streams.core.rolling import KEPT_CELLS, PROGRESS
from streams.core.rules import CHECKPOINTS
from tests.unit.records import NOON, RawRecord

GOLDEN = Path(__file__).parent / "golden"
READERS: dict[str, Versioned] = {
    "alert": readers.ALERTS,
    "budget_state": BUDGET_STATES,
    "cell_statement": readers.CELL_STATEMENTS,
    "checkpoint": CHECKPOINTS,
    "forecast_state": FORECAST_STATES,
    "gpu_state": GPU_STATES,
    "hour_statement": readers.HOUR_STATEMENTS,
    "idle_state": IDLE_STATES,
    "loop_state": LOOP_STATES,
    "regime_state": REGIME_STATES,
    "rolled_cell": KEPT_CELLS,
    "rollup_progress": PROGRESS,
    "runaway_state": RUNAWAY_STATES,
    "scope_statement": readers.SCOPE_STATEMENTS,
    "signal": readers.SIGNALS,
    "spender_statement": readers.SPENDERS,
    "spike_state": SPIKE_STATES,
    "throttle_ack": readers.ACKS,
    "throttle_command": readers.COMMANDS,
    "unusual_state": UNUSUAL_STATES,
    "usual": USUALS,
    "watermark": readers.WATERMARKS,
}
FROZEN = {
    "alert.v1.json": "bd707d1d321ccb50",
    "budget_state.v1.json": "5a22906d88bac93f",
    "budget_state.v2.json": "40b6f9de06771723",
    "budget_state.v3.json": "0ca9e1c88da7cd10",
    "cell_statement.v1.json": "a7cf1ce1f626f69a",
    "checkpoint.v1.json": "7ad4403c3656422c",
    "checkpoint.v2.json": "6375e75972be4524",
    "forecast_state.v1.json": "d607b89076beb728",
    "gpu_state.v1.json": "a79a2f16bab4ec1a",
    "gpu_state.v2.json": "a38f50d30da7bbe2",
    "hour_statement.v1.json": "5aae3333d4acd349",
    "idle_state.v1.json": "b01e77902f1deb67",
    "loop_state.v1.json": "11c16ba03e785090",
    "regime_state.v1.json": "3e541a05e41cff03",
    "rolled_cell.v1.json": "7bcc818442e12761",
    "rollup_progress.v1.json": "26ba69d2aea3d8c2",
    "runaway_state.v1.json": "247e303c25fdb662",
    "runaway_state.v2.json": "6e935be7e4630cf4",
    "scope_statement.v1.json": "71673d4545f7c994",
    "signal.v1.json": "6e8763e383f8b360",
    "spender_statement.v1.json": "26c94591e628eae6",
    "spike_state.v1.json": "1cae42048e004ece",
    "spike_state.v2.json": "ca7911e2bdb7beda",
    "spike_state.v3.json": "6006faf685ce9c04",
    "throttle_ack.v1.json": "f893fc3cb541c3de",
    "throttle_command.v1.json": "1c0275c21edb13d6",
    "unusual_state.v1.json": "b908bb5c7f5b2381",
    "usual.v1.json": "34bae9ab0bc6ad8d",
    "watermark.v1.json": "38bacbcc2e1bab6f",
}
SAMPLES = sorted(GOLDEN.glob("*.v*.json"))


def _kind(path: Path) -> tuple[str, int]:
    name, version = re.fullmatch(r"(\w+)\.v(\d+)\.json", path.name).groups()
    return name, int(version)


def _name(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", SAMPLES, ids=_name)
def test_a_frozen_sample_is_what_it_was(path):
    assert sha256(path.read_bytes()).hexdigest()[:16] == FROZEN[path.name]


def test_every_kind_has_a_frozen_sample_of_every_version_up_to_the_present_one():
    expected = {(kind, version) for kind, reader in READERS.items() for version in range(1, reader.version + 1)}
    assert {_kind(path) for path in SAMPLES} == expected == {_kind(Path(name)) for name in FROZEN}


@pytest.mark.parametrize("path", SAMPLES, ids=_name)
def test_a_sample_of_any_version_is_read_and_what_is_written_of_it_reads_the_same(path):
    reader = READERS[_kind(path)[0]]
    value = reader.decode(path.read_bytes())
    assert value.v == reader.version
    written = msgspec.json.encode(value)
    assert reader.decode(written) == value
    if _kind(path)[1] == reader.version:
        assert written == path.read_bytes().rstrip(b"\n")


@pytest.mark.parametrize("kind", READERS)
def test_a_newer_version_is_refused_and_says_what_to_do(kind):
    reader = READERS[kind]
    sample = msgspec.json.decode((GOLDEN / f"{kind}.v{reader.version}.json").read_bytes())
    for body in (sample | {"v": reader.version + 1}, {"v": reader.version + 1, "all": "is different"}):
        with pytest.raises(
            UnknownVersionError, match=rf"{reader.name} of version {reader.version + 1}.*run the release"
        ):
            reader.decode(msgspec.json.encode(body))
        with pytest.raises(UnknownVersionError):
            reader.convert(body)


def test_a_budget_of_version_1_comes_over_with_every_dollar_and_everything_it_said():
    state = BUDGET_STATES.decode((GOLDEN / "budget_state.v1.json").read_bytes())
    old = msgspec.json.decode((GOLDEN / "budget_state.v1.json").read_bytes())
    assert state.spent_nanos == sum(slot[2] for slot in old["slots"].values()) == 115_000_000_000
    assert {name: sorted(slot.segments) for name, slot in state.buckets[old["period_start"]].slots.items()} == {
        "usage.events.v1@0-0": [0, 11],
        "usage.events.v1@0-1": [0],
    }
    assert (state.commanded, state.has_spoken, state.revision) == ("block", True, old["revision"])
    assert {percent: crossing.is_open for percent, crossing in state.crossings.items()} == dict.fromkeys(
        (50, 75, 90, 100), True
    )
    assert state.is_whole


def test_a_budget_of_version_2_comes_over_with_what_it_holds_closed():
    text = (GOLDEN / "budget_state.v2.json").read_bytes()
    state, old = BUDGET_STATES.decode(text), msgspec.json.decode(text)
    assert list(state.buckets) == [old["period_start"]]
    assert state.spent_nanos == 115_000_000_000
    assert not state.is_whole
    assert (state.commanded, state.asked, state.revision) == ("block", (Measure("block"),), old["revision"])
    assert state.holds == {percent: Hold(0, True) for percent in (50, 75, 90, 100)}
    assert state.sequence >= old["sequence"]


def test_a_scope_of_version_1_comes_over_with_every_dollar_and_its_incident():
    text = (GOLDEN / "spike_state.v1.json").read_bytes()
    state, old = SPIKE_STATES.decode(text), msgspec.json.decode(text)
    # ROLLUP states open hours again; what was learned of them stays.
    assert state.hours == {}
    assert state.frozen_before >= old["next_close"]
    assert state.incident is not None
    ring = SpendSpike.from_state(state.history).ring
    first = ring.end - len(old["history"]["nanos"]) * HOUR
    assert [ring.at(first + n * HOUR) for n in range(len(old["history"]["nanos"]))] == old["history"]["nanos"]


def test_runaways_of_version_1_come_over_with_open_alerts_and_what_was_learned_of_large_requests():
    text = (GOLDEN / "runaway_state.v1.json").read_bytes()
    state, old = RUNAWAY_STATES.decode(text), msgspec.json.decode(text)
    assert {str(hour): found.count for hour, found in state.incidents.items()} == {
        hour: found["count"] for hour, found in old["incidents"].items()
    }
    assert state.offsets == old["offsets"]
    assert sum(state.detector.weights.values()) == ONE * len(old["detector"]["recent"]) > 0


def test_a_layout_that_would_leave_its_version_out_is_refused_when_it_is_written_down():
    class Next(msgspec.Struct, omit_defaults=True):
        v: int = 2

    class None_(msgspec.Struct):
        name: str = ""

    with pytest.raises(TypeError, match="must stay 1"):
        Versioned("next", Next)
    with pytest.raises(TypeError, match="no field v"):
        Versioned("none", None_)


def test_a_gateway_that_answers_in_a_newer_version_does_not_stop_the_ledger():
    good = (GOLDEN / "throttle_ack.v1.json").read_bytes()
    newer = msgspec.json.encode(msgspec.json.decode(good) | {"v": 2})
    records = [RawRecord(place, NOON, value) for place, value in enumerate([newer, good, b"{"])]
    for record in records:
        record.topic, record.partition = "gateway.acks.v1", 0
    assert [ack.gateway for ack in _readable(records, readers.ACKS)] == ["gw-1"]
