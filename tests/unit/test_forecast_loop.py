"""FORECAST's shell: it follows what BUDGET holds, stores what is new, and is never in the way."""

from itertools import pairwise

import msgspec
import pytest

from schemas.budgets import OpeningBalance, Override, Period
from schemas.instants import DAY, HOUR, MINUTE, parse_instant
from schemas.statements import ScopeStatement, Source
from streams.agents import forecast as shell
from streams.agents.forecast import ForecastLoop
from streams.agents.forecast_standings import Standings
from streams.core.budget_file import load_budgets
from streams.core.budget_terms import Book
from streams.core.budgets import Policy, decide, take_in
from streams.core.definitions import Definitions
from streams.core.forecast import Counter, Standing
from streams.core.scopes import definition_scope
from streams.history_ports import StoreError

USD = 1_000_000_000
START = parse_instant("2026-03-01T00:00:00Z")


class Clock:
    def __init__(self) -> None:
        self.time = START

    def now(self) -> int:
        return self.time

    def observe(self, event_time: int, source: str = "") -> None:
        pass


class Store:
    def __init__(self) -> None:
        self.states, self.rows, self.outcomes, self.asked = {}, [], [], []
        self.is_away = False
        self.hours = None
        self.swept = []

    async def load(self, keys):
        self._check()
        return {key: self.states[key].state for key in keys if key in self.states}

    async def keep(self, states, rows, outcomes) -> None:
        self._check()
        self.states |= {(state.budget_id, state.value): state for state in states}
        self.rows += rows
        self.outcomes += outcomes

    async def forget(self, now) -> int:
        self.swept.append(now)
        return 0

    async def hourly_spend(self, match, since, until):
        self._check()
        self.asked.append(match)
        return self.hours

    def _check(self) -> None:
        if self.is_away:
            raise StoreError("away")


class World:
    """A budget of a day that spends a dollar an hour, and the worker that follows it."""

    def __init__(self, names=("b",)) -> None:
        self.clock, self.store, self.names = Clock(), Store(), list(names)
        self.loop = self.worker()

    def worker(self) -> ForecastLoop:
        return ForecastLoop(self.standings, lambda key: (("team", key[0]),), self.store, self.clock)

    def standings(self, now: int):
        for name in self.names:
            days = [Counter(d, d + DAY, min(now - d, DAY) * USD // HOUR) for d in range(START, now + 1, DAY)][-2:]
            yield Standing(name, "", days[-1].start, days[-1].end, days[-1].nanos, 20 * USD, tuple(days))

    async def live(self, span: int, step: int = MINUTE) -> None:
        end = self.clock.time + span
        while self.clock.time < end:
            self.clock.time += step
            await self.loop.refresh()

    def said(self, name: str = "b"):
        return self.loop.projected(name, "", self.clock.time)


async def test_what_it_says_is_there_for_budget_and_stored_once_per_point_and_change():
    world = World()
    await world.live(6 * HOUR)
    assert {each.method for each in world.said().estimates} == {"run_rate", "plain"}
    assert world.said().projected_nanos == pytest.approx(24 * USD, abs=9)
    assert world.said().exhausts_at == pytest.approx(START + 20 * HOUR, abs=9)
    points = {row.at for row in world.store.rows}
    assert points == {START + hour * HOUR for hour in range(7)}


async def test_what_was_said_long_ago_is_swept_once_a_day():
    world = World()
    await world.live(50 * HOUR, HOUR)
    assert [b - a for a, b in pairwise(world.store.swept)] == [DAY, DAY]


async def test_a_successor_goes_on_with_what_was_learned_and_the_sum_is_whole():
    world = World()
    await world.live(80 * HOUR)
    world.loop = world.worker()
    world.clock.time += 2 * HOUR
    await world.live(MINUTE)
    assert {each.method for each in world.said().estimates} == {"run_rate", "plain", "seasonal"}
    for each in world.said().estimates:
        assert each.projected_nanos == pytest.approx(24 * USD, rel=0.002), each.method
    assert world.store.asked == [(("team", "b"),)], "what was learned is not read from the ledger again"


async def test_a_database_that_is_away_stops_nothing_and_nothing_is_lost():
    world = World()
    await world.live(30 * HOUR)
    rows, world.store.is_away = len(world.store.rows), True
    await world.live(20 * HOUR, HOUR // 2)
    assert world.said() is not None
    assert len(world.store.rows) == rows
    world.store.is_away = False
    await world.live(MINUTE)
    assert len(world.store.rows) > rows
    assert [outcome.period_start for outcome in world.store.outcomes] == [START, START + DAY]
    assert [outcome.nanos for outcome in world.store.outcomes] == [24 * USD, 24 * USD]


async def test_a_worker_that_begins_while_the_database_is_away_says_nothing_until_it_is_back():
    world = World()
    world.store.is_away = True
    await world.live(10 * MINUTE)
    assert world.said() is None
    world.store.is_away = False
    await world.live(2 * MINUTE)
    assert world.said() is not None


async def test_a_new_budget_knows_the_hours_that_the_ledger_has():
    world = World()
    world.clock.time = START + 5 * DAY
    world.store.hours = {START - DAY * 3 + hour * HOUR: USD for hour in range(8 * 24)}
    await world.live(2 * MINUTE)
    assert {each.method for each in world.said().estimates} == {"run_rate", "plain", "seasonal"}
    assert world.said().known_us >= 8 * DAY


async def test_what_another_worker_has_now_is_said_no_more():
    world = World(["a", "b"])
    await world.live(5 * MINUTE)
    world.names = ["b"]
    await world.live(MINUTE)
    assert world.said("a") is None
    assert world.said("b") is not None


async def test_what_was_said_a_quarter_of_an_hour_ago_is_not_acted_upon():
    world = World()
    await world.live(5 * MINUTE)
    world.clock.time += 16 * MINUTE
    assert world.said() is None


async def test_states_are_stored_about_once_an_hour_each_at_its_own_minute():
    world = World([f"b{n}" for n in range(40)])
    kept = []
    keep = world.store.keep

    async def counted(states, rows, outcomes):
        kept.append(len(states))
        await keep(states, rows, outcomes)

    world.store.keep = counted
    await world.live(5 * HOUR)
    later = kept[120:]
    assert sum(later) == pytest.approx(3 * 40, abs=40)
    assert max(later) <= 6, "they are spread over the hour"


async def test_beyond_its_bound_no_further_budget_is_followed(monkeypatch):
    monkeypatch.setattr(shell, "FOLLOWED_MAX", 3)
    world = World([f"b{n}" for n in range(5)])
    await world.live(3 * MINUTE)
    assert [world.said(f"b{n}") is not None for n in range(5)] == [True, True, True, False, False]


BUDGETS = load_budgets("""
budgets:
  - {id: search, scope: {team: search}, amount_usd: 100, period: day, timezone: Asia/Tokyo, mode: enforce}
""")
SCOPE = definition_scope(BUDGETS[0])
DEFINITIONS = Definitions({budget.key(): budget for budget in BUDGETS})


def statement(start: int, nanos: int, scope: str = SCOPE, end: int = 0) -> ScopeStatement:
    return ScopeStatement(
        scope=scope, period_start=start, period_end=end or start + DAY, source=Source("usage.events.v1", 0, 0), segment=0,
        revision=0, offset=0, cost_nanos=nanos, requests=1, tokens=1, stream_time=start, arrived_at=start,
    )  # fmt: skip


def state_of(stated: ScopeStatement, definitions: Definitions = DEFINITIONS):
    terms = Book(definitions, definition_scope).terms(stated.scope, stated.period_start, stated.period_start)
    return take_in(None, terms, stated)


def standing_of(states, now: int, definitions: Definitions = DEFINITIONS) -> Standing:
    (found,) = Standings(lambda: states, lambda: definitions, definition_scope).at(now)
    return found


def test_a_budgets_standing_is_that_of_its_present_period_in_its_own_zone():
    midnight = parse_instant("2026-03-01T15:00:00Z")
    states = [state_of(statement(day, nanos)) for day, nanos in ((midnight - DAY, 7), (midnight, 5))]
    states.append(msgspec.structs.replace(states[0], scope="budget:gone@1"))
    found = standing_of(states, midnight + HOUR)
    assert (found.period_start, found.period_end, found.spent_nanos) == (midnight, midnight + DAY, 5)
    assert found.counters == (Counter(midnight - DAY, midnight, 7), Counter(midnight, midnight + DAY, 5))
    later = standing_of(states, midnight + DAY)
    assert (later.period_start, later.spent_nanos, later.is_held) == (midnight + DAY, 0, False)


def test_money_brought_in_and_overrides_count_against_the_limit_from_the_first_instant():
    midnight = parse_instant("2026-03-01T15:00:00Z")
    more = Override(id="o", budget_id="search", extra_nanos=50 * USD, starts=0, until=midnight + 9 * DAY)
    before = OpeningBalance(budget_id="search", period_start=midnight, nanos=30 * USD)
    definitions = DEFINITIONS.changed({each.key(): each for each in (more, before)})
    states = [state_of(statement(midnight - DAY, 7))]
    found = standing_of(states, midnight + HOUR, definitions)
    assert (found.spent_nanos, found.limit_nanos) == (30 * USD, 150 * USD)


@pytest.mark.parametrize(("mode", "held"), [("enforce", True), ("observe", False)])
def test_a_budget_that_throttles_is_held_and_one_that_only_observes_is_not(mode, held):
    midnight = parse_instant("2026-03-01T15:00:00Z")
    definitions = DEFINITIONS.changed({"budget|search": msgspec.structs.replace(BUDGETS[0], mode=mode)})
    state = state_of(statement(midnight, 100 * USD), definitions)
    terms = Book(definitions, definition_scope).terms(SCOPE, midnight, midnight)
    decide(state, terms, midnight, Policy())
    assert standing_of([state], midnight, definitions).is_held is held


def test_a_rolling_budget_stands_at_what_its_window_holds():
    rolling = msgspec.structs.replace(BUDGETS[0], period=Period("rolling", hours=3))
    definitions = Definitions({rolling.key(): rolling})
    scope, state = definition_scope(rolling), None
    terms = Book(definitions, definition_scope).terms(scope, 0, START)
    for hour in range(6):
        start = START + hour * HOUR
        state = take_in(state, terms, statement(start, USD, scope, start + HOUR))
    found = standing_of([state], START + 6 * HOUR - 1, definitions)
    assert (found.rolling_hours, found.spent_nanos, len(found.counters)) == (3, 4 * USD, 6)
    assert found.until(START) == START + 3 * HOUR


def test_a_budget_of_a_key_counts_since_it_was_defined_and_one_of_a_team_since_its_period_began():
    for match, since in (((("team", "search"),), 0), ((("team", "search"), ("key", "k")), START + HOUR)):
        budget = msgspec.structs.replace(BUDGETS[0], match=match, changed_at=START + HOUR)
        definitions = Definitions({budget.key(): budget})
        day = parse_instant("2026-02-28T15:00:00Z")
        state = state_of(statement(day, USD, definition_scope(budget)), definitions)
        assert standing_of([state], START + 2 * HOUR, definitions).counted_since == since
