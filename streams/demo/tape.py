"""Plays records at the pace of a simulated clock: past the gate, onto Kafka, and into the raw file."""

import asyncio
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from schemas.instants import HOUR, MINUTE
from streams.clock import Clock, elapsed_s
from streams.demo import company
from streams.demo.raw import RawFile
from streams.demo.traffic import Moment
from streams.sources.publisher import Delivery, Record

STEP_S = 0.03
#: The clock never jumps further than this at once, so that a pause of this process is no gap in the day.
STEP_MAX = 10 * MINUTE
HISTORY_STEP_MAX = 3 * HOUR


class Publishing(Protocol):
    """What the tape needs of ``streams.sources.publisher.UsagePublishing``."""

    async def send(self, record: Record) -> Delivery:
        """Hand one record over; the future ends when the broker has it."""
        ...


class Answer(Protocol):
    """What the gate says of a call."""

    @property
    def allowed(self) -> bool:
        """Whether it may go."""
        ...

    @property
    def action(self) -> str:
        """The gravest thing that is done to it."""
        ...

    @property
    def model_fallback(self) -> str | None:
        """The model that is called instead, if any."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """The most output tokens that it may have, if there is a bound."""
        ...


class Gate(Protocol):
    """What the tape needs of ``gateway.gate.ThrottleGate``."""

    def check(
        self,
        team: str = "",
        feature: str = "",
        model: str = "",
        *,
        environment: str = "",
        request_type: str = "",
        tokens: int = 0,
    ) -> Answer:
        """Whether a call may go, and how."""
        ...


class PlayedClock:
    """The simulated instant while the tape plays; before that the wall's."""

    def __init__(self, wall: Clock) -> None:
        self._wall = wall
        self._at = 0

    def now(self) -> int:
        """Microseconds since 1970."""
        return self._at or self._wall.now()

    def observe(self, event_time: int, source: str = "") -> None:
        """Nothing to learn: the tape says what time it is."""

    def move(self, at: int) -> None:
        """Go to an instant; never back."""
        self._at = max(self._at, at)


def as_allowed(record: Record, answer: Answer) -> Record:
    """The usage record of a call that went as its gate allowed: with the model and the length that it then had."""
    if answer.model_fallback is None and answer.max_tokens is None:
        return record
    event = json.loads(record.value)
    if answer.model_fallback is not None:
        # Who asked for what stays: the model that answered is billed.
        event["response_model"] = answer.model_fallback
    if answer.max_tokens is not None:
        event["output_tokens"] = min(event.get("output_tokens", 0), answer.max_tokens)
    return record._replace(value=json.dumps(event, ensure_ascii=False).encode())


class Tape:
    """``play`` publishes what is due; counted are what was published, what refused, and how far each slot is."""

    def __init__(self, publishing: Publishing, gate: Gate, raw: RawFile, clock: PlayedClock) -> None:
        self._publishing = publishing
        self._gate = gate
        self._raw = raw
        self._clock = clock
        self._waiting: set[Delivery] = set()
        self.published = 0
        self.failed = 0
        self.refused: Counter[str] = Counter()
        #: What the gate did to calls, by its gravest measure; a limit only where it refused.
        self.throttled: Counter[str] = Counter()
        #: Calls per team that were let through after this team had been refused at least once.
        self.let_through_again: Counter[str] = Counter()
        #: ``{topic: {partition: one past the last offset}}`` as the broker acknowledged it.
        self.ends: dict[str, dict[int, int]] = {}
        #: Seconds that the clock stood still because the service was behind.
        self.waited_s = 0.0
        #: (played instant, real seconds) whenever the clock moved.
        self._moved: list[tuple[int, float]] = []

    def real_s(self, at: int) -> float | None:
        """When the played day reached this instant, on the clock of ``elapsed_s``; None where it has not."""
        place = bisect_left(self._moved, (at, 0.0))
        return self._moved[place][1] if place < len(self._moved) else None

    async def play(
        self,
        moments: Sequence[Moment],
        span: tuple[int, int],
        seconds: float,
        reached: Callable[[], int],
        *,
        lag_max: int,
        step_max: int = STEP_MAX,
    ) -> None:
        """Publish all moments of a span of simulated time in ``seconds`` or more.

        The clock waits while ``reached()``, the event time that the ledger has, is over ``lag_max`` behind.
        """
        begins, ends = span
        last, at, place = elapsed_s(), begins, 0
        while at < ends:
            now = elapsed_s()
            passed, last = now - last, now
            if at - max(begins, reached()) > lag_max:
                self.waited_s += passed
            else:
                at = min(ends, at + min(step_max, int(passed / seconds * (ends - begins))))
                self._clock.move(at)
                self._moved.append((at, now))
                while place < len(moments) and moments[place].at <= at:
                    await self._publish(moments[place])
                    place += 1
            await asyncio.sleep(STEP_S)
        for moment in moments[place:]:
            await self._publish(moment)

    async def settle(self, timeout_s: float) -> None:
        """Wait until the broker has everything.

        Raises:
            TimeoutError: it has not within ``timeout_s``.
        """
        async with asyncio.timeout(timeout_s):
            while self._waiting:
                await asyncio.wait(set(self._waiting))
        self._raw.flush()

    async def _publish(self, moment: Moment) -> None:
        record = moment.record
        if moment.is_call:
            decision = self._gate.check(
                moment.team,
                moment.feature,
                moment.model,
                environment=company.ENVIRONMENT,
                request_type=moment.request_type,
                tokens=moment.tokens,
            )
            if not decision.allowed:
                self.throttled[decision.action] += 1
                self.refused[moment.team] += 1
                self.let_through_again.pop(moment.team, None)
                return
            if moment.team in self.refused:
                self.let_through_again[moment.team] += 1
            if decision.model_fallback is not None:
                self.throttled["downgrade"] += 1
            record = as_allowed(record, decision)
        delivery = await self._publishing.send(record)
        self._raw.append(record)
        self._waiting.add(delivery)
        topic = record.topic
        delivery.add_done_callback(lambda done: self._delivered(topic, done))

    def _delivered(self, topic: str, delivery: Delivery) -> None:
        self._waiting.discard(delivery)
        if delivery.cancelled() or delivery.exception() is not None:
            self.failed += 1
            return
        self.published += 1
        metadata = delivery.result()
        slots = self.ends.setdefault(topic, {})
        slots[metadata.partition] = max(slots.get(metadata.partition, 0), metadata.offset + 1)
