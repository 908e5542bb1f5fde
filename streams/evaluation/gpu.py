"""Idle GPUs on recorded pods: what pages on an ordinary day, whether a GPU that falls idle is found, and gaps."""

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detectors.base import Observation
from detectors.gpu_utilisation import FULL, GpuUtilisation
from detectors.judges import make_judge
from detectors.judging import Judge, Verdict
from schemas.instants import DAY, HOUR, MINUTE, SECOND
from streams.evaluation.fleet import OWNER_PODS, Fleet
from streams.evaluation.traces import Samples

SHIPPED = "shipped"
STEP = 57 * SECOND
#: An idle GPU is to be found within this: the trailing hour, and two samples.
WITHIN = 62 * MINUTE
#: The idle piece on each side of a gap, and the gap: only together they are an hour.
BESIDE_GAP, GAP = 40 * MINUTE, 10 * MINUTE
WORKS_FOR, WORK, IDLE_FOR = 2 * HOUR, 0.9, 90 * MINUTE
BAR, EXIT = 0.2, 0.3
#: A GPU falls idle where no two samples are further apart: a sample may be missing, but not two.
LONGEST = 2 * MINUTE


class LiteralRule:
    """The rule to the letter: a trailing hour whose mean is below 20 % pages, until it is above 30 %."""

    def __init__(self) -> None:
        self._gpu, self._is_open = GpuUtilisation(), False
        self._before: int | None = None

    def step(self, timestamp_us: int, value: float | None) -> Verdict:
        """Judge a sample."""
        start = timestamp_us - STEP if self._before is None else max(self._before, timestamp_us - 3 * MINUTE)
        self._before = timestamp_us
        seen = Observation(start, timestamp_us, value)
        score = self._gpu.score_one(seen)
        self._gpu.learn_one(seen)
        if score is None:
            return Verdict(None, None, False, False)
        mean = score.observed / FULL
        page = mean < BAR and not self._is_open
        self._is_open = mean < BAR or (self._is_open and mean <= EXIT)
        return Verdict(None, 1 - mean, page, False)


JUDGES: Mapping[str, Callable[[], Judge]] = {
    SHIPPED: lambda: make_judge("gpu", STEP),
    "rule: mean of an hour": LiteralRule,
}


@dataclass(frozen=True, slots=True)
class Fall:
    """A GPU that works, and falls strictly idle behind the sample of ``since``."""

    pod: str
    since: int
    samples: Samples


def falls(pods: Mapping[str, Samples], seeds: Sequence[int]) -> list[Fall]:
    """One fall for each pod and seed. The pod is put to work for the two hours before: most pods of the trace are idle
    already, or so nearly that the alert of an earlier idleness would still be open.
    """
    found = []
    for pod, samples in pods.items():
        first, last = samples.at_us[0] + WORKS_FOR, samples.at_us[-1] - IDLE_FOR
        possible = [at for at in samples.at_us if first <= at <= last and not _is_silent(samples, at, at + IDLE_FOR)]
        for seed in seeds if possible else ():
            dice = random.Random(f"{pod}|{seed}")
            since, level = dice.choice(possible), dice.choice((0.0, 0.01, 0.05, 0.15))
            times, values = [], []
            for at, value in zip(samples.at_us, samples.busy, strict=True):
                if since - WORKS_FOR < at <= since + IDLE_FOR:
                    times.append(at)
                    values.append(level if at > since else max(value, WORK))
            found.append(Fall(pod, since, Samples(times, values)))
    return found


def _is_silent(samples: Samples, start: int, end: int) -> bool:
    """Whether the recording itself has a gap there: what nobody measured cannot be found."""
    times = [at for at in samples.at_us if start <= at <= end]
    return any(after - before > LONGEST for before, after in itertools.pairwise(times))


def with_gap(fall: Fall) -> Samples:
    """The same fall, but silent for ten minutes in the middle, and at work again before an hour is known again."""
    silent = fall.since + BESIDE_GAP, fall.since + BESIDE_GAP + GAP
    over = silent[1] + BESIDE_GAP
    kept = [
        (at, 0.9 if at > over else value)
        for at, value in zip(fall.samples.at_us, fall.samples.busy, strict=True)
        if not silent[0] < at < silent[1]
    ]
    return Samples([at for at, _ in kept], [value for _, value in kept])


def sent(judge: Judge, samples: Samples) -> tuple[list[int], list[int]]:
    """When it paged, and when it sent a ticket."""
    pages, tickets = [], []
    for at, value in zip(samples.at_us, samples.busy, strict=True):
        said = judge.step(at, value)
        if said.page:
            pages.append(at)
        if said.ticket:
            tickets.append(at)
    return pages, tickets


def owner_pages(pages: Mapping[str, Sequence[int]]) -> int:
    """Pages as an owner of ten pods gets them: the first, and none more for the day that follows."""
    names, count = sorted(pages), 0
    for first in range(0, len(names), OWNER_PODS):
        until = 0
        for at in sorted(at for name in names[first : first + OWNER_PODS] for at in pages[name]):
            if at >= until:
                count, until = count + 1, at + DAY
    return count


def judge_gpus(pods: Mapping[str, Samples], seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Figures by contender. An owner is ten pods in the order of their names: the trace names no owners. As a judge
    of single series nobody knows owners: their pages are thinned to one a day; the service's own are told beside.
    """
    days = sum(samples.at_us[-1] - samples.at_us[0] for samples in pods.values()) / DAY
    fallen = falls(pods, seeds)
    gaps = [(fall, with_gap(fall)) for fall in fallen]
    found = {}
    for name, make in JUDGES.items():
        clean = {pod: sent(make(), samples) for pod, samples in pods.items()}
        by_pod = {pod: pages for pod, (pages, _) in clean.items()}
        minutes, in_time = [], 0
        for fall in fallen:
            pages, tickets = sent(make(), fall.samples)
            told = [at for at in sorted(pages + tickets) if fall.since < at <= fall.since + IDLE_FOR]
            minutes += [(told[0] - fall.since) / MINUTE] if told else []
            in_time += bool(told) and told[0] <= fall.since + WITHIN
        across = 0
        for fall, samples in gaps:
            pages, _ = sent(make(), samples)
            across += any(fall.since < at <= fall.since + 2 * BESIDE_GAP + GAP for at in pages)
        found[name] = {
            "pod_days": days,
            "pages_per_pod_day": sum(map(len, by_pod.values())) / days,
            "tickets_per_pod_day": sum(len(tickets) for _, tickets in clean.values()) / days,
            "pods_paged_share": sum(map(bool, by_pod.values())) / len(by_pod),
            "owner_pages_per_day_per_10_pods": owner_pages(by_pod) / (days / OWNER_PODS),
            "falls": len(fallen),
            "found_within_62_min": in_time / len(fallen) if fallen else None,
            "minutes_max": max(minutes, default=None),
            "pages_across_a_gap": across,
        }
    found[SHIPPED] |= shipped_owners(pods)
    return found


def shipped_owners(pods: Mapping[str, Samples]) -> dict[str, float]:
    """What owners of ten pods are told by the service: one incident of an owner, in money."""
    fleet = Fleet()
    fleet.play(pods)
    days = sum(samples.at_us[-1] - samples.at_us[0] for samples in pods.values()) / DAY / OWNER_PODS
    return {
        "owner_pages_per_day_per_10_pods": fleet.told("gpu_idle", "page") / days,
        "owner_tickets_per_day_per_10_pods": fleet.told("gpu_idle", "ticket") / days,
    }
