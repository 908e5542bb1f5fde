"""METER's shell without its transport, and a naive fold to compare it with: for property tests of crashes and replays.

``Rig`` drives the shell's own code for loading a partition and for taking the picture of a flush; what the transport
would do with it (append to a changelog, publish statements) is done to dictionaries, as far as the test lets it get.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec

from schemas import topics
from schemas.cloudevents import binary_headers
from schemas.events import BILLING_TYPE, GPU_TYPE, USAGE_TYPE, BillingRecord, UsageEvent
from schemas.instants import HOUR, MINUTE, SECOND, format_instant, parse_instant
from schemas.keys import cell_id
from schemas.readers import CELL_STATEMENTS, SCOPE_STATEMENTS, SPENDERS
from schemas.statements import COST_BOUNDS_NANOS, LATENCY_BOUNDS_MS, Dimensions, Totals
from streams.agents import digests, entries
from streams.agents.meter import Meter
from streams.agents.spender_sayings import said
from streams.core import cells
from streams.core.charging import Charging
from streams.core.dedupe import DedupeWindow, identity
from streams.core.meter import PartitionState
from streams.core.periods import ENDLESS, period_bounds
from streams.core.pricing import PriceBook
from streams.core.rate_card import load_rate_card
from streams.core.reading import Limits, Rejected, read
from streams.core.rules import Rules
from streams.core.scopes import ScopeWatchlist, WatchedBudget
from streams.transport import Outgoing
from tests.unit.records import SOURCE, RawRecord

#: Ten minutes before the hour, half an hour before some prices change, and hours before midnight in India and Nepal.
START = parse_instant("2026-11-21T15:50:00Z")
CARD = """
models:
  - {provider: openai, model: gpt-4o, input: 2.5, output: 10, cache_read: 1.25}
  - {provider: openai, model: gpt-4o, from: 2026-11-22, input: 2.4999, output: 9.9999, cache_read: 1.2345}
  - {provider: openai, model: tie, input: 0.0005, output: 0.0015, cache_read: 0.00025, per_request: 0.000000001}
  - {provider: openai, model: spoken, input: 1, output: 2, audio_input: 40, reasoning: 3}
gpus:
  - {model: NVIDIA L40S, usd_per_hour: 1.09}
fx:
  - {currency: EUR, usd: 1.0825, from: 2026-01-01}
"""


class Spec(NamedTuple):
    """A budget of the rig."""

    name: str
    match: tuple[tuple[str, str], ...]
    period: Any
    zone: str
    per: str = ""
    starts: int = 0
    ends: int = 0

    def bounds(self, at: int) -> tuple[int, int]:
        """The whole period of an instant."""
        return (0, ENDLESS) if self.period == "total" else period_bounds(self.period, self.zone, at)


BUDGETS = (
    Spec("search-kolkata", (("team", "search"),), "day", "Asia/Kolkata"),
    Spec("chat-kathmandu", (("feature", "chat"), ("model", "gpt-4o")), "hour", "Asia/Kathmandu"),
    Spec("key", (("key", "k1"),), "day", "UTC"),
    Spec("user", (("user", "u1"), ("team", "search")), "week", "Australia/Lord_Howe"),
    Spec("all", (), "month", "Pacific/Chatham"),
    Spec("session", (), "total", "UTC", "session"),
    Spec("feature", (("team", "search"), ("team", "ads")), "day", "UTC", "feature"),
    Spec("tag", (("tag:plan", "free"), ("tag:plan", "trial")), "quarter", "UTC"),
    Spec("run", (("run", "r1"),), "total", "UTC"),
    # From the middle of an hour to the middle of another.
    Spec("dated", (("team", "search"),), "day", "UTC", "", START + 30 * MINUTE, START + 5 * HOUR + 17 * MINUTE),
)
FIELDS = {"team": "team_id", "feature": "feature", "model": "model"}


def _watched(spec: Spec) -> WatchedBudget:
    return WatchedBudget(spec.name, spec.match, spec.bounds, "v1", spec.per, spec.starts, spec.ends)


def _is_personal(spec: Spec) -> bool:
    return not {spec.per, *dict(spec.match)} <= {"", *FIELDS}


def rig_rules(*, personal: bool = True, **changes: Any) -> Rules:
    """Real prices and budgets in odd time zones; ``personal``: some of them watch keys, sessions, runs and tags."""
    book = PriceBook(load_rate_card(CARD), frozenset({"vllm"}))
    chosen = [each for each in BUDGETS if personal or not _is_personal(each)]
    watchlist = ScopeWatchlist([_watched(each) for each in chosen])
    pricing = Charging(book, frozenset({"openai"}))
    return Rules(Limits(), pricing, watchlist, "org", dedupe_window_us=40 * HOUR)._replace(**changes)


#: What calls are like. Most are of the first kinds, so that lanes are long.
CALLS: tuple[dict[str, Any], ...] = (
    {"provider": "openai", "request_model": "gpt-4o", "team_id": "search", "feature": "chat"},
    {"provider": "openai", "request_model": "tie", "team_id": "search", "feature": "chat", "key_id": "k1", "session_id": "s1"},
    {"provider": "openai", "request_model": "gpt-4o", "team_id": "search", "feature": "rank", "user_id": "u1", "session_id": "s#2@|"},
    {"provider": "openai", "request_model": "gpt-4o", "feature": "chat", "status": "failure", "tags": {"plan": "free", "x": "y"}},
    {"provider": "openai", "request_model": "gpt-4o", "team_id": "ads", "feature": "chat", "cache_hit": True},
    {"provider": "deepseek", "request_model": "deepseek-chat", "team_id": "ads", "key_id": "k1", "user_id": "u1"},
    {"provider": "google", "request_model": "gemini-2.5-pro", "team_id": "search", "feature": "long", "tags": {"plan": "paid"}},
    {"provider": "vllm", "request_model": "own", "team_id": "search", "feature": "chat"},
    {"provider": "acme", "request_model": "mystery", "team_id": "ads", "feature": "chat"},
    {"provider": "acme", "request_model": "mystery", "team_id": "ads", "reported_cost": "0.0123456789"},
    {"provider": "acme", "request_model": "mystery", "team_id": "ads", "reported_cost": "7", "currency": "EUR"},
    {"provider": "openai", "request_model": "spoken", "team_id": "ads", "audio_input_tokens": 1, "run_id": "r1"},
    {"provider": "openai", "request_model": "tie", "team_id": "search", "reported_cost": "0.1", "duration_ms": 99},
)  # fmt: skip
COUNTS: tuple[dict[str, int], ...] = (
    {"input_tokens": 1, "output_tokens": 0}, {"input_tokens": 3}, {"input_tokens": 1_001},
    {"input_tokens": 1_000, "cache_read_input_tokens": 999, "output_tokens": 3}, {"input_tokens": 200_000},
    {"input_tokens": 777, "cache_read_input_tokens": 1, "cache_creation_input_tokens": 2, "output_tokens": 77},
    {"input_tokens": 200_001, "output_tokens": 9}, {"input_tokens": 5, "output_tokens": 7, "reasoning_output_tokens": 7},
    {},
)  # fmt: skip
#: Microseconds that an event is older than its arrival; below zero it is ahead.
AGES = (0, 0, 0, 0, SECOND, 20 * MINUTE, HOUR, 3 * HOUR, 9 * HOUR, 50 * HOUR, -200 * SECOND, -400 * SECOND, 2 * HOUR)
STEPS = (0, 0, SECOND, 7 * MINUTE, 40 * MINUTE, 3 * HOUR, HOUR)
Plan = Sequence[tuple[int, int, int, int, int]]


def records_of(plan: Plan, features: int = 0) -> list[RawRecord]:
    """Records from ``(id, kind, counts, age, step)``, each an index; ``features``: that many feature names instead."""
    arrived, found = START, []
    for offset, (number, kind, counts, age, step) in enumerate(plan):
        arrived += STEPS[step % len(STEPS)]
        found.append(
            _record(offset, f"e{number}", kind, COUNTS[counts % len(COUNTS)], arrived, AGES[age % len(AGES)], features)
        )
    return found


def _record(
    offset: int, id: str, kind: int, counts: dict[str, int], arrived: int, age: int, features: int
) -> RawRecord:
    at = format_instant(arrived - age)
    data: dict[str, Any]
    if kind == -1:
        type_ = GPU_TYPE
        data = {"gpu_uuid": id, "window_start": at, "window_end": format_instant(arrived - age + MINUTE)}
        data |= {"allocated_seconds": "59.5", "model": "NVIDIA L40S", "team_id": "search", "shared_by": 7}
        data |= {"run_id": "r1", "session_id": "of no GPU"}
    elif kind == -2:
        type_ = BILLING_TYPE
        data = {"billing_account_id": "a", "charge_period_start": at, "charge_period_end": "", "team_id": "search"}
        data |= {"billed_cost": "-1.23456789015", "service_provider_name": "aws"}
        data |= {"tags": {"plan": "trial"}, "billing_currency": "XXX" if counts.get("input_tokens") == 1 else "EUR"}
    else:
        type_ = USAGE_TYPE
        data = {**CALLS[kind % len(CALLS)], **counts}
        if features:
            data["feature"] = f"f{kind % features}"
        if data.get("audio_input_tokens", 0) > data.get("input_tokens", 0):
            data["input_tokens"] = data["audio_input_tokens"]
    headers = binary_headers(id=id, source="//gw/1", type=type_, time=at, subject=data.get("team_id", ""))
    return RawRecord(offset, arrived // 1_000, msgspec.json.encode(data), headers)


Numbers = tuple[int, ...]
CellKey = tuple[Dimensions, int]
ScopeKey = tuple[str, int]


class Oracle:
    """One record after the other, every total added up by itself; knows of no batch, lane, segment or crash."""

    def __init__(self, rules: Rules, records: Sequence[RawRecord]) -> None:
        self.cells: defaultdict[CellKey, Counter[str]] = defaultdict(Counter)
        self.counters: defaultdict[ScopeKey, Counter[str]] = defaultdict(Counter)
        #: Nanodollars and calls by cell id, key and user.
        self.spenders: defaultdict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
        self.duplicates = self.dead_letters = 0
        self._rules, self._stream_time = rules, 0
        self._window = DedupeWindow(rules.dedupe_window_us, rules.dedupe_ids_max)
        for record in records:
            try:
                self._add(record)
            except Rejected:
                self.dead_letters += 1

    @property
    def nanos(self) -> int:
        """All money."""
        return sum(cell["cost_nanos"] for cell in self.cells.values())

    def _add(self, record: RawRecord) -> None:
        reading = read(record, self._rules.limits)
        event, at = reading.event, reading.event_time
        charge = self._rules.pricing.charge(event, at)
        happened = reading.arrived_at if isinstance(event, BillingRecord) else at
        self._stream_time = max(self._stream_time, min(happened, reading.arrived_at))
        digest = identity(reading.envelope.source, reading.envelope.id)
        if not self._window.first_seen(digest, record.offset, self._stream_time):
            self.duplicates += 1
            return
        found: Counter[str] = Counter(cost_nanos=charge.nanos, reconciled_cost_nanos=charge.reconciled_nanos)
        found["estimated_cost_nanos"] = charge.nanos if charge.estimated else 0
        found["unpriced_requests"] = int(charge.unpriced)
        found["unverified_late"] = int(happened < self._stream_time - self._rules.dedupe_window_us)
        actual = {f"tag:{name}": text for name, text in getattr(event, "tags", {}).items()}
        actual["run"] = getattr(event, "run_id", "")
        if isinstance(event, UsageEvent):
            actual |= {"key": event.key_id, "user": event.user_id, "session": event.session_id}
            dimensions = cells.usage_dimensions(event, reading.envelope.subject, "org")
            _count_call(found, event, charge.nanos)
            who = (cell_id(dimensions, at - at % HOUR), event.key_id, event.user_id)
            self.spenders[who].update(cost_nanos=charge.nanos, requests=1)
        elif isinstance(event, BillingRecord):
            dimensions = cells.bill_dimensions(event, self._rules.pricing.bill_category(event), "org")
        else:
            dimensions = cells.gpu_dimensions(event, "org")
            found["gpu_milliseconds"] = cells.gpu_milliseconds(event)
        self.cells[(dimensions, at - at % HOUR)].update(found)
        self._watch(dimensions, actual, at, charge.nanos, found)

    def _watch(self, dimensions: Dimensions, actual: dict[str, str], at: int, nanos: int, found: Counter[str]) -> None:
        scopes = []
        actual |= {word: getattr(dimensions, field) for word, field in FIELDS.items()}
        for spec in BUDGETS:
            if not self._rules.watchlist.attributes and _is_personal(spec):
                continue
            has = all(any((word, actual.get(word)) == pair for pair in spec.match) for word, _ in spec.match)
            value = actual.get(spec.per, "")
            counts = not spec.per or value.strip("_") not in ("", "unattributed")
            if has and counts and spec.starts <= at < (spec.ends or ENDLESS):
                start = max(spec.bounds(at)[0], spec.starts)
                scopes.append((f"budget:{spec.name}@v1" + (f"#{value}" if spec.per else ""), start))
        for scope in scopes:
            counter = self.counters[scope]
            counter["requests"] += 1
            counter["cost_nanos"] += nanos
            counter["tokens"] += found["input_tokens"] + found["output_tokens"]


def _count_call(found: Counter[str], event: UsageEvent, nanos: int) -> None:
    found["requests"] = 1
    found["successes" if event.status == "success" else "errors"] = 1
    found["cache_hits"] = int(event.cache_hit)
    for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens"):
        found[name] = getattr(event, name)
    found["reasoning_output_tokens"] = event.reasoning_output_tokens
    found["audio_tokens"] = event.audio_input_tokens + event.audio_output_tokens
    found["reported_cost_nanos"] = cells.reported_nanos(event)
    found[f"cost<{sum(bound <= nanos for bound in COST_BOUNDS_NANOS)}"] = 1
    if event.duration_ms is not None:
        found[f"latency<{sum(bound <= event.duration_ms for bound in LATENCY_BOUNDS_MS)}"] = 1


def spread(totals: Totals) -> Counter[str]:
    """Totals of a cell, as the oracle has them."""
    found = Counter({name: value for name, value in msgspec.structs.asdict(totals).items() if isinstance(value, int)})
    for word, histogram in (("cost", totals.cost_histogram), ("latency", totals.latency_histogram)):
        found.update({f"{word}<{place}": count for place, count in enumerate(histogram)})
    return found


def plain(sums: dict[Any, Counter[str]]) -> dict[Any, dict[str, int]]:
    """Without the zeros, so that sums can be compared."""
    return {key: {name: count for name, count in found.items() if count} for key, found in sums.items()}


class Store:
    """What the ledger and BUDGET make of statements: the newest total of each segment, by (revision, offset)."""

    def __init__(self) -> None:
        self.rows: dict[tuple[Any, ...], tuple[tuple[int, int], Counter[str]]] = {}
        #: By cell id, segment, key and user.
        self.spenders: dict[tuple[str, int, str, str], tuple[tuple[int, int], Counter[str]]] = {}
        self.watermark = 0

    def hear(self, record: Outgoing) -> None:
        """Take one record from the topic of cells or of scopes; a deletion says nothing to them."""
        if record.value is None or record.topic not in (topics.SPEND_CELLS, topics.SPEND_SCOPES):
            return
        if record.topic == topics.SPEND_CELLS and entries.is_watermark(record.key):
            self.watermark = max(self.watermark, msgspec.json.decode(record.value)["next_offset"])
            return
        if record.topic == topics.SPEND_CELLS and entries.is_of_spenders(record.key):
            said = SPENDERS.decode(record.value)
            for each in said.rows:
                where = (said.cell_id, said.segment, each.key_id, each.user_id)
                known, rank = self.spenders.get(where), (said.revision, each.offset)
                found = Counter(cost_nanos=each.cost_nanos, requests=each.requests)
                assert known is None or known[0] != rank or known[1] == found, "one rank says one thing"
                if known is None or known[0] < rank:
                    self.spenders[where] = (rank, found)
            return
        if record.topic == topics.SPEND_CELLS:
            cell = CELL_STATEMENTS.decode(record.value)
            self._put((cell.dimensions, cell.hour), cell, spread(cell.totals))
        else:
            counter = SCOPE_STATEMENTS.decode(record.value)
            assert sum(counter.contributors.values()) == counter.cost_nanos
            found = Counter(cost_nanos=counter.cost_nanos, requests=counter.requests, tokens=counter.tokens)
            self._put((counter.scope, counter.period_start), counter, found)

    def _put(self, key: tuple[Any, ...], statement: Any, found: Counter[str]) -> None:
        row, rank = (*key, statement.segment), (statement.revision, statement.offset)
        known = self.rows.get(row)
        if known is not None and known[0] == rank:
            assert known[1] == found, "one rank says one thing, whoever says it"
        if known is None or known[0] < rank:
            self.rows[row] = (rank, found)

    def sums(self, of_cells: bool) -> dict[Any, Counter[str]]:
        """The sums over all segments, of cells or of scopes. A scope's segment that lies within another says nothing."""
        found: defaultdict[Any, Counter[str]] = defaultdict(Counter)
        for (what, when, first), ((_, last), numbers) in self.rows.items():
            if isinstance(what, Dimensions) is of_cells and (of_cells or not self._is_within(what, when, first, last)):
                found[(what, when)].update(numbers)
        return found

    def _is_within(self, scope: str, when: int, first: int, last: int) -> bool:
        others = ((row[2], rank[1]) for row, (rank, _) in self.rows.items() if row[:2] == (scope, when))
        return any(start <= first and end >= last and (start, end) != (first, last) for start, end in others)

    def spent_by(self) -> dict[Any, Counter[str]]:
        """The sums over all segments by cell id, key and user."""
        found: defaultdict[Any, Counter[str]] = defaultdict(Counter)
        for (cell, _, key, user), (_, numbers) in self.spenders.items():
            found[(cell, key, user)].update(numbers)
        return found


def _nothing() -> Any:
    return SimpleNamespace(app=SimpleNamespace(partitions=4))


class Rig:
    """One partition's owners, one after the other, over one changelog."""

    def __init__(
        self, rules: Rules, records: Sequence[RawRecord], writer: Callable[[], str],
        watchlist: Callable[[], ScopeWatchlist] | None = None, store: Store | None = None,
    ) -> None:  # fmt: skip
        self.records, self.log, self.said = records, dict[bytes, bytes](), list[Outgoing]()
        self.store = store or Store()
        #: What is defined now; None: the rules' own watchlist, for ever.
        self._watchlist = watchlist
        self._rules, self._writer = rules, writer
        #: The changelog of sealed generations.
        self.kept: dict[bytes, bytes] = {}
        self._where = (SOURCE.topic, SOURCE.partition)
        #: One past the last record that any owner ever read.
        self.reached = 0
        self.begin()

    def begin(self) -> None:
        """A new owner takes over what is durable; whatever the one before had in memory is gone."""
        # Neither table is written to by what is driven here; the ledger is asked by nobody.
        table, kept, ledger = _nothing(), _nothing(), _nothing()
        self._meter = Meter(
            table, kept, self._rules, ledger, (SOURCE.topic,), epoch=0, writer=self._writer, flush_interval_s=1.0,
            scope_interval_s=1.0, watchlist=self._watchlist,
        )  # fmt: skip
        self._meter._load(SOURCE.partition, dict(self.log))
        self._meter._generations.load(SOURCE.partition, dict(self.kept))
        self.state: PartitionState = self._meter._states[self._where]
        self.state.said_until = self.reached
        self.position = self.state.read_from if self.state.next_offset else 0

    def take(self, count: int, chunk: int) -> None:
        """Read on, so many at a time."""
        batch = self.records[self.position : self.position + count]
        parts = [batch[start : start + chunk] for start in range(0, len(batch), chunk)]
        for start in range(0, len(parts), 2):
            self.state.take(parts[start : start + 2])
        self.position += len(batch)
        self.reached = max(self.reached, self.position)

    def state_scopes(self) -> None:
        """State what changed of the budgets' counters, beside the flush."""
        self._say(self._of_budgets())

    def _of_budgets(self) -> list[Outgoing]:
        self.state.settle()
        return self._meter._consequences(self.state, of_budgets=True)

    def flush(self, *, evicting: bool, cut: float = 1.0, meanwhile: int = 0) -> None:
        """A flush that gets as far as ``cut`` of its writes, while ``meanwhile`` more records are folded."""
        self._meter._durable = {SOURCE.slot(): self.store.watermark}
        self._meter._pending[self._where].append("a batch")
        picture = self._meter._take_picture(self._where, self.state, evicting)
        assert picture is not None
        if not evicting:
            self.take(meanwhile, 3)
        spenders = said(self.state, self._meter._writer, 1 << 60)
        writes: list[Any] = [
            *picture.consequences,
            *picture.entries,
            *self._of_budgets(),
            *spenders,
            *picture.deletions,
        ]
        if cut == 1.0 and self.state.is_rebuilt:
            self._keep_digests()
        for write in writes[: round(cut * len(writes))]:
            if isinstance(write, Outgoing):
                self._say([write])
            elif write[1] is None:
                self.log.pop(write[0], None)
            else:
                self.log[write[0]] = write[1]
        if cut == 1.0:
            self.state.openings.durable(picture.opened)

    def _keep_digests(self) -> None:
        for generation in self.state.window.sealed:
            if not generation.is_kept:
                self.kept.update((key, value or b"") for key, value in digests.kept_entries(SOURCE.slot(), generation))
                generation.is_kept = True

    def _say(self, records: Sequence[Outgoing]) -> None:
        self.said += records
        for record in records:
            self.store.hear(record)

    def finish(self) -> None:
        """Read to the end and flush it all."""
        self.take(len(self.records), 50)
        self.flush(evicting=False)
