"""How detectors are judged: injections, incidents and figures, by hand."""

import gzip
import json
import math
import statistics

import numpy as np
import pytest
from typer.testing import CliRunner

from detectors.judging import Verdict
from schemas.instants import HOUR, MINUTE
from streams.cli import app
from streams.evaluation import gpu, habits, requests
from streams.evaluation.baselines import BASELINES, HourJudge
from streams.evaluation.incidents import opens, passes
from streams.evaluation.injections import INCIDENTS, SHAPES, place, place_all, put, starts
from streams.evaluation.scoring import as_shipped, at_bars, figures, for_pages, for_recall, held_out
from streams.evaluation.targets import targets
from streams.evaluation.traces import START, Panel, Samples, servegen_hours, ten_minutes
from streams.evaluation.trials import Contender, contenders, lay_out, run

WEEK = 168


def flat(*levels: float, step_us: int = HOUR) -> Panel:
    """Two weeks of constant series."""
    rows = 2 * WEEK * (HOUR // step_us)
    return Panel("flat", step_us, {f"s{n}": np.full(rows, level) for n, level in enumerate(levels)})


class Jumpy:
    """Scores a row by its amount, pages above 40 and sends a ticket above 30; remembers nothing."""

    def step(self, timestamp_us: int, value: float | None) -> Verdict:
        amount = value or 0.0
        return Verdict(10.0, amount, amount > 40, 30 < amount <= 40)


JUMPY = Contender("jumpy", lambda step_us, floor: Jumpy(), is_gated=False)


@pytest.mark.parametrize(
    ("shape", "row", "added"),
    [
        ("x2/3h", 0, 1), ("x5/3h", 2, 4), ("x10/1h", 0, 9), ("x3/24h", 23, 2), ("storm", 0, 0.6),
        ("storm", 5, 1.6**6 - 1), ("ramp", 0, 0.1), ("ramp", 35, 3.6), ("launch", 71, 2),
        ("dip", 3, -0.8), ("dip", 6, 0), ("weekend", 47, -0.6), ("weekend", 48, 0),
    ],
    ids=[
        "x2 adds one mean hour to each", "x5 adds four to the last of three", "x10 adds nine to its one hour",
        "x3 for a day adds two to the last", "a storm begins small", "a storm has grown sixteenfold",
        "a ramp begins with a tenth", "a ramp ends at 4.6 times", "a launch stays", "a dip takes four fifths away",
        "behind a dip all is as it was", "a quiet weekend takes 60 percent away", "behind a weekend comes Monday",
    ],
)  # fmt: skip
def test_a_shape_adds_so_many_mean_hours(shape, row, added):
    each = put(np.full(2 * WEEK, 10.0), 1, "s", SHAPES[shape], WEEK, 10.0)
    assert each.extra[row] == pytest.approx(10 * added)
    assert each.rows[row] == pytest.approx(10 + 10 * added)


def test_an_hour_in_ten_minute_rows_gets_the_same_money_as_the_hour():
    hourly = place(flat(12.0), "s0", SHAPES["storm"], 1, 5.0)
    tenths = place(flat(2.0, step_us=10 * MINUTE), "s0", SHAPES["storm"], 1, 5.0)
    assert tenths.start == 6 * hourly.start
    assert tenths.extra.reshape(-1, 6).sum(axis=1) == pytest.approx(hourly.extra)


def test_injections_are_the_same_each_time_and_differ_by_seed():
    panel = flat(10.0, 20.0)
    assert [(e.series, e.start) for e in place_all(panel, (1, 2), 5)] == [
        (e.series, e.start) for e in place_all(panel, (1, 2), 5)
    ]
    assert len({place(panel, "s0", SHAPES["x5/3h"], seed, 5.0).start for seed in range(20)}) > 5


def test_nothing_is_put_into_a_burst_nor_right_behind_it_nor_before_the_warm_up_nor_over_the_end():
    hours = np.full(2 * WEEK, 10.0)
    hours[200] = 100
    possible = starts(hours, SHAPES["x5/3h"], floor=5.0)
    assert not set(range(200, 207)) & set(possible)
    assert {199, 207} <= set(possible)
    assert min(possible) == WEEK
    assert max(possible) == 2 * WEEK - 3


@pytest.mark.parametrize(
    ("hot", "paged"),
    [
        ("1000", [0]), ("1111", [0]), ("10001", [0, 4]), ("1001", [0]), ("1001001001", [0]), ("0000", []),
        ("10000000001", [0, 10]),
    ],
    ids=[
        "one hot hour is one page", "an incident that lasts pages once", "three quiet hours end it",
        "two quiet hours do not", "an incident that flickers is one", "calm is silent", "another day is another incident",
    ],
)  # fmt: skip
def test_one_page_for_each_incident(hot, paged):
    assert np.flatnonzero(opens(np.array([sign == "1" for sign in hot]), 1)).tolist() == paged


def test_rows_of_one_hour_are_one_incident_and_quiet_hours_count_as_hours():
    hot = np.zeros(6 * 6, dtype=bool)
    hot[[3, 4, 5, 6 * 3 + 5, 6 * 5]] = True
    assert np.flatnonzero(opens(hot, 6)).tolist() == [3]
    hot[6 * 3 + 5] = False
    assert np.flatnonzero(opens(hot, 6)).tolist() == [3, 6 * 5]


@pytest.mark.parametrize(
    ("amount", "is_over"),
    [(16.0, True), (15.0, False), (14.9, False)],
    ids=["above half more and the floor", "exactly half more is not above", "below"],
)
def test_the_common_bar_needs_half_more_than_usual_and_the_floor(amount, is_over):
    hours = np.full(100, 10.0)
    hours[80] = amount
    assert passes(hours, 1, floor=5.0)[80] == is_over
    assert not passes(hours / 10, 1, floor=5.0)[80], "a tenth of it is no money"


def test_a_panel_is_judged_by_hand():
    panel = flat(10.0, 10.0)
    panel.series["s0"][250] = 50.0  # a page on the clean series, and the only one
    panel.series["s1"][260] = 35.0  # a ticket
    shapes = ("x3/3h", "x5/3h", "x10/1h", "dip")
    trials = run(JUMPY, lay_out(panel, place_all(panel, (1,), 5.0, shapes), 5.0))
    own = figures(as_shipped(trials), 0)
    assert own["pages_per_series_week"] == 0.5
    assert own["kinds"]["x3/3h"]["recall"] == 0, "30 dollars are not above 40"
    assert own["kinds"]["x5/3h"]["recall"] == 1
    assert own["kinds"]["x5/3h"]["minutes_median"] == 60
    assert own["kinds"]["x5/3h"]["escaped_share"] == pytest.approx(1 / 3)
    assert own["kinds"]["x10/1h"]["escaped_share"] == 1, "it is over when the hour is"
    assert own["kinds"]["dip"]["pages_per_case"] in (0, 0.5), "only the page that is there anyway"
    assert own["recall_mean"] == pytest.approx(2 / 3)
    assert own["precision"] == pytest.approx(1 / 1.5)
    assert figures(as_shipped(trials, tickets=True), 0)["pages_per_series_week"] == 1.0


def test_a_bar_is_found_for_a_budget_and_for_a_recall():
    panel = flat(*[10.0] * 4)
    for n, amount in enumerate((20.0, 25.0, 60.0, 70.0)):
        panel.series[f"s{n}"][300] = amount
    trials = run(JUMPY, lay_out(panel, place_all(panel, (1,), 5.0, ("x5/3h", "x10/1h")), 5.0))
    tally = at_bars(trials)
    everyone = range(4)
    assert tally.bars[for_pages(tally, everyone, 0.5)] == 25.0
    assert tally.bars[for_pages(tally, everyone, 0.0)] == 70.0
    assert tally.bars[for_recall(tally, everyone, 1.0)] == 25.0, "x5 is 50: the highest bar below that is 25"
    assert for_recall(tally, everyone, 1.1) is None
    found = held_out(tally, lambda half: for_pages(tally, half, 0.5))
    assert 0 <= found["pages_per_series_week"] <= 1
    assert held_out(tally, lambda half: None) is None


def test_an_incident_that_is_open_already_is_not_opened_again_by_an_injection():
    panel = flat(10.0)
    trials = run(JUMPY, lay_out(panel, [put(panel.series["s0"], 1, "s0", SHAPES["x5/3h"], 200, 10.0)], 5.0))
    trials.clean["s0"].scores[198] = 90.0
    tally = at_bars(trials)
    column = int(np.flatnonzero(tally.bars < 50)[0])
    assert tally.first[0, column] == -1


def test_what_is_known_at_an_injection_is_what_the_clean_series_taught():
    panel = flat(10.0)
    rule = next(each for each in contenders() if each.name == "rule: same hour yesterday")
    trials = run(rule, lay_out(panel, [put(panel.series["s0"], 1, "s0", SHAPES["x3/3h"], 200, 10.0)], 5.0))
    assert trials.injected[0][1].scores.tolist() == pytest.approx([3.0, 3.0, 3.0])
    assert trials.injected[0][1].pages.tolist() == [True, False, False]


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize(
    "amounts",
    [[0.0] * 120, [0.0] * 48 + [1e6] + [0.0] * 60, [5.0] * 120, [-3.0] * 120, [1e12] * 120],
    ids=["nothing", "one huge hour among nothing", "constant", "credits", "a fortune"],
)
def test_a_baseline_survives_what_breaks_rivers_models(name, amounts):
    model, bar = BASELINES[name]
    judge = HourJudge(model(), 5.0, bar)
    for n, amount in enumerate(amounts):
        said = judge.step(START + n * HOUR, amount)
        assert said.score is None or math.isfinite(said.score)
    assert not judge.step(START + 121 * HOUR, math.nan).page


@pytest.mark.parametrize("name", sorted(set(BASELINES) - {"daily bill", "rule: previous hour"}))
def test_a_baseline_finds_a_hundredfold_hour_stranger_than_any_before(name):
    model, bar = BASELINES[name]
    judge, dice = HourJudge(model(), 5.0, bar), np.random.default_rng(1)
    scores = [judge.step(START + n * HOUR, 100 + dice.normal() * 5).score for n in range(300)]
    assert judge.step(START + 300 * HOUR, 10_000).score >= max(score for score in scores[200:] if score is not None)


def test_a_gpu_that_falls_idle_is_put_to_work_before_and_a_gap_leaves_no_whole_hour():
    at = [START + n * MINUTE for n in range(8 * 60)]
    fall = gpu.falls({"p": Samples(at, [0.05] * len(at))}, (1,))[0]
    before = [v for t, v in zip(fall.samples.at_us, fall.samples.busy, strict=True) if t <= fall.since]
    behind = [v for t, v in zip(fall.samples.at_us, fall.samples.busy, strict=True) if t > fall.since]
    assert min(before) == gpu.WORK
    assert max(behind) < gpu.BAR
    silent = np.diff(gpu.with_gap(fall).at_us)
    assert max(silent) > 180_000_000
    assert gpu.owner_pages({f"p{n}": [START, START + HOUR] for n in range(12)}) == 2


def test_every_injected_runaway_is_counted_once():
    calm = [(START + n * 1_000_000, 1_000) for n in range(100)]
    trace, places = requests.with_runaways(calm, requests.SHORT, 1)
    assert len(places) == requests.RUNAWAYS
    assert sorted(place for place, (_, tokens) in enumerate(trace) if tokens > requests.LIMIT) == sorted(places)
    found = requests.judge_requests([], calm)["rule: above 50 000"]
    assert found["short_context_told_with_their_event"] == 1.0
    assert found["short_context_pages"] == 0


def test_targets_say_what_is_met_missed_and_not_measured():
    kinds = {kind: {"recall": 0.95, "minutes_median": 60, "minutes_p90": 60} for kind in INCIDENTS}
    own = {"pages_per_series_week": 0.1, "recall_mean": 0.6, "precision": 0.9, "kinds": kinds}
    result = {"spend": {"features, hourly": {"contenders": {"shipped": {"as_shipped": own}}}}}
    said = {target.words: target.is_met for target in targets(result)}
    assert said["as shipped: at most 0.2 pages per series-week at a mean recall of 0.55"] is True
    assert said["as shipped: at most 0.5 pages per series-week at a mean recall of 0.68"] is False
    assert said["as shipped: recall of storm at least 0.97"] is False
    assert said["strict idles found within 62 minutes"] is None


@pytest.fixture
def folder(tmp_path):
    """Two weeks of four small features, hourly and in ten minutes."""
    (tmp_path / "servegen").mkdir()
    dice = np.random.default_rng(3)
    with gzip.open(tmp_path / "servegen" / "servegen_hourly.csv.gz", "wt") as file:
        file.write("model,client,hour,requests,cv,mean_in,mean_out,p_in_gt50k,usd\n")
        for client in range(4):
            for hour in range(2 * WEEK):
                usd = (10 + client) * (1 + 0.3 * math.sin(hour / 24 * 2 * math.pi)) + dice.normal()
                file.write(f"m,{client},{hour},10,1,1,1,0,{usd:.6f}\n")
    with gzip.open(tmp_path / "servegen" / "servegen_10min.csv.gz", "wt") as file:
        file.write("model,client,t_s,requests_per_s\n")
        for client in range(4):
            file.writelines(f"m,{client},{row * 600},{1 + row % 2}\n" for row in range(12 * WEEK))
    return tmp_path


def test_ten_minute_rows_add_up_to_their_hours(folder):
    hours = servegen_hours(folder)
    rows = ten_minutes(folder, hours)
    assert rows["m/0"].reshape(-1, 6).sum(axis=1) == pytest.approx(hours["m/0"])
    assert rows["m/0"][1] == pytest.approx(2 * rows["m/0"][0])


def _clients(count):
    """Busy ones, each the same week in, week out but for a little."""
    dice = np.random.default_rng(5)
    rows = ["model,client,hour,requests,mean_in,mean_out,usd"]
    for client in range(count):
        for hour in range(2 * WEEK):
            requests = round(2_000 * (1 + 0.3 * math.sin(hour / 24 * 2 * math.pi)) * math.exp(0.05 * dice.normal()))
            rows.append(f"m,{client},{hour},{requests},1000,200,{requests * 0.01:.6f}")
    return "\n".join(rows) + "\n"


def _traced(folder, text):
    (folder / "servegen").mkdir()
    (folder / "servegen" / "servegen_hourly.csv.gz").write_bytes(gzip.compress(text.encode()))
    return folder


@pytest.mark.parametrize(("count", "panels"), [(1, []), (2, ["clients"]), (habits.TEAM_SIZE, ["clients", "teams"])])
def test_unusual_hours_are_judged_of_clients_and_of_teams_where_there_are_enough(tmp_path, count, panels):
    assert list(habits.panels(_traced(tmp_path, _clients(count)))) == panels


def test_unusual_hours_have_a_row_for_each_change_and_contender(tmp_path, monkeypatch):
    monkeypatch.setattr(habits, "TEAMS", 2)
    series = habits.panels(_traced(tmp_path, _clients(4)))
    found = habits.judge_habits(series, quick=False)
    assert list(found) == ["clients, shipped", "clients, at 0.3", "clients, LODA at 0.3"]
    shipped = found["clients, shipped"]
    assert (shipped["series"], shipped["tickets_a_series_week"]) == (2, 0.0)
    assert shipped["short calls that fail"] == shipped["cache lost"] == 1.0
    assert shipped["recall_of_habits"] == pytest.approx(
        statistics.fmean(shipped[kind] for kind in habits.HABITS), abs=0.001
    )
    assert set(habits.CHANGES) <= set(found["clients, LODA at 0.3"])
    assert list(habits.judge_habits(series, quick=True)) == ["clients, shipped", "clients, at 0.3"]


def test_the_command_judges_a_folder_and_says_what_it_has_not(folder, tmp_path):
    written = tmp_path / "result.json"
    done = CliRunner().invoke(app, ["eval", "--data", str(folder), "--quick", "--json", str(written)])
    assert done.exit_code == 0, done.output
    result = json.loads(written.read_text())
    found = result["spend"]["features, hourly"]["contenders"]
    assert found["shipped"]["as_shipped"]["kinds"]["x10/1h"]["recall"] == 1.0
    assert "z-score 7 d" in found
    assert set(result["skipped"]) >= {"clusters, hourly", "GPUs", "unusual hours"}
    assert "not judged, the traces are not here: clusters, hourly" in done.output


def test_without_traces_the_command_says_what_to_do(tmp_path):
    done = CliRunner().invoke(app, ["eval", "--data", str(tmp_path / "none")])
    assert done.exit_code == 2
    assert "give the folder of recorded traces with --data" in done.output
