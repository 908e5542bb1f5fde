"""What people answer and plan, end to end on the pure core: an incident, the answer, and the same once more."""

from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.spend_spike import Siblings
from schemas.alerts import Alert
from schemas.answers import AlertAnswer, PlannedEvent
from schemas.instants import DAY, HOUR, MINUTE, parse_instant
from streams.core.answers import Lessons, wholes
from streams.core.detect_spike import step_spike, tick_spike
from streams.core.detect_spike_policy import SpikePolicy
from streams.core.detect_spike_state import SpikeState
from streams.core.detect_spike_taught import take_spike
from tests.unit.spike_scope import MONDAY, USD, minutes, say, stream_time

POLICY = SpikePolicy(quiet_hours=1)
#: Spend of an ordinary hour, and the hour of the first incident, after six days.
USUAL, FIRST = 20, 24 * 6 + 10


def answer(alert: Alert, kind: str, at: int, *, version: int = 1, usd: int = 0, until: int = 0) -> AlertAnswer:
    return AlertAnswer(
        alert=alert.dedup_key, rule=alert.rule, answer=kind, teaches=alert.teaches,
        starts=parse_instant(alert.period_start), until=until or parse_instant(alert.period_end),
        nanos=usd * USD, known_from=at, version=version,
    )  # fmt: skip


def event(
    first: int, last: int, usd: int, *, scope: str = "team:search", at: int = MONDAY, name: str = "e"
) -> PlannedEvent:
    start, end = MONDAY + first * HOUR, MONDAY + last * HOUR
    return PlannedEvent(id=name, scope=scope, starts=start, until=end, nanos=usd * USD, known_from=at)


class Watched:
    """A scope whose people answer: what stands is looked at before every statement and tick, as the agent does."""

    def __init__(self, scope: str = "team:search", events: tuple[PlannedEvent, ...] = ()) -> None:
        self.scope, self.events = scope, events
        self.answers: dict[str, AlertAnswer] = {}
        self.state: SpikeState | None = None
        self.alerts: list[Alert] = []

    def spends(self, usd: float, *hours: int, at: int = 59) -> list[Alert]:
        """So many dollars in each of these hours, told once at a minute of each."""
        return [alert for hour in hours for alert in self._hear(usd, hour, at)]

    def _hear(self, usd: float, hour: int, minute: int) -> list[Alert]:
        at = hour * 60 + minute
        statement = say(hour, usd, offset=at, at=at, scope=self.scope)
        now = stream_time(statement)
        said = self.look(now, now)
        self.state, new = step_spike(self.state, statement, now, POLICY)
        self.alerts += new
        return said + new + self.tick(at)

    def tick(self, minute: int) -> list[Alert]:
        said = self.look(minutes(minute))
        self.state, new = tick_spike(self.state, minutes(minute), POLICY)
        self.alerts += new
        return said + new

    def look(self, now: int, come: int = 0) -> list[Alert]:
        if self.state is None:
            return []
        lessons = Lessons(self.answers.values(), self.events)
        self.state, said = take_spike(self.state, lessons, now, POLICY, come)
        again, more = take_spike(self.state, lessons, now, POLICY, come)
        assert again is self.state
        assert not more
        self.alerts += said
        return said

    def answered(self, kind: str, at: int, **more) -> list[Alert]:
        """The newest alert is answered, at a minute after Monday; what follows of it at once."""
        alert = self.alerts[-1]
        known = self.answers.get(alert.dedup_key)
        version = known.version + 1 if known else 1
        self.answers[alert.dedup_key] = answer(alert, kind, minutes(at), version=version, **more)
        return self.tick(at)


@cache
def _six_days(scope: str) -> SpikeState:
    found = Watched(scope)
    found.spends(USUAL, *range(FIRST))
    assert found.alerts == []
    return found.state


def watched(scope: str = "team:search", events: tuple[PlannedEvent, ...] = ()) -> Watched:
    """After six days at the usual; events are heard of from then on."""
    found = Watched(scope, events)
    found.state = _six_days(scope)
    return found


def opened(alerts: list[Alert]) -> list[str]:
    return [alert.tier for alert in alerts if alert.status == "opened"]


def test_no_then_yes_as_on_call_lives_it():
    team = watched()
    assert opened(team.spends(120, FIRST)) == ["page"]
    [ended] = team.answered("no", (FIRST + 1) * 60)
    assert (ended.status, "is normal here, as was answered" in ended.summary) == ("resolved", True)
    day = 24
    team.spends(USUAL, *range(FIRST + 1, FIRST + day))
    assert team.spends(120, FIRST + day) == [], "the same again stays quiet"
    team.spends(USUAL, *range(FIRST + day + 1, FIRST + 2 * day))
    assert opened(team.spends(170, FIRST + 2 * day)) == ["page"], "half as much again pages"
    team.answered("yes", (FIRST + 2 * day + 1) * 60)
    team.spends(USUAL, *range(FIRST + 2 * day + 1, FIRST + 3 * day))
    assert opened(team.spends(170, FIRST + 3 * day)) == ["page"], "what was an incident pages again"


def test_the_word_on_one_alert_may_be_changed():
    team = watched()
    team.spends(120, FIRST)
    team.answered("no", (FIRST + 1) * 60)
    alert = next(alert for alert in team.alerts if alert.status == "opened")
    team.answers[alert.dedup_key] = answer(alert, "yes", minutes((FIRST + 2) * 60), version=2)
    team.spends(USUAL, *range(FIRST + 1, FIRST + 24))
    assert opened(team.spends(120, FIRST + 24)) == ["page"]


def test_what_was_planned_after_all_is_no_longer_normal():
    team = watched()
    team.spends(120, FIRST)
    alert = team.alerts[-1]
    team.answered("no", (FIRST + 1) * 60)
    team.answers[alert.dedup_key] = answer(alert, "planned", minutes((FIRST + 2) * 60), version=2, usd=100)
    team.spends(USUAL, *range(FIRST + 1, FIRST + 24))
    assert opened(team.spends(120, FIRST + 24)) == ["page"], "that it was planned once says nothing of the next day"


def test_no_at_ten_past_is_about_the_whole_hour_at_this_pace():
    team = watched()
    assert opened(team.spends(60, FIRST, at=15)) == ["page"]
    assert [a.status for a in team.answered("no", FIRST * 60 + 16)] == ["resolved"]
    assert team.spends(220, FIRST, at=59) == []
    team.spends(USUAL, *range(FIRST + 1, FIRST + 24))
    assert team.spends(220, FIRST + 24) == []
    assert opened(team.spends(420, FIRST + 26)) == ["page"]


@pytest.mark.parametrize(
    ("more", "pages"),
    [
        pytest.param(100, [], id="100 dollars more than usual, as declared: quiet"),
        pytest.param(145, [], id="145: within half as much again"),
        pytest.param(160, ["page"], id="160: above 1.5 times what was declared"),
    ],
)
def test_planned_is_quiet_up_to_half_as_much_again(more, pages):
    team = watched()
    assert opened(team.spends(60, FIRST, at=10)) == ["page"]
    until = MONDAY + (FIRST + 4) * HOUR
    assert [a.status for a in team.answered("planned", FIRST * 60 + 12, usd=100, until=until)] == ["resolved"]
    assert opened(team.spends(USUAL + more / 2, FIRST, FIRST + 1)) == pages


def test_what_is_planned_ahead_is_expected_and_never_becomes_the_usual():
    with_event = watched(events=(event(FIRST, FIRST + 6, 600),))
    assert with_event.spends(USUAL + 100, *range(FIRST, FIRST + 6)) == []
    with_event.spends(USUAL, *range(FIRST + 6, FIRST + 48))
    calm = watched()
    calm.spends(USUAL, *range(FIRST, FIRST + 48))
    hour = MONDAY + (FIRST + 47) * HOUR
    one, other = with_event.state.outlooks[hour], calm.state.outlooks[hour]
    assert one.usual[0] == other.usual[0]
    # Hours of which nothing is known leave a little less to go by; a hundredth of what was planned, not the whole.
    assert all(mine < usual + 1 * 10**9 for mine, usual in zip(one.bars, other.bars, strict=True))
    assert opened(with_event.spends(USUAL + 100, FIRST + 48)) == ["page"], "after it, the same is an incident"


def test_a_planned_event_that_costs_more_pages_while_it_runs():
    team = watched(events=(event(FIRST, FIRST + 6, 300),))
    assert team.spends(USUAL + 100, *range(FIRST, FIRST + 4)) == []
    assert opened(team.spends(USUAL + 100, FIRST + 4)) == ["page"]


def test_an_event_that_is_declared_late_ends_the_incident_that_it_explains():
    team = watched()
    assert opened(team.spends(120, FIRST, at=30)) == ["page"]
    team.events = (event(FIRST, FIRST + 3, 400, at=minutes(FIRST * 60 + 40)),)
    assert team.tick(FIRST * 60 + 39) == [], "nobody knows of it yet"
    [ended] = team.tick(FIRST * 60 + 40)
    assert (ended.status, "is what was planned" in ended.summary) == ("resolved", True)


def test_an_event_that_ends_early_leaves_what_comes_after_to_the_detector():
    team = watched(events=(event(FIRST, FIRST + 6, 600),))
    assert team.spends(USUAL + 100, FIRST, FIRST + 1) == []
    team.events = (event(FIRST, FIRST + 2, 600),)
    assert opened(team.spends(USUAL + 100, FIRST + 2)) == ["page"]


@pytest.mark.parametrize(
    ("scope", "planned", "pages"),
    [
        pytest.param("org:acme", "team:search", 0, id="of a team: the organisation's total is expected too"),
        pytest.param("team_feature:search/chat", "team:search", 0, id="of a team: each of its features' too"),
        pytest.param("team:search", "team_feature:search/chat", 0, id="of a team's feature: the team's too"),
        pytest.param("feature:chat", "team_feature:search/chat", 0, id="of a team's feature: the feature's too"),
        pytest.param("model:o3", "org:acme", 0, id="of the organisation: everything"),
        pytest.param("org:acme", "org:other", 1, id="of another organisation: nothing"),
        pytest.param("team:ads", "team:search", 1, id="of another team: nothing"),
        pytest.param("feature:chat", "team:search", 1, id="of a team: nothing about features of all teams"),
    ],
)
def test_whose_spend_an_event_explains(scope, planned, pages):
    found = watched(scope=scope, events=(event(FIRST, FIRST + 6, 200, scope=planned),))
    assert len(opened(found.spends(USUAL + 100, FIRST))) == pages


def test_an_event_of_a_part_makes_the_whole_no_more_nervous_than_it_was():
    org = Watched(scope="org:acme", events=(event(FIRST, FIRST + 6, 1),))
    org.spends(200, *range(FIRST))
    assert org.spends(230, *range(FIRST, FIRST + 6)) == []


def test_a_scope_that_was_silent_while_its_source_caught_up_knows_what_was_planned_meanwhile():
    team = watched()
    behind = minutes((FIRST + 2) * 60)
    team.state, _ = step_spike(team.state, say(FIRST, USUAL, offset=10**6, at=FIRST * 60 + 1), behind, POLICY)
    team.events = (event(FIRST + 2, FIRST + 6, 600, at=behind + MINUTE),)
    assert team.spends(USUAL + 100, FIRST + 2, at=5) == []


def test_events_that_overlap_add_up():
    both = (event(FIRST, FIRST + 3, 100), event(FIRST + 1, FIRST + 4, 200, name="f"))
    team = watched(events=both)
    assert team.spends(USUAL + 100, *range(FIRST, FIRST + 4)) == []
    assert opened(team.spends(USUAL + 100, FIRST + 3, FIRST + 4)) == ["page"]


def test_a_young_team_that_plans_its_launch_is_quiet_too():
    """It is measured by its siblings, and they know of no launch."""

    def siblings(instant: int) -> Siblings:
        return Siblings(mean=20.0 * USD, bars=(1.0, 2.0, 5.0), spread=0.3)

    def first_hours(*spent: int, usd: int = 0, known: int = 0) -> list[str]:
        lessons = Lessons((), (event(3, 6, usd, at=minutes(known * 60)),) if usd else ())
        state, alerts = None, []
        for hour, dollars in enumerate(spent):
            now = minutes(hour * 60 + 59)
            if state is not None:
                state, said = take_spike(state, lessons, now, POLICY, now, siblings)
                alerts += said
            state, said = step_spike(state, say(hour, dollars, offset=hour), now, POLICY, siblings)
            alerts += said
        return [alert.status for alert in alerts]

    launch = (20, 20, 20, 120, 120)
    assert first_hours(*launch) == ["opened"]
    assert first_hours(*launch, usd=400) == []
    assert first_hours(*launch, usd=400, known=4) == ["opened", "resolved"]
    assert first_hours(*launch, usd=40, known=4) == ["opened"], "a plan that does not explain it ends nothing"


@pytest.mark.parametrize(
    ("scope", "found"),
    [
        ("team_feature:search/chat", ("team:search", "feature:chat")),
        ("team_feature:a%2Fb/c%25", ("team:a/b", "feature:c%")),
        ("team:search", ()),
        ("org:acme", ()),
    ],
)
def test_what_lies_in_what(scope, found):
    assert wholes(scope) == found


def test_an_answer_about_hours_that_are_forgotten_changes_nothing():
    team = watched()
    team.spends(120, FIRST)
    alert = team.alerts[-1]
    team.spends(USUAL, *range(FIRST + 1, FIRST + 24 * 23))
    before = team.state
    team.answers[alert.dedup_key] = answer(alert, "no", minutes((FIRST + 24 * 23) * 60))
    team.look(minutes((FIRST + 24 * 23) * 60 + 1))
    assert team.state is before


# -- delivery -------------------------------------------------------------------------------------------------------

#: What happens at each of some hours: what is spent, and what is said of the incident of the first.
STEPS = st.lists(
    st.tuples(st.sampled_from([20, 70, 120, 170]), st.sampled_from(["", "yes", "no", "planned"])),
    min_size=3, max_size=12,
)  # fmt: skip
EVENTS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 6), st.integers(20, 300), st.integers(0, 12)), max_size=3
)
TAUGHT = watched()


def play(steps, events, *, restarts=(), repeats=()) -> tuple[SpikeState, list[str]]:
    """The steps with their answers; ``restarts``: before these the state is read back as it was written; ``repeats``:
    after these everything that stands is heard again."""
    team = Watched()
    team.state = TAUGHT.state
    team.events = tuple(
        event(FIRST + first, FIRST + first + length, usd, at=minutes((FIRST + known) * 60), name=str(n))
        for n, (first, length, usd, known) in enumerate(events)
    )
    for n, (usd, said) in enumerate(steps):
        hour = FIRST + n
        if n in restarts:
            team.state = msgspec.json.decode(msgspec.json.encode(team.state), type=SpikeState)
        team.spends(usd, hour, at=30)
        if said and team.alerts:
            until = team.alerts[-1].period_end
            more = {"usd": 150, "until": parse_instant(until) + 3 * HOUR} if said == "planned" else {}
            team.answered(said, hour * 60 + 31, **more)
        if n in repeats:
            team.answers = dict(reversed(list(team.answers.items())))
            team.events = team.events[::-1]
            for minute in (32, 33):
                team.look(minutes(hour * 60 + minute))
    return team.state, [alert.alert_id for alert in team.alerts]


@settings(max_examples=60, deadline=None)
@given(STEPS, EVENTS, st.sets(st.integers(0, 12)), st.sets(st.integers(0, 12)))
def test_a_restart_anywhere_and_hearing_it_all_again_changes_nothing(steps, events, restarts, repeats):
    assert play(steps, events) == play(steps, events, restarts=restarts, repeats=repeats)


def test_state_of_a_scope_that_people_talk_about_stays_small():
    team = watched(events=tuple(event(FIRST + 2 * n, FIRST + 2 * n + 1, 10 + n, name=str(n)) for n in range(20)))
    for day in range(1, 12):
        team.spends(150 * day, FIRST + 24 * day)
        if team.alerts:
            team.answered("yes", (FIRST + 24 * day + 1) * 60)
        team.spends(USUAL, *range(FIRST + 24 * day + 1, FIRST + 24 * day + 23))
    assert len(msgspec.json.encode(team.state.history)) <= 4_096
    assert DAY > 0 < MINUTE
