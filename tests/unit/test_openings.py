"""A budget that is defined while events flow counts what was spent before, whatever else happens meanwhile."""

import asyncio
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.events import UNATTRIBUTED
from schemas.instants import HOUR
from schemas.keys import cell_id
from schemas.statements import Dimensions
from streams.agents import opening_balances
from streams.core.openings import answered, follow, name_of
from streams.core.periods import period_bounds
from streams.core.scopes import ScopeWatchlist, WatchedBudget, budget_scope
from streams.core.spent_before import Past, open_from
from tests.unit.meter_rig import START, Oracle, Rig, Store, records_of, rig_rules
from tests.unit.records import NOON, usage_record


def _budget(name, match, period, zone="UTC", **changes):
    return WatchedBudget(name, match, lambda at: period_bounds(period, zone, at), "v1", **changes)


EXACT = (
    _budget("search-day", (("team", "search"),), "day"),
    _budget("chat-hour", (("feature", "chat"), ("model", "gpt-4o")), "hour"),
    _budget("all", (), "month"),
    _budget("features", (("team", "search"), ("team", "ads")), "day", per="feature"),
    _budget("rolling", (("team", "search"),), "hour", lookback=5 * HOUR),
    _budget("begins", (), "month", starts=START + HOUR + HOUR // 6),
)
INEXACT = (
    _budget("search-kolkata", (("team", "search"),), "day", "Asia/Kolkata"),
    _budget("key", (("key", "k1"),), "day"),
    _budget("users", (), "month", per="user"),
)
BY_NAME = {budget.budget_id: budget for budget in (*EXACT, *INEXACT)}


class Rows(Store):
    """A ledger that can be asked what was spent before. How many bills there were is nothing that cells tell."""

    def __init__(self, is_crowded):
        super().__init__()
        self.is_crowded = is_crowded
        self.since = {}

    def _put(self, key, statement, found):
        if not isinstance(key[0], Dimensions):
            if statement.since:
                self.since[key] = statement.since
            del found["requests"]
            if "kolkata" in key[0] or self.is_crowded:
                # What is counted of an hour that crosses the period's start, or of the excess, depends on when a budget
                # was defined; of two definitions that both say so, readers keep the first at the same offset.
                known = self.rows.get((*key, statement.segment))
                if known is not None and known[0] == (statement.revision, statement.offset):
                    return
        super()._put(key, statement, found)

    def spent_before(self, question):
        assert self.watermark >= question.at_least
        rows = []
        for (what, hour, segment), ((_, offset), numbers) in self.rows.items():
            if not isinstance(what, Dimensions) or not question.start - HOUR < hour < question.end:
                continue
            if offset >= question.below or (cell_id(what, hour), segment) in question.live:
                continue
            if question.teams and what.team_id not in question.teams:
                continue
            whole = question.start <= hour and hour + HOUR <= question.end
            tokens = numbers["input_tokens"] + numbers["output_tokens"]
            until = 0 if whole else hour + HOUR
            rows.append(Past(what, until, numbers["cost_nanos"], 0, numbers["requests"], tokens))
        return rows


class Flight:
    """A rig whose budgets change on the way."""

    def __init__(self, rules, records, writer, is_crowded=False):
        self.watchlist = ScopeWatchlist(())
        self.unanswered = []
        self.rig = Rig(rules, records, writer, lambda: self.watchlist, Rows(is_crowded))

    @property
    def state(self):
        return self.rig.state

    def define(self, *names):
        self.watchlist = ScopeWatchlist([BY_NAME[name] for name in names])
        self.follow()

    def follow(self):
        follow(self.state, self.watchlist)
        self.unanswered += [(self.state, question) for question in self.state.openings.take_questions()]

    def answer(self):
        """One answer arrives; those to an owner that is gone reach nobody."""
        while self.unanswered:
            state, question = self.unanswered.pop(0)
            if state is self.state:
                answered(state, question, self.rig.store.spent_before(question))
                return

    def finish(self):
        self.rig.take(len(self.rig.records), 50)
        self.follow()
        while self.unanswered:
            self.answer()
        self.rig.flush(evicting=False)
        self.rig.state_scopes()

    def since(self):
        """From when on counters are whole, those that have left memory too: a day that began within a known hour."""
        return self.rig.store.since | {key: counter.since or 0 for key, counter in self.state.counters.items()}


kinds = st.one_of(st.sampled_from([0, 0, 1, 2]), st.integers(-1, 5))
plans = st.lists(
    st.tuples(st.integers(0, 60), kinds, st.integers(0, 8), st.sampled_from([0, 0, 0, 5, 6, 7]), st.integers(0, 6)),
    min_size=4, max_size=60,
)  # fmt: skip
moves = st.lists(
    st.tuples(
        st.integers(0, 15),
        st.sampled_from(
            [
                "define",
                "define",
                "follow",
                "answer",
                "answer",
                "state",
                "flush",
                "evict",
                "evict",
                "die",
                "die in a flush",
                "die evicting",
            ]
        ),
        st.sets(st.sampled_from(sorted(BY_NAME)), min_size=1),
        st.floats(0, 1),
        st.integers(0, 4),
    ),
    max_size=25,
)


def _play(flight, what):
    rig = flight.rig
    for count, then, names, cut, meanwhile in what:
        rig.take(count, 3)
        if then == "define":
            flight.define(*sorted(names))
        elif then == "follow":
            flight.follow()
        elif then == "answer":
            flight.answer()
        elif then == "state":
            rig.state_scopes()
        elif then in ("flush", "evict"):
            flight.follow()
            rig.flush(evicting=then == "evict", meanwhile=meanwhile)
        else:
            if then != "die":
                rig.flush(evicting=then == "die evicting", cut=cut, meanwhile=meanwhile)
            rig.begin()


@settings(max_examples=150, deadline=None)
@given(
    plan=plans,
    what=moves,
    last=st.sets(st.sampled_from(sorted(BY_NAME)), min_size=1),
    seed=st.integers(0, 3),
    crowded=st.booleans(),
)
@example(
    # A day that began within an hour, opened from that hour's cell, has left memory.
    plan=[(0, 0, 0, 0, 0)] * 2 + [(0, 0, 0, 0, 3)] * 2 + [(0, 0, 0, 0, 6)] * 2 + [(1, 0, 0, 0, 0)]
    + [(0, 0, 0, 0, 0)] * 12 + [(0, 0, 0, 0, 5), (0, 0, 0, 0, 0)],
    what=[
        (7, "define", {"all"}, 0.0, 0), (0, "define", {"begins", "search-kolkata", "all"}, 0.0, 0),
        (7, "flush", {"all"}, 0.0, 0), (6, "evict", {"all"}, 0.0, 0),
    ],
    last={"search-kolkata", "all"}, seed=0, crowded=False,
)  # fmt: skip
@example(
    # What was opened is durable, its hour is over, and a flush that lets go of it is cut short before it is stated.
    plan=[(0, 0, 0, 6, 0), *[(0, 0, 0, 0, 0)] * 5],
    what=[
        (2, "define", {"features", "rolling", "all"}, 0.0, 0), (0, "flush", {"all"}, 0.0, 0),
        (0, "die evicting", {"all"}, 0.375, 0),
    ],
    last={"key", "features", "chat-hour", "all", "rolling", "begins"}, seed=0, crowded=False,
)  # fmt: skip
@example(
    # Withdrawn and defined anew: the flush that makes its new opening durable is cut short before the record of it.
    plan=[(0, 0, 0, 0, 0)] * 8 + [(0, 0, 0, 0, 4)],
    what=[
        (0, "define", {"chat-hour", "begins", "all"}, 0.0, 0), (9, "flush", {"all"}, 0.0, 0),
        (0, "define", {"all"}, 0.0, 0), (0, "define", {"chat-hour"}, 0.0, 0),
        (0, "die in a flush", {"all"}, 0.5, 0),
    ],
    last={"chat-hour", "begins", "all"}, seed=0, crowded=False,
)  # fmt: skip
@example(
    # Withdrawn and defined anew, with a late event's own segment out of memory: the new counter holds that event too.
    plan=[(0, 0, 0, 0, 0), (0, 0, 0, 6, 0), (0, 0, 0, 0, 4), (3, 0, 0, 0, 0), (2, 0, 0, 7, 0)],
    what=[
        (0, "define", {"rolling", "all"}, 0.0, 0), (5, "define", {"all"}, 0.0, 0), (0, "flush", {"all"}, 0.0, 0),
        (0, "evict", {"all"}, 0.0, 0),
    ],
    last={"rolling"}, seed=0, crowded=False,
)  # fmt: skip
def test_whenever_a_budget_is_defined_its_counter_ends_at_the_oracles_total(plan, what, last, seed, crowded):
    records = records_of(plan)
    numbers = random.Random(seed)
    rules = rig_rules(cells_idle_us=HOUR // 2, cells_max=3 if crowded else 200_000)
    flight = Flight(rules, records, lambda: f"{numbers.randrange(1 << 40):x}", crowded)
    _play(flight, what)
    flight.define(*sorted(last))
    flight.finish()
    held = flight.rig.store.sums(of_cells=False)
    totals = _totals(rules, records)
    for name in last:
        budget = BY_NAME[name]
        scope = budget_scope(budget).partition("#")[0]
        opened = flight.state.openings.opened[name_of(scope)]
        for (found, start), total in totals.items():
            if found != scope:
                continue
            counted = held.get((scope, start), {})
            since = flight.since().get((scope, start), 0)
            if start >= opened.complete_from and not since:
                assert counted.get("cost_nanos", 0) == total["cost_nanos"]
                assert counted.get("tokens", 0) == total["tokens"]
            else:
                assert counted.get("tokens", 0) <= total["tokens"]
            if budget in EXACT and not crowded:
                assert opened.complete_from <= open_from(budget, flight.state.stream_time, 0)
                assert not since or start < opened.complete_from


def _totals(rules, records):
    return _Totals(rules, records).counters


class _Totals(Oracle):
    """What each budget would hold had it been there from the beginning."""

    def _watch(self, dimensions, actual, at, nanos, found):
        actual |= {"team": dimensions.team_id, "feature": dimensions.feature, "model": dimensions.model}
        for budget in BY_NAME.values():
            has = all(any((word, actual.get(word)) == pair for pair in budget.match) for word, _ in budget.match)
            value = actual.get(budget.per, "")
            if has and at >= budget.starts and not (budget.per and value in ("", UNATTRIBUTED)):
                scope, start = budget_scope(budget, value), max(budget.bounds(at)[0], budget.starts)
                self.counters[(scope, start)]["cost_nanos"] += nanos
                self.counters[(scope, start)]["tokens"] += found["input_tokens"] + found["output_tokens"]


def _hours(count=6):
    """A call of search an hour, each of another size."""
    return [
        usage_record(n, at=NOON + n * HOUR, feature="chat", input_tokens=1 << n, response_model="tie")
        for n in range(count)
    ]


def _flight(records):
    names = iter("abcdefghij")
    return Flight(rig_rules(cells_idle_us=HOUR // 2), records, lambda: next(names))


def _spent(flight, name="search-day"):
    held = flight.rig.store.sums(of_cells=False)
    return sum(found["tokens"] for (scope, _), found in held.items() if scope.startswith(f"budget:{name}@"))


@pytest.mark.parametrize("cut", [n / 20 for n in range(21)])
@pytest.mark.parametrize("answered_first", [False, True], ids=["before the ledger answers", "after it answered"])
def test_an_opening_whose_owner_dies_at_any_write_of_its_flush_is_whole_in_the_end(cut, answered_first):
    flight = _flight(_hours())
    rig = flight.rig
    rig.take(5, 2)
    rig.flush(evicting=False)
    rig.flush(evicting=True)
    flight.define("search-day")
    if answered_first:
        flight.answer()
    rig.flush(evicting=False, cut=cut)
    rig.state_scopes()
    assert _spent(flight) in (0, 0b11111)
    rig.begin()
    rig.flush(evicting=False)
    rig.state_scopes()
    assert _spent(flight) in (0, 0b11111)
    flight.finish()
    assert _spent(flight) == 0b111111


def test_nothing_is_said_of_an_opening_until_it_is_durable():
    flight = _flight(_hours())
    flight.rig.take(4, 2)
    flight.rig.flush(evicting=False)
    flight.rig.take(1, 2)
    flight.rig.flush(evicting=False)
    flight.rig.flush(evicting=True)
    assert len(flight.state.cells) < 5
    flight.define("search-day")
    flight.rig.flush(evicting=False)
    flight.rig.state_scopes()
    assert _spent(flight) == 0  # the ledger was asked, and has not answered
    flight.answer()
    flight.rig.state_scopes()
    assert _spent(flight) == 0  # complete, and not durable
    flight.rig.flush(evicting=False)
    flight.rig.state_scopes()
    assert _spent(flight) == 0b11111


def test_what_cells_cannot_tell_is_counted_from_the_definition_on_and_says_since_when():
    records = [usage_record(n, at=NOON + n * HOUR, key_id="k1", input_tokens=1 << n) for n in range(4)]
    flight = _flight(records)
    flight.rig.take(2, 2)
    flight.define("key")
    flight.finish()
    assert _spent(flight, "key") == 0b1100
    assert set(flight.since().values()) - {0} == {NOON + HOUR}


def test_a_withdrawn_budget_leaves_memory_and_counts_all_of_its_period_when_it_is_back():
    flight = _flight(_hours())
    flight.define("search-day")
    flight.rig.take(2, 2)
    flight.rig.flush(evicting=False)
    flight.define("all")
    flight.rig.take(2, 2)
    flight.rig.flush(evicting=False)
    flight.rig.flush(evicting=True)
    assert not [scope for scope, _ in flight.state.counters if scope.startswith("budget:search")]
    flight.define("search-day")
    flight.finish()
    assert _spent(flight) == 0b111111


class _Ledger:
    """Says no, then that it is behind, then what it has."""

    def __init__(self):
        self.asked = 0

    async def spent_before(self, slot, start, end, below, live, teams):
        self.asked += 1
        if self.asked == 1:
            raise ConnectionError("away")
        return (0 if self.asked == 2 else 99), []


async def test_an_opening_waits_for_a_ledger_that_is_away_or_behind(monkeypatch, caplog):
    monkeypatch.setattr(opening_balances, "ASK_AGAIN_S", 0.0)
    flight = _flight(_hours())
    flight.rig.take(4, 2)
    flight.rig.flush(evicting=False)
    flight.rig.take(1, 2)
    flight.rig.flush(evicting=False)
    flight.rig.flush(evicting=True)
    ledger, watchlist = _Ledger(), ScopeWatchlist([BY_NAME["search-day"]])
    balances = opening_balances.OpeningBalances(ledger, lambda: watchlist)
    balances.follow(flight.state, lambda: True)
    assert flight.state.openings.waiting
    async with asyncio.timeout(5):
        while flight.state.openings.waiting:
            await asyncio.sleep(0)
    assert ledger.asked == 3
    assert "does not answer" in caplog.text
    assert "new budgets wait" in caplog.text
