"""What is made of an hour's score: page, ticket or note; pure questions of a score and a policy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from detectors.spend_spike import SpendScore
from schemas.alerts import Tier
from schemas.instants import DAY, HOUR, MINUTE, to_datetime, to_micros
from streams.core.periods import time_zone

RANK: Mapping[Tier, int] = {"note": 0, "ticket": 1, "page": 2}


class Kind(NamedTuple):
    """One kind of scope: what its contributors are called, and whether it may wake somebody."""

    parts: str
    may_page: bool


#: By the word before the colon. An organisation's or a team's spike wakes somebody, what lies across or below them is
#: for working hours: one cause must not page twice (docs/detection-spend.md).
KINDS: Mapping[str, Kind] = {
    "org": Kind("team", True),
    "team": Kind("feature", True),
    "feature": Kind("team", False),
    "team_feature": Kind("model", False),
    "model": Kind("team", False),
}
_OTHER = Kind("", False)


@dataclass(frozen=True, slots=True)
class SpikePolicy:
    """A spike is above ``ratio_percent`` of what is expected, and by more than ``floor_nanos``."""

    ratio_percent: int = 150
    floor_nanos: int = 5_000_000_000
    #: A finding whose hour ended longer ago is history: a note, never a page.
    live_within_us: int = 3 * HOUR
    #: How many closed hours below the bar end an incident.
    quiet_hours: int = 3
    #: How long after its end an hour stays open for what is still under way.
    grace_us: int = 5 * MINUTE
    #: How long after its end an hour can be corrected.
    keep_us: int = 3 * HOUR
    #: The most hours kept open for correction, however far apart the source partitions are.
    hours_max: int = 12
    #: After this long, what is still high is learned: a new level, and no incident for ever.
    accept_after_us: int = 24 * HOUR
    #: An incident goes on while the excess of an hour is one in so many parts of its peak's: it does not flutter.
    stays_parts: int = 3
    #: An open incident is said again when its hour first passes so many percent of what is expected.
    steps: tuple[int, ...] = (300, 1_000)
    #: It pages where its excess by the owner's morning is above so many nanodollars,
    page_floor_nanos: int = 5_000_000_000
    #: or above this share of the scope's budget of a month, where there is one (nanodollars, by scope).
    page_budget_percent: int = 1
    monthly_nanos: Mapping[str, int] = field(default_factory=dict)
    #: When the owner's morning is.
    morning_hour: int = 9
    timezone: str = "UTC"
    runbook: str = ""

    def __post_init__(self) -> None:
        if self.ratio_percent <= 100 or self.floor_nanos < 0:
            raise ValueError("a spike needs ratio_percent above 100 and floor_nanos of at least 0")
        if self.quiet_hours < 1 or self.hours_max < 2:
            raise ValueError("quiet_hours must be at least 1 and hours_max at least 2")
        if not 0 <= self.grace_us <= self.keep_us:
            raise ValueError("grace_us must be between 0 and keep_us: an hour is learned before it is frozen")
        if not 0 <= self.morning_hour <= 23:
            raise ValueError("morning_hour is an hour of the day, from 0 to 23")
        time_zone(self.timezone)


def kind_of(scope: str) -> Kind:
    """What kind a scope is.

    >>> kind_of("team:search").may_page, kind_of("feature:chat").parts
    (True, 'team')
    """
    return KINDS.get(scope.partition(":")[0], _OTHER)


def is_hot(score: SpendScore | None, policy: SpikePolicy) -> bool:
    """Whether a score is above the fixed rule and the floor, in integers.

    >>> policy, rest = SpikePolicy(), {"previous": None, "yesterday": None, "strangeness": 0}
    >>> is_hot(SpendScore(16_000_000_000, 10_000_000_000, 6_000_000_000, 160, **rest), policy)
    True
    >>> is_hot(SpendScore(15_000_000_000, 10_000_000_000, 5_000_000_000, 150, **rest), policy)
    False
    """
    if score is None or score.expected is None or score.excess <= policy.floor_nanos:
        return False
    return score.observed * 100 > policy.ratio_percent * score.expected


def is_strange(score: SpendScore | None, policy: SpikePolicy) -> bool:
    """Whether it is above the learned bar as well: an incident begins."""
    return score is not None and is_hot(score, policy) and score.strangeness >= 1_000


def goes_on(score: SpendScore | None, peak: SpendScore, policy: SpikePolicy) -> bool:
    """Whether an incident with this peak goes on: above the fixed rule, and strange or not far below the peak.

    The learned bar gets used to an incident while it lasts; what people explained is not strange at all.
    """
    if score is None or not is_hot(score, policy) or not score.strangeness:
        return False
    return score.strangeness >= 1_000 or score.excess * policy.stays_parts >= peak.excess


def bar(expected: int, policy: SpikePolicy) -> int:
    """The spend above which an hour breaks the fixed rule, in nanodollars.

    >>> bar(100_000_000_000, SpikePolicy()), bar(2_000_000_000, SpikePolicy())
    (150000000000, 7000000000)
    """
    return max(expected * policy.ratio_percent // 100, expected + policy.floor_nanos)


def step_of(score: SpendScore, policy: SpikePolicy) -> int:
    """How many steps of severity an hour has passed; where nothing is expected, of the floor."""
    usual = max(score.expected or 0, policy.floor_nanos, 1)
    return sum(score.observed * 100 >= step * usual for step in policy.steps)


def morning_after(instant: int, policy: SpikePolicy) -> int:
    """The owner's next morning.

    >>> from schemas.instants import parse_instant, format_instant
    >>> noon, dawn = parse_instant("2026-11-20T12:00:00Z"), parse_instant("2026-11-20T03:00:00Z")
    >>> format_instant(morning_after(noon, SpikePolicy())), format_instant(morning_after(dawn, SpikePolicy()))
    ('2026-11-21T09:00:00Z', '2026-11-20T09:00:00Z')
    """
    zone = time_zone(policy.timezone)
    for day in range(3):
        local = to_datetime(instant + day * DAY).astimezone(zone)
        morning = to_micros(local.replace(hour=policy.morning_hour, minute=0, second=0, microsecond=0))
        if morning > instant:
            return morning
    raise AssertionError("two days have a morning")


def projected(hour: int, score: SpendScore, policy: SpikePolicy) -> int:
    """The excess by the owner's morning, nanodollars: what there is, and as much in every hour until then.

    The running hour counts with what it has: a lower bound.
    """
    hours = (morning_after(hour + HOUR, policy) - hour - HOUR) // HOUR
    return max(score.excess, score.half_day_excess) + max(0, score.excess) * hours


def tier_of(scope: str, hour: int, score: SpendScore, policy: SpikePolicy) -> Tier:
    """What an hour above the fixed rule asks of people, by itself."""
    if not is_strange(score, policy):
        return "note"
    if score.is_cold or not kind_of(scope).may_page:
        return "ticket"
    month = policy.monthly_nanos.get(scope)
    needed = policy.page_floor_nanos if month is None else month * policy.page_budget_percent // 100
    return "page" if projected(hour, score, policy) > needed else "ticket"
