"""Idle GPUs of one owner are one incident with all their names, in money per day; bursts are a report."""

from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import topics
from schemas.alerts import Alert
from schemas.instants import HOUR, MINUTE, SECOND, parse_instant
from schemas.money import NANOS
from schemas.readers import SIGNALS
from schemas.statements import GpuStanding, Signal, Source
from streams.agents.detect import IdleAgent, RunawayAgent, said
from streams.core.detect_gpu import GpuPolicy, step_gpu
from streams.core.detect_idle import IDLE_STATES, IdlePolicy, IdleState, step_idle, tick_idle
from streams.core.detection import standing_alerts
from tests.unit.test_detect_gpu import Gpu, sample

TEN = parse_instant("2026-11-21T10:00:00Z")
SCOPE = "gpus:/search"
POLICY = IdlePolicy(page_nanos=500 * NANOS)


def standing(
    gpu: str, kind: str, at: int, revision: int, *, rate: int | None = 3_500_000_000, since: int = 0, **more: str
) -> Signal:
    place = {"name": gpu, "model": "H100", "node": "node-4", "deployment": "ml/llama", "pool": "h100"} | more
    return Signal(
        kind="gpu_standing",
        scope=SCOPE,
        event_id=f"{gpu}-{revision}",
        event_source="//sluice",
        event_time=at,
        source=Source("usage.gpu.v1", 0, 0),
        offset=revision,
        team_id="search",
        feature="",
        model="H100",
        tokens=0,
        cost_nanos=0,
        gpu=GpuStanding(gpu=gpu, revision=revision, kind=kind, since=since or at - HOUR, nanos_per_hour=rate, **place),
    )


class StoppedClock:
    """A minute after the GPU's hour."""

    def now(self) -> int:
        return TEN + HOUR + MINUTE

    def observe(self, event_time: int, source: str = "") -> None:
        assert event_time == TEN + HOUR


class Owner:
    """One owner's GPUs; each word is heard a second after it happened."""

    def __init__(self, policy: IdlePolicy = POLICY, behind: int = SECOND) -> None:
        self.policy, self.behind, self.at = policy, behind, TEN
        self.state: IdleState | None = None
        self.alerts: list[Alert] = []
        self.revisions: dict[str, int] = {}

    def say(self, gpu: str, kind: str, **more) -> list[Alert]:
        self.revisions[gpu] = self.revisions.get(gpu, 0) + 1
        return self.hear(standing(gpu, kind, self.at, self.revisions[gpu], **more))

    def hear(self, signal: Signal) -> list[Alert]:
        self.state, said = step_idle(self.state, signal, self.at + self.behind, self.policy)
        self.alerts += said
        return said

    def wait(self, micros: int = MINUTE) -> list[Alert]:
        self.at += micros
        if self.state is None:
            return []
        self.state, said = tick_idle(self.state, self.at + self.behind, self.policy)
        self.alerts += said
        return said


def test_ten_idle_pods_of_one_owner_are_one_ticket_with_ten_names_and_the_money_per_day():
    owner = Owner()
    for n in range(10):
        owner.say(f"llama-{n}", "strict", deployment=f"ml/llama-{n % 2}", pool=f"pool-{n % 2}")
        owner.at += SECOND
    [alert] = owner.wait()
    assert alert.summary == (
        "10 GPUs of team search idle, and cost $840.00 a day: llama-0, llama-1, llama-2, llama-3, llama-4, llama-5, "
        "llama-6, llama-7, llama-8, llama-9"
    )
    assert (alert.status, alert.tier, alert.severity, alert.rule) == ("opened", "ticket", "warning", "gpu_idle")
    assert (alert.scope_type, alert.scope_id, alert.team_id) == ("owner", "search", "search")
    assert (alert.observed, alert.unit, len(alert.top_contributors)) == ("840", "USD", 10)
    assert alert.dedup_key == "v1:gpu_idle:gpus:/search:2026-11-21T10:00:00Z"
    assert [owner.wait(MINUTE) for _ in range(120)] == [[]] * 120


@pytest.mark.parametrize(
    ("places", "scope"),
    [
        ([{}], ("gpu", "a-0")),
        ([{}, {}], ("deployment", "ml/llama")),
        ([{}, {"deployment": "ml/ranker"}], ("pool", "h100")),
        ([{}, {"deployment": "ml/ranker", "pool": "a100"}], ("owner", "search")),
        ([{"deployment": ""}, {"deployment": ""}], ("pool", "h100")),
    ],
    ids=["one GPU", "one deployment", "one pool", "only the owner has them all", "an unnamed deployment holds nothing"],
)
def test_an_incident_is_about_the_narrowest_that_holds_all_of_it(places: list[dict[str, str]], scope: tuple[str, str]):
    owner = Owner()
    for n, place in enumerate(places):
        owner.say(f"a-{n}", "strict", **place)
    [alert] = owner.wait()
    assert (alert.scope_type, alert.scope_id) == scope


@pytest.mark.parametrize(
    ("count", "rate", "tier"),
    [(1, 10_000_000, "note"), (1, 3_500_000_000, "ticket"), (10, 3_500_000_000, "ticket"), (2, None, "ticket"),
     (150, 3_500_000_000, "page")],
    ids=["under a dollar a day it is only shown", "a GPU is a ticket", "ten are one", "without a price they are too",
         "500 dollars in their first hour page at once"],
)  # fmt: skip
def test_money_decides_between_page_and_ticket(count: int, rate: int | None, tier: str):
    owner = Owner()
    for n in range(count):
        owner.say(f"a-{n}", "strict", rate=rate)
    [alert] = owner.wait()
    assert alert.tier == tier
    assert ("without a price" in alert.summary) == (rate is None)


def test_a_ticket_that_nobody_acts_on_pages_once_it_has_cost_the_amount_in_its_own_running_total():
    owner = Owner(IdlePolicy(page_nanos=100 * NANOS))
    owner.say("a", "strict")
    owner.say("b", "strict")
    for _ in range(13):
        owner.wait(HOUR)
        owner.say("a", "strict", since=TEN - HOUR)
        owner.say("b", "strict", since=TEN - HOUR)
    assert [(a.status, a.tier) for a in owner.alerts] == [("opened", "ticket")]
    owner.wait(HOUR)
    assert [(a.status, a.tier, a.severity) for a in owner.alerts[1:]] == [("updated", "page", "critical")]
    assert [owner.wait(HOUR) for _ in range(2)] == [[]] * 2


def test_bursts_are_reported_and_neither_page_nor_hold_idleness_open():
    owner = Owner()
    for n in range(40):
        owner.say(f"a-{n}", "low")
    [alert] = owner.wait()
    assert (alert.rule, alert.tier, alert.severity) == ("gpu_bursty", "note", "info")
    assert "40 GPUs of deployment ml/llama (team search) work only in bursts at 0.0 % on average" in alert.summary
    assert "and cost $3,360.00 a day" in alert.summary
    assert alert.summary.endswith("and 30 more")


def test_it_is_told_again_where_the_money_per_day_doubles_and_not_for_each_gpu():
    owner = Owner()
    for n in range(8):
        owner.say(f"a-{n}", "strict")
        owner.wait(5 * MINUTE)
    assert [(a.status, a.observed) for a in owner.alerts] == [
        ("opened", "84"), ("updated", "168"), ("updated", "336"), ("updated", "672"),
    ]  # fmt: skip
    assert len({a.dedup_key for a in owner.alerts}) == 1
    assert len({a.alert_id for a in owner.alerts}) == 4


def test_an_incident_ends_an_hour_after_its_last_gpu_and_says_what_it_cost():
    owner = Owner()
    owner.say("a", "strict")
    owner.wait()
    owner.at += HOUR - MINUTE
    owner.say("a", "")
    owner.wait(59 * MINUTE)
    assert [a.status for a in owner.alerts] == ["opened"]
    [alert] = owner.wait(2 * MINUTE)
    assert (alert.status, alert.tier) == ("resolved", "ticket")
    assert alert.summary == "The GPUs of team search idle no more, after $7.00"
    owner.wait(24 * HOUR)
    assert owner.state is None


def test_a_gpu_that_idles_again_within_the_hour_is_the_same_incident():
    owner = Owner()
    for _ in range(5):
        owner.say("a", "strict")
        owner.wait()
        owner.say("a", "")
        owner.wait(30 * MINUTE)
    assert [a.status for a in owner.alerts] == ["opened"]


def test_a_gpu_that_idled_and_works_in_bursts_now_holds_the_incident_open_but_costs_nothing_in_it():
    owner = Owner()
    owner.say("a", "strict")
    owner.wait()
    owner.say("a", "low")
    owner.wait(2 * HOUR)
    owner.say("a", "low")
    owner.wait(2 * HOUR)
    assert [(a.rule, a.status) for a in owner.alerts] == [("gpu_idle", "opened"), ("gpu_bursty", "opened")]
    owner.say("a", "")
    owner.wait()
    owner.wait(HOUR)
    assert [(a.rule, a.status) for a in owner.alerts[2:]] == [("gpu_idle", "resolved"), ("gpu_bursty", "resolved")]


def test_two_incidents_of_one_hour_are_two_episodes():
    owner = Owner(IdlePolicy(quiet_us=5 * MINUTE))
    for _ in range(2):
        owner.say("a", "strict")
        owner.wait()
        owner.say("a", "")
        owner.wait()
        owner.wait(10 * MINUTE)
    assert [(a.status, a.episode) for a in owner.alerts] == [
        ("opened", 1), ("resolved", 1), ("opened", 2), ("resolved", 2),
    ]  # fmt: skip
    assert len({a.alert_id for a in owner.alerts}) == 4


def test_a_backlog_is_a_note_and_becomes_a_ticket_once_it_is_live():
    owner = Owner(behind=30 * HOUR)
    owner.say("a", "strict")
    owner.wait()
    assert [(a.tier, a.historic) for a in owner.alerts] == [("note", True)]
    owner.behind = SECOND
    owner.at += 30 * HOUR
    owner.say("a", "strict")
    owner.wait()
    assert [(a.status, a.tier, a.historic) for a in owner.alerts[1:]] == [("updated", "ticket", False)]


def test_in_a_replay_what_came_and_went_between_two_ticks_is_told_all_the_same():
    owner = Owner(behind=30 * HOUR)
    owner.say("a", "strict")
    for _ in range(3):
        owner.at += HOUR
        owner.say("b", "strict")
    assert [(a.status, a.tier) for a in owner.alerts] == [("opened", "note"), ("updated", "note")]


def test_an_older_word_changes_nothing_and_an_owner_whose_gpus_fall_silent_lets_go():
    owner = Owner()
    owner.say("a", "strict")
    owner.say("a", "")
    state = owner.state
    owner.hear(standing("a", "strict", owner.at, 1))
    assert owner.state is state
    owner.say("b", "strict")
    owner.wait()
    owner.wait(4 * HOUR)
    owner.wait(2 * HOUR)
    assert [a.status for a in owner.alerts] == ["opened", "resolved"]


def test_a_signal_of_another_owner_is_refused():
    with pytest.raises(ValueError, match="gpus:/ads"):
        step_idle(IdleState(scope="gpus:/ads"), standing("a", "strict", TEN, 1), TEN, POLICY)


words = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["strict", "low", ""]), st.integers(0, 90)), max_size=25
)


@settings(max_examples=60, deadline=None)
@given(words, st.data())
def test_repeats_and_restarts_at_any_point_change_no_id(spoken, data):
    at, signals = TEN, []
    for revision, (gpu, kind, minutes) in enumerate(spoken, 1):
        at += minutes * MINUTE
        signals.append((at, standing(gpu, kind, at, revision)))
    back = data.draw(st.integers(1, 5))

    def play(again: bool) -> list[bytes]:
        state, told = None, []
        for n, (now, signal) in enumerate(signals):
            for each in (signal, *([signals[max(0, n - back)][1]] if again else [])):
                state, alerts = step_idle(state, each, now, POLICY)
                told += alerts
            state, alerts = tick_idle(state, now, POLICY)
            told += alerts
            if again and state is not None:
                state = IDLE_STATES.decode(msgspec.json.encode(state))
        return [msgspec.json.encode(alert) for alert in told]

    assert play(again=True) == play(again=False)


def test_what_was_said_last_can_be_said_again_byte_for_byte_after_a_restart():
    owner = Owner()
    owner.say("a", "strict")
    owner.say("b", "low")
    owner.wait()
    restored = IDLE_STATES.decode(msgspec.json.encode(owner.state))
    assert sorted(a.alert_id for a in standing_alerts(restored)) == sorted(a.alert_id for a in owner.alerts)


def test_forty_idle_gpus_of_one_owner_fit_into_16_kilobytes():
    owner = Owner()
    for n in range(40):
        owner.say(f"llama-7d9f8b6c5d-x2x{n:02}", "strict")
    owner.wait()
    assert len(msgspec.json.encode(owner.state)) <= 16_384


def test_what_a_gpu_says_lies_under_its_owners_key_and_is_for_nobody_else():
    agent = IdleAgent(SimpleNamespace(), StoppedClock(), POLICY)
    gpu = Gpu()
    gpu.run(60, 0.0)
    step = step_gpu(None, sample(TEN, 0.5), TEN, TEN, GpuPolicy())._replace(standings=gpu.standings)
    [record] = said(step)[1]
    assert (record.topic, record.key) == (topics.USAGE_SIGNALS, b"gpus:/search")
    message = SIGNALS.decode(record.value)
    assert agent.key_of(message) == "gpus:/search"
    assert RunawayAgent(SimpleNamespace(), StoppedClock(), None).key_of(message) is None
    state, alerts = agent.step(None, message)
    agent.clock.now = lambda: TEN + HOUR + 2 * MINUTE
    assert (list(state.members), alerts) == (["GPU-1"], [])
    [alert] = agent.tick(state)[1]
    assert alert.topic == topics.ALERTS
