"""Runaway requests: how often the long-context service pages, and whether a runaway is told with its own event."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from detectors.judges import make_judge
from detectors.judging import Judge, Verdict
from schemas.instants import HOUR, SECOND

LIMIT = 50_000
#: The trace is a quarter of an hour: it is played until three hours are full.
PLAYED = 3 * HOUR
RUNAWAYS = 40
#: A runaway of a service that never exceeds the limit, and one of a service that does all the time.
SHORT, LONG = (55_000, 400_000), (400_000, 1_000_000)

Requests = Sequence[tuple[int, int]]


class LiteralRule:
    """The rule to the letter: every request above the limit pages."""

    def step(self, timestamp_us: int, value: float | None) -> Verdict:
        """Judge a request."""
        tokens = value or 0
        return Verdict(None, tokens / LIMIT, tokens > LIMIT, False)


JUDGES: Mapping[str, Callable[[], Judge]] = {
    "shipped": lambda: make_judge("requests", SECOND),
    "rule: above 50 000": LiteralRule,
}


def played(requests: Requests) -> list[tuple[int, int]]:
    """The trace over and over, until ``PLAYED`` is full."""
    length = requests[-1][0] - requests[0][0] + SECOND
    times = max(1, -(-PLAYED // length))
    return [(at + turn * length, tokens) for turn in range(times) for at, tokens in requests]


def with_runaways(requests: Requests, sizes: tuple[int, int], seed: int) -> tuple[list[tuple[int, int]], set[int]]:
    """The requests with huge ones in between, behind the first tenth; and the places of those."""
    dice = random.Random(seed)
    places = dice.sample(range(len(requests) // 10, len(requests)), min(RUNAWAYS, len(requests) // 2))
    found, runaways, wanted = [], set(), set(places)
    for place, request in enumerate(requests):
        if place in wanted:
            runaways.add(len(found))
            found.append((request[0], dice.randint(*sizes)))
        found.append(request)
    return found, runaways


def judge_requests(long: Requests, short: Requests, seed: int = 1) -> dict[str, dict[str, Any]]:
    """Figures by contender; what the traces at hand allow."""
    return {name: _judged(make, long, short, seed) for name, make in JUDGES.items()}


def _judged(make: Callable[[], Judge], long: Requests, short: Requests, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if long:
        trace = played(long)
        said = _sent(make(), trace)
        hours = (trace[-1][0] - trace[0][0]) / HOUR
        found |= {
            "hours": hours,
            "above_limit_per_hour": sum(tokens > LIMIT for _, tokens in trace) / hours,
            "pages_per_hour": sum(page for page, _ in said) / hours,
            "pages_in_the_first_turn": sum(page for page, _ in said[: len(long)]),
            "tickets_per_hour": sum(ticket for _, ticket in said) / hours,
        }
        found |= _found("long_context", make(), *with_runaways(trace, LONG, seed))
    if short:
        said = _sent(make(), short)
        found["short_context_pages"] = sum(page for page, _ in said)
        found |= _found("short_context", make(), *with_runaways(short, SHORT, seed))
    return found


def _sent(judge: Judge, requests: Requests) -> list[tuple[bool, bool]]:
    return [(said.page, said.ticket) for said in (judge.step(at, float(tokens)) for at, tokens in requests)]


def _found(name: str, judge: Judge, requests: Requests, runaways: set[int]) -> dict[str, Any]:
    """A runaway is found where its own event sends something, or where the page of its incident is out already."""
    said = _sent(judge, requests)
    paged = [place for place, (page, _) in enumerate(said) if page]
    told = sum(any(said[place]) for place in runaways)
    covered = sum(
        any(said[place]) or any(0 <= requests[place][0] - requests[p][0] <= HOUR for p in paged if p <= place)
        for place in runaways
    )
    count = len(runaways)
    return {
        f"{name}_runaways": count,
        f"{name}_told_with_their_event": told / count if count else None,
        f"{name}_told_or_in_an_open_incident": covered / count if count else None,
    }
