"""METER is exact: no batch, crash, cut flush, repetition or eviction changes a total, in cells or in counters."""

import random
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import UsageEvent
from schemas.instants import HOUR, SECOND
from schemas.statements import Dimensions
from streams.agents import entries
from streams.core.admission import OTHER
from streams.core.meter import PartitionState
from streams.core.pricing import PriceBook
from streams.core.rate_card import load_rate_card
from streams.core.rates import DollarRates, UnitRates, round_half_even
from tests.unit.meter_rig import CALLS, CARD, Oracle, Rig, Store, plain, records_of, rig_rules
from tests.unit.records import NOON, SOURCE, usage_record

plans = st.lists(
    #: By whole hours, of two kinds: late calls come to cells that are there already, or were.
    st.tuples(
        st.integers(0, 99), st.sampled_from([0, 2]), st.just(2), st.sampled_from([0, 6, 12, 7]), st.sampled_from([0, 6])
    ),
    min_size=4,
    max_size=40,
) | st.lists(
    st.tuples(
        st.integers(0, 40),
        st.one_of(st.sampled_from([0, 0, 1, 2]), st.integers(-2, len(CALLS) - 1)),
        st.integers(0, 8),
        st.integers(0, 11),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=70,
)
#: What happens next: how much is read, in what chunks, and then what.
moves = st.lists(
    st.tuples(
        st.integers(0, 30),
        st.sampled_from([1, 2, 7, 100]),
        st.sampled_from(
            [
                "go on",
                "settle",
                "state scopes",
                "flush",
                "evict",
                "die",
                "die in a flush",
                "die evicting",
                "evict at once",
            ]
        ),
        st.floats(0, 1),
        st.integers(0, 5),
    ),
    max_size=10,
)


def _play(rig, what):
    for count, chunk, then, cut, meanwhile in what:
        rig.take(count, chunk)
        if then == "settle":
            rig.state.settle()
        elif then == "state scopes":
            rig.state_scopes()
        elif then in ("flush", "evict"):
            rig.flush(evicting=then == "evict", meanwhile=meanwhile)
        elif then != "go on":
            if then != "die":
                rig.flush(evicting=then == "die evicting", cut=cut, meanwhile=meanwhile)
            rig.begin()
            if then == "evict at once":
                # What was restored is stated again, and then unchanged.
                rig.take(meanwhile, chunk)
                rig.flush(evicting=False)
                rig.flush(evicting=True)
    rig.finish()


def _writers(seed):
    """Names in no order: which writer came first must not matter."""
    numbers = random.Random(seed)
    return lambda: f"{numbers.randrange(1 << 40):x}"


@settings(max_examples=150, deadline=None)
@given(plan=plans, what=moves, seed=st.integers(0, 3), personal=st.booleans(), window_h=st.sampled_from([2, 40, 400]))
def test_whatever_happens_cells_and_counters_end_at_the_oracles_totals(plan, what, seed, personal, window_h):
    records = records_of(plan)
    changes = {
        "personal": personal,
        "dedupe_window_us": window_h * HOUR,
        "cells_idle_us": HOUR // 2,
        "counters_idle_us": HOUR,
    }
    oracle = Oracle(rig_rules(**changes), records)
    rig = Rig(rig_rules(**changes), records, _writers(seed))
    _play(rig, what)
    assert plain(rig.store.sums(of_cells=True)) == plain(oracle.cells)
    assert plain(rig.store.sums(of_cells=False)) == plain(oracle.counters)
    assert plain(rig.store.spent_by()) == plain(oracle.spenders)
    assert (rig.state.duplicates, rig.state.dead_letters) == (oracle.duplicates, oracle.dead_letters)
    # A ledger that hears it all in another order, and much of it twice, ends at the same.
    muddled = [*rig.said, *rig.said[::2]]
    random.Random(seed).shuffle(muddled)
    other = Store()
    for record in muddled:
        other.hear(record)
    assert (other.rows, other.spenders) == (rig.store.rows, rig.store.spenders)


@settings(max_examples=150, deadline=None)
@given(
    plan=plans,
    what=moves,
    seed=st.integers(0, 3),
    cells_max=st.integers(1, 6),
    team_cells_max=st.integers(1, 4),
    features=st.integers(1, 9),
)
def test_with_more_names_than_cells_no_money_is_lost_and_budgets_get_theirs(
    plan, what, seed, cells_max, team_cells_max, features
):
    records = records_of(plan, features)
    changes = {
        "cells_max": cells_max,
        "team_cells_max": team_cells_max,
        "cells_idle_us": HOUR // 2,
        "counters_idle_us": HOUR,
    }
    oracle = Oracle(rig_rules(**changes), records)
    rig = Rig(rig_rules(**changes), records, _writers(seed))
    _play(rig, what)
    held = rig.store.sums(of_cells=True)
    assert sum(cell["cost_nanos"] for cell in held.values()) == oracle.nanos
    assert _by_hour(held, "cost_nanos") == _by_hour(oracle.cells, "cost_nanos")
    assert _by_hour(held, "input_tokens") == _by_hour(oracle.cells, "input_tokens")
    budgets = {key: found for key, found in oracle.counters.items() if key[0].startswith("budget:")}
    counted = plain(rig.store.sums(of_cells=False))
    assert {key: found for key, found in counted.items() if key[0].startswith("budget:")} == plain(budgets)
    own = [dimensions for dimensions, _ in rig.state.cells if dimensions.feature != OTHER]
    assert len(own) <= cells_max
    assert max((sum(each.team_id == one.team_id for each in own) for one in own), default=0) <= team_cells_max


def _by_hour(sums, name):
    found = {}
    for (_, hour), numbers in sums.items():
        found[hour] = found.get(hour, 0) + numbers[name]
    return {hour: count for hour, count in found.items() if count}


def _late(offset, tokens):
    return usage_record(offset, at=NOON, arrived=NOON + 9 * HOUR, input_tokens=tokens)


@pytest.mark.parametrize("stated", [0.2, 0.5, 0.9], ids=["little", "half", "nearly all"])
def test_what_an_earlier_owner_stated_is_passed_before_anything_leaves_memory(stated):
    records = [usage_record(0, input_tokens=1), usage_record(1, at=NOON + 9 * HOUR, input_tokens=1), _late(2, 500)]
    rig = Rig(rig_rules(cells_idle_us=HOUR), records, iter("abcdef").__next__)
    rig.take(2, 9)
    rig.flush(evicting=False)
    rig.take(1, 9)
    rig.flush(evicting=False, cut=stated)  # the ledger hears of the late call, and the changelog perhaps not
    rig.begin()
    rig.flush(evicting=False)
    rig.flush(evicting=True)
    assert rig.state.next_offset < 3 or stated > 0.5
    rig.finish()
    oracle = Oracle(rig_rules(), records)
    assert plain(rig.store.sums(of_cells=True)) == plain(oracle.cells)
    assert plain(rig.store.sums(of_cells=False)) == plain(oracle.counters)


def test_a_late_call_moves_money_to_its_own_hour_and_nowhere_else():
    before = [usage_record(n, at=NOON + n * HOUR, input_tokens=10 + n) for n in range(10)]
    late = _late(10, 500)
    with_it, without = Oracle(rig_rules(), [*before, late]), Oracle(rig_rules(), before)
    rig = Rig(rig_rules(), [*before, late], iter("ab").__next__)
    rig.finish()
    held = plain(rig.store.sums(of_cells=True))
    assert held == plain(with_it.cells)
    moved = {hour for (_, hour), found in held.items() if found != plain(without.cells).get((_, hour))}
    assert moved == {NOON}


@settings(max_examples=60, deadline=None)
@given(plan=plans, at=st.sets(st.integers(0, 70)))
def test_settling_at_any_moment_changes_nothing(plan, at):
    records = records_of(plan)
    settled, once = (PartitionState(SOURCE, rig_rules()) for _ in range(2))
    for record in records:
        settled.take([[record]])
        if record.offset in at:
            settled.settle()
    once.take([part for part in (records[:3], records[3:]) if part])
    for each in (settled, once):
        each.settle()
    assert settled.cells == once.cells
    assert _counted(settled) == _counted(once)
    assert settled.checkpoint() == once.checkpoint()


def _counted(partition):
    return {
        key: (counter.cost_nanos, counter.requests, counter.tokens, counter.offset, counter.segment)
        for key, counter in partition.counters.items()
    }


@settings(max_examples=60, deadline=None)
@given(
    plan=plans, ends=st.lists(st.integers(0, 70), min_size=1, max_size=4), cut=st.floats(0, 1), seed=st.integers(0, 5)
)
def test_of_two_writers_entries_a_whole_state_is_always_recovered(plan, ends, cut, seed):
    """The second writer's first flush, cut anywhere: also among the deletions of what the first one left."""
    records = records_of(plan)
    rig = Rig(rig_rules(), records, _writers(seed))
    for end in sorted(ends):
        rig.take(max(0, end - rig.position), 7)
        rig.flush(evicting=False)
    durable = rig.state.next_offset
    rig.begin()
    rig.take(len(records), 7)
    rig.flush(evicting=False, cut=cut)
    recovered = entries.recover(rig.log)[SOURCE.slot()]
    assert recovered.checkpoint.next_offset >= durable
    fresh = PartitionState(SOURCE, rig_rules(), recovered.checkpoint)
    fresh.restore(recovered.statements)
    oracle = Oracle(rig_rules(), records[: recovered.checkpoint.next_offset])
    found = {key: cell.totals.cost_nanos for key, cell in fresh.cells.items()}
    assert found == {key: cell["cost_nanos"] for key, cell in oracle.cells.items()}
    assert {key: counter.cost_nanos for key, counter in fresh.counters.items()} == {
        key: counter["cost_nanos"] for key, counter in oracle.counters.items()
    }


counts = st.one_of(st.integers(0, 9), st.integers(0, 100_000_000))
rate = st.decimals(0, 1000, places=6) | st.decimals(0, 1, places=12) | st.sampled_from(["0.0005", "0.001", "0.0015"])


@settings(max_examples=50, deadline=None)
@given(
    prices=st.tuples(rate, rate, rate, rate, rate),
    calls=st.lists(st.tuples(counts, counts, st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=4),
)
def test_the_hot_path_the_price_book_and_the_rates_agree_with_fractions(prices, calls):
    paid_in, paid_out, read, written, each = (
        format(price, "f") if not isinstance(price, str) else price for price in prices
    )
    card = (
        f"models: [{{provider: openai, model: m, input: '{paid_in}', output: '{paid_out}', cache_read: '{read}', "
        f"cache_creation: '{written}', per_request: '{each}'}}]"
    )
    rules = rig_rules()
    book = PriceBook(load_rate_card(card))
    rules.pricing._book = book
    partition = PartitionState(SOURCE, rules)
    # The first opens the lane that the others go down.
    records, expected = [usage_record(0, response_model="m")], round_half_even(Fraction(each) * 10**9)
    for offset, (tokens_in, tokens_out, part, share) in enumerate(calls, 1):
        cached = int(tokens_in * part)
        fields = {
            "input_tokens": tokens_in, "output_tokens": tokens_out, "cache_read_input_tokens": int(cached * share),
            "cache_creation_input_tokens": cached - int(cached * share),
        }  # fmt: skip
        exact = (
            (tokens_in - cached) * Fraction(paid_in) + tokens_out * Fraction(paid_out)
            + fields["cache_read_input_tokens"] * Fraction(read)
            + fields["cache_creation_input_tokens"] * Fraction(written)
        ) * 1_000 + Fraction(each) * 10**9  # fmt: skip
        nanos = round_half_even(exact)
        call = UsageEvent(provider="openai", response_model="m", **fields)
        assert book.price_usage(call, NOON).nanos == nanos
        assert UnitRates(_dollars(prices)).nanos(call) == nanos
        expected += nanos
        records.append(usage_record(offset, response_model="m", **fields))
    partition.fold(records, len(records))
    (cell,) = partition.cells.values()
    assert cell.totals.cost_nanos == expected


def _dollars(prices):
    paid_in, paid_out, read, written, each = (Decimal(price) for price in prices)
    return DollarRates(input=paid_in, output=paid_out, cache_read=read, cache_creation=written, per_request=each)


def test_every_kind_of_call_in_the_rig_is_charged_on_the_ground_it_is_meant_for():
    book = PriceBook(load_rate_card(CARD), frozenset({"vllm"}))
    grounds = [book.price_usage(UsageEvent(**call, input_tokens=9), NOON).basis.value for call in CALLS]
    assert set(grounds) == {"contract", "catalogue", "allocated", "unpriced", "reported", "no_charge"}


def test_dimensions_of_the_excess_keep_the_team_while_the_partition_has_room():
    plan = [(n, 0, 0, 0, 0) for n in range(4)]
    records = records_of([(n, n, 0, 0, 0) for n, *_ in plan], features=4)
    rig = Rig(rig_rules(team_cells_max=2), records, iter("ab").__next__)
    rig.finish()
    assert {d.feature for d, _ in rig.state.cells} >= {OTHER}
    assert all(isinstance(d, Dimensions) and d.team_id != OTHER for d, _ in rig.state.cells)


def test_what_had_no_price_stays_unseen_also_where_its_generation_was_kept():
    # A bill in an unknown currency, between calls; then time goes on by a generation.
    records = records_of([(0, 0, 0, 0, 0), (1, -2, 0, 0, 0), (2, 0, 0, 0, 4)])
    partition = PartitionState(SOURCE, rig_rules(dedupe_window_us=2 * HOUR))
    partition.fold(records, 3)
    assert [letter.reason.value for letter in partition.letters] == ["unknown_currency"]
    for generation in partition.window.sealed:
        generation.is_kept = True
    assert (partition.read_from, partition.checkpoint().refused) == (2, (1,))


@settings(max_examples=80, deadline=None)
@given(
    before=st.lists(st.integers(0, 11), max_size=8),
    idle=st.booleans(),
    after=st.lists(st.integers(0, 11), min_size=1, max_size=10),
    cut=st.floats(0, 1),
    evicting=st.booleans(),
    cells_max=st.integers(1, 5),
    team_cells_max=st.integers(1, 3),
)
def test_a_replay_admits_what_the_first_run_admitted(before, idle, after, cut, evicting, cells_max, team_cells_max):
    """Cells fill up, some are let go, and a flush is cut short: the next owner decides as the one that died."""
    changes = {
        "cells_max": cells_max,
        "team_cells_max": team_cells_max,
        "cells_idle_us": HOUR // 2,
        "counters_idle_us": HOUR,
    }
    # The same names come before and after room is made for them, nine hours after the first cells.
    names = [(0, name) for name in before] + [(9 * idle, name) for name in after * 2]
    records = [
        usage_record(
            offset,
            at=NOON + hours * HOUR,
            team=f"t{name % 3}",
            feature=f"f{name}",
            key_id="k1",
            input_tokens=1 << offset,
        )
        for offset, (hours, name) in enumerate(names)
    ]
    rig, undying = (Rig(rig_rules(**changes), records, iter("abcd").__next__) for _ in range(2))
    for each in (rig, undying):
        each.take(len(before) + len(after), 100)
        each.flush(evicting=False)
        each.flush(evicting=True)
        each.take(len(after) // 2, 100)
    rig.flush(evicting=evicting, cut=cut)
    rig.begin()
    for each in (rig, undying):
        each.finish()
    assert rig.store.rows == undying.store.rows
    held = rig.store.sums(of_cells=True)
    assert sum(cell["cost_nanos"] for cell in held.values()) == Oracle(rig_rules(**changes), records).nanos


def test_a_lane_ends_where_a_budgets_hour_ends_within_an_hour_of_utc():
    at = [NOON + minutes * 60 * SECOND for minutes in (5, 6, 14, 15, 16, 59, 7)]
    records = [
        usage_record(n, at=when, arrived=NOON + HOUR, feature="chat", input_tokens=1 << n) for n, when in enumerate(at)
    ]
    rig = Rig(rig_rules(), records, iter("ab").__next__)
    for _ in records:
        rig.take(1, 1)
    rig.finish()
    assert plain(rig.store.sums(of_cells=False)) == plain(Oracle(rig_rules(), records).counters)


def test_halves_of_a_nanodollar_go_to_the_even_one_on_the_hot_path_too():
    # Half a nanodollar a token and one a call: 1.5, 2.5, 3.5, 4.5.
    partition = PartitionState(SOURCE, rig_rules())
    costs = []
    for offset, tokens in enumerate((0, 1, 3, 5, 7)):
        before = sum(cell.totals.cost_nanos for cell in partition.cells.values())
        partition.fold([usage_record(offset, response_model="tie", input_tokens=tokens)], offset + 1)
        costs.append(sum(cell.totals.cost_nanos for cell in partition.cells.values()) - before)
    assert costs == [1, 2, 2, 4, 4]
