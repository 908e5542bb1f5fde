"""A thin, even sample of the calls: what detectors know of ordinary requests, and of who makes them.

Every ``STRIDE``-th offset is looked at and no other, so that the hot path pays next to nothing, and what is seen is
the same in any split into batches. Both strides are odd, since traffic likes powers of two. A repeat of a call may be
seen twice: what is found here is no money.

Callers are remembered by this life of the worker only. After a restart they are counted from the watermark on, so a
window under way may be told later, or as less than it was; it is never told as more.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from schemas.events import UsageEvent
from schemas.instants import MINUTE
from schemas.statements import CallerWindow, Signal, Source
from streams.core.batch_reading import Row
from streams.core.lanes import lane_at
from streams.core.reading import Rejected
from streams.core.rules import Pricing

STRIDE = 7
#: One of so many calls is signalled as itself: that in the middle of them.
SAMPLE = STRIDE * 143
MIDDLE = STRIDE * 71
WINDOW = 5 * MINUTE
#: A caller of fewer samples in a window is not signalled (some thirty calls in five minutes), unless two are dear.
SAMPLES_MIN = 4
DEAR_NANOS = 1_000_000_000
#: Callers of one window that are remembered. Those seen once make room for others.
CALLERS_MAX = 8_000


class _Calls:
    """What was sampled of one caller in one window. The first of it is only counted: most callers have no other."""

    __slots__ = ("cost", "errors", "input", "samples")

    def __init__(self) -> None:
        self.samples = 1
        self.errors = self.input = self.cost = 0

    def whole(self, summed: int) -> int:
        """The total that a sum over all samples but the first stands for."""
        return summed * self.samples * STRIDE // (self.samples - 1)


class _Window:
    """The callers of one window, with what they call for: None is a caller that was seen once."""

    __slots__ = ("calls", "is_full")

    def __init__(self) -> None:
        self.calls: dict[tuple[str, str], _Calls | None] = {}
        self.is_full = False

    def make_room(self) -> bool:
        """Whether another caller can be remembered."""
        if len(self.calls) >= CALLERS_MAX and not self.is_full:
            self.calls = {key: calls for key, calls in self.calls.items() if calls is not None}
            self.is_full = len(self.calls) * 4 > CALLERS_MAX * 3
        return len(self.calls) < CALLERS_MAX


class Caller(NamedTuple):
    """Who makes calls: the narrowest name that a call gives."""

    kind: Literal["task", "session", "key"]
    id: str


class Sampler:
    """The sample of one source partition."""

    def __init__(self, source: Source, pricing: Pricing, runaway_tokens: int) -> None:
        self._source = source
        self._pricing = pricing
        self._runaway_tokens = runaway_tokens
        #: The newest two windows, by their start.
        self._windows: dict[int, _Window] = {}

    def take(self, rows: Sequence[Row]) -> list[Signal]:
        """Look at the calls of consecutive records; returns what there is to signal, in offset order."""
        if not rows:
            return []
        first = rows[0][0].offset
        # Nearly always nothing is missing between the first and the last, and the sampled ones can be cut out at once.
        if rows[-1][0].offset - first == len(rows) - 1:
            chosen: Sequence[Row] = rows[-first % STRIDE :: STRIDE]
        else:
            chosen = [row for row in rows if row[0].offset % STRIDE == 0]
        signals: list[Signal] = []
        windows = self._windows
        for row in chosen:
            if row[2] is None:
                continue
            event = row[3]
            if row[0].offset % SAMPLE == MIDDLE and event.input_tokens + event.output_tokens <= self._runaway_tokens:
                signals.append(self._signal(row, "request_sample", 0, times=SAMPLE))
            id = event.task_id or event.session_id or event.key_id
            if not id:
                continue
            window = windows.get(row[4] // WINDOW)
            if window is None:
                window = self._open(row[4] // WINDOW)
            key = id, event.feature
            if key in window.calls:
                self._count(row, event, window.calls, key, signals)
            elif len(window.calls) < CALLERS_MAX or window.make_room():
                window.calls[key] = None
        return signals

    def _open(self, number: int) -> _Window:
        """A window that is not known: kept, unless it is older than the two that are."""
        window = _Window()
        if len(self._windows) < 2 or number > min(self._windows):
            self._windows[number] = window
        if len(self._windows) > 2:
            del self._windows[min(self._windows)]
        return window

    def _count(
        self,
        row: Row,
        event: UsageEvent,
        known: dict[tuple[str, str], _Calls | None],
        key: tuple[str, str],
        signals: list[Signal],
    ) -> None:
        calls = known[key]
        if calls is None:
            calls = known[key] = _Calls()
        calls.samples += 1
        calls.errors += event.status != "success"
        calls.input += event.input_tokens
        calls.cost += self._nanos(row)
        # Said when it has doubled: the total so far is a lower bound of what it will be.
        samples = calls.samples
        if samples & (samples - 1) or (samples < SAMPLES_MIN and calls.whole(calls.cost) < DEAR_NANOS):
            return
        caller, begin = caller_of(event), row[4] - row[4] % WINDOW
        found = CallerWindow(
            kind=caller.kind, id=caller.id, start=begin, end=begin + WINDOW, requests=samples * STRIDE,
            errors=calls.whole(calls.errors), input_tokens=calls.whole(calls.input),
            cost_nanos=calls.whole(calls.cost),
        )  # fmt: skip
        signals.append(self._signal(row, "busy_caller", found.cost_nanos, caller=found))

    def _nanos(self, row: Row) -> int:
        """What a call costs, by its lane where it has one."""
        plan, event, event_time = row[2], row[3], row[4]
        lane = lane_at(plan, event_time) if plan is not None else None
        if lane is None or event.input_tokens > lane.long_from:
            try:
                return self._pricing.charge(event, event_time).nanos
            except Rejected:
                return 0
        units = lane.per_request + event.input_tokens * lane.rate_in + event.output_tokens * lane.rate_out
        units += event.cache_read_input_tokens * lane.rate_cached
        return int((units + event.cache_creation_input_tokens * lane.rate_written) // lane.divisor)

    def _signal(
        self,
        row: Row,
        kind: Literal["request_sample", "busy_caller"],
        nanos: int,
        *,
        times: int = 0,
        caller: CallerWindow | None = None,
    ) -> Signal:
        record, _, plan, event, event_time = row
        assert plan is not None
        dimensions = plan.dimensions
        signal = Signal(
            kind=kind, scope=f"feature:{dimensions.feature}", event_id="", event_source="", event_time=event_time,
            source=self._source, offset=record.offset, team_id=dimensions.team_id, feature=dimensions.feature,
            model=dimensions.model, tokens=event.input_tokens + event.output_tokens, cost_nanos=nanos,
            key_id=event.key_id, session_id=event.session_id,
        )  # fmt: skip
        if times:
            signal.times = times
        if caller is not None:
            signal.caller = caller
        return signal


def caller_of(event: UsageEvent) -> Caller:
    """The task, else the session, else the key of a call that names one of them.

    >>> caller_of(UsageEvent(provider="openai", session_id="s-7", key_id="k"))
    Caller(kind='session', id='s-7')
    """
    if event.task_id:
        return Caller("task", event.task_id)
    return Caller("session", event.session_id) if event.session_id else Caller("key", event.key_id)
