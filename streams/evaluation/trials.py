"""A contender runs over a panel: once clean, and once from the beginning of each injection.

What it knew when an injection began is kept from the clean run, so that a week of warm-up is paid once and not once
for each of hundreds of injections.
"""

import pickle
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from detectors.judges import make_judge
from detectors.judging import Judge
from streams.evaluation.baselines import BASELINES, HOURLY_ONLY, UNGATED, HourJudge, HourModel
from streams.evaluation.incidents import NEVER, Flags, passes
from streams.evaluation.injections import Injection
from streams.evaluation.traces import START, Amounts, Panel

SHIPPED = "shipped"


class Contender(NamedTuple):
    """Somebody who judges a series of spend."""

    name: str
    #: From the step in microseconds and the floor in dollars.
    make: Callable[[int, float], Judge]
    #: Whether it decides by itself what is a page, as the shipped detector and the fixed rules do.
    has_own_bar: bool = True
    #: Whether its scores count only where the hour is above the ratio of its usual hour.
    is_gated: bool = True
    hourly_only: bool = False


def contenders(quick: bool = False) -> list[Contender]:
    """The shipped detector, and what it is compared with; ``quick`` leaves out the slow ones."""
    found = [Contender(SHIPPED, lambda step_us, floor: make_judge("spend", step_us, floor))]
    for name, (model, bar) in BASELINES.items():
        if not (quick and name in HOURLY_ONLY):
            make = _hour_judge(model, bar, name in UNGATED)
            found.append(Contender(name, make, bar is not None, name not in UNGATED, name in HOURLY_ONLY))
    return found


def _hour_judge(model: Callable[[], HourModel], bar: float | None, floored: bool) -> Callable[[int, float], Judge]:
    return lambda step_us, floor: HourJudge(model(), floor, bar, floored)


@dataclass(frozen=True, slots=True)
class Trail:
    """What was said of consecutive rows."""

    #: ``NEVER`` where nothing was known, or where the common bar is not passed.
    scores: Amounts
    pages: Flags
    tickets: Flags


@dataclass(frozen=True, slots=True)
class Trials:
    """All that one contender said of one panel. Injected trails begin where the injection does."""

    panel: Panel
    clean: Mapping[str, Trail]
    injected: Sequence[tuple[Injection, Trail]]


@dataclass(frozen=True, slots=True)
class Course:
    """A panel with its injections and common bars: the same for every contender."""

    panel: Panel
    injections: Sequence[Injection]
    floor: float
    clean_bars: Mapping[str, Flags]
    injected_bars: Sequence[Flags]


def lay_out(panel: Panel, injections: Sequence[Injection], floor: float) -> Course:
    """Find once, for all contenders, which rows may page at all."""
    per_hour = panel.rows_per_hour
    clean = {name: passes(amounts, per_hour, floor) for name, amounts in panel.series.items()}
    injected = []
    for each in injections:
        amounts = panel.series[each.series].copy()
        amounts[each.start : each.until] = each.rows
        injected.append(passes(amounts[: each.until], per_hour, floor)[each.start :])
    return Course(panel, injections, floor, clean, injected)


def run(contender: Contender, course: Course) -> Trials:
    """Judge every series of the panel, and every injection."""
    panel = course.panel
    by_series: dict[str, list[int]] = defaultdict(list)
    for number, each in enumerate(course.injections):
        by_series[each.series].append(number)
    clean, injected = {}, {}
    for name, amounts in panel.series.items():
        numbers = by_series[name]
        wanted = {course.injections[number].start for number in numbers}
        judge = contender.make(panel.step_us, course.floor)
        trail, kept = _judge(judge, panel, amounts, 0, wanted)
        clean[name] = _held(trail, course.clean_bars[name], contender)
        for number in numbers:
            each = course.injections[number]
            # Copies of this process's own objects, never read from anywhere: ten times faster than deepcopy.
            as_it_was = pickle.loads(kept[each.start])
            trail, _ = _judge(as_it_was, panel, each.rows, each.start, set())
            injected[number] = (each, _held(trail, course.injected_bars[number], contender))
    return Trials(panel, clean, [injected[number] for number in sorted(injected)])


def _judge(
    judge: Judge, panel: Panel, amounts: Amounts, first: int, wanted: set[int]
) -> tuple[Trail, dict[int, bytes]]:
    kept = {}
    scores, pages, tickets = np.full(len(amounts), NEVER), [False] * len(amounts), [False] * len(amounts)
    at = START + first * panel.step_us
    for row, amount in enumerate(amounts.tolist()):
        if row + first in wanted:
            kept[row + first] = pickle.dumps(judge, pickle.HIGHEST_PROTOCOL)
        _, score, pages[row], tickets[row] = judge.step(at, amount)
        at += panel.step_us
        if score is not None:
            scores[row] = score
    return Trail(scores, np.array(pages), np.array(tickets)), kept


def _held(trail: Trail, bar: Flags, contender: Contender) -> Trail:
    if not contender.is_gated:
        return trail
    return Trail(np.where(bar, trail.scores, NEVER), trail.pages, trail.tickets)
