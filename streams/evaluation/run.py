"""The whole evaluation: every panel, contender and bar, in one result."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from streams.evaluation import habits, traces
from streams.evaluation.gpu import judge_gpus
from streams.evaluation.injections import place_all
from streams.evaluation.requests import judge_requests
from streams.evaluation.scoring import Tally, as_shipped, at_bars, figures, for_pages, for_recall, held_out
from streams.evaluation.trials import Contender, contenders, lay_out, run

#: Dollars: the money floor of every contender.
FLOOR = 5.0
#: Pages per series-week, and mean recalls, at which contenders are compared.
BUDGETS, RECALLS = (0.2, 0.5, 1.0), (0.55, 0.68)
#: How often each shape is put into each series of a panel; few series need more of them.
SEEDS = {"features, hourly": 5, "features, ten-minute": 3, "teams, hourly": 1, "clusters, hourly": 2}


def evaluate(data: Path, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Judge everything for which a trace is here; what is not is named under ``skipped``.

    ``quick`` takes one injection of each kind and leaves out the slow contenders. ``say`` is told what is under way.
    """
    found: dict[str, Any] = {"quick": quick, "floor_usd": FLOOR, "spend": {}, "skipped": []}
    panels = traces.panels(data)
    wanted = set(SEEDS)
    for panel in panels:
        seeds = range(1, 2 if quick else 1 + SEEDS[panel.name])
        say(f"{panel.name}: {len(panel.series)} series, {len(seeds)} injection(s) of each kind in each")
        found["spend"][panel.name] = judge_panel(panel, contenders(quick), seeds)
    found["skipped"] += sorted(wanted - {panel.name for panel in panels})
    pods = traces.gpus(data)
    long, short = traces.long_contexts(data), traces.short_contexts(data)
    say("GPUs and requests")
    if pods:
        found["gpu"] = judge_gpus(pods, (1,) if quick else (1, 2))
    if long or short:
        found["requests"] = judge_requests(long, short)
    say("unusual hours")
    clients = habits.panels(data)
    if clients:
        found["habits"] = habits.judge_habits(clients, quick)
    missing = (
        ("GPUs", pods),
        ("long-context requests", long),
        ("short-context requests", short),
        ("unusual hours", clients),
    )
    found["skipped"] += [name for name, there in missing if not there]
    return found


def judge_panel(panel: traces.Panel, rivals: Sequence[Contender], seeds: Iterable[int]) -> dict[str, Any]:
    """Figures of every contender on one panel."""
    course = lay_out(panel, place_all(panel, seeds, FLOOR), FLOOR)
    found: dict[str, Any] = {"series": len(panel.series), "injections": len(course.injections), "contenders": {}}
    for rival in rivals:
        if rival.hourly_only and panel.rows_per_hour > 1:
            continue
        trials = run(rival, course)
        own: dict[str, Any] = {}
        if rival.has_own_bar:
            own["as_shipped"] = figures(as_shipped(trials), 0)
            own["with_tickets"] = figures(as_shipped(trials, tickets=True), 0)
        tally = at_bars(trials)
        everyone = range(len(tally.names))
        own["in_sample"] = {str(b): figures(tally, for_pages(tally, everyone, b)) for b in BUDGETS}
        own["held_out"] = {str(budget): _at_budget(tally, budget) for budget in BUDGETS}
        own["pages_at_recall"] = {str(recall): _at_recall(tally, recall) for recall in RECALLS}
        found["contenders"][rival.name] = own
    return found


def _at_budget(tally: Tally, budget: float) -> dict[str, Any] | None:
    return held_out(tally, lambda half: for_pages(tally, half, budget))


def _at_recall(tally: Tally, recall: float) -> float | None:
    found = held_out(tally, lambda half: for_recall(tally, half, recall))
    return None if found is None else found["pages_per_series_week"]
