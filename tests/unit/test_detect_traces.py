"""The detectors on recorded traces: sane on real rhythms, not a measurement. Skipped where the traces are absent."""

import csv
import gzip
import os
from collections import defaultdict
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from detectors.base import Observation
from detectors.gpu_utilisation import GpuUtilisation
from detectors.request_judge import RequestJudge
from schemas.alerts import Alert
from schemas.events import GpuSample
from schemas.instants import HOUR, MINUTE, SECOND, format_instant, parse_instant
from schemas.money import parse_nanos
from schemas.statements import Figures, HourStatement, Signal, Source
from streams.core.detect_gpu import GpuPolicy, GpuState, step_gpu, tick_gpu
from streams.core.detect_idle import IdlePolicy, IdleState, step_idle, tick_idle
from streams.core.detect_spike import step_spike, tick_spike
from streams.core.detect_spike_policy import SpikePolicy

TRACES = Path(os.environ.get("SLUICE_TRACES", Path(__file__).resolve().parents[3] / "shared" / "data"))
SERVEGEN = TRACES / "servegen" / "servegen_hourly.csv.gz"
GPUS = TRACES / "alibaba-genai-2026" / "pod_gpu_duty_cycle.csv.gz"
MOONCAKE = TRACES / "mooncake" / "synthetic_requests.csv.gz"
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


def state_hour(scope: str, hour: int, nanos: int) -> HourStatement:
    return HourStatement(
        scope=scope,
        hour=START + hour * HOUR,
        part=0,
        rank=hour,
        reach={"usage.events.v1@0-0": START + (hour + 1) * HOUR - 1},
        figures=Figures(requests=1, cost_nanos=nanos),
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
            statement = msgspec.structs.replace(statement, rank=at + tenth, reach={"usage.events.v1@0-0": now})
            state, _ = step_spike(state, statement, now, POLICY)
            if state.incident is not None:
                found += 1
                break
    assert tried >= 10
    assert found >= 0.9 * tried


#: An H100's price: ten pods are 840 dollars a day.
GPU_POLICY = GpuPolicy(nanos_per_hour={"": 3_500_000_000})


def pods() -> dict[str, list[tuple[int, float]]]:
    """Samples ``(seconds, utilisation)`` by pod, in order."""
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    with gzip.open(GPUS, "rt") as lines:
        for row in csv.DictReader(lines):
            found[row["pod"]].append((int(row["unix_s"]), float(row["duty_cycle_percent"]) / 100))
    return {pod: sorted(samples) for pod, samples in sorted(found.items())}


class Fleet:
    """Pods in tens, each ten a team's, through both stages of detection; ``standings`` by pod."""

    def __init__(self, gpu: GpuPolicy = GPU_POLICY, idle: IdlePolicy | None = None) -> None:
        self.gpu, self.idle = gpu, idle or IdlePolicy()
        self.alerts: list[Alert] = []
        self.standings: dict[str, list[Signal]] = defaultdict(list)
        self._gpus: dict[str, GpuState] = {}
        self._owners: dict[str, IdleState] = {}
        self._ticked = 0

    def play(self, series: dict[str, list[tuple[int, float]]]) -> None:
        teams = {pod: f"team-{n // 10}" for n, pod in enumerate(sorted(series))}
        events = sorted(
            (at, pod, before, util) for pod, samples in series.items() for (before, _), (at, util) in pairwise(samples)
        )
        for at, pod, before, util in events:
            while self._ticked + 60 <= at:
                self._tick(at if not self._ticked else self._ticked + 60)
            # A window is what was seen since the sample before, and at most two intervals.
            sample = GpuSample(
                gpu_uuid=pod,
                window_start=format_instant(max(before, at - 120) * SECOND),
                window_end=format_instant(at * SECOND),
                allocated_seconds=Decimal(1),
                util_ratio=util,
                team_id=teams[pod],
            )
            step = step_gpu(self._gpus.get(pod), sample, at * SECOND, at * SECOND, self.gpu)
            self._gpus[pod] = step.state
            self.alerts += step.alerts
            self._hear(pod, step.standings, at)

    def _hear(self, pod: str, standings: list[Signal], at: int) -> None:
        self.standings[pod] += standings
        for signal in standings:
            self._owners[signal.scope], said = step_idle(self._owners.get(signal.scope), signal, at * SECOND, self.idle)
            self.alerts += said

    def _tick(self, at: int) -> None:
        self._ticked = at
        for scope, owner in list(self._owners.items()):
            state, said = tick_idle(owner, at * SECOND, self.idle)
            self.alerts += said
            if state is None:
                del self._owners[scope]
            else:
                self._owners[scope] = state
        for pod, state in list(self._gpus.items()):
            step = tick_gpu(state, at * SECOND, self.gpu)
            self._gpus[pod] = step.state
            self.alerts += step.alerts
            self._hear(pod, step.standings, at)

    def told(self, rule: str, tier: str) -> int:
        """How often people were told so: opened, or stepped up to that tier."""
        found, tiers = 0, {}
        for alert in self.alerts:
            if alert.rule == rule and alert.status != "resolved":
                key = (alert.dedup_key, alert.episode)
                found += alert.tier == tier != tiers.get(key)
                tiers[key] = alert.tier
        return found


def owner_days(series: dict[str, list[tuple[int, float]]]) -> float:
    """Days of ten pods."""
    return sum(samples[-1][0] - samples[0][0] for samples in series.values()) / 86_400 / 10


@pytest.mark.skipif(not GPUS.is_file(), reason="the GPU trace is not here")
def test_real_owners_of_ten_pods_are_paged_at_most_once_in_ten_days_and_the_fixed_rule_is_all_recorded():
    series = dict(list(pods().items())[:40])
    fleet = Fleet()
    fleet.play(series)
    literal = 0
    for samples in series.values():
        detector, is_below = GpuUtilisation(), False
        for (before, _), (at, util) in pairwise(samples):
            seen = Observation(max(before, at - 120) * SECOND, at * SECOND, util)
            score = detector.score_one(seen)
            detector.learn_one(seen)
            recent = detector.recent()
            if score is not None and not is_below and score.observed < 200_000:
                literal, is_below = literal + 1, True
            elif is_below and recent.known_us >= 10 * MINUTE and recent.observed > 300_000:
                is_below = False
    assert literal > 20, "the trace has changed"
    assert fleet.told("gpu_below", "note") == literal
    assert fleet.told("gpu_idle", "page") <= 0.1 * owner_days(series)
    assert fleet.told("gpu_idle", "ticket") > 0, "what can be taken back is a ticket"
    assert fleet.told("gpu_bursty", "ticket") == fleet.told("gpu_bursty", "page") == 0


@pytest.mark.skipif(not GPUS.is_file(), reason="the GPU trace is not here")
def test_every_idleness_put_into_real_pods_is_found_within_62_minutes_and_none_across_a_gap():
    found = tried = 0
    whole = [(pod, samples) for pod, samples in pods().items() if len(samples) > 300]
    for n, (pod, samples) in enumerate(whole[:30]):
        begins = samples[len(samples) // 2][0]
        # Busy for a quarter of an hour before, so that it is known when its idleness began.
        made = [(at, 0.8 if begins - 900 <= at <= begins else 0.03 if at > begins else util) for at, util in samples]
        made = [each for each in made if each[0] <= begins + 2 * 3600]
        gap = [each for each in made if not begins + 1500 < each[0] < begins + 1900]
        for series, is_whole in ((made, True), (gap, False)):
            fleet = Fleet()
            fleet.play({pod: series})
            after = [s.event_time // SECOND - begins for s in fleet.standings[pod] if s.gpu.kind == "strict"]
            after = [seconds for seconds in after if seconds > 0]
            if is_whole:
                tried += 1
                found += bool(after) and 3_590 <= after[0] <= 62 * 60
            else:
                assert not after or after[0] >= 1900 + 3600 - 120, f"{n}: across a gap"
    assert (found, tried) == (30, 30)


def long_contexts() -> list[tuple[int, int]]:
    with gzip.open(MOONCAKE, "rt") as lines:
        return [
            (START + int(row["timestamp_ms"]) * 1_000, int(row["input_length"]) + int(row["output_length"]))
            for row in csv.DictReader(lines)
        ]


@pytest.mark.skipif(not MOONCAKE.is_file(), reason="the long-context trace is not here")
def test_a_service_with_long_contexts_never_pages_for_them_and_a_runaway_among_them_is_found_with_its_event():
    requests = long_contexts()
    oversized = sum(tokens > 50_000 for _, tokens in requests)
    assert oversized > 100, "the trace has changed"
    judge = RequestJudge()
    said = [judge.step(at, tokens) for at, tokens in requests]
    assert (sum(each.page for each in said), sum(each.ticket for each in said)) == (0, oversized)
    found = judge.step(requests[-1][0] + SECOND, 400_000)
    assert found.page
    assert found.score > 1
