"""METER's fold: what is counted, what is not, and that no interleaving of crashes changes it."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.cloudevents import binary_headers
from schemas.events import BILLING_TYPE, BillingRecord
from schemas.instants import HOUR, SECOND, format_instant
from schemas.statements import CellStatement, ScopeStatement
from streams.core.meter import PartitionState
from streams.core.reading import Reason, Rejected
from streams.core.rules import Checkpoint
from tests.unit.records import NOON, SOURCE, FlatPricing, RawRecord, cost, rules, state, usage_record


def test_a_call_lands_in_its_cell_and_its_budget():
    partition = state()
    partition.fold([usage_record(0, input_tokens=100, output_tokens=5, feature="chat")], 1)
    (cell,) = partition.cells.values()
    assert (cell.totals.requests, cell.totals.cost_nanos, cell.offset, cell.segment) == (1, 1200, 0, 0)
    assert {counter.scope: counter.cost_nanos for counter in partition.counters.values()} == {
        "budget:search-daily@": 1200,
    }


def test_the_same_event_under_another_offset_counts_once():
    partition = state()
    partition.fold([usage_record(0, id="x", input_tokens=1), usage_record(1, id="x", input_tokens=1)], 2)
    assert (cost(partition), partition.duplicates) == (10, 1)


def test_the_same_id_from_another_source_is_another_event():
    partition = state()
    twin = usage_record(1, id="x", input_tokens=1)
    twin.headers = [(k, b"//gw/2" if k == "ce_source" else v) for k, v in twin.headers]
    partition.fold([usage_record(0, id="x", input_tokens=1), twin], 2)
    assert cost(partition) == 20


def test_a_missing_team_is_priced_under_unattributed():
    partition = state()
    partition.fold([usage_record(0, team="", input_tokens=7)], 1)
    (cell,) = partition.cells.values()
    assert (cell.dimensions.team_id, cell.totals.cost_nanos) == ("__unattributed__", 70)


def test_a_late_event_corrects_its_own_hour_and_no_other():
    partition = state()
    partition.fold(
        [usage_record(0, input_tokens=1), usage_record(1, at=NOON - 5 * HOUR, arrived=NOON, input_tokens=2)], 2
    )
    by_hour = {cell.hour: cell.totals for cell in partition.cells.values()}
    assert (by_hour[NOON].cost_nanos, by_hour[NOON - 5 * HOUR].cost_nanos) == (10, 20)
    assert by_hour[NOON - 5 * HOUR].unverified_late == 1


def test_a_time_ahead_of_its_arrival_never_moves_stream_time_beyond_the_arrival():
    partition = state()
    partition.fold([usage_record(0, at=NOON + 60 * SECOND, arrived=NOON)], 1)
    assert partition.stream_time == NOON


def _changed(**changes):
    record = usage_record(0)
    for name, value in changes.items():
        setattr(record, name, value)
    return record


def _data(**fields):
    record = usage_record(0)
    body = msgspec.json.decode(record.value) | fields
    record.value = msgspec.json.encode(body)
    return record


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        pytest.param(_changed(value=None), "empty_value", id="a record without a value"),
        pytest.param(_changed(value=b"{nope"), "not_json", id="a value that is not JSON"),
        pytest.param(_changed(value=b"\xff\xfe"), "not_json", id="a value that is not UTF-8"),
        pytest.param(_changed(value=b"[1]"), "wrong_shape", id="an array where an object belongs"),
        pytest.param(_data(input_tokens="many"), "wrong_shape", id="tokens as a word"),
        pytest.param(_data(input_tokens=1.5), "wrong_shape", id="half a token"),
        pytest.param(_data(input_tokens=-1), "negative_usage", id="negative tokens"),
        pytest.param(_data(output_tokens=10**12), "absurd_number", id="a trillion tokens"),
        pytest.param(_data(input_tokens=10**30), "absurd_number", id="more tokens than 64 bits hold"),
        pytest.param(_data(input_tokens=1, cache_read_input_tokens=2), "impossible_usage", id="more cached than read"),
        pytest.param(_data(team_id="t" * 1000), "too_long", id="a team name of a thousand letters"),
        pytest.param(_data(feature="a\x00b"), "wrong_shape", id="a NUL in a name"),
        pytest.param(_changed(value=b"x" * 2_000_000), "too_large", id="a value of 2 MB"),
        pytest.param(_changed(headers=[]), "not_a_cloudevent", id="no CloudEvents headers"),
        pytest.param(usage_record(0, at=NOON + 32_000_000 * SECOND * 1000, arrived=NOON), "in_the_future", id="the year 3000"),
        pytest.param(usage_record(0, at=NOON - 50 * 24 * HOUR, arrived=NOON), "too_late", id="fifty days old"),
    ],
)  # fmt: skip
def test_bad_input_is_dead_lettered_with_its_reason_and_the_rest_is_counted(record, reason):
    partition = state()
    partition.fold([record, usage_record(1, input_tokens=3)], 2)
    assert [letter.reason.value for letter in partition.letters] == [reason]
    assert partition.letters[0].record is record
    assert partition.letters[0].detail
    assert (cost(partition), partition.dead_letters) == (30, 1)


def _crash_and_restore(partition: PartitionState, durable: list, checkpoint: Checkpoint | None) -> PartitionState:
    """What a successor sees: the durable statements through their JSON, nothing of the old memory."""
    fresh = PartitionState(SOURCE, partition.rules, checkpoint)
    fresh.restore([msgspec.json.decode(msgspec.json.encode(statement), type=type(statement)) for statement in durable])
    return fresh


event_plans = st.lists(
    st.tuples(
        st.integers(0, 30),  # which id: repeats are duplicates
        st.integers(-3, 0),  # hours before noon
        st.sampled_from(["search", "support", ""]),
        st.integers(0, 5000),
        st.booleans(),  # bad record
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(plan=event_plans, data=st.data())
def test_any_split_into_batches_with_crashes_and_replays_gives_the_oracles_totals(plan, data):
    records, seen, oracle = [], set(), 0
    for offset, (number, hours, team, tokens, bad) in enumerate(plan):
        if bad:
            records.append(RawRecord(offset, NOON // 1000, b"{"))
            continue
        # An id is one event: its content follows from its number.
        at = NOON + hours * HOUR
        records.append(usage_record(offset, id=f"e{number}", at=at, arrived=NOON, team=team, input_tokens=tokens))
        if number not in seen:
            seen.add(number)
            oracle += tokens * 10
    partition = state(dedupe_window_us=10 * HOUR)
    durable: dict = {}
    checkpoint = None
    position = 0
    while position < len(records):
        size = data.draw(st.integers(1, 20))
        batch = records[position : position + size]
        partition.fold(batch, batch[-1].offset + 1)
        position += len(batch)
        action = data.draw(st.sampled_from(["go on", "flush", "crash", "crash in mid-flush"]))
        if action in ("flush", "crash in mid-flush"):
            changed = [*partition.changed_cells.items(), *partition.changed_counters.items()]
            if action == "crash in mid-flush":
                changed = changed[: data.draw(st.integers(0, len(changed)))]
            for _, statement in changed:
                durable[_name(statement)] = msgspec.json.decode(msgspec.json.encode(statement), type=type(statement))
            if action == "flush":
                partition.changed_cells, partition.changed_counters = {}, {}
                checkpoint = partition.checkpoint()
        if action.startswith("crash"):
            # Entries of a first flush without a watermark say nothing to a successor.
            kept = list(durable.values()) if checkpoint else []
            durable = durable if checkpoint else {}
            partition = _crash_and_restore(partition, kept, checkpoint)
            position = partition.read_from
    assert cost(partition) == oracle
    spent = sum(c.cost_nanos for c in partition.counters.values() if c.scope.startswith("budget:"))
    assert spent == sum(c.totals.cost_nanos for c in partition.cells.values() if c.dimensions.team_id == "search")


def _name(statement: CellStatement | ScopeStatement) -> tuple:
    if isinstance(statement, CellStatement):
        return ("c", statement.cell_id, statement.segment)
    return ("s", statement.scope, statement.period_start, statement.segment)


def test_an_idle_cell_is_let_go_only_below_the_ledger_and_a_late_event_opens_a_new_segment():
    partition = state(cells_idle_us=2 * HOUR)
    partition.fold([usage_record(0, input_tokens=1)], 1)
    partition.fold([usage_record(1, at=NOON + 6 * HOUR, input_tokens=1)], 2)
    partition.changed_cells.clear()
    partition.changed_counters.clear()
    assert [gone for gone in partition.evict(0) if isinstance(gone, CellStatement)] == []
    gone = [cell for cell in partition.evict(2) if isinstance(cell, CellStatement)]
    assert [(cell.hour, cell.segment) for cell in gone] == [(NOON, 0)]
    partition.fold([usage_record(2, at=NOON, arrived=NOON + 6 * HOUR, input_tokens=5)], 3)
    reopened = next(cell for cell in partition.cells.values() if cell.hour == NOON)
    assert (reopened.cell_id, reopened.segment, reopened.totals.cost_nanos) == (gone[0].cell_id, 2, 50)


class _NoRateYet(FlatPricing):
    """Refuses what costs more than a thousand tokens, as a bill in a currency without a rate is refused."""

    def charge(self, event, event_time):
        if event.input_tokens > 1_000:
            raise Rejected(Reason.UNKNOWN_CURRENCY, "no rate")
        return super().charge(event, event_time)


@pytest.mark.parametrize("restarted", [False, True], ids=["in one run", "after a restart"])
def test_a_record_that_had_no_price_counts_when_it_comes_again_after_the_mend(restarted):
    first = usage_record(0, id="x", input_tokens=5_000)
    partition = state(pricing=_NoRateYet())
    partition.fold([first, usage_record(1, input_tokens=1)], 2)
    assert (cost(partition), partition.dead_letters) == (10, 1)
    if restarted:
        checkpoint = partition.checkpoint()
        kept = [*partition.cells.values(), *partition.counters.values()]
        partition = PartitionState(SOURCE, rules(), checkpoint)
        partition.restore(kept)
        partition.fold([first, usage_record(1, input_tokens=1)], 2)
    partition.rules = rules()
    partition.fold([usage_record(2, id="x", input_tokens=5_000)], 3)
    assert (cost(partition), partition.duplicates) == (50_010, 0)


def test_bills_move_stream_time_by_their_arrival_and_are_never_late_for_their_period():
    bill = BillingRecord(
        billing_account_id="a", charge_period_start=format_instant(NOON - 300 * HOUR), charge_period_end="",
        billed_cost=Decimal(5), billing_currency="USD", service_provider_name="p",
    )  # fmt: skip
    headers = binary_headers(id="b", source="//bills", type=BILLING_TYPE, time=format_instant(NOON))
    partition = state()
    partition.fold([RawRecord(0, NOON // 1_000, msgspec.json.encode(bill), headers)], 1)
    (cell,) = partition.cells.values()
    assert (partition.stream_time, cell.totals.unverified_late) == (NOON, 0)


def test_a_huge_request_is_signalled_with_its_place():
    partition = state()
    partition.fold([usage_record(0, input_tokens=50_000), usage_record(1, input_tokens=50_000, output_tokens=1)], 2)
    assert [(signal.offset, signal.tokens, signal.team_id) for signal in partition.signals] == [(1, 50_001, "search")]


def test_the_rules_are_values_so_two_partitions_share_them():
    shared = rules()
    assert PartitionState(SOURCE, shared).rules is shared


class EstimatedPricing(FlatPricing):
    """Every call stands on its gateway's own figure."""

    def charge(self, event, event_time):
        return super().charge(event, event_time)._replace(estimated=True)

    def flat(self, event, event_time):
        return None


@pytest.mark.parametrize(("pricing", "estimated"), [(FlatPricing(), False), (EstimatedPricing(), True)])
def test_a_budgets_counter_says_how_long_calls_took_and_what_is_estimated_and_leaves_out_nothing(pricing, estimated):
    partition = state(pricing=pricing)
    calls = [usage_record(n, input_tokens=100, duration_ms=ms) for n, ms in enumerate([200, None, 300, 400, 0])]
    partition.fold(calls, 5)
    (counter,) = [each for each in partition.counters.values() if each.scope.startswith("budget:")]
    assert (counter.requests, counter.cost_nanos) == (5, 5_000)
    assert counter.duration_ms == 900
    assert counter.estimated_nanos == (5_000 if estimated else msgspec.UNSET)
    untimed = state()
    untimed.fold([usage_record(0, input_tokens=100)], 1)
    (written,) = [each for each in untimed.counters.values() if each.scope.startswith("budget:")]
    assert b"duration_ms" not in msgspec.json.encode(written)
