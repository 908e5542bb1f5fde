"""Recorded pods through both stages of detection as the service has them: each GPU, and then its owner's incident."""

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import pairwise

from schemas.alerts import Alert, Tier
from schemas.events import GpuSample
from schemas.instants import MINUTE, format_instant
from schemas.statements import Signal
from streams.core.detect_gpu import GpuPolicy, GpuState, step_gpu, tick_gpu
from streams.core.detect_idle import IdlePolicy, IdleState, step_idle, tick_idle
from streams.evaluation.traces import Samples

#: The trace has no models: an H100's price, so that ten pods are 840 dollars a day.
HOUR_NANOS = 3_500_000_000
OWNER_PODS = 10


class Fleet:
    """Pods in tens, in the order of their names; each ten are a team's. Time is that of the samples."""

    def __init__(self) -> None:
        self.alerts: list[Alert] = []
        self._gpu, self._idle = GpuPolicy(nanos_per_hour={"": HOUR_NANOS}), IdlePolicy()
        self._gpus: dict[str, GpuState] = {}
        self._owners: dict[str, IdleState] = {}
        self._ticked = 0

    def play(self, pods: Mapping[str, Samples]) -> None:
        """Take in every sample of every pod, in the order of time; a minute passes between two ticks."""
        teams = {pod: f"team-{n // OWNER_PODS}" for n, pod in enumerate(sorted(pods))}
        windows = sorted(
            (at, pod, max(before, at - 2 * MINUTE), busy)
            for pod, samples in pods.items()
            for (before, _), (at, busy) in pairwise(zip(samples.at_us, samples.busy, strict=True))
        )
        for at, pod, start, busy in windows:
            while self._ticked + MINUTE <= at:
                self._tick(self._ticked + MINUTE if self._ticked else at)
            sample = GpuSample(
                gpu_uuid=pod,
                window_start=format_instant(start),
                window_end=format_instant(at),
                allocated_seconds=Decimal(1),
                util_ratio=busy,
                team_id=teams[pod],
            )
            step = step_gpu(self._gpus.get(pod), sample, at, at, self._gpu)
            self._gpus[pod] = step.state
            self.alerts += step.alerts
            self._hear(step.standings, at)

    def told(self, rule: str, tier: Tier) -> int:
        """How often an incident was told in this tier: opened in it, or stepped up to it."""
        newest: dict[tuple[str, int], Tier] = {}
        found: Counter[Tier] = Counter()
        for alert in self.alerts:
            incident = alert.dedup_key, alert.episode
            if alert.rule == rule and alert.status != "resolved":
                found[alert.tier] += newest.get(incident) != alert.tier
                newest[incident] = alert.tier
        return found[tier]

    def _hear(self, standings: Sequence[Signal], at: int) -> None:
        for signal in standings:
            self._owners[signal.scope], said = step_idle(self._owners.get(signal.scope), signal, at, self._idle)
            self.alerts += said

    def _tick(self, at: int) -> None:
        self._ticked = at
        for scope, owner in list(self._owners.items()):
            state, said = tick_idle(owner, at, self._idle)
            self.alerts += said
            if state is None:
                del self._owners[scope]
            else:
                self._owners[scope] = state
        for pod, gpu in list(self._gpus.items()):
            step = tick_gpu(gpu, at, self._gpu)
            self._gpus[pod] = step.state
            self.alerts += step.alerts
            self._hear(step.standings, at)
