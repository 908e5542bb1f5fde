"""What an answer means to runaway requests, runaway callers and idle GPUs: the same again, more of it, and planned."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.alerts import Alert
from schemas.answers import AlertAnswer, PlannedEvent
from schemas.instants import DAY, HOUR, MINUTE, SECOND
from schemas.money import NANOS
from streams.core.answers import Lessons
from streams.core.detect_idle import step_idle, tick_idle
from streams.core.detect_loop import step_loop, tick_loop
from streams.core.detect_runaway import RunawayState, step_runaway, tick_runaway
from tests.unit import test_detect_idle as idle
from tests.unit import test_detect_loop as loop
from tests.unit import test_detect_runaway as runaway

TEN = runaway.TEN


def answer(alert: Alert, kind: str, at: int, *, usd: float = 0, hours: int = 48) -> AlertAnswer:
    return AlertAnswer(
        alert=alert.dedup_key, rule=alert.rule, answer=kind, teaches=alert.teaches, figures=alert.figures,
        starts=TEN - HOUR, until=TEN + hours * HOUR, nanos=round(usd * NANOS), known_from=at,
    )  # fmt: skip


def event(scope: str, usd: float) -> PlannedEvent:
    return PlannedEvent(
        id="e", scope=scope, starts=TEN - DAY, until=TEN + 2 * DAY, nanos=round(usd * NANOS), known_from=0
    )


def tiers(alerts: list[Alert]) -> list[str]:
    """What was asked of people, by what was opened or told again."""
    return [alert.tier for alert in alerts if alert.status != "resolved"]


# -- runaway requests -----------------------------------------------------------------------------------------------


class Feature:
    """A feature's runaways, and what people say of them."""

    def __init__(self, *events: PlannedEvent) -> None:
        self.state, self.events, self.answers = None, events, []
        self.offset = 0

    def sends(self, tokens: int, at: int) -> list[Alert]:
        self.offset += 1
        signal = runaway.signal(self.offset, tokens, at=at)
        self.state, said = step_runaway(self.state, signal, at + SECOND, runaway.POLICY, self._lessons())
        return said

    def says(self, alert: Alert, kind: str, at: int, **more) -> list[Alert]:
        self.answers = [each for each in self.answers if each.alert != alert.dedup_key]
        self.answers.append(answer(alert, kind, at, **more))
        self.state, said = tick_runaway(self.state, at + 2 * SECOND, runaway.POLICY, self._lessons())
        return said

    def _lessons(self) -> Lessons:
        return Lessons(self.answers, self.events)


def test_a_request_that_was_answered_no_is_recorded_and_asks_nothing_of_anybody():
    chat = Feature()
    [opened] = chat.sends(400_000, TEN)
    assert opened.tier == "page"
    [ended] = chat.says(opened, "no", TEN + MINUTE)
    assert ended.status == "resolved"
    assert ended.summary.startswith("Normal here or planned, as was answered: Feature chat sent one request")
    [noted] = chat.sends(450_000, TEN + 3 * HOUR)
    assert (noted.tier, noted.observed) == ("note", "450000")
    assert tiers(chat.sends(610_000, TEN + 6 * HOUR)) == ["page"], "half as large again pages"


def test_yes_takes_no_back_and_pages_where_a_ticket_would_do():
    chat = Feature()
    [opened] = chat.sends(400_000, TEN)
    chat.says(opened, "no", TEN + MINUTE)
    chat.says(opened, "yes", TEN + 2 * MINUTE)
    assert tiers(chat.sends(400_000, TEN + HOUR)) == ["page"]


@pytest.mark.parametrize(
    ("scope", "usd", "expected"),
    [
        pytest.param("feature:chat", 4, ["note"], id="of the feature: 4 dollars of 4 declared"),
        pytest.param("team:search", 3, ["note"], id="of the only team that calls: within 1.5 times"),
        pytest.param("feature:chat", 2, ["page"], id="4 dollars of 2 declared: above 1.5 times"),
        pytest.param("team:ads", 400, ["page"], id="of another team"),
    ],
)
def test_requests_of_a_planned_event(scope, usd, expected):
    assert tiers(Feature(event(scope, usd)).sends(400_000, TEN)) == expected


# -- callers that run away ------------------------------------------------------------------------------------------


class Agents:
    """A feature whose callers are known, and what people say of one that runs away."""

    def __init__(self, *events: PlannedEvent) -> None:
        self.state, self.events, self.answers = loop.CALM, events, []
        self.offset = 1_000

    def calls(self, requests: int, **more) -> list[Alert]:
        self.offset += 1
        signal = loop.busy(self.offset, requests, **more)
        self.state, said = step_loop(self.state, signal, signal.event_time + SECOND, loop.POLICY, self._lessons())
        return said

    def says(self, alert: Alert, kind: str, **more) -> list[Alert]:
        self.answers.append(answer(alert, kind, TEN + MINUTE + 30 * SECOND, **more))
        self.state, said = tick_loop(self.state, TEN + 2 * MINUTE, loop.POLICY, self._lessons())
        return said

    def _lessons(self) -> Lessons:
        return Lessons(self.answers, self.events)


def test_what_was_answered_about_one_session_holds_for_the_next():
    agents = Agents()
    [opened] = agents.calls(3_000, id="s-9")
    assert opened.tier == "page"
    [ended] = agents.says(opened, "no")
    assert (ended.status, "as was answered: Session s-9" in ended.summary) == ("resolved", True)
    assert agents.calls(3_300, id="s-10", window=1) == []
    assert tiers(agents.calls(4_600, id="s-11", window=2)) == ["page"], "half as much again pages"


def test_a_key_is_meant_by_itself():
    agents = Agents()
    agents.state = loop.known(500, kind="key", nanos_a_call=loop.CENT // 5)
    [opened] = agents.calls(3_000, kind="key", id="k-1")
    agents.says(opened, "no")
    assert agents.calls(3_000, kind="key", id="k-1", window=1) == []
    assert tiers(agents.calls(3_000, kind="key", id="k-2", window=1)) == ["page"]


@pytest.mark.parametrize(
    ("usd", "expected"),
    [pytest.param(21, [], id="30 dollars of 21 declared"), pytest.param(19, ["page"], id="30 dollars of 19 declared")],
)
def test_a_caller_of_a_planned_event(usd, expected):
    assert tiers(Agents(event("team:search", usd)).calls(3_000, id="s-9")) == expected


def test_a_caller_that_was_planned_pages_above_half_as_much_again():
    agents = Agents()
    [opened] = agents.calls(3_000, id="s-9")
    assert [alert.status for alert in agents.says(opened, "planned", usd=40)] == ["resolved"]
    assert agents.calls(2_500, id="s-9", window=1) == []
    assert tiers(agents.calls(1_000, id="s-9", window=2)) == ["page"], "65 dollars of 40"


# -- idle GPUs ------------------------------------------------------------------------------------------------------


class Owner(idle.Owner):
    """An owner who answers."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[AlertAnswer] = []

    def hear(self, signal):
        lessons = Lessons(self.answers)
        self.state, said = step_idle(self.state, signal, self.at + self.behind, self.policy, lessons)
        self.alerts += said
        return said

    def wait(self, micros: int = MINUTE):
        self.at += micros
        self.state, said = tick_idle(self.state, self.at + self.behind, self.policy, Lessons(self.answers))
        self.alerts += said
        return said

    def idles(self, count: int) -> list[Alert]:
        """So many of a deployment's GPUs fall idle together."""
        for n in range(count):
            self.say(f"llama-{self.at}-{n}", "strict")
        return self.wait()

    def goes_on(self, hours: int) -> None:
        """They idle on, and say so every hour."""
        for _ in range(hours):
            self.wait(HOUR)
            for gpu, member in list(self.state.members.items()):
                self.say(gpu, "strict", since=member.since)

    def works(self) -> list[Alert]:
        """All that idled work again, for long enough to end the incident."""
        for gpu in [gpu for gpu, member in self.state.members.items() if member.kind]:
            self.say(gpu, "")
        return self.wait(2 * HOUR)


def idle_owner() -> tuple[Owner, Alert]:
    owner = Owner()
    [opened] = owner.idles(2)
    assert opened.tier == "ticket"
    return owner, opened


def test_gpus_that_are_meant_to_idle():
    owner, opened = idle_owner()
    owner.answers.append(answer(opened, "no", owner.at))
    [ended] = owner.wait()
    assert (ended.status, ended.teaches) == ("resolved", "gpu_idle|gpus:/search|deployment:ml/llama")
    owner.works()
    assert owner.idles(2) == [], "the same again is quiet"
    owner.works()
    assert tiers(owner.idles(3)) == ["ticket"], "half as many again are not"


def test_one_gpu_of_the_same_deployment_is_meant_too():
    owner, opened = idle_owner()
    owner.answers.append(answer(opened, "no", owner.at))
    owner.wait()
    owner.works()
    assert owner.idles(1) == []


def test_who_answers_when_it_is_over_means_what_it_was():
    owner, _ = idle_owner()
    [ended] = owner.works()
    owner.answers.append(answer(ended, "no", owner.at))
    assert owner.idles(2) == []


def test_gpus_that_idle_as_planned_are_told_once_they_cost_half_as_much_again():
    owner, opened = idle_owner()
    owner.answers.append(answer(opened, "planned", owner.at, usd=40))
    assert [alert.status for alert in owner.wait()] == ["resolved"]
    owner.goes_on(6)
    assert owner.alerts[-1].status == "resolved", "two GPUs at 3.50 an hour have idled for seven hours: 49 dollars"
    owner.goes_on(3)
    assert owner.alerts[-1].status == "opened", "ten hours: 70 dollars"


def test_a_yes_lets_the_next_one_be_told_again():
    owner, opened = idle_owner()
    owner.answers.append(answer(opened, "no", owner.at))
    owner.wait()
    owner.answers.append(answer(opened, "yes", owner.at))
    assert tiers(owner.wait()) == ["ticket"]


# -- delivery -------------------------------------------------------------------------------------------------------

#: Minutes until the next request, its tokens, and what is said of the newest alert after it.
REQUESTS = st.lists(
    st.tuples(st.integers(1, 90), st.sampled_from([60_000, 200_000, 400_000]), st.sampled_from(["", "no", "yes"])),
    min_size=2, max_size=12,
)  # fmt: skip


def play(requests, *, restarts=(), repeats=()):
    """``restarts``: before these the state is read back as it was written; ``repeats``: these signals come twice."""
    chat, alerts, at = Feature(), [], TEN
    for n, (minutes, tokens, said) in enumerate(requests):
        at += minutes * MINUTE
        for _ in range(1 + (n in repeats)):
            if n in restarts and chat.state is not None:
                chat.state = msgspec.json.decode(msgspec.json.encode(chat.state), type=RunawayState)
            chat.offset = n
            alerts += chat.sends(tokens, at)
        if said and alerts:
            alerts += chat.says(alerts[-1], said, at + SECOND)
            chat.answers.reverse()
    return chat.state, [alert.alert_id for alert in alerts]


@settings(max_examples=60, deadline=None)
@given(REQUESTS, st.sets(st.integers(0, 11)), st.sets(st.integers(0, 11)))
def test_a_restart_or_a_repetition_anywhere_changes_nothing(requests, restarts, repeats):
    assert play(requests) == play(requests, restarts=restarts, repeats=repeats)
