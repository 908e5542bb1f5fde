"""The rigs' pure parts: what they send is like real traffic, peers do METER's work, and the arithmetic is right."""

import re
import tomllib
from collections import Counter as Tally
from itertools import islice
from pathlib import Path
from statistics import mean, median

import pytest

from loadtest.bench import work
from loadtest.bench.distributions import AZURE_CONTEXT_TOKENS, AZURE_GAPS, AZURE_GENERATED_TOKENS, Zipf
from loadtest.bench.events import Made, Shape, Stream, budgets_yaml, size_on_wire
from loadtest.bench.figures import Sample, cpu_ratios, middle, percentile, ratios, slope, steady, summary
from loadtest.bench.work import Counter, Record, Work
from schemas.instants import HOUR, SECOND
from schemas.statements import Source, Totals
from streams.core.budget_file import load_budgets
from streams.core.charging import Charging
from streams.core.meter import PartitionState
from streams.core.pricing import PriceBook
from streams.core.rate_card import RateCard
from streams.core.reading import Limits, read
from streams.core.rules import Rules
from streams.core.scopes import ScopeWatchlist, watched_of

ROOT = Path(__file__).parents[2]
START = 1_790_000_000_000_000 // HOUR * HOUR
PARTITIONS = 8


def _made(count: int, **shape) -> list[Made]:
    return list(islice(Stream(Shape(**shape), PARTITIONS, START), count))


def _record(made: Made, offset: int) -> Record:
    return Record(offset, made.time // 1_000, made.key, made.value, made.headers)


@pytest.fixture(scope="module")
def events() -> list[Made]:
    return _made(40_000)


def test_every_event_can_be_read_and_has_the_time_it_was_given(events):
    for offset, made in enumerate(events[:2_000]):
        assert read(_record(made, offset), Limits()).event_time == made.time


def test_an_event_takes_about_520_bytes_on_the_wire(events):
    assert mean(map(size_on_wire, events)) == pytest.approx(520, abs=10)


def test_ids_are_uuids_and_two_in_a_hundred_come_twice_in_the_same_partition(events):
    ids = [dict(made.headers)["ce_id"].decode() for made in events]
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}", id) for id in ids)
    places: dict[str, set[int]] = {}
    for id, made in zip(ids, events, strict=True):
        places.setdefault(id, set()).add(made.partition)
    assert 1 - len(places) / len(ids) == pytest.approx(0.02, abs=0.004)
    assert {len(found) for found in places.values()} == {1}


def test_event_time_moves_on_at_the_rate_asked_for(events):
    assert (events[-1].time - START) / SECOND == pytest.approx(len(events) / 5_000, rel=0.35)


def test_cells_are_zipf_and_partitions_uneven(events):
    sizes = sorted(Tally(made.value[: made.value.index(b',"input_tokens')] for made in events).values(), reverse=True)
    assert sizes[0] / sizes[9] == pytest.approx(10, rel=0.35)
    partitions = Tally(made.partition for made in events)
    assert len(partitions) == PARTITIONS
    assert max(partitions.values()) > 1.5 * min(partitions.values())


def test_tokens_are_distributed_as_in_the_trace(events):
    limits = Limits()
    tokens = [read(_record(made, 0), limits).event.input_tokens for made in events[:8_000]]
    assert median(tokens) == pytest.approx(AZURE_CONTEXT_TOKENS.at(0.5), rel=0.15)


def test_the_same_seed_makes_the_same_events_and_parts_share_no_id():
    again = _made(500, seed=3)
    assert _made(500, seed=3) == again
    first, second = (Stream(Shape(seed=3), PARTITIONS, START, part, 2).chunk() for part in (0, 1))
    assert not {made.headers[2] for made in first} & {made.headers[2] for made in second}


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [(AZURE_CONTEXT_TOKENS, 3, 7437), (AZURE_GENERATED_TOKENS, 6, 1899), (AZURE_GAPS, 0, 557.3)],
)
def test_quantiles_keep_their_ends_and_only_rise(table, low, high):
    drawn = [table.at(level / 1000) for level in range(1001)]
    assert (drawn[0], drawn[-1]) == (low, high)
    assert drawn == sorted(drawn)


def test_zipf_draws_the_first_rank_most():
    from random import Random

    drawn = Tally(Zipf(100, 1.0).draw(Random(1), 20_000))
    assert drawn[0] / drawn[1] == pytest.approx(2, rel=0.15)
    assert set(drawn) <= set(range(100))


def test_peers_reach_the_very_totals_that_meter_reaches(tmp_path: Path):
    text = budgets_yaml(5, 20)
    (tmp_path / "budgets.yaml").write_text(text)
    peer = Work(tmp_path / "budgets.yaml")
    watchlist = ScopeWatchlist([watched_of(budget) for budget in load_budgets(text)])
    state = PartitionState(
        Source("usage.events.v1", 0, 0),
        Rules(limits=Limits(), pricing=Charging(PriceBook(RateCard(), frozenset()), work.METERED), watchlist=watchlist),
    )
    totals: dict[str, Totals] = {}
    counters: dict[str, Counter] = {}
    for offset, made in enumerate(_made(3_000, cells=300, teams=20)):
        record = _record(made, offset)
        state.fold([record], offset + 1)
        priced = peer.price(record, 0)
        if priced is None:
            continue
        work.fold_cell(totals.setdefault(priced.cell, Totals()), priced)
        for watched in priced.watched:
            work.fold_counter(counters.setdefault(work.counter_name(watched), Counter()), priced, watched)
    assert totals == {cell.cell_id: cell.totals for cell in state.cells.values()}
    assert {name: (c.cost_nanos, c.requests, c.tokens, c.contributors) for name, c in counters.items()} == {
        f"{c.scope}|{c.period_start}": (c.cost_nanos, c.requests, c.tokens, c.contributors)
        for c in state.counters.values()
    }
    assert peer.duplicates == state.duplicates > 0
    assert peer.rejected == state.dead_letters == 0


def test_state_survives_its_encoding():
    totals, counter = Totals(requests=3, cost_nanos=-5), Counter(1, 2, 3, {"a": 4})
    assert work.decode_totals(work.encode(totals)) == totals
    assert work.decode_counter(work.encode(counter)) == counter


def test_budgets_are_a_file_that_loads():
    budgets = load_budgets(budgets_yaml(3, 2))
    assert [(budget.id, budget.target.scope_id) for budget in budgets] == [
        ("bench-00000", "team-00000"),
        ("bench-00001", "team-00001"),
        ("bench-00002", "team-00000"),
    ]
    assert load_budgets(budgets_yaml(0, 2)) == ()


# -- arithmetic ---------------------------------------------------------------------------------------------------


def _samples(*durable: int, every_s: float = 1.0, cpu: float = 0.5) -> list[Sample]:
    return [Sample(number * every_s, value, number * cpu) for number, value in enumerate(durable)]


def test_a_rate_is_taken_between_commits_and_leaves_out_warm_up_and_end():
    samples = _samples(0, 0, 100, 100, 200, 200, 400, 400, 600, 600, 990)
    rate = steady(samples, warm_up_s=2.0, total=1_020)
    assert rate is not None
    # From the commit seen at 4 s to that at 8 s; 990 of 1020 is the end already.
    assert (rate.events, rate.seconds, rate.events_per_s) == (400, 4.0, 100.0)
    assert rate.cpu_s_per_million == pytest.approx(2.0 / 400 * 1e6)


def test_a_tenth_of_the_topic_is_warm_up_enough():
    rate = steady(_samples(0, 100, 300, 500, 700), warm_up_s=60.0, total=1_000)
    assert rate is not None
    assert rate.events == 600


@pytest.mark.parametrize("durable", [(), (0, 0, 0), (0, 100, 100), (0, 990, 1_000)])
def test_without_two_commits_there_is_no_rate(durable):
    assert steady(_samples(*durable), warm_up_s=0.0, total=1_000) is None


@pytest.mark.parametrize(
    ("values", "percent", "wanted"),
    [([5.0], 99, 5.0), ([1.0, 2.0, 3.0, 4.0], 50, 2.0), (list(range(1, 101)), 99, 99), ([3.0, 1.0], 100, 3.0)],
)
def test_a_percentile_is_a_value_that_was_measured(values, percent, wanted):
    assert percentile(values, percent) == wanted


def test_no_values_have_no_percentile():
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_a_summary_counts_and_names_its_percentiles():
    assert summary([1.0, 2.0, 4.0]) == {"samples": 3, "p50": 2.0, "p90": 4.0, "p99": 4.0, "max": 4.0}


def test_ratios_say_how_many_times_as_fast_we_are_and_cpu_ratios_how_much_more_others_take():
    assert ratios({"sluice": 90.0, "bytewax": 30.0, "aiokafka_read": 180.0}) == {"bytewax": 3.0, "aiokafka_read": 0.5}
    assert cpu_ratios({"sluice": 10.0, "bytewax": 30.0, "sluice_spenders": 11.0}) == {"bytewax": 3.0}
    assert ratios({"bytewax": 30.0}) == {}


def test_repetitions_give_their_median_and_their_range():
    runs = [{"events_per_s": speed, "load_average": [1.0]} for speed in (10, 30, 20)]
    assert middle(runs) == {"events_per_s": 20, "events_per_s_range": [10, 30], "repetitions": 3}


@pytest.mark.parametrize(
    ("points", "wanted"), [([(0, 5), (10, 5)], 0.0), ([(0, 0), (1, 2), (2, 4)], 2.0), ([(1, 7)], 0.0), ([], 0.0)]
)
def test_a_slope_is_that_of_the_least_squares(points, wanted):
    assert slope(points) == pytest.approx(wanted)


# -- the peers' lock ----------------------------------------------------------------------------------------------


def _locked(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", (ROOT / name).read_text(), re.M))


def _wanted(requirements: list[str]) -> set[str]:
    return {re.match(r"[A-Za-z0-9._-]+", entry).group().lower() for entry in requirements}


def test_the_peers_lock_covers_the_project_and_the_peers_by_hash_and_names_no_registry():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    text = (ROOT / "requirements-bench.lock").read_text()
    wanted = _wanted(project["project"]["dependencies"]) | _wanted(project["dependency-groups"]["bench"])
    assert wanted <= set(_locked("requirements-bench.lock"))
    assert "://" not in text
    assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=[a-z0-9])", text.strip()))


@pytest.mark.parametrize("package", ["faust-streaming", "aiokafka", "msgspec", "genai-prices"])
def test_peers_do_their_work_with_the_versions_that_sluice_uses(package):
    assert _locked("requirements-bench.lock")[package] == _locked("requirements.lock")[package]
