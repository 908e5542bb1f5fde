"""What a group says to whom, and when: tables of statements and times against what people are told."""

import pytest

from schemas.instants import MINUTE, SECOND
from streams.core.inhibition import Inhibitors
from streams.core.notify_pipeline import flush
from streams.core.notifying import Matcher
from streams.core.placing import Group
from streams.core.routes import Escalation, Inhibition, Integration, QuietHours, ReceiverRule, Route, Routes, Span
from streams.core.routes_default import default_routes
from tests.unit.notify_world import World, alert, changed
from tests.unit.records import NOON

TODAY = default_routes(("pagerduty", "slack", "email"))
ABOVE = {"chat": ("search", "org"), "search": ("org",), "org": ()}


def page(name: str, status: str = "opened", **more):
    return alert(name, status, ancestors=ABOVE[name], **more)


def grouped(**more) -> Routes:
    """One route that groups by team: a wait of 10 s, an interval of a minute."""
    fields = {"group_by": ("team",), "wait_us": 10 * SECOND, "interval_us": MINUTE} | more
    inhibitions = fields.pop("inhibitions", ())
    receivers = {
        "on-call": ReceiverRule("on-call", (Integration("on-call/pagerduty", "pagerduty", pages=True),)),
        "room": ReceiverRule("room", (Integration("room/slack", "slack"),)),
        "managers": ReceiverRule("managers", (Integration("managers/email", "email"),)),
    }
    to = fields.pop("receivers", ("room",))
    return Routes(Route("/", (), to, **fields), receivers, inhibitions)


@pytest.mark.parametrize(
    ("one", "receivers"),
    [
        pytest.param(alert(), ["pagerduty", "slack"], id="a page wakes on-call and is seen in Slack"),
        pytest.param(alert(tier="ticket"), ["slack"], id="an emergency that does not page goes to Slack"),
        pytest.param(alert(tier="ticket", severity="critical"), ["slack"], id="what is critical goes to Slack"),
        pytest.param(alert(tier="ticket", severity="warning"), ["email"], id="a warning goes to its owner"),
        pytest.param(alert(tier="ticket", severity="info"), ["email"], id="an information goes to its owner"),
        pytest.param(alert(tier="note"), [], id="a note is only shown"),
        pytest.param(alert(historic=True), [], id="history is only shown"),
        pytest.param(alert(rule="approval_wanted", tier="ticket"), ["email", "slack"], id="an approval goes by both"),
        pytest.param(alert(rule="approval_wanted", tier="note"), [], id="a note is no approval"),
        pytest.param(
            alert(rule="delivery_failing", tier="ticket", severity="critical"),
            ["email", "slack"],
            id="of a receiver that takes nothing another hears",
        ),
        pytest.param(alert(rule="delivery_failing"), ["pagerduty", "slack"], id="and of one that is owed a page too"),
    ],
)
def test_without_a_file_alerts_go_where_they_always_went(one, receivers):
    world = World(TODAY).hear(one).pass_until(0)
    assert [said.receiver for said in world.said] == receivers
    assert {said.thread_key for said in world.said} <= {one.dedup_key}


@pytest.mark.parametrize("order", [("org", "search", "chat"), ("chat", "search", "org"), ("search", "chat", "org")])
def test_of_budgets_that_are_crossed_together_only_the_highest_pages(order):
    world = World(TODAY).hear(*(page(name) for name in order)).pass_until(10)
    assert [text for text in world.told() if text.startswith("pagerduty")] == ["pagerduty opened org"]
    assert {text for text in world.told() if text.startswith("slack")} == {f"slack opened {name}" for name in ABOVE}


def test_the_end_of_a_page_that_was_spared_wakes_nobody():
    world = World(TODAY).hear(page("org"), page("chat")).pass_until(10)
    world.hear(page("chat", "resolved", at=11), page("org", "resolved", at=12)).pass_until(60)
    assert [text for text in world.told() if "pagerduty" in text] == ["pagerduty opened org", "pagerduty resolved org"]


def test_who_was_spared_the_page_is_not_woken_when_the_budget_above_ends_but_by_its_next_episode():
    world = World(TODAY).hear(page("org"), page("chat")).pass_until(10)
    world.hear(page("org", "resolved", at=11), page("chat", "updated", at=12)).pass_until(600)
    assert "pagerduty opened chat" not in world.told()
    world.hear(page("chat", "resolved", at=601), page("chat", episode=2, at=602)).pass_until(700)
    assert "pagerduty opened chat" in world.told()


def test_a_page_that_was_sent_is_ended_though_its_ancestor_pages_by_then():
    world = World(TODAY).hear(page("chat")).pass_until(10)
    world.hear(page("org", at=60)).pass_until(60).hear(page("chat", "resolved", at=61)).pass_until(62)
    assert [text for text in world.told() if "pagerduty" in text] == [
        "pagerduty opened chat", "pagerduty opened org", "pagerduty resolved chat",
    ]  # fmt: skip


def test_a_ticket_above_a_page_does_not_spare_it():
    world = World(TODAY).hear(changed(page("org"), tier="ticket"), page("search")).pass_until(10)
    assert "pagerduty opened search" in world.told()


def test_a_page_waits_for_those_above_it_two_seconds_and_no_longer():
    world = World(TODAY).hear(page("chat")).pass_until(1.9)
    assert world.told() == []
    assert world.pass_until(2).told() == ["pagerduty opened chat", "slack opened chat"]


def rung(percent: int, severity: str, status: str = "opened", **more):
    return alert("search", status, key=f"v1:b:{percent}", severity=severity, tier="ticket", **more)


def test_an_emergency_silences_what_is_less_of_the_same_budget_and_its_end_lets_it_speak():
    world = World(TODAY).hear(rung(100, "emergency"), rung(90, "critical")).pass_until(600)
    assert world.told() == ["slack opened search"]
    world.hear(rung(100, "emergency", "resolved", at=600)).pass_until(610)
    assert [said.alerts[0].severity for said in world.said] == ["emergency", "emergency"]
    world.pass_until(640)
    assert world.said[-1].alerts[0].severity == "critical"


def test_what_an_emergency_silenced_says_nothing_when_both_end_together():
    world = World(TODAY).hear(rung(100, "emergency"), rung(90, "critical")).pass_until(600)
    world.hear(rung(100, "emergency", "resolved", at=600)).pass_until(601)
    # A flush that falls between both ends does not let it speak.
    world.flush_all().hear(rung(90, "critical", "resolved", at=601)).pass_until(900)
    assert world.told() == ["slack opened search", "slack resolved search"]


def test_each_new_episode_is_an_incident_of_its_own_where_a_key_cannot_be_opened_again():
    world = World(TODAY)
    for episode in (1, 2, 3):
        world.hear(alert("org", episode=episode, at=episode * 100)).pass_until(episode * 100)
        world.hear(alert("org", "resolved", episode=episode, at=episode * 100 + 50)).pass_until(episode * 100 + 50)
    key = "v1:budget_threshold:budget:org"
    threads = [said.thread_key for said in world.said if said.receiver == "slack" and said.reason == "opened"]
    assert threads == [key, f"{key}#2", f"{key}#3"]
    assert {said.thread_key for said in world.said if said.receiver == "pagerduty"} == {key}


def test_an_episode_that_ended_unsaid_is_ended_before_the_next_one_opens():
    world = World(TODAY).hear(alert("org")).pass_until(0)
    world.hear(alert("org", "resolved", at=1), alert("org", episode=2, at=2)).pass_until(3)
    said = [
        (each.reason, each.alerts[0].episode, each.alerts[0].status) for each in world.said if each.receiver == "slack"
    ]
    assert said == [("opened", 1, "opened"), ("resolved", 1, "resolved"), ("opened", 2, "opened")]


def test_what_fired_and_ended_before_anybody_was_told_is_told_to_nobody():
    world = World(TODAY).hear(page("chat"), page("chat", "resolved", at=1)).pass_until(60)
    assert world.told() == []


def test_a_repeated_statement_is_not_told_again():
    world = (
        World(TODAY).hear(alert("org")).pass_until(0).hear(alert("org", at=5)).flush_all().pass_until(60).flush_all()
    )
    assert len(world.said) == 2


def test_alerts_of_a_group_are_told_together_and_changes_wait_for_the_interval():
    routes = grouped()
    world = World(routes).hear(alert("a", tier="ticket")).pass_until(5).hear(alert("b", tier="ticket")).pass_until(30)
    assert world.told() == ["room/slack opened a,b"]
    world.hear(alert("c", tier="ticket", at=30)).pass_until(69)
    assert len(world.said) == 1
    world.pass_until(70)
    assert world.told()[1:] == ["room/slack joined a,b,c"]


def test_a_page_joins_its_group_without_waiting_for_the_interval():
    world = World(grouped(wait_us=2 * SECOND)).hear(alert("a", tier="ticket")).pass_until(10).hear(alert("b", at=10))
    assert world.pass_until(12).told() == ["room/slack opened a", "room/slack joined b,a"]


def named(name: str, severity: str, status: str = "opened", **more):
    return alert(name, status, severity=severity, tier="ticket", **more)


@pytest.mark.parametrize(
    ("later", "told"),
    [
        pytest.param([named("b", "warning")], "joined a,b", id="another one joins"),
        pytest.param([named("b", "emergency")], "worse b,a", id="a worse one joins"),
        pytest.param([named("a", "emergency", "updated", step=1)], "worse a", id="one gets worse"),
        pytest.param([named("a", "info", "updated", step=1)], "better a", id="one gets better"),
        pytest.param([named("a", "critical", "updated", step=1)], "updated a", id="one has new figures"),
        pytest.param([named("a", "critical", "resolved")], "resolved a", id="all have ended"),
        pytest.param([named("b", "warning"), named("b", "warning", "resolved", at=1)], None, id="one came and went"),
    ],
)
def test_the_reason_says_what_has_changed(later, told):
    world = World(grouped()).hear(named("a", "critical")).pass_until(20)
    for each in later:
        world.hear(
            changed(each, stated_at="2026-11-21T12:00:00Z" if each.status == "opened" else "2026-11-21T13:00:00Z")
        )
    world.pass_until(200)
    assert world.told()[1:] == ([f"room/slack {told}"] if told else [])


@pytest.mark.parametrize(
    ("gone", "told"),
    [("b", "left a,b"), ("a", "better b,a")],
    ids=["a lesser one ends", "the worst one ends"],
)
def test_one_that_ends_leaves_the_others_firing(gone, told):
    severities = {"a": "critical", "b": "warning"}
    world = World(grouped()).hear(*(named(name, each) for name, each in severities.items())).pass_until(20)
    world.hear(named(gone, severities[gone], "resolved", at=30)).pass_until(200)
    assert world.told()[1:] == [f"room/slack {told}"]
    assert [each.action for each in world.said] == ["trigger", "trigger"]


@pytest.mark.parametrize(
    ("told", "later", "said"),
    [
        pytest.param(["a"], [("a", "resolved", 1), ("b", "opened", 1)], "joined b,a", id="another one has come instead"),
        pytest.param(["c"], [("c", "resolved", 1), ("a", "opened", 1)], "worse a,c", id="and is worse"),
        pytest.param(["a", "b"], [("a", "resolved", 1), ("b", "resolved", 1), ("c", "opened", 1)], "joined c,a,b",
                     id="all of several have ended"),
        pytest.param(["a"], [("a", "resolved", 1), ("a", "opened", 2), ("b", "opened", 1)], "joined a,b,a",
                     id="it fires again and another one does"),
    ],
)  # fmt: skip
def test_a_group_is_one_incident_as_long_as_any_of_it_fires(told, later, said):
    severities = {"a": "critical", "b": "critical", "c": "warning"}
    world = World(grouped(receivers=("room", "on-call"))).hear(*(named(name, severities[name]) for name in told))
    world.pass_until(20)
    world.hear(*(named(name, severities[name], what, episode=episode, at=30) for name, what, episode in later))
    world.pass_until(200)
    assert world.told()[2:] == [f"room/slack {said}", f"on-call/pagerduty {said}"]
    assert [each.action for each in world.said] == ["trigger"] * 4
    assert len({each.thread_key for each in world.said}) == 1
    assert {one.incident for stored in world.groups.values() for one in stored.told} == {1}
    ends = [named(name, severities[name], "resolved", episode=2, at=300) for name in "abc"]
    world.hear(*ends).pass_until(500)
    assert [(each.action, each.thread_key) for each in world.said[4:]] == [("resolve", world.said[0].thread_key)] * 2


def test_what_ended_while_the_others_are_silenced_ends_the_incident_and_they_open_one_when_they_may_speak():
    world = World(grouped()).silence(400, Matcher("scope", "=", "b")).hear(named("a", "critical")).pass_until(20)
    world.hear(named("a", "critical", "resolved", at=30), named("b", "critical", at=30)).pass_until(1_000)
    assert world.told()[1:] == ["room/slack resolved a", "room/slack opened b"]
    assert len({each.thread_key for each in world.said}) == 2


def test_what_is_unchanged_is_said_again_after_the_repeat_interval_until_somebody_has_it_in_hand():
    one = alert("a", tier="ticket")
    world = World(grouped(repeat_us=10 * MINUTE)).hear(one).pass_until(1300)
    assert world.told() == ["room/slack opened a", "room/slack repeated a", "room/slack repeated a"]
    world.acknowledge(one).pass_until(9_000)
    assert world.told()[3:] == ["room/slack acknowledged a"]


def test_each_message_has_an_id_of_its_own():
    world = World(grouped(repeat_us=10 * MINUTE)).hear(alert("a", tier="ticket")).pass_until(9_000)
    ids = [each.notification_id for each in world.said]
    assert len(ids) == len(set(ids)) > 10


# Silences


def test_a_silenced_alert_is_told_when_the_silence_ends_if_it_still_fires():
    world = World(TODAY).silence(600, Matcher("team", "=", "search")).hear(alert("org")).pass_until(599)
    assert world.told() == []
    assert world.pass_until(600).told() == ["pagerduty opened org", "slack opened org"]


def test_a_silenced_alert_that_ends_is_never_told():
    world = World(TODAY).silence(600, Matcher("team", "=", "search")).hear(alert("org")).pass_until(100)
    assert world.hear(alert("org", "resolved", at=100)).pass_until(900).told() == []


def test_an_alert_that_was_told_and_then_silenced_says_nothing_but_its_end():
    world = World(TODAY).hear(alert("org")).pass_until(10).silence(600, Matcher("rule", "=~", "budget.*"))
    world.hear(alert("org", "updated", step=1, at=20)).pass_until(100)
    assert len(world.said) == 2
    world.hear(alert("org", "resolved", at=100)).pass_until(200)
    assert world.told()[2:] == ["pagerduty resolved org", "slack resolved org"]


def test_a_silence_that_is_ended_early_is_noticed_within_a_minute():
    world = World(TODAY).silence(9_000, Matcher("team", "=", "search")).hear(alert("org")).pass_until(100)
    world.silences.clear()
    assert world.pass_until(160).told() == ["pagerduty opened org", "slack opened org"]


def test_the_one_of_a_group_that_is_silenced_is_left_out():
    world = World(grouped()).silence(9_000, Matcher("scope", "=", "b"))
    world.hear(alert("a", tier="ticket"), alert("b", tier="ticket")).pass_until(100)
    world.hear(alert("a", "resolved", tier="ticket", at=100)).pass_until(300)
    assert world.told() == ["room/slack opened a", "room/slack resolved a"]


# Quiet hours

#: From 11 to 13 o'clock UTC; noon of these tests is ten o'clock.
LUNCH = QuietHours("lunch", "UTC", (Span(tuple(range(7)), 11 * 60, 13 * 60),))


def test_a_page_that_was_held_back_says_itself_when_the_quiet_hours_end():
    routes = grouped(quiet=(LUNCH,), receivers=("on-call", "room"), wait_us=0, interval_us=0)
    world = World(routes).pass_until(3_700).hear(alert("a", severity="critical", at=3_700)).pass_until(3 * 3_600 - 1)
    assert world.told() == ["room/slack opened a"]
    assert world.pass_until(3 * 3_600).told()[1:] == ["on-call/pagerduty opened a"]


def test_a_page_that_was_held_back_and_ended_wakes_nobody():
    routes = grouped(quiet=(LUNCH,), receivers=("on-call",), wait_us=0, interval_us=0)
    world = World(routes).pass_until(3_700).hear(alert("a", severity="critical", at=3_700)).pass_until(3_800)
    assert world.hear(alert("a", "resolved", severity="critical", at=3_800)).pass_until(20_000).told() == []


def test_the_severities_that_may_pass_do():
    routes = grouped(quiet=(LUNCH,), receivers=("on-call",), wait_us=0)
    world = World(routes).pass_until(3_700).hear(alert("a", at=3_700)).pass_until(3_700)
    assert world.told() == ["on-call/pagerduty opened a"]


# Escalation

LADDER = (Escalation(10 * MINUTE, ("managers",)),)


def test_what_nobody_acknowledges_is_escalated_once_and_followed_to_its_end():
    world = World(grouped(escalations=LADDER, wait_us=0)).hear(alert("a", tier="ticket")).pass_until(3_600)
    assert world.told() == ["room/slack opened a", "managers/email escalated a"]
    assert world.said[1].decided_at == NOON + 10 * MINUTE
    world.hear(alert("a", "resolved", tier="ticket", at=3_600)).pass_until(3_700)
    assert set(world.told()[2:]) == {"room/slack resolved a", "managers/email resolved a"}


def test_news_of_an_alert_does_not_put_its_escalation_off():
    world = World(grouped(escalations=LADDER, wait_us=0, interval_us=0)).hear(alert("a", tier="ticket")).pass_until(300)
    world.hear(alert("a", "updated", tier="ticket", step=1, at=300), alert("b", tier="ticket", at=300)).pass_until(601)
    assert [each.decided_at - NOON for each in world.said if each.reason == "escalated"] == [10 * MINUTE]
    assert [one.scope_id for one in world.said[-1].alerts] == ["a"]


def test_who_is_told_at_once_is_not_escalated_to():
    base = grouped()
    below = (
        Route("/1", (Matcher("rule", "=~", ".*"),), ("room",), ("alert",), 0, 0, goes_on=True, escalations=LADDER),
        Route("/2", (Matcher("team", "=~", ".*"),), ("managers",), ("alert",), 0, 0),
    )
    root = Route("/", (), ("room",), ("alert",), 0, 0, routes=below)
    world = World(Routes(root, base.receivers)).hear(alert("a", tier="ticket")).pass_until(3_600)
    assert sorted(world.told()) == ["managers/email opened a", "room/slack opened a"]


def test_an_acknowledgement_ends_the_escalation_of_its_episode_only():
    one = alert("a", tier="ticket")
    world = World(grouped(escalations=LADDER, wait_us=0, interval_us=0)).hear(one).pass_until(300)
    world.acknowledge(one).pass_until(3_600)
    assert "managers/email escalated a" not in world.told()
    world.hear(alert("a", "resolved", tier="ticket", at=3_600)).pass_until(3_700)
    world.hear(alert("a", tier="ticket", episode=2, at=3_700)).pass_until(7_200)
    assert "managers/email escalated a" in world.told()


def test_a_page_that_quiet_hours_held_back_escalates_from_the_page_on():
    quiet = grouped(quiet=(LUNCH,), receivers=("on-call", "room"), escalations=LADDER, wait_us=0, interval_us=0)
    world = World(quiet).pass_until(3_700).hear(alert("a", severity="critical", at=3_700)).pass_until(3 * 3_600 + 599)
    assert "managers/email escalated a" not in world.told()
    assert "managers/email escalated a" in world.pass_until(3 * 3_600 + 600).told()


def test_an_acknowledgement_is_told_but_not_to_where_it_came_from():
    routes, one = grouped(receivers=("on-call", "room", "managers"), wait_us=0), alert("a", tier="ticket")
    world = World(routes).hear(one).pass_until(10).acknowledge(one, via="pagerduty", by="bob").pass_until(900)
    assert world.told()[3:] == ["room/slack acknowledged a"]
    assert (world.said[-1].action, world.said[-1].paragraphs) == ("acknowledge", ("Acknowledged by bob (PagerDuty).",))


def test_an_alert_that_was_acknowledged_before_it_was_told_is_told_so():
    one = alert("a", tier="ticket")
    world = World(grouped(receivers=("on-call",))).hear(one).acknowledge(one).pass_until(100)
    assert world.told() == ["on-call/pagerduty opened a", "on-call/pagerduty acknowledged a"]


# Alerts that move, and routes that change


def test_a_ticket_that_becomes_a_page_leaves_its_mail_and_stays_in_its_slack_thread():
    world = World(TODAY).hear(changed(alert("gpu"), tier="ticket")).pass_until(0)
    world.hear(alert("gpu", "updated", step=1, at=60)).pass_until(60)
    assert world.told()[:1] == ["slack opened gpu"]
    assert sorted(world.told()[1:]) == ["pagerduty opened gpu", "slack opened gpu"]
    assert {each.thread_key for each in world.said} == {alert("gpu").dedup_key}


def test_an_alert_that_moves_to_and_fro_stays_in_one_thread_and_its_next_episode_has_another():
    ticket, page_ = changed(alert("gpu"), tier="ticket"), alert("gpu", "updated", step=1, at=60)
    world = World(TODAY).hear(ticket).pass_until(0).hear(page_).pass_until(60)
    world.hear(changed(ticket, status="updated", alert_id="2", stated_at="2026-11-21T13:00:00Z")).pass_until(120)
    assert {said.thread_key for said in world.said if said.receiver == "slack"} == {ticket.dedup_key}
    world.hear(alert("gpu", "resolved", at=90_000)).pass_until(180).hear(alert("gpu", episode=2, at=90_001)).pass_until(
        200
    )
    assert [said.thread_key for said in world.said if said.receiver == "slack"][-2:] == [
        ticket.dedup_key, ticket.dedup_key + "#2",
    ]  # fmt: skip


def test_a_route_that_is_gone_ends_what_it_told_and_the_new_one_tells_it():
    world = World(grouped(wait_us=0)).hear(alert("a", tier="ticket")).pass_until(10)
    base = grouped(wait_us=0)
    moved = Routes(Route("/new", (), ("room",), ("rule",), 0, 0), base.receivers)
    world.reload(moved).pass_until(20)
    assert sorted(world.told()) == ["room/slack opened a", "room/slack opened a", "room/slack resolved a"]


def test_a_receiver_that_is_gone_is_not_told_and_nothing_is_forgotten():
    world = World(grouped(wait_us=0)).hear(alert("a", tier="ticket")).pass_until(10)
    base = grouped(wait_us=0)
    world.routes = Routes(base.root, {name: each for name, each in base.receivers.items() if name != "room"})
    world.hear(alert("a", "resolved", tier="ticket", at=20)).pass_until(200)
    assert len(world.said) == 1
    world.routes = base
    assert world.flush_all().told()[1:] == ["room/slack resolved a"]


def test_a_member_that_was_not_loaded_is_not_over():
    world = World(grouped(wait_us=0)).hear(alert("a", tier="ticket")).pass_until(10)
    (stored,) = world.groups.values()
    flushed = flush(stored.group, (), stored.told, (), (), Inhibitors(world.routes, ()), world.routes, world.now)
    assert (flushed.notifications, flushed.told) == ((), stored.told)


def test_a_group_of_nothing_owes_nothing():
    group = Group("k", "/", {}, "k")
    assert flush(group, (), (), (), (), Inhibitors(TODAY, ()), TODAY, NOON).due is None


def test_two_alerts_that_could_silence_each_other_both_speak():
    same = Inhibition("same", (Matcher("team", "=", "search"),), (Matcher("team", "=", "search"),), equal=("rule",))
    world = World(grouped(inhibitions=(same,), wait_us=0)).hear(alert("a"), alert("b")).pass_until(10)
    assert world.told() == ["room/slack opened a,b"]


def test_the_dashboard_is_told_what_holds_an_alert_back():
    world = World(TODAY).silence(600, Matcher("team", "=", "search"), name="s1").hear(page("org"), page("chat"))
    world.pass_until(5)
    found = {
        (mute.dedup_key[-4:], mute.by, mute.what[-3:], mute.receivers)
        for _, _, each in world.flushes
        for mute in each.mutes
    }
    assert found == {
        (":org", "silence", "s1", ()),
        ("chat", "silence", "s1", ()),
        ("chat", "inhibition", "org", ("pagerduty",)),
    }
