"""Hours of scopes are the sums of their cells, whatever way the cells' statements come."""

import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.instants import DAY, HOUR, MINUTE
from schemas.keys import cell_id
from schemas.statements import CellStatement, Dimensions, Source, SpenderRow, SpenderStatement, Totals
from streams.core.drivers import split
from streams.core.lanes import OTHERS
from streams.core.rollup import LATE_KEEP_US, MODELS_MAX, RolledCell, Rollup, usage
from tests.unit.records import NOON

#: When what is long past comes.
NOW = NOON + 30 * DAY


def cell(
    team="search", feature="chat", model="gpt-4o", *, hour=NOON, nanos=0, offset=0, segment=0, category="llm", **totals
):
    dimensions = Dimensions("acme", "", team, "", feature, model, "openai", "", "interactive", "", category)
    return CellStatement(
        cell_id=cell_id(dimensions, hour), hour=hour, dimensions=dimensions, source=Source("usage.events.v1", 0, 3),
        segment=segment, revision=0, offset=offset, totals=Totals(cost_nanos=nanos, **totals),
    )  # fmt: skip


def spent(rollup):
    return {(each.scope, each.hour): each.figures.cost_nanos for each in stated(rollup)}


def stated(rollup):
    return [rollup.hour_of(key) for key in rollup.changed()]


def filled(*cells):
    rollup = Rollup()
    for each in cells:
        rollup.take(each)
    return rollup


def test_a_cell_counts_in_every_scope_that_it_belongs_to():
    one = cell(nanos=5, requests=3, errors=1, cache_hits=1, input_tokens=9, cache_read_input_tokens=2, output_tokens=4)
    hours = {each.scope: each for each in stated(filled(one))}
    assert set(hours) == {"org:acme", "team:search", "feature:chat", "team_feature:search/chat", "model:gpt-4o"}
    assert {each.figures.numbers() for each in hours.values()} == {(3, 1, 1, 9, 2, 4, 5, 0)}


def test_only_what_changed_is_stated_again():
    rollup = filled(cell(nanos=5), cell("risk", nanos=7))
    assert spent(rollup)["org:acme", NOON] == 12
    assert spent(rollup) == {}
    rollup.take(cell("risk", nanos=9, offset=1))
    assert spent(rollup) == {
        ("org:acme", NOON): 14, ("team:risk", NOON): 9, ("feature:chat", NOON): 14, ("team_feature:risk/chat", NOON): 9,
        ("model:gpt-4o", NOON): 14,
    }  # fmt: skip


def test_bills_are_for_budgets():
    assert spent(filled(cell(nanos=5, category="storage"), cell(nanos=7, category="gpu")))["org:acme", NOON] == 7


def test_what_comes_of_an_hour_that_was_let_go_of_ranks_below_what_was_said_of_it():
    rollup = filled(cell(nanos=5), cell(nanos=7, hour=NOON + HOUR))
    before = rollup.hour_of(("team:search", NOON)).rank
    assert [each.hour for each in rollup.forget(NOON + HOUR, NOW)[0]] == [NOON]
    assert rollup.take(cell(nanos=9, offset=1 << 40), NOW)
    assert rollup.hour_of(("team:search", NOON)).rank < before
    again = Rollup()
    again.frozen_before = rollup.frozen_before
    again.restore(rollup.cells.values())
    assert again.hour_of(("team:search", NOON)) == rollup.hour_of(("team:search", NOON))


def test_late_hours_are_held_for_hours_of_now_and_as_long_as_there_is_room(monkeypatch):
    def held(rollup, now):
        rollup.forget(NOON, now)
        return sorted({(each.hour - NOON) // HOUR for each in rollup.cells.values()})

    rollup = Rollup()
    rollup.forget(NOON, NOW)
    for n in (3, 2, 1):
        rollup.take(cell(nanos=5, hour=NOON - n * HOUR), NOW - n * MINUTE)
    assert held(rollup, NOW) == [-3, -2, -1]
    assert held(rollup, NOW + LATE_KEEP_US - 2 * MINUTE) == [-1]
    monkeypatch.setattr("streams.core.rollup.LATE_CELLS_MAX", 2)
    for n in (3, 2):
        rollup.take(cell(nanos=5, hour=NOON - n * HOUR), NOW)
    assert held(rollup, NOW) == [-3, -2]
    assert held(rollup, NOW + LATE_KEEP_US) == []


def test_more_models_than_are_told_apart_still_add_up():
    rollup = filled(*(cell(model=f"m{number}", nanos=number, requests=1) for number in range(1, MODELS_MAX + 4)))
    (hour,) = [each for each in stated(rollup) if each.scope == "team:search"]
    assert hour.models[OTHERS].cost_nanos == 1 + 2 + 3
    assert sum(each.cost_nanos for each in hour.models.values()) == hour.figures.cost_nanos
    assert hour.figures.requests == MODELS_MAX + 3


USD = 1_000_000_000


def test_drivers_are_found_from_the_hours_of_a_scope():
    def hour(at, **more):
        one = cell("search", hour=at, nanos=1_000, requests=10, input_tokens=100)
        two = cell("risk", hour=at, **({"nanos": 500, "requests": 5, "input_tokens": 50} | more))
        rows = SpenderStatement(
            cell_id=two.cell_id, hour=at, source=two.source, segment=0, revision=0, block=0,
            rows=[SpenderRow("k1", "u", 1, two.totals.cost_nanos, 1)],
        )  # fmt: skip
        # Of the oldest hour that is held nobody knows what came before.
        rollup = filled(cell("search", hour=at - 2 * HOUR, nanos=1), one, two)
        place = (two.cell_id, two.source.slot(), 0)
        rollup.note_spenders(place, "0", msgspec.json.encode(rows))
        rollup.note_spenders(place, "0", msgspec.json.encode(rows))
        [found] = [each for each in stated(rollup) if (each.scope, each.hour) == ("org:acme", at)]
        return found

    before, after = hour(NOON), hour(NOON + HOUR, nanos=2 * USD, requests=35, input_tokens=350)
    parts = split(*({m: usage(f) for m, f in each.models.items()} for each in (before, after)))
    assert sum(parts) == 2 * USD - 500
    assert parts.volume == 3_000
    assert after.by == {
        "team": {"risk": 2 * USD, "search": 1_000},
        "feature": {"chat": 2 * USD + 1_000},
        "key": {"k1": 2 * USD},
    }
    # Of an hour like others nobody asks whose keys it was.
    assert "key" not in before.by


statements = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from("mn"), st.integers(0, 2), st.integers(0, 1), st.integers(-50, 99)),
    max_size=40,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(said=statements, seed=st.integers(0, 9), lost=st.integers(0, 40))
def test_in_any_order_and_after_a_restart_the_hours_are_the_sums_of_the_newest_cells(said, seed, lost):
    cells = [
        cell(team, feature, model, hour=NOON + hour * HOUR, segment=segment, nanos=nanos, requests=abs(nanos), offset=offset)
        for offset, (team, feature, model, hour, segment, nanos) in enumerate(said)
    ]  # fmt: skip
    newest = {(each.cell_id, each.segment): each for each in cells}
    expected = {}
    for each in newest.values():
        d = each.dimensions
        for scope in (
            "org:acme",
            f"team:{d.team_id}",
            f"feature:{d.feature}",
            f"team_feature:{d.team_id}/{d.feature}",
            f"model:{d.model}",
        ):
            expected[scope, each.hour] = expected.get((scope, each.hour), 0) + each.totals.cost_nanos
    muddled = [*cells, *cells[::2]]
    random.Random(seed).shuffle(muddled)
    rollup, kept = Rollup(), {}
    for each in muddled[:lost]:
        rollup.take(each)
    for each in rollup.unkept():
        kept[each.cell_id, each.slot, each.segment] = msgspec.json.encode(each)
    rollup = Rollup()
    rollup.restore(msgspec.json.decode(value, type=RolledCell) for value in kept.values())
    for each in muddled[lost // 2 :]:
        rollup.take(each)
    assert {key: rollup.hour_of(key).figures.cost_nanos for key in rollup.of_hours(0, NOON + DAY)} == expected
