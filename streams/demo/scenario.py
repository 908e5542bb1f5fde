"""What goes wrong in the demo's day, and when: everything that a seed decides. Pure: no clock, no I/O.

The day ends a little after a midnight that lies just behind the real ``now``: budgets are kept in the time
zone where that midnight is one, so the played day is today's, and a new budget period begins before the demo ends.
"""

import random
from typing import Literal, NamedTuple

from schemas.instants import DAY, HOUR, MINUTE, hour_of
from schemas.money import NANOS
from streams.demo import company
from streams.demo.company import Feature

Kind = Literal["spend_spike", "runaway_request", "gpu_idle", "budget_overrun"]

HISTORY_DAYS = 7
#: The session that makes a budget run out by calling again and again.
RETRIES = "retry-loop"
#: How long the day goes on after midnight: the release, and traffic that flows again.
TAIL = 2 * HOUR


class Calendar(NamedTuple):
    """The played time, microseconds since 1970: history, then the live day, then its tail."""

    history: int
    day: int
    midnight: int
    end: int
    #: The time zone (IANA) in which ``day`` and ``midnight`` are midnights.
    zone: str


class Incident(NamedTuple):
    """One thing that goes wrong. ``begins`` and ``ends`` are alike for what is only one instant."""

    kind: Kind
    team: str
    feature: str
    #: What its page is about: the team, the feature, the GPU or the budget.
    subject: str
    begins: int
    ends: int
    #: In words, for people.
    story: str
    #: Percent of the normal spend (a spike), tokens (a runaway), nanodollars per hour (an overrun); else 0.
    size: int


class Scenario(NamedTuple):
    """A seed's day."""

    seed: int
    calendar: Calendar
    spike: Incident
    runaway: Incident
    idle: Incident
    overrun: Incident

    @property
    def incidents(self) -> tuple[Incident, ...]:
        """All incidents, in the order of their beginning."""
        return tuple(sorted((self.spike, self.runaway, self.idle, self.overrun), key=lambda i: i.begins))

    def chance(self, purpose: str) -> random.Random:
        """Reproducible randomness for one purpose, apart from all others."""
        return random.Random(f"{self.seed}:{purpose}")


def calendar_before(now: int) -> Calendar:
    """The played time that ends at most an hour before ``now``.

    >>> from schemas.instants import parse_instant, format_instant
    >>> found = calendar_before(parse_instant("2026-11-21T04:48:00Z"))
    >>> format_instant(found.midnight), found.zone
    ('2026-11-21T02:00:00Z', 'Etc/GMT+2')
    """
    midnight = hour_of(now - TAIL)
    day = midnight - DAY
    return Calendar(day - HISTORY_DAYS * DAY, day, midnight, midnight + TAIL, _zone(midnight % DAY // HOUR))


def _zone(utc_hour: int) -> str:
    """The fixed zone in which this hour of UTC is midnight; POSIX counts west as positive."""
    if utc_hour == 0:
        return "Etc/UTC"
    return f"Etc/GMT+{utc_hour}" if utc_hour <= 12 else f"Etc/GMT-{24 - utc_hour}"


def daily_budget(team: str) -> str:
    """The id of a team's daily budget."""
    return f"{team}-daily"


def plan(seed: int, now: int) -> Scenario:
    """The day of a seed, ending just before ``now``."""
    calendar = calendar_before(now)
    chance = random.Random(seed)
    day = calendar.day
    spiking = chance.choice(company.SPIKING)
    running_away = chance.choice([f for f in company.RUNNING_AWAY if f.team != spiking.team])
    return Scenario(
        seed,
        calendar,
        _spike(spiking, day, chance),
        _runaway(running_away, day, chance),
        _idle(chance.choice(company.GPUS), day, chance),
        _overrun(chance.choice(company.LEAKING), day, chance),
    )


def _spike(feature: Feature, day: int, chance: random.Random) -> Incident:
    begins = day + 9 * HOUR + chance.randrange(0, 5 * 60) * MINUTE
    ends = begins + chance.randrange(130, 181) * MINUTE
    percent = chance.randrange(400, 601, 10)
    story = f"{feature.name} sends whole documents: {percent / 100:.1f}× its usual spend"
    return Incident("spend_spike", feature.team, feature.name, feature.team, begins, ends, story, percent)


def _runaway(feature: Feature, day: int, chance: random.Random) -> Incident:
    at = day + 10 * HOUR + chance.randrange(0, 7 * 60) * MINUTE
    tokens = chance.randrange(180_000, 900_001, 1_000)
    story = f"an agent of {feature.name} pastes a repository: {tokens:,} tokens in one request"
    return Incident("runaway_request", feature.team, feature.name, feature.name, at, at, story, tokens)


def _idle(gpu: company.Gpu, day: int, chance: random.Random) -> Incident:
    begins = day + 9 * HOUR + chance.randrange(0, 6 * 60) * MINUTE
    ends = begins + chance.randrange(110, 151) * MINUTE
    story = f"{gpu.node}/{gpu.index} waits for a job that has died"
    return Incident("gpu_idle", gpu.team, gpu.feature, gpu.uuid, begins, ends, story, 0)


def _overrun(feature: Feature, day: int, chance: random.Random) -> Incident:
    begins = day + 7 * HOUR + chance.randrange(0, 90) * MINUTE
    ends = day + 23 * HOUR + 30 * MINUTE
    cents = chance.randrange(410, 446)
    story = f"{feature.name} retries a tool call that never succeeds: ${cents / 100:.2f} an hour on top"
    return Incident(
        "budget_overrun", feature.team, feature.name, daily_budget(feature.team), begins, ends, story,
        cents * NANOS // 100,
    )  # fmt: skip
