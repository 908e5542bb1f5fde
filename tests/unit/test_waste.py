"""Money that buys nothing is a ticket with money per month, told once; the fixed rule of weeks is exact."""

import pytest

from schemas.alerts import Alert
from schemas.instants import DAY, HOUR, parse_instant
from schemas.money import NANOS
from schemas.topics import ALERTS
from streams.agents.waste import WasteLoop
from streams.core.resources import Day, History, Resource, last_uses
from streams.core.waste import Told, WastePolicy, find, of_alerts, stated, week_of
from streams.history_ports import ResourceRow

#: A Saturday, the day number 20 778.
NOW = parse_instant("2026-11-21T12:00:00Z")
TODAY = NOW // DAY
POLICY = WastePolicy()
CHAT = Resource("", "search", "", "chat", "llm", "openai", "gpt-4o", "prod")


def history(
    *usd: float, resource: Resource = CHAT, known: int | None = None, unused: float | None = 0, **more: int
) -> History:
    """Dollars of the days before today, the newest last; ``unused`` days ago it was last used, None: never."""
    days = [Day(TODAY - len(usd) + n, int(each * NANOS), **more) for n, each in enumerate(usd)]
    used = None if unused is None else NOW - int(unused * DAY)
    return History(resource, TODAY - (len(usd) if known is None else known), used, days)


class Desk:
    """Passes over the ledger, with the alerts that are in it."""

    def __init__(self, policy: WastePolicy = POLICY) -> None:
        self.policy = policy
        self.alerts: list[Alert] = []
        self._standing: dict[str, tuple[Alert, int]] = {}

    def look(self, *histories: History, days: float = 0) -> list[Alert]:
        now = NOW + int(days * DAY)
        told: dict[tuple[str, str], Told] = of_alerts(self._standing.values())
        said = stated(find(histories, told, now, self.policy), told, now, self.policy)
        self._standing |= {alert.dedup_key: (alert, now) for alert in said}
        self.alerts += said
        return said


@pytest.mark.parametrize(
    ("days", "known", "rule"),
    [
        ([10] * 7 + [15] * 7, 14, False),
        ([10] * 7 + [15] * 6 + [15.01], 14, True),
        ([0] * 7 + [0.01] * 7, 14, True),
        ([10] * 7 + [50] * 7, 13, False),
    ],
    ids=["one and a half times is not above it", "a cent above it is", "nothing the week before", "known too short"],
)
def test_the_fixed_rule_of_weeks_is_exact(days: list[float], known: int, rule: bool):
    assert week_of(history(*days, known=known), NOW, POLICY)[2] is rule


@pytest.mark.parametrize(
    ("days", "told"),
    [
        ([1] * 28 + [1] * 7 + [4] * 7, True),
        ([1] * 7 + [4] * 7, True),
        ([0.1] * 7 + [1] * 7, False),
        ([4] * 7 + [4.1] * 7 + [1] * 7 + [4] * 7, False),
    ],
    ids=["three dollars a day more", "known for two weeks", "27 dollars a month are not worth it", "such weeks it has"],
)
def test_more_than_the_week_before_is_a_ticket_where_it_is_worth_one_and_news(days: list[float], told: bool):
    alerts = Desk().look(history(*days))
    assert [(a.rule, a.tier, a.observed) for a in alerts] == ([("week_over_week", "ticket", "90")] if told else [])
    if told:
        assert "cost $28.00 in the last seven days, 4.0× the week before: $90.00 more a month" in alerts[0].summary


def test_an_unused_resource_is_told_at_30_days_warned_at_53_and_its_stop_proposed_at_60():
    desk = Desk()
    for days in range(70):
        desk.look(history(*[2] * 35, known=200, unused=days), days=0)
    assert [(a.status, a.threshold, a.severity) for a in desk.alerts] == [
        ("opened", "30 days", "warning"),
        ("updated", "53 days", "warning"),
    ], "a warning that was given today is not a week old"
    assert desk.alerts[0].summary == (
        "gpt-4o of openai, feature chat of team search in prod, has not been used for 30 days, and cost $60.00 in the last thirty"
    )


def test_the_stop_is_proposed_a_week_after_the_warning_however_late_that_was():
    desk = Desk()
    idle = history(*[3] * 60, known=200, unused=100)
    [warning] = desk.look(idle)
    assert (warning.status, warning.threshold) == ("opened", "53 days")
    assert "its stop is proposed 7 days after this warning" in warning.summary
    assert desk.look(idle, days=6.9) == []
    [stop] = desk.look(idle, days=7)
    assert (stop.status, stop.threshold, stop.severity, stop.tier) == ("updated", "60 days", "critical", "ticket")
    assert stop.action == "A stop is proposed; Sluice stops nothing by itself"
    assert desk.look(idle, days=8) == desk.look(idle, days=9) == []
    [over] = desk.look(history(*[3] * 60, known=200, unused=-9), days=9)
    assert (over.status, over.dedup_key) == ("resolved", warning.dedup_key)


@pytest.mark.parametrize(
    "quiet",
    [
        history(*[2] * 35, unused=29),
        history(*[1] * 35, unused=45),
        history(*[0] * 35, unused=45),
        history(*[2] * 29, unused=None),
    ],
    ids=["used 29 days ago", "30 dollars a month", "it costs nothing", "never used, and known for 29 days"],
)
def test_what_is_not_worth_a_ticket_is_only_in_the_inventory(quiet: History):
    assert Desk().look(quiet) == []


def test_what_is_only_billed_counts_as_used_while_its_feature_or_team_is():
    chat = history(1, unused=3)
    store = History(CHAT._replace(category="vector", provider="pinecone", model="index"), TODAY - 90, None, ())
    teams = History(store.resource._replace(feature="__unattributed__"), TODAY - 90, None, ())
    others = History(store.resource._replace(feature="old-search"), TODAY - 90, None, ())
    uses = last_uses([chat, store, teams, others])
    assert [uses[each.resource] for each in (store, teams, others)] == [NOW - 3 * DAY, NOW - 3 * DAY, None]


@pytest.mark.parametrize(
    ("environment", "interactive", "known", "told"),
    [("staging", 0, 14, True), ("staging", 1, 14, False), ("staging", 0, 13, False), ("Prod", 0, 14, False), ("", 0, 14, False)],
    ids=["nobody asks it", "somebody does", "known for 13 days", "production", "no name"],
)  # fmt: skip
def test_spend_outside_production_that_nobody_asked_for(environment: str, interactive: int, known: int, told: bool):
    resource = CHAT._replace(environment=environment)
    alerts = Desk().look(history(*[2] * 14, resource=resource, known=known, interactive=interactive))
    assert [a.rule for a in alerts] == (["nonprod_spend"] if told else [])
    if told:
        assert alerts[0].summary == (
            "Environment staging of team search has had no interactive request for 14 days, and costs $60.00 a month"
        )


@pytest.mark.parametrize(
    ("hours", "days", "usd", "told"),
    [(0b100, 14, 2, True), (0b100, 12, 2, True), (0b100, 11, 3, False), (0xFFFF, 14, 2, False), (0b100, 14, 1, False)],
    ids=["every night", "12 of 14 nights", "11 nights", "all day long is no job", "30 dollars a month"],
)
def test_a_job_that_runs_at_the_same_hour_every_day(hours: int, days: int, usd: int, told: bool):
    each = history(*[0] * (14 - days) + [usd] * days, known=14, job_nanos=usd * NANOS, job_hours=hours)
    kept = [day for day in each.days if day.nanos]
    alerts = [a for a in Desk().look(each._replace(days=kept)) if a.rule == "recurring_job"]
    assert bool(alerts) == told
    if told:
        assert alerts[0].summary.startswith("A job runs every day at 02:00 UTC on gpt-4o of openai, feature chat")


@pytest.mark.parametrize(
    ("feature", "days", "told"),
    [
        ("github-ci", [2] * 21 + [4] * 7, True),
        ("github-ci", [2] * 21 + [2.4] * 7, False),
        ("github-ci", [0.2] * 21 + [0.4] * 7, False),
        ("circus", [2] * 21 + [2.9] * 7, False),
        ("ci", [2] * 7 + [4] * 6, False),
    ],
    ids=["it doubles", "a fifth more", "six dollars a month", "not CI", "known too short"],
)
def test_ci_that_grows(feature: str, days: list[float], told: bool):
    alerts = [a for a in Desk().look(history(*days, resource=CHAT._replace(feature=feature))) if a.rule == "ci_growth"]
    assert [(a.scope_type, a.scope_id, a.observed) for a in alerts] == ([("ci", "search", "60")] if told else [])


def test_a_finding_is_told_once_resolved_once_and_then_told_as_a_further_episode():
    desk = Desk()
    up, flat = history(*[1] * 7, *[4] * 7), history(*[4] * 14)
    desk.look(up)
    assert desk.look(up, days=0.2) == []
    desk.look(flat, days=0.3)
    assert desk.look(flat, days=0.3) == []
    desk.look(up, days=0.4)
    assert [(a.status, a.episode) for a in desk.alerts] == [("opened", 1), ("resolved", 1), ("opened", 2)]
    assert len({a.dedup_key for a in desk.alerts}) == 1
    assert len({a.alert_id for a in desk.alerts}) == 3


def test_two_workers_that_look_at_once_say_the_same_under_the_same_ids():
    histories = [history(*[1] * 7, *[4] * 7), history(*[2] * 35, resource=CHAT._replace(feature="old"), unused=45)]
    assert Desk().look(*histories) == Desk().look(*reversed(histories))
    assert len(Desk().look(*histories)) == 2


def test_a_policy_without_time_for_a_warning_is_refused():
    with pytest.raises(ValueError, match="warned"):
        WastePolicy(unused_days=55, stop_days=60)


class Store:
    """A ledger with one resource that nobody uses."""

    def __init__(self, heard: int | None = NOW) -> None:
        self.heard, self.done, self.refreshed, self.alerts = heard, 0, [], []

    async def take_turn(self, now: int, hold_us: int) -> bool:
        return self.done < now - now % HOUR

    async def end_turn(self, now: int) -> None:
        self.done = now - now % HOUR

    async def heard_until(self) -> int | None:
        return self.heard

    async def refresh(self, since_day: int) -> None:
        self.refreshed.append(TODAY - since_day)

    async def read(self, since_day: int) -> list[ResourceRow]:
        days = [(TODAY - 35 + n, 2 * NANOS, 0, 0, 0, 0) for n in range(35)]
        return [ResourceRow(tuple(CHAT), TODAY - 90, NOW - 45 * DAY, days)]

    async def told(self, rules, since: int) -> list[tuple[Alert, int]]:
        return self.alerts


class At:
    def __init__(self, now: int) -> None:
        self.at = now

    def now(self) -> int:
        return self.at

    def observe(self, event_time: int, source: str = "") -> None: ...


async def test_one_pass_an_hour_and_only_the_first_of_a_day_reads_all_days_anew():
    store, said, clock = Store(), [], At(NOW)
    loop = WasteLoop(store, lambda records: _kept(said, records), clock, POLICY)
    assert [await loop.look(), await loop.look()] == [1, 0]
    assert [record.topic for record in said] == [ALERTS]
    clock.at = store.heard = NOW + HOUR
    assert await loop.look() == 1, "the ledger does not have the alert yet: it is said again, under the same id"
    assert said[0].key == said[1].key
    assert store.refreshed == [35, 3]


async def test_where_nothing_was_heard_nothing_is_unused():
    assert await WasteLoop(Store(None), None, At(NOW), POLICY).look() == 0
    silent = Store(heard=NOW - 60 * DAY)
    assert await WasteLoop(silent, None, At(NOW), POLICY).look() == 0


async def _kept(said: list, records) -> None:
    said += records
