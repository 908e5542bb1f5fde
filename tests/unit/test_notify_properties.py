"""Whatever comes in whatever order: people are told of what fires, once, under one key, and of its end."""

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.alerts import Alert
from schemas.instants import MINUTE, SECOND
from streams.core.notifying import Matcher
from streams.core.placing import placements
from streams.core.routes import Escalation, Integration, QuietHours, ReceiverRule, Route, Routes, Span
from streams.core.routes_default import default_routes
from tests.unit.notify_world import World, alert
from tests.unit.records import NOON

ABOVE = {"org": (), "search": ("org",), "chat": ("search", "org"), "ads": ("org",)}
DEFAULT = default_routes(("pagerduty", "slack", "email"))
LUNCH = QuietHours("lunch", "UTC", (Span(tuple(range(7)), 630, 660),), passes=("critical",))
RECEIVERS = {
    "on-call": ReceiverRule("on-call", (Integration("on-call/pagerduty", "pagerduty", pages=True),)),
    "room": ReceiverRule("room", (Integration("room/slack", "slack"), Integration("room/webhook", "webhook"))),
    "managers": ReceiverRule("managers", (Integration("managers/email", "email"),)),
}
LATER = (Escalation(5 * MINUTE, ("managers",)),)


def grouped(group_by: tuple[str, ...], wait: int, interval: int, **more) -> Routes:
    """Teams in groups, by two routes of which one goes on."""
    inhibitions = more.pop("inhibitions", ())
    below = Route("/a", (Matcher("team", "=", "a"),), ("room",), group_by, wait, interval, goes_on=True, **more)
    last = Route("/all", (Matcher("rule", "=~", ".*"),), ("on-call", "room"), group_by, wait, interval, **more)
    return Routes(Route("/", (), ("room",), group_by, wait, interval, routes=(below, last)), RECEIVERS, inhibitions)


SECONDS = st.integers(0, 400)
TREES = st.builds(
    grouped,
    st.sampled_from([("team",), ("rule",), ("alert",), ("team", "severity")]),
    st.integers(0, 30).map(lambda n: n * SECOND),
    st.integers(0, 300).map(lambda n: n * SECOND),
)
LOUD_TREES = TREES | st.just(Routes(DEFAULT.root, DEFAULT.receivers))
ALL_TREES = (
    TREES
    | st.just(DEFAULT)
    | st.builds(
        grouped,
        st.sampled_from([("team",), ("alert",)]),
        st.just(0),
        st.integers(0, 60).map(lambda n: n * SECOND),
        inhibitions=st.just(DEFAULT.inhibitions),
        quiet=st.sampled_from([(), (LUNCH,)]),
        escalations=st.sampled_from([(), LATER]),
        repeat_us=st.sampled_from([0, 10 * MINUTE]),
    )
)


def statement(name: str, status: str, episode: int, step: int) -> Alert:
    """One statement; what it says follows from which it is, as with real ones."""
    severity = "critical" if name == "ads" else "emergency"
    at = episode * 1_000 + step * 100 + (900 if status == "resolved" else 0)
    return alert(
        name, status, episode=episode, step=step, at=at, severity=severity, team_id="ab"[len(name) % 2],
        ancestors=ABOVE[name], tier="ticket" if name == "search" else "page",
    )  # fmt: skip


STATEMENTS = st.builds(
    lambda name, what, episode: statement(name, what[0], episode, what[1]),
    st.sampled_from(sorted(ABOVE)),
    st.sampled_from([("opened", 0), ("updated", 1), ("updated", 2), ("resolved", 0)]),
    st.integers(1, 3),
)
STORIES = st.lists(st.tuples(STATEMENTS, SECONDS), max_size=25)
Story = list[tuple[Alert, int]]


def play(routes: Routes, story: Story, silence: tuple[str, int, int] | None = None) -> World:
    """Hear each statement after so many seconds, and then let everything come to rest."""
    world, at = World(routes), 0
    if silence:
        world.silence(silence[2], Matcher("scope", "=", silence[0]), starts=silence[1])
    for one, wait in story:
        at += wait
        world.pass_until(at).hear(one)
    return world.pass_until(at + 10_000)


def firing(world: World) -> dict[str, Alert]:
    return {key: one for key, one in world.alerts.items() if one.status != "resolved"}


@settings(max_examples=150, deadline=None)
@given(LOUD_TREES, STORIES, st.randoms(use_true_random=False))
def test_any_order_repetition_and_flush_times_end_with_the_same_told(routes, story, random):
    shuffled = [(one, random.randint(0, 400)) for one, _ in story] + [
        (one, random.randint(0, 400)) for one, _ in story if random.random() < 0.3
    ]
    random.shuffle(shuffled)
    one, other = play(routes, story), play(routes, shuffled)
    assert one.alerts == other.alerts
    assert one.knows() == other.knows()
    placed = {
        (each.group.key, receiver, key)
        for key, said in firing(one).items()
        for each in placements(said, routes)
        for receiver in each.receivers
    }
    assert {(group, who, key) for (group, who), known in one.knows().items() for key in known} == placed


@settings(max_examples=150, deadline=None)
@given(LOUD_TREES, STORIES)
def test_every_firing_alert_is_told_within_its_wait(routes, story):
    world = play(routes, story)
    wait = max(route.wait_us for route in routes.root.walk())
    interval = max(route.interval_us for route in routes.root.walk())
    known = set()
    for said in world.said:
        fresh = [one for one in said.alerts if one.status != "resolved"]
        lags = {}
        for one in fresh:
            which = (one.dedup_key, one.episode)
            if (said.receiver, *which) not in known:
                lags[which] = said.decided_at - world.heard[which]
                known.add((said.receiver, *which))
        # The group waits from its first alert on; one that joins a group which has spoken waits for its interval.
        assert all(lag <= max(wait, interval) for lag in lags.values())
        if said.reason == "opened" and interval == 0:
            assert all(lag <= wait for lag in lags.values())


@settings(max_examples=200, deadline=None)
@given(ALL_TREES, STORIES)
def test_nothing_is_told_twice_under_another_key_nor_twice_under_one_id(routes, story):
    world = play(routes, story)
    threads = defaultdict(set)
    for said in world.said:
        for one in said.alerts:
            if one.status != "resolved":
                threads[said.receiver, one.dedup_key, one.episode].add(said.thread_key)
    assert [which for which, keys in threads.items() if len(keys) > 1] == []
    ids = [said.notification_id for said in world.said]
    assert len(ids) == len(set(ids))
    assert all(said.alerts and len(said.thread_key) <= 255 for said in world.said)


@settings(max_examples=200, deadline=None)
@given(ALL_TREES, STORIES, st.sampled_from(sorted(ABOVE)), SECONDS, st.integers(500, 9_000))
def test_a_muted_alert_is_never_told(routes, story, name, starts, lasts):
    world = play(routes, story, (name, starts, starts + lasts))
    begin, end = NOON + starts * SECOND, NOON + (starts + lasts) * SECOND
    for said in world.said:
        shown = [one.scope_id for one in said.alerts if one.status != "resolved"]
        if begin <= said.decided_at < end:
            assert name not in shown
        if said.receiver == "on-call/pagerduty" and routes.root.routes[-1].quiet:
            lunch = NOON + 1_800 * SECOND <= said.decided_at < NOON + 3_600 * SECOND
            assert not lunch or set(shown) <= {"ads"}


@settings(max_examples=200, deadline=None)
@given(ALL_TREES, STORIES, st.none() | st.tuples(st.sampled_from(sorted(ABOVE)), SECONDS, st.integers(500, 9_000)))
def test_what_was_told_as_firing_is_told_as_resolved(routes, story, silence):
    world = play(routes, story, silence)
    for one in firing(world).values():
        world.hear(statement(one.scope_id, "resolved", one.episode, 0))
    world.pass_until(60_000)
    assert world.knows() == {}
    assert all(stored.due is None for stored in world.groups.values())
    last = {(said.receiver, said.thread_key): said for said in world.said}
    assert {said.action for said in last.values()} <= {"resolve"}
    opened, ended = set(), set()
    for said in world.said:
        for one in said.alerts:
            (ended if one.status == "resolved" else opened).add((said.receiver, one.dedup_key, one.episode))
    assert opened <= ended


@settings(max_examples=150, deadline=None)
@given(ALL_TREES, STORIES)
def test_in_the_end_everybody_knows_what_fires_and_is_not_muted_and_nothing_that_does_not(routes, story):
    world = play(routes, story)
    alive = firing(world)
    muted = {key for _, _, flushed in _last(world).values() for key in [mute.dedup_key for mute in flushed.mutes]}
    for (_, _), known in world.knows().items():
        assert set(known) <= set(alive)
        assert all(marked.startswith(f"{alive[key].episode}:") for key, marked in known.items())
    for key, one in alive.items():
        for placed in placements(one, routes) if key not in muted else ():
            assert all(key in world.knows().get((placed.group.key, who), {}) for who in placed.receivers)


def _last(world: World):
    return {group: (at, group, flushed) for at, group, flushed in world.flushes}
