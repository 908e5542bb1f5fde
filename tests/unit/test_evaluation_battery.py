"""Made-up labelled series, and what a score of them is worth."""

import numpy as np
import pytest

from detectors.judges import make_judge
from detectors.series_judge import SeriesJudge
from streams.evaluation.battery import FAMILIES, series
from streams.evaluation.ranking import Judgement, average_precision, best_event_f1, episodes, events, labels


@pytest.mark.parametrize("name", FAMILIES)
def test_a_series_is_the_same_for_the_same_seed_and_its_windows_lie_behind_the_beginning(name):
    one, again, other = series(name, 1), series(name, 1), series(name, 2)
    assert one == again
    assert one.values != other.values
    assert len(one.windows) == len(FAMILIES[name].changes)
    assert all(100 <= start < end <= len(one.values) for start, end in one.windows)


SCORES = np.array([0.0, 5, 1, 0, 0, 0, 3, 0, 0, 9.0])


@pytest.mark.parametrize(
    ("windows", "bar", "expected"),
    [([(1, 3)], 4, (1, 1)), ([(1, 3)], 3, (1, 2)), ([(1, 3), (9, 10)], 6, (1, 0)), ([(4, 5)], 6, (0, 1)), ([], 1, (0, 3))],
    ids=["one found and one false", "a lower bar", "a window missed", "none found", "nothing to find"],
)  # fmt: skip
def test_events_are_windows_found_and_episodes_that_touch_none(windows, bar, expected):
    assert events(SCORES, windows, bar) == expected


def test_alarms_close_to_each_other_are_one_episode_and_one_without_end_is_many():
    assert episodes(np.array([True, False, True, False, False, False, True]), 2) == [(0, 2), (6, 6)]
    assert events(np.ones(1_000), [], 0.5)[1] > 10


def test_one_bar_for_all_series_is_judged_by_events():
    good, loud = Judgement(SCORES, [(9, 10)]), Judgement(10 * SCORES, [(9, 10)])
    assert best_event_f1([good]) == (1.0, 9.0)
    assert best_event_f1([good, loud])[0] < 1


def test_average_precision_of_a_perfect_score_is_one_and_of_a_constant_one_the_share_of_labels():
    wanted = labels(10, [(2, 4)])
    assert average_precision(wanted.astype(float), wanted) == 1.0
    assert average_precision(np.ones(10), wanted) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("family", "least"),
    [("counts, 1 min", 0.5), ("trend, 1 h", 0.6), ("early, 1 h", 0.7), ("bill, 1 d", 0.8), ("traffic, 10 min", 0.4)],
)
def test_a_family_is_ranked_as_well_as_it_was(family, least):
    one = series(family, 1)
    judge = SeriesJudge(one.step_us)
    scores = np.array([judge.step(at, v).score or 0.0 for at, v in zip(one.at_us, one.values, strict=True)])
    assert average_precision(scores, labels(len(scores), one.windows)) >= least


@pytest.mark.parametrize("family", ["business, 1 h", "counts, 1 min", "bill, 1 d"])
def test_the_same_rows_get_the_same_scores_whatever_comes_later(family):
    one = series(family, 1)
    rows = list(zip(one.at_us, one.values, strict=True))[:1_500]
    half = len(rows) // 2
    whole, cut = make_judge("spend", one.step_us), make_judge("spend", one.step_us)
    said = [whole.step(at, value) for at, value in rows]
    assert [cut.step(at, value) for at, value in rows[:half]] == said[:half]


def test_a_lasting_alarm_is_one_ticket():
    judge = SeriesJudge(3_600_000_000)
    sent = []
    for row in range(600):
        value = 10.0 + row % 5 + (200.0 if 400 <= row < 430 else 0.0)
        if judge.step(1_795_251_600_000_000 + row * 3_600_000_000, value).ticket:
            sent.append(row)
    assert sent
    assert sent[0] == 400
    assert len([row for row in sent if row < 430]) <= 2
