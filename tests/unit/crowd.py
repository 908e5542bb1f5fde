"""A crowd of callers before gateways, in stream time: what a budget is worth when much is under way at once.

BUDGET's own decisions and the gateways' own book; only the calls are made up. Callers call again as soon as they are
answered, and a second after each refusal. A gateway that has too many calls takes longer for each of them.
"""

import heapq
import itertools
import random
from typing import NamedTuple

from gateway.commands import CommandBook
from schemas.instants import SECOND
from schemas.money import NANOS
from streams.core import budgets
from streams.core.budgets import Around, Policy
from tests.unit.records import NOON
from tests.unit.test_budgets import TERMS, said


class Crowd(NamedTuple):
    """Who calls, and how quickly what is said about it gets around; times in seconds, money in parts of the budget."""

    callers: int = 200
    #: The part of the callers that each gateway has.
    gateways: tuple[float, ...] = (0.8, 0.2, 0.0)
    #: What one call costs, in parts of the budget.
    cost: float = 0.0007
    #: How long a call takes where nothing else is done, at least and at most.
    takes_s: tuple[float, float] = (0.6, 0.9)
    #: Calls a second that all gateways can do together; more take longer.
    capacity: float = 85.0
    #: From a call's end to BUDGET, and from a command to a gateway's obeying: at least and at most.
    lag_s: tuple[float, float] = (0.2, 1.5)
    obeys_s: tuple[float, float] = (0.1, 2.0)
    seed: int = 1


class Played(NamedTuple):
    """What became of it, in percent of the budget and seconds."""

    spent: float
    closed_after_s: float
    commands: int


def play(crowd: Crowd, longest_s: float = 600.0) -> Played:
    """Until the budget is closed and every call under way has ended, or ``longest_s`` have passed."""
    return _Play(crowd).run(longest_s)


class _Play:
    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.random = random.Random(crowd.seed)
        self.terms = TERMS._replace(hard=True, amount_nanos=100 * NANOS, defined_nanos=100 * NANOS)
        self.state = None
        self.books = [CommandBook(clock=lambda: NOON) for _ in crowd.gateways]
        self.under_way = 0
        self.spent = self.heard = 0.0
        self.ended = self.ended_ms = self.ended_cs = 0
        self.commands = self.offset = 0
        self.closed_at: float | None = None
        self.live: dict[str, int] = {}
        self.delays: dict[str, int] = {}
        self.numbers = itertools.count()
        self.events: list = []

    def at(self, when: float, what, *arguments) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), what, arguments))

    def run(self, longest_s: float) -> Played:
        shares = list(itertools.accumulate(self.crowd.gateways))
        for caller in range(self.crowd.callers):
            place = next(n for n, share in enumerate(shares) if (caller + 0.5) / self.crowd.callers < share + 1e-9)
            self.at(caller / self.crowd.callers, self.call, place)
        self.at(0.05, self.state_it)
        while self.events:
            when, _, what, arguments = heapq.heappop(self.events)
            if when > longest_s or (self.closed_at is not None and not self.under_way and when > self.closed_at + 20):
                break
            what(when, *arguments)
        return Played(self.spent * 100, self.closed_at or longest_s, self.commands)

    def call(self, now: float, place: int) -> None:
        decision = self.books[place].check("search", "chat", "gpt-4o", now=NOON + round(now * SECOND))
        if not decision.allowed:
            self.at(now + 1.0, self.call, place)
            return
        self.under_way += 1
        takes = self.random.uniform(*self.crowd.takes_s)
        # What a gateway cannot do at once waits: each call takes its share of what there is.
        waits = self.under_way / self.crowd.capacity * self.random.uniform(0.3, 1.7)
        self.at(now + max(takes, waits), self.end, place, now)

    def end(self, now: float, place: int, began: float) -> None:
        self.under_way -= 1
        self.spent += self.crowd.cost
        self.at(now, self.call, place)
        self.at(now + self.random.uniform(*self.crowd.lag_s), self.hear, round((now - began) * 1000))

    def hear(self, now: float, ms: int) -> None:
        self.ended, self.ended_ms = self.ended + 1, self.ended_ms + ms
        self.ended_cs += ms * ms // 100

    def state_it(self, now: float) -> None:
        self.at(now + 0.1, self.state_it)
        at = NOON + round(now * SECOND)
        lag = round(self.crowd.lag_s[0] * SECOND)
        self.offset += 1
        statement = said(0, offset=self.offset, at=at - lag)
        statement.cost_nanos = round(self.ended * self.crowd.cost * 100 * NANOS)
        statement.requests, statement.duration_ms, statement.squared_cs = self.ended, self.ended_ms, self.ended_cs
        self.state = budgets.take_in(self.state, self.terms, statement)
        delays = sorted(self.delays.values())
        around = Around(live=self.live, delay_us=delays[-1] if delays else SECOND, lag_us=lag)
        decision = budgets.decide(self.state, self.terms, at, Policy(), (), around)
        if decision.command is not None:
            self.commands += 1
            if decision.command.action == "block" and self.closed_at is None:
                self.closed_at = now
            for place in range(len(self.books)):
                self.at(now + self.random.uniform(*self.crowd.obeys_s), self.obey, place, decision.command, now)

    def obey(self, now: float, place: int, command, issued: float) -> None:
        at = NOON + round(now * SECOND)
        self.books[place].apply(command.key(), command, at)
        self.live[f"gw-{place}"] = at
        self.delays[f"gw-{place}"] = round((now - issued) * SECOND)
