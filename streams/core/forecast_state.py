"""What FORECAST remembers of one budget: its spend hour by hour, what was said at each point, and how wrong that was.

It is told where the budget stands, as often as one likes, and takes what was spent in between into the hours of that
time: after a pause the sum is exact and its spread over the pause an estimate. Nothing here is money that is charged.
"""

from collections.abc import Mapping

import msgspec

from detectors.base import Observation
from detectors.seasonal_spend import Course, SeasonalSpend, SeasonalSpendState
from schemas.instants import HOUR, hour_of
from schemas.versions import Versioned
from streams.core.forecast import METHODS, Counter, Method, Projection, Record, Standing, project, record_of

#: Each period is asked at seven points, an eighth of it apart, what it will have cost.
POINTS = 8
#: Periods whose errors are remembered.
PERIODS_KEPT = 12
#: A period is judged this long after its end, or an eighth of itself: what is late still counts.
_SETTLED_AFTER = HOUR
#: An error of more than tenfold says no more than tenfold.
_PERMILLE_MAX = 10_000


class Said(msgspec.Struct, array_like=True):
    """What was said in one period, and until when it runs."""

    end: int
    #: Point -> what each method said would be counted in all, in the order of METHODS.
    points: dict[int, tuple[int | None, ...]] = {}
    #: Whether gateways were throttled: then what came was not what would have come, and nobody is judged by it.
    was_held: bool = False
    #: The newest total that was counted, and what was brought in as an opening balance.
    nanos: int = 0
    brought_in: int = 0


class Wrong(msgspec.Struct, frozen=True, array_like=True):
    """One statement that was judged: whose, in which period, at which point, and its error in thousandths."""

    method: Method
    period_start: int
    point: int
    permille: int


class ForecastState(msgspec.Struct, kw_only=True):
    """All of one budget, or of one value of a ``per`` budget."""

    v: int = 1
    budget_id: str
    value: str = ""
    #: The last instant that was learned, and the first.
    at: int = 0
    known_since: int = 0
    spend: SeasonalSpendState = SeasonalSpendState()
    #: Period start -> what was counted in it when it was last looked at.
    counted: dict[int, int] = {}
    said: dict[int, Said] = {}
    wrong: list[Wrong] = []


FORECAST_STATES = Versioned("a budget's forecast", ForecastState)


class Forecaster:
    """One budget's forecast: told where it stands, asked what will be."""

    def __init__(self, state: ForecastState) -> None:
        self._state = state
        self._spend = SeasonalSpend.from_state(state.spend)
        self._course: Course | None = None
        self._course_of = -1
        self._outcomes: list[tuple[int, int, bool]] = []

    @property
    def at(self) -> int:
        """When it was last told anything; 0 before that."""
        return self._state.at

    @property
    def wrong(self) -> list[Wrong]:
        """Every statement that was judged, oldest first."""
        return self._state.wrong

    def state(self) -> ForecastState:
        """All that was learned; a snapshot."""
        return msgspec.structs.replace(self._state, spend=self._spend.state())

    def know(self, hours: Mapping[int, int], now: int) -> None:
        """Take what the ledger has of the hours before it was first told anything: nanodollars by UTC hour."""
        before = {hour: nanos for hour, nanos in hours.items() if hour <= now}
        for hour, nanos in sorted(before.items()):
            self._spend.learn_one(Observation(hour, hour + HOUR, nanos))
        if before:
            self._state.known_since = min(self._state.known_since or now, min(before))
            self._course_of = -1

    def learn(self, standing: Standing, now: int) -> None:
        """Take in what was spent since it was last told, and judge what was said of periods that are over."""
        state = self._state
        is_first, last = not state.at, state.at
        state.known_since = state.known_since or now
        state.at = max(last, now)
        for counter in standing.counters:
            # The first total says nothing about when it was spent.
            fresh = counter.nanos - state.counted.get(counter.start, counter.nanos if is_first else 0)
            state.counted[counter.start] = counter.nanos
            if counter.start in state.said:
                state.said[counter.start].nanos = counter.nanos
            self._spread(fresh, max(last, counter.start), min(now, counter.end), counter.end)
        if is_first:
            self._spend.add(now, 0)
        known = {counter.start for counter in standing.counters}
        state.counted = {start: nanos for start, nanos in state.counted.items() if start in known}
        self._judge(now)

    def project(self, standing: Standing, now: int) -> Projection:
        """What will be, and note it where this is one of the points at which it will be judged."""
        if self._course_of != hour_of(now):
            self._course, self._course_of = self._spend.course(now), hour_of(now)
        point = _point(standing, now)
        records = {method: self._record(method, point) for method in METHODS}
        projection = project(standing, self._spend, self._course, self._state.known_since, records, now)
        if point:
            self._note(standing, projection, point, now)
        return projection

    def take_outcomes(self) -> list[tuple[int, int, bool]]:
        """The periods that were judged since this was last asked: start, what was counted in them, whether held."""
        found, self._outcomes = self._outcomes, []
        return found

    def _spread(self, nanos: int, start: int, end: int, last: int) -> None:
        """Put an amount into the hours that it was spent in, in proportion; what is late counts at its period's end."""
        if not nanos:
            return
        start = min(start, last - 1)
        if end <= start:
            self._spend.add(start, nanos)
            return
        rest, at = nanos, start
        while at < end:
            until = min(end, hour_of(at) + HOUR)
            part = nanos * (until - at) // (end - start) if until < end else rest
            self._spend.add(at, part)
            rest, at = rest - part, until

    def _record(self, method: Method, point: int) -> Record:
        """Of the same point of earlier periods; before the first point, as of the first."""
        at = max(1, point)
        return record_of([each.permille for each in self._state.wrong if (each.method, each.point) == (method, at)])

    def _note(self, standing: Standing, projection: Projection, point: int, now: int) -> None:
        start, said = standing.period_start, self._state.said
        if start not in said:
            said[start] = Said(standing.period_end, points={})
        found = said[start]
        found.was_held |= standing.is_held
        # Only at the point itself: what is said later knows more.
        length = standing.period_end - start
        if point in found.points or (now - start) * 2 * POINTS >= (2 * point + 1) * length:
            return
        counted = next((c.nanos for c in standing.counters if c.start == start), standing.spent_nanos)
        brought_in = standing.spent_nanos - counted
        by_method = {each.method: each.projected_nanos - brought_in for each in projection.estimates}
        found.points[point] = tuple(by_method.get(method) for method in METHODS)
        found.nanos, found.brought_in = counted, brought_in

    def _judge(self, now: int) -> None:
        for start, said in sorted(self._state.said.items()):
            if now < said.end + min(_SETTLED_AFTER, (said.end - start) // POINTS):
                continue
            del self._state.said[start]
            self._outcomes.append((start, said.nanos + said.brought_in, said.was_held))
            if said.was_held or said.nanos <= 0:
                continue
            for point, each in sorted(said.points.items()):
                for method, nanos in zip(METHODS, each, strict=True):
                    if nanos is not None:
                        permille = (nanos - said.nanos) * 1_000 // said.nanos
                        permille = max(-_PERMILLE_MAX, min(_PERMILLE_MAX, permille))
                        self._state.wrong.append(Wrong(method, start, point, permille))
        kept = sorted({each.period_start for each in self._state.wrong})[-PERIODS_KEPT:]
        self._state.wrong = [each for each in self._state.wrong if each.period_start in kept]


def new_forecaster(budget_id: str, value: str) -> Forecaster:
    """A forecast that knows nothing yet."""
    return Forecaster(ForecastState(budget_id=budget_id, value=value, counted={}, said={}, wrong=[]))


def _point(standing: Standing, now: int) -> int:
    """Which eighth of the period has passed; 0 in the first, and where there are no periods that end."""
    if standing.rolling_hours or standing.until(now) != standing.period_end:
        return 0
    length = standing.period_end - standing.period_start
    return min(POINTS - 1, max(0, now - standing.period_start) * POINTS // length) if length > 0 else 0


__all__ = ["FORECAST_STATES", "Counter", "ForecastState", "Forecaster", "Said", "Wrong", "new_forecaster"]
