"""Any series as a CSV: what is read, what is refused with its line, and what is written."""

import csv
import math
import random

import pytest
from typer.testing import CliRunner

from detectors.judges import make_judge
from detectors.series_judge import SeriesJudge
from schemas.instants import DAY, HOUR, MINUTE, parse_instant
from streams.cli import app
from streams.evaluation.csv_series import SeriesError, judge_rows, read_series, step_of

NINE = parse_instant("2026-11-21T09:00:00Z")


def rows_of(text: str):
    return read_series(text.splitlines(keepends=True))


@pytest.mark.parametrize(
    "written",
    [
        "2026-11-21T09:00:00Z", "2026-11-21 09:00:00", "2026-11-21T10:00:00+01:00", "2026/11/21 09:00", "1795251600",
        "1795251600000", "1795251600000000", "1795251600000000000", "1795251600.0", "1.7952516e9", " 1795251600 ",
    ],
    ids=[
        "RFC 3339", "a blank and no offset is UTC", "another offset", "slashes", "seconds", "milliseconds",
        "microseconds", "nanoseconds", "seconds with a point", "an exponent", "blanks around it",
    ],
)  # fmt: skip
def test_a_time_is_read_as_people_write_it(written):
    (row,) = rows_of(f"timestamp,value\n{written},1\n")
    assert row.at_us == NINE
    assert row.timestamp == written


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1.5", 1.5),
        ("-2", -2.0),
        ("1e3", 1000.0),
        ("", None),
        ("NaN", None),
        ("null", None),
        ("inf", None),
        ("1e999", None),
    ],
    ids=["a number", "below zero", "an exponent", "nothing", "NaN", "null", "infinity", "larger than a number can be"],
)
def test_a_value_is_a_number_or_missing(written, value):
    (row,) = rows_of(f"timestamp,value\n1795251600,{written}\n")
    assert row.value == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: no column timestamp and no column value; the header has nothing"),
        ("time,value\n1,2\n", "line 1: no column timestamp; the header has time, value"),
        ("timestamp,value\n", "the file has a header and no rows"),
        ("timestamp,value\n1795251600,1\nyesterday,2\n", "line 3: 'yesterday' is no time"),
        ("timestamp,value\n1795251600,many\n", "line 2: 'many' is no number; leave it empty where it is missing"),
        ("timestamp,value\n1795251600\n", "line 2: 1 cells, and the header has 2"),
        ("timestamp,value\n1e30,1\n", "line 2: '1e30' is no time since 1970"),
        ("timestamp,value\nnan,1\n", "line 2: 'nan' is no time since 1970"),
    ],
    ids=[
        "an empty file", "a column with another name", "a header alone", "a time in words", "a value in words",
        "a cell is missing", "an absurd time", "no time",
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_line(text, says):
    with pytest.raises(SeriesError, match="^" + says.replace("?", r"\?")):
        rows_of(text)


def test_other_columns_their_order_letter_case_and_empty_lines_do_not_matter():
    rows = rows_of("\ufefflabel, Value ,Timestamp\n0,7,1795251600\n\n1,8,1795255200\n")
    assert [(row.at_us, row.value) for row in rows] == [(NINE, 7.0), (NINE + HOUR, 8.0)]


@pytest.mark.parametrize(
    ("seconds", "step"),
    [
        ([0, 300, 600], 5 * MINUTE), ([0, 3600, 7200, 90_000], HOUR), ([0], HOUR), ([0, 1, 2], MINUTE),
        ([0, 604_800, 1_209_600], DAY), ([7200, 0, 3600], HOUR), ([0, 0, 3600, 3600, 7200], HOUR),
    ],
    ids=[
        "five minutes", "a gap does not matter", "one row", "seconds are a minute", "weeks are a day", "unsorted",
        "times that repeat",
    ],
)  # fmt: skip
def test_the_step_is_the_median_time_from_row_to_row(seconds, step):
    rows = rows_of("timestamp,value\n" + "".join(f"{1_795_251_600 + second},1\n" for second in seconds))
    assert step_of(rows) == step


def test_rows_out_of_order_are_judged_in_order_of_time_and_written_as_they_were():
    ordered = [f"{1_795_251_600 + n * 3600},{10 + n % 3}\n" for n in range(300)]
    ordered[280] = ordered[280].replace(",1", ",90")
    mixed = random.Random(1).sample(ordered, len(ordered))
    straight, shuffled = rows_of("timestamp,value\n" + "".join(ordered)), rows_of("timestamp,value\n" + "".join(mixed))
    one, other = judge_rows(straight, "spend"), judge_rows(shuffled, "spend")
    by_time = dict(zip((row.at_us for row in shuffled), other.verdicts, strict=True))
    assert [by_time[row.at_us] for row in straight] == one.verdicts
    assert one.verdicts[280].page or one.verdicts[280].ticket
    assert other.remarks == ["the rows are not in order of time: judged in that order"]


def test_rows_of_one_time_are_one_row_with_the_last_value_and_one_page():
    text = "timestamp,value\n" + "".join(f"{1_795_251_600 + n * 3600},10\n" for n in range(300))
    again = f"{1_795_251_600 + 299 * 3600},500\n{1_795_251_600 + 299 * 3600},\n"
    found = judge_rows(rows_of(text + again), "spend")
    assert found.remarks == ["2 rows repeat a time: the last value of each time counts"]
    assert sum(each.page or each.ticket for each in found.verdicts) == 1
    assert len({each.score for each in found.verdicts[-3:]}) == 1


def test_a_utilisation_in_percent_is_read_as_a_share():
    percent = "timestamp,value\n" + "".join(f"{1_795_251_600 + n * 60},{90 if n < 60 else 3}\n" for n in range(240))
    found = judge_rows(rows_of(percent), "gpu")
    assert found.remarks == ["the values are taken to be percent"]
    paged = [n for n, each in enumerate(found.verdicts) if each.page or each.ticket]
    assert paged
    assert 100 < paged[0] <= 122


def _wild(name: str) -> list[float | None]:
    dice = random.Random(name)
    count = 300
    return {
        "constant": [5.0] * count,
        "zeros": [0.0] * count,
        "below zero": [dice.gauss(-50, 5) for _ in range(count)],
        "around zero": [dice.gauss(0, 1) for _ in range(count)],
        "a level shift": [dice.gauss(10 if n < 150 else 1_000, 1) for n in range(count)],
        "nothing known": [None] * count,
        "mostly missing": [dice.random() if n % 17 == 0 else None for n in range(count)],
        "huge": [dice.random() * 1e300 for _ in range(count)],
        "tiny": [dice.random() * 1e-300 for _ in range(count)],
        "infinities": [dice.choice([math.inf, -math.inf, math.nan, 1.0]) for _ in range(count)],
        "a single spike": [1e15 if n == 250 else 0.0 for n in range(count)],
        "heavy tails": [dice.paretovariate(0.5) for _ in range(count)],
    }[name]


WILD = (
    "constant", "zeros", "below zero", "around zero", "a level shift", "nothing known", "mostly missing", "huge", "tiny",
    "infinities", "a single spike", "heavy tails",
)  # fmt: skip


@pytest.mark.parametrize("kind", ["spend", "gpu", "requests"])
@pytest.mark.parametrize("step_us", [MINUTE, 5 * MINUTE, 7 * MINUTE, HOUR, DAY], ids=["1m", "5m", "7m", "1h", "1d"])
@pytest.mark.parametrize("name", WILD)
def test_no_series_breaks_a_judge(kind, step_us, name):
    judge = make_judge(kind, step_us)
    for n, value in enumerate(_wild(name)):
        gap = 40 * DAY if n > 200 else 0
        said = judge.step(NINE + n * step_us + gap, value)
        assert said.score is None or math.isfinite(said.score)
        assert said.expected is None or math.isfinite(said.expected)


def _five_minutes(changed) -> list[float]:
    """Scores of two weeks of a daily rhythm with noise; ``changed`` takes row and value and may change it."""
    dice, judge = random.Random(5), SeriesJudge(5 * MINUTE)
    scores = []
    for n in range(14 * 288):
        value = 50 + 20 * math.sin(n / 288 * 2 * math.pi) + dice.gauss(0, 2)
        scores.append(judge.step(NINE + n * 5 * MINUTE, changed(n, value)).score or 0.0)
    return scores


@pytest.mark.parametrize(
    "changed",
    [
        lambda n, value: value + 60 * (n == 3_500),
        lambda n, value: value - 60 * (n == 3_500),
        lambda n, value: value + 40 * (n >= 3_500),
        lambda n, value: 50 if 3_500 <= n < 3_700 else value,
        lambda n, value: 1e6 * (value + 60 * (n == 3_500)),
    ],
    ids=["a spike", "a drop", "a level that stays", "a rhythm that stops", "the same spike in another unit"],
)
def test_the_largest_score_of_short_rows_is_where_something_happened(changed):
    scores = _five_minutes(changed)
    place = max(range(864, len(scores)), key=scores.__getitem__)
    assert 3_500 <= place <= 3_700


def test_short_rows_score_the_same_in_any_unit():
    one, other = _five_minutes(lambda n, value: value), _five_minutes(lambda n, value: value * 1_000)
    assert one == pytest.approx(other, rel=1e-6, abs=1e-6)


def test_an_alarm_that_lasts_is_one_alarm():
    scores = _five_minutes(lambda n, value: value + 60 * (3_500 <= n < 3_560))
    largest = max(scores)
    assert sum(score > 0.6 * largest for score in scores[3_500:3_560]) <= 6
    assert max(scores[3_500:3_560]) > 1.5


@pytest.mark.parametrize("name", ["constant", "zeros", "nothing known"])
def test_a_series_in_which_nothing_happens_is_silent(name):
    judge = make_judge("spend", HOUR)
    said = [judge.step(NINE + n * HOUR, value) for n, value in enumerate(_wild(name))]
    assert not any(each.page or each.ticket for each in said)


def test_the_command_writes_a_line_for_each_row_with_times_and_values_as_given(tmp_path):
    file, scores = tmp_path / "series.csv", tmp_path / "scores.csv"
    values = ["10", "10.50", "", "NaN", "11"] * 60
    values[-10] = "900"
    lines = [f"2026-01-{1 + n // 24:02} {n % 24:02}:00:00,{value}\n" for n, value in enumerate(values)]
    file.write_text("timestamp,value\n" + "".join(lines))
    done = CliRunner().invoke(app, ["eval", "--series", str(file), "--kind", "spend", "--out", str(scores)])
    assert done.exit_code == 0, done.output
    assert "300 rows of 60 min" in done.output
    with scores.open() as written:
        found = list(csv.DictReader(written))
    assert list(found[0]) == ["timestamp", "value", "expected", "score", "page", "ticket"]
    assert [f"{row['timestamp']},{row['value']}\n" for row in found] == lines
    assert all(math.isfinite(float(row["score"])) for row in found)
    assert {row["page"] for row in found} | {row["ticket"] for row in found} <= {"0", "1"}
    assert found[-10]["page"] == "1" or found[-10]["ticket"] == "1"
    assert float(found[-10]["score"]) == max(float(row["score"]) for row in found)


def test_the_command_refuses_a_file_in_plain_words(tmp_path):
    file = tmp_path / "series.csv"
    file.write_text("timestamp,value\nsoon,1\n")
    done = CliRunner().invoke(app, ["eval", "--series", str(file), "--out", str(tmp_path / "out.csv")])
    assert done.exit_code == 1
    assert "line 2: 'soon' is no time" in done.output.replace("\n", " ")
    assert not (tmp_path / "out.csv").exists()


def test_a_series_needs_a_place_for_its_scores(tmp_path):
    file = tmp_path / "series.csv"
    file.write_text("timestamp,value\n1,1\n")
    assert CliRunner().invoke(app, ["eval", "--series", str(file)]).exit_code == 2
