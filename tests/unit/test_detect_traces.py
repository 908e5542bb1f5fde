"""The detectors on recorded traces: sane on real rhythms, not a measurement. Skipped where the traces are absent."""

import csv
import gzip
import os
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import pytest

from detectors.base import Observation
from detectors.gpu_utilisation import GpuUtilisation
from schemas.events import GpuSample
from schemas.instants import HOUR, MINUTE, SECOND, format_instant, parse_instant
from schemas.money import parse_nanos
from schemas.statements import ScopeStatement, Source
from streams.core.detect_gpu import GpuPolicy, step_gpu
from streams.core.detect_spike import step_spike, tick_spike
from streams.core.detect_spike_policy import SpikePolicy

TRACES = Path(os.environ.get("SLUICE_TRACES", Path(__file__).resolve().parents[3] / "shared" / "data"))
SERVEGEN = TRACES / "servegen" / "servegen_hourly.csv.gz"
GPUS = TRACES / "alibaba-genai-2026" / "pod_gpu_duty_cycle.csv.gz"
START = parse_instant("2026-11-02T00:00:00Z")
WARM_UP = 168
SOURCE = Source("usage.events.v1", 0, 0)
POLICY = SpikePolicy(floor_nanos=parse_nanos("5"))


def servegen() -> dict[str, dict[int, int]]:
    """Nanodollars by client and hour, of the clients that spend a dollar an hour and are there for two weeks."""
    found: dict[str, dict[int, int]] = defaultdict(dict)
    with gzip.open(SERVEGEN, "rt") as lines:
        for row in csv.DictReader(lines):
            found[f"{row['model']}-{row['client']}"][int(row["hour"])] = parse_nanos(row["usd"] or "0")
    return {
        name: hours
        for name, hours in found.items()
        if max(hours) >= 2 * WARM_UP - 2 and sum(hours.values()) >= len(hours) * 10**9
    }


def state_hour(scope: str, hour: int, nanos: int) -> ScopeStatement:
    at = START + (hour + 1) * HOUR - 1
    return ScopeStatement(
        scope=scope,
        period_start=START + hour * HOUR,
        period_end=START + (hour + 1) * HOUR,
        source=SOURCE,
        segment=0,
        revision=0,
        offset=hour,
        cost_nanos=nanos,
        requests=1,
        tokens=1,
        stream_time=at,
        arrived_at=at,
    )


@pytest.mark.skipif(not SERVEGEN.is_file(), reason="the ServeGen trace is not here")
def test_real_features_page_less_than_half_as_often_as_the_rule_of_yesterday():
    series = servegen()
    assert len(series) >= 20, "the trace has changed"
    opened = literal = resolved = 0
    for name, hours in series.items():
        state, statuses = None, []
        for hour, nanos in sorted(hours.items()):
            now = START + (hour + 1) * HOUR - 1
            state, said = step_spike(state, state_hour(f"feature:{name}", hour, nanos), now, POLICY)
            state, more = tick_spike(state, now + 6 * MINUTE, POLICY)
            statuses += [a.status for a in said + more if hour >= WARM_UP]
            yesterday = hours.get(hour - 24, 0)
            if hour >= WARM_UP and nanos * 2 > yesterday * 3 and nanos - yesterday > POLICY.floor_nanos:
                literal += 1
        opened += statuses.count("opened")
        resolved += statuses.count("resolved")
        assert len(state.hours) <= 5
    assert 0 < opened < literal / 2
    assert resolved >= opened - len(series)


@pytest.mark.skipif(not SERVEGEN.is_file(), reason="the ServeGen trace is not here")
def test_a_tenfold_hour_put_into_a_feature_that_hardly_ever_rests_is_found_while_it_runs():
    found = tried = 0
    for name, hours in servegen().items():
        at = WARM_UP + 60
        mean = sum(hours.get(at - n, 0) for n in range(1, WARM_UP + 1)) // WARM_UP
        spike = 10 * mean + hours.get(at, 0)
        is_dense = sum(nanos == 0 for nanos in hours.values()) * 20 < len(hours)
        if spike < 2 * POLICY.floor_nanos or not is_dense:
            continue
        tried += 1
        state = None
        for hour in range(at):
            nanos = hours.get(hour, 0)
            now = START + (hour + 1) * HOUR - 1
            state, _ = step_spike(state, state_hour(f"feature:{name}", hour, nanos), now, POLICY)
        for tenth in range(1, 11):
            statement = state_hour(f"feature:{name}", at, spike * tenth // 10)
            now = START + at * HOUR + tenth * 6 * MINUTE - 1
            statement.offset, statement.stream_time = at + tenth, now
            state, _ = step_spike(state, statement, now, POLICY)
            if state.incident is not None:
                found += 1
                break
    assert tried >= 10
    assert found >= 0.9 * tried


@pytest.mark.skipif(not GPUS.is_file(), reason="the GPU trace is not here")
def test_real_gpus_page_less_often_than_the_literal_rule_and_only_where_no_sample_reached_the_bar():
    by_pod: dict[str, list[tuple[int, float]]] = defaultdict(list)
    with gzip.open(GPUS, "rt") as lines:
        for row in csv.DictReader(lines):
            by_pod[row["pod"]].append((int(row["unix_s"]), float(row["duty_cycle_percent"]) / 100))
    pages = tickets = literal = 0
    for pod, samples in sorted(by_pod.items())[:40]:
        state, literal_detector, is_below = None, GpuUtilisation(), False
        for (before, _), (at, util) in zip(sorted(samples), sorted(samples)[1:], strict=False):
            each = GpuSample(
                gpu_uuid=pod,
                window_start=format_instant(max(before, at - 120) * SECOND),
                window_end=format_instant(at * SECOND),
                allocated_seconds=Decimal(1),
                util_ratio=util,
            )
            seen = Observation(max(before, at - 120) * SECOND, at * SECOND, util)
            score = literal_detector.score_one(seen)
            literal_detector.learn_one(seen)
            if score is not None and not is_below and score.observed < 200_000:
                literal, is_below = literal + 1, True
            elif score is not None and score.observed > 300_000:
                is_below = False
            state, said = step_gpu(state, each, at * SECOND, at * SECOND, GpuPolicy())
            for alert in said:
                if alert.status != "resolved" and alert.tier == "page":
                    pages += 1
                    hour = [u for t, u in samples if at - 3600 < t <= at]
                    assert max(hour) < 0.20
            tickets += sum(a.status == "opened" and a.tier == "ticket" for a in said)
    assert tickets > 0
    assert 0 < pages < literal, "most of these pods are below 20 % all day; only the strictly idle ones page"
