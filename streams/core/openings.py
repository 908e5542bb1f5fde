"""Budgets that are defined while events flow: since when a partition counts each, and what of the time before.

A budget's counter **opens** with what was spent in its period: the live cells of its partition, and those that only the
ledger holds. So its total stays what every total in METER is, a function of the records up to an offset, whenever it
was opened; opening it again, after a crash or elsewhere, says the same. Until its period is over such a counter has the
segment 0: what another opening says replaces it and is never added.

An opening is made between two records, once the fold has passed every restored total (a cell that is ahead of the
watermark holds records that would be counted again). It is kept back until it is durable, and what is durable ends with
the **record** of the opening: where that is missing, the next owner opens anew.

Where an opening cannot be exact the counter says ``since`` when it counts everything: the match names what no cell has,
the period begins within a cell's hour, or cells of the excess hide whose money they hold.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from schemas.instants import HOUR
from schemas.keys import digest
from schemas.statements import ScopeStatement
from schemas.versions import Versioned
from streams.core.rules import Watched, is_of_one_value, new_counter
from streams.core.scopes import BUDGET, ScopeWatchlist, WatchedBudget, budget_scope
from streams.core.spent_before import Lookup, Past, Sums, is_exact, open_from, say_since, spans_of

#: A partition's fold (``streams.core.meter.PartitionState``), which makes use of this.
State = Any


class Opened(msgspec.Struct, frozen=True, array_like=True):
    """Since when a budget is counted, in instants of microseconds.

    Periods that start at ``opened_until`` or later hold all their records by themselves; those from ``complete_from``
    on were opened; those before hold what came after ``since``.
    """

    complete_from: int
    opened_until: int
    since: int


ALWAYS = Opened(0, 0, 0)


class Records(msgspec.Struct, kw_only=True):
    """The records of all budgets of a source partition as they are kept, by what they say."""

    v: int = 1
    opened: list[tuple[Opened, list[str]]]


RECORDS = Versioned("METER's record of openings", Records)
_encode = msgspec.json.Encoder().encode


class Question(NamedTuple):
    """What the ledger is asked: the rows of a slot in a period, below an offset and apart from the live cells."""

    number: int
    start: int
    end: int
    below: int
    #: The ledger has to be this far.
    at_least: int
    #: Cell id and segment of what is in memory.
    live: tuple[tuple[str, int], ...]
    #: Nobody else's rows matter; empty: everybody's do.
    teams: tuple[str, ...]
    lookup: Lookup
    names: frozenset[str]


class Openings:
    """The records of one source partition, and the counters that nobody may hear of yet."""

    def __init__(self) -> None:
        self.opened: dict[str, Opened] = {}
        #: Whether the records have to be written.
        self.changed = False
        #: What is to be counted; None: nobody ever said, and all is counted as it is found.
        self.wanted: ScopeWatchlist | None = None
        self.names: dict[str, WatchedBudget] = {}
        #: Those of them that no opening can be made for.
        self.of_calls: frozenset[str] = frozenset()
        #: Whether a budget waits for the fold to be far enough.
        self.due = False
        self.questions: list[Question] = []
        self._asked = 0
        #: By name: the questions whose answers an opening waits for, and what it will be recorded as.
        self.waiting: dict[str, set[int]] = {}
        self.coming: dict[str, Opened] = {}
        #: Complete, and not durable yet.
        self.held: set[str] = set()
        #: Whether an earlier release kept this partition.
        self.is_old = False

    def restore(self, value: bytes | None, counters: Iterable[ScopeStatement] = ()) -> None:
        """Take the records back; None: there are none. ``counters`` are those that were restored."""
        self.is_old = value is None
        if value is None:
            return
        self.opened = {name: opened for opened, names in RECORDS.decode(value).opened for name in names}
        self.changed = True
        # A budget that was withdrawn and came back, and whose new record was not durable any more: it opens anew.
        for counter in counters:
            name = name_of(counter.scope) if counter.since and counter.scope.startswith(BUDGET) else ""
            if name in self.opened and counter.period_start >= self.opened[name].complete_from:
                del self.opened[name]

    def take(self) -> tuple[bytes | None, frozenset[str]]:
        """The records if they have to be written, and the names that wait for that."""
        if not self.changed:
            return None, frozenset()
        self.changed = False
        found: dict[Opened, list[str]] = {}
        for name, opened in sorted(self.opened.items()):
            found.setdefault(opened, []).append(name)
        return _encode(Records(opened=list(found.items()))), frozenset(self.held)

    def place(self, watched: Watched, offset: int, horizon: int) -> tuple[int, int]:
        """Segment and ``since`` of a counter that is made at an offset; what ended before ``horizon`` may have left."""
        if self.wanted is None or not watched.scope.startswith(BUDGET):
            return offset, 0
        name = name_of(watched.scope)
        opened = self.opened.get(name) or self.coming.get(name, ALWAYS)
        since = opened.since if watched.period_start < opened.complete_from else 0
        # One segment, so that what is stated after another opening replaces it. Only what comes when the counter may
        # have left memory adds to it.
        may_have_left = watched.period_end < horizon or (is_of_one_value(watched.scope) and name in self.of_calls)
        return (offset if may_have_left else 0), since

    def is_wanted(self, scope: str) -> bool:
        """Whether a scope is no budget's, or that of a budget which is to be counted."""
        return self.wanted is None or not scope.startswith(BUDGET) or name_of(scope) in self.names

    def is_one_of_many(self, scope: str) -> bool:
        """Whether a counter may leave memory before its period is over: nothing but its segments tells its total."""
        return is_of_one_value(scope) and (self.wanted is None or name_of(scope) in self.of_calls)

    def apart(
        self, counters: dict[int, ScopeStatement], *, held: bool
    ) -> tuple[list[ScopeStatement], dict[int, ScopeStatement]]:
        """The counters that are complete, and those kept back until they are; ``held``: or until they are durable."""
        if not (self.waiting or (held and self.held)):
            return list(counters.values()), {}
        names = self.held | self.waiting.keys() if held else self.waiting.keys()
        back = {
            key: each
            for key, each in counters.items()
            if each.scope.startswith(BUDGET) and name_of(each.scope) in names
        }
        return [each for key, each in counters.items() if key not in back], back

    def durable(self, names: frozenset[str]) -> None:
        """What was kept back under these names may be said."""
        self.held -= names

    def forget(self, names: Iterable[str]) -> None:
        """These are counted no more."""
        for name in names:
            self.changed = self.opened.pop(name, None) is not None or self.changed
            self.waiting.pop(name, None)
            self.coming.pop(name, None)
            self.held.discard(name)

    def ask(self, question: Question) -> None:
        """Keep a question for whoever asks the ledger; its names wait for the answer."""
        self.questions.append(question)
        for name in question.names:
            self.waiting.setdefault(name, set()).add(question.number)

    def take_questions(self) -> list[Question]:
        """The questions that nobody took yet."""
        found, self.questions = self.questions, []
        return found

    def next_number(self) -> int:
        """The number of the next question."""
        self._asked += 1
        return self._asked

    def complete(self, name: str) -> None:
        """Nothing more is to come: it is recorded, and kept back until that is durable."""
        self.waiting.pop(name, None)
        self.opened[name] = self.coming.pop(name)
        self.held.add(name)
        self.changed = True


def name_of(scope: str) -> str:
    """Under which name a budget's scope is recorded: one for all values of a ``per`` budget."""
    return _name(scope.partition("#")[0])


@lru_cache(maxsize=65_536)
def _name(scope: str) -> str:
    return digest("opening", scope)[:16]


def follow(state: State, watchlist: ScopeWatchlist) -> None:
    """Count what is watched from here on, open what is new, and forget what is not watched any more."""
    openings: Openings = state.openings
    is_sure = state.next_offset >= state.sure_from
    if watchlist is openings.wanted and not (openings.due and is_sure):
        return
    state.settle()
    if watchlist is not openings.wanted:
        openings.wanted = watchlist
        openings.names = {name_of(budget_scope(budget)): budget for budget in watchlist.budgets}
        openings.of_calls = frozenset(name for name, budget in openings.names.items() if not is_exact(budget))
        gone = {name for name in [*openings.opened, *openings.coming] if name not in openings.names}
        _drop_incomplete(state, gone)
        openings.forget(gone)
    new = {name for name in openings.names if name not in openings.opened and name not in openings.coming}
    for name in _known_anyhow(state, new):
        openings.opened[name] = ALWAYS
        openings.changed = True
        new.discard(name)
    openings.due = bool(new) and not is_sure
    if openings.due:
        state.watch(ScopeWatchlist([budget for name, budget in openings.names.items() if name not in new]))
        return
    if watchlist is not state.rules.watchlist:
        state.watch(watchlist)
    if new:
        _open(state, {name: openings.names[name] for name in new})


def _drop_incomplete(state: State, names: set[str]) -> None:
    """Withdrawn before they were durable: what they hold may be no total of anything, and nobody may hear of it."""
    names = names & (state.openings.waiting.keys() | state.openings.held)
    for key, counter in list(state.counters.items()) if names else ():
        if counter.scope.startswith(BUDGET) and name_of(counter.scope) in names:
            del state.counters[key]
            state.changed_counters.pop(id(counter), None)
            state.unstated.pop(id(counter), None)


def _known_anyhow(state: State, new: set[str]) -> list[str]:
    """What needs no opening: there was nothing before, or an earlier release counted it and nobody can do better."""
    if not state.next_offset:
        return list(new)
    if not state.openings.is_old:
        return []
    counted = {name_of(each.scope) for each in state.counters.values() if each.scope.startswith(BUDGET)}
    return [name for name in new & counted if not is_exact(state.openings.names[name])]


def _open(state: State, budgets: dict[str, WatchedBudget]) -> None:
    openings: Openings = state.openings
    openings.is_old = False
    now, idle_us = state.stream_time, state.rules.cells_idle_us
    reached = max([now - now % HOUR, *(cell.hour for cell in state.cells.values())]) + HOUR
    exact = {name: budget for name, budget in budgets.items() if is_exact(budget)}
    for name, budget in budgets.items():
        openings.coming[name] = Opened(open_from(budget, now, idle_us) if name in exact else reached, reached, now)
    _reset(state, budgets, exact)
    lookup, sums = Lookup(list(exact.values())), Sums()
    earliest = min([openings.coming[name].complete_from for name in exact], default=reached)
    doubtful: set[str] = set()
    for cell in state.cells.values() if exact else ():
        if cell.hour + HOUR > earliest:
            totals = cell.totals
            tokens = totals.input_tokens + totals.output_tokens
            past = Past(cell.dimensions, 0, totals.cost_nanos, totals.estimated_cost_nanos, totals.requests, tokens)
            lookup.add_cell(sums, past, cell.hour, now)
            doubtful |= _in_doubt(openings, lookup, past, cell.hour + HOUR)
    opened = {
        key: found
        for key, found in sums.items()
        if found.watched.period_start >= openings.coming[name_of(found.watched.scope)].complete_from
    }
    _carry(state, opened, state.next_offset - 1)
    _doubt(state, doubtful)
    if state.evicted_until:
        for question in _questions(state, exact, now):
            openings.ask(question)
    for name in budgets:
        if name not in openings.waiting:
            openings.complete(name)


def _reset(state: State, budgets: dict[str, WatchedBudget], exact: dict[str, WatchedBudget]) -> None:
    """Counters that are there already, of an earlier release or of a budget that comes back."""
    openings: Openings = state.openings
    for counter in state.counters.values():
        name = name_of(counter.scope) if counter.scope.startswith(BUDGET) else ""
        if name not in budgets:
            continue
        if name in exact and counter.period_start >= openings.coming[name].complete_from:
            counter.cost_nanos = counter.requests = counter.tokens = 0
            counter.since = counter.estimated_nanos = counter.duration_ms = msgspec.UNSET
            counter.squared_cs = counter.failures = msgspec.UNSET
            counter.contributors = {}
            # From the beginning to here: whatever was said of it before lies within.
            counter.segment, counter.offset = 0, state.next_offset - 1
        else:
            say_since(counter, state.stream_time)
        state.changed_counters[id(counter)] = state.unstated[id(counter)] = counter


def _questions(state: State, exact: dict[str, WatchedBudget], now: int) -> list[Question]:
    """One for each period that somebody counts by; nothing of what is still to come was ever let go."""
    by_span: dict[tuple[int, int], list[str]] = {}
    for name, budget in exact.items():
        for start, end in spans_of(budget, now, state.rules.cells_idle_us):
            if max(start, budget.starts) < end:
                by_span.setdefault((max(start, budget.starts), end), []).append(name)
    live: dict[int, list[tuple[str, int]]] = {}
    for cell in state.cells.values():
        live.setdefault(cell.hour, []).append((cell.cell_id, cell.segment))
    found = []
    for (start, end), names in sorted(by_span.items()):
        budgets = [exact[name] for name in names]
        within = [each for hour, cells in live.items() if start - HOUR < hour < end for each in cells]
        found.append(
            Question(
                state.openings.next_number(), start, end, state.next_offset, state.evicted_until, tuple(within),
                _teams(budgets), Lookup(budgets), frozenset(names),
            )
        )  # fmt: skip
    return found


def _teams(budgets: Sequence[WatchedBudget]) -> tuple[str, ...]:
    """The only teams that any of these asks for, with those that stand for the excess; empty: some ask for all."""
    asked = [{value for name, value in budget.match if name == "team"} for budget in budgets]
    # Whose money is in the cells that belong to no team by name is in doubt for everybody.
    return tuple(sorted(set().union(*asked) | {"__other__"})) if all(asked) else ()


def answered(state: State, question: Question, rows: Iterable[Past]) -> None:
    """Add what the ledger answered; what waits for nothing more is complete."""
    openings: Openings = state.openings
    names = frozenset(name for name in question.names if question.number in openings.waiting.get(name, ()))
    sums, now = Sums(), state.stream_time
    doubtful: set[str] = set()
    rows = list(rows)
    question.lookup.add_rows(sums, rows, question.start, now)
    for past in rows:
        doubtful |= _in_doubt(openings, question.lookup, past, question.end) & names
    waited = {key: found for key, found in sums.items() if name_of(found.watched.scope) in names}
    _carry(state, waited, question.below - 1)
    _doubt(state, doubtful)
    for name in names:
        openings.waiting[name].discard(question.number)
        if not openings.waiting[name]:
            openings.complete(name)


def _carry(state: State, sums: Sums, offset: int) -> None:
    for key, found in sums.items():
        counter = state.counters.get(key)
        if counter is None:
            counter = state.counters[key] = new_counter(found.watched, state.source, 0, state.revision)
        counter.offset = max(counter.offset, offset)
        counter.stream_time, counter.arrived_at = state.stream_time, state.arrived_at
        found.carry_to(counter)
        state.changed_counters[id(counter)] = state.unstated[id(counter)] = counter


def _in_doubt(openings: Openings, lookup: Lookup, past: Past, until: int) -> set[str]:
    found = [name_of(budget_scope(budget)) for budget in lookup.doubtful(past.dimensions)]
    return {name for name in found if name in openings.coming and openings.coming[name].complete_from < until}


def _doubt(state: State, names: set[str]) -> None:
    """Of these nobody can say what they held before: they count from now on, beside what is known."""
    openings: Openings = state.openings
    for name in names:
        coming = openings.coming[name]
        openings.coming[name] = Opened(coming.opened_until, coming.opened_until, max(coming.since, state.stream_time))
    for counter in state.counters.values() if names else ():
        if counter.scope.startswith(BUDGET) and name_of(counter.scope) in names:
            say_since(counter, state.stream_time)
            state.changed_counters[id(counter)] = state.unstated[id(counter)] = counter
