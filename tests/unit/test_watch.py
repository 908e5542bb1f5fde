"""What Sluice says of itself: each thing that can be wrong opens one alert, gets worse in it, and ends it once."""

import msgspec
import pytest

from schemas.instants import HOUR, MINUTE, SECOND, format_instant
from schemas.topics import ALERTS, SPEND_CELLS, SPEND_SCOPES, USAGE_BILLING, USAGE_EVENTS
from streams.core.watch import WATCH_STATES, WatchState, open_episodes, step
from streams.core.watch_look import LettersLook, Look, SlotMark, TopicLag, WatchPolicy
from streams.core.watch_rhythm import DAY_MINUTES
from streams.watch_ports import ReceiverOwed, SourceHeard, UnpricedCalls
from tests.unit.records import NOON

POLICY = WatchPolicy()
LOOK_US = 15 * SECOND
GATEWAY = "//gateway/edge"


class Watcher:
    """Takes looks and remembers what was said; every state goes through the database's JSON and back."""

    def __init__(self, policy=POLICY, at=NOON):
        self.policy = policy
        self.now = at
        self.state = WatchState()
        self.said = []

    def look(self, look, times=1, every=LOOK_US):
        """What these looks had to say."""
        before = len(self.said)
        for _ in range(times):
            self.state, said = step(self.state, look, self.now, self.policy)
            self.state = WATCH_STATES.convert(msgspec.to_builtins(self.state))
            self.said += said
            self.now += every
        return self.said[before:]

    def words(self):
        """Status and tier of everything that was said, by rule."""
        return [(alert.rule, alert.status, alert.tier) for alert in self.said]


def lag(seconds, topic=USAGE_EVENTS):
    return Look(lags=[TopicLag("sluice", topic, 100 if seconds else 0, int(seconds * SECOND))])


def heard(*minutes, name=GATEWAY, topic=USAGE_EVENTS):
    """A source that was heard in these minutes since 1970."""
    days: dict[int, int] = {}
    for minute in minutes:
        day, place = divmod(minute, DAY_MINUTES)
        days[day] = days.get(day, 0) | 1 << place
    return SourceHeard(name, topic, days)


def always(until, days=10, name=GATEWAY):
    """A source that was heard every minute for some days, until an instant."""
    last = until // MINUTE
    return heard(*range(last - days * DAY_MINUTES, last + 1), name=name)


def quiet(*sources):
    return Look(lags=[], sources=list(sources))


def owed(waiting=0, seconds=0, pages=0, given_up=0, error="", name="slack"):
    return Look(receivers=[ReceiverOwed(name, waiting, seconds * SECOND, pages, given_up, error)])


def unpriced(count, hours_ago=0, total=1_000, nanos=0):
    hour = NOON - NOON % HOUR - hours_ago * HOUR
    return Look(unpriced=[UnpricedCalls(hour, "acme", "m-1", count, nanos)], requests={hour: total})


def marks(committed, ledger):
    return Look(marks=[SlotMark("usage.events.v1-0", committed, ledger)], ledger_silent_us=2 * SECOND)


# -- each rule: (what is wrong, what of it is said, what ends it) --------------------------------------------------------

WRONG = {
    "a record unread for a minute is a ticket": (lag(61), ("pipeline_lag", "ticket", "warning"), lag(1)),
    "one unread for five minutes is a page": (lag(301), ("pipeline_lag", "page", "emergency"), lag(1)),
    "alerts that NOTIFY does not read are a lag too": (lag(61, ALERTS), ("pipeline_lag", "ticket", "warning"), lag(0)),
    "a ledger that hears nothing of METER": (
        Look(marks=[], ledger_silent_us=121 * SECOND), ("ledger_behind", "ticket", "critical"), marks(5, 5),
    ),
    "a message that waits for five minutes": (
        owed(3, 301, error="HTTP 500"), ("delivery_failing", "ticket", "critical"), owed(),
    ),
    "a page that waits for five minutes is a page": (
        owed(3, 301, pages=1), ("delivery_failing", "page", "emergency"), owed(),
    ),
    "a message that was given up": (owed(given_up=1), ("delivery_failing", "ticket", "critical"), owed()),
    "calls without a price": (unpriced(20), ("unpriced_usage", "ticket", "warning"), Look(unpriced=[])),
    "a fifth of all calls without a price": (
        unpriced(200), ("unpriced_usage", "ticket", "critical"), Look(unpriced=[]),
    ),
    "a gateway that is silent at noon": (
        quiet(always(NOON - 20 * MINUTE), always(NOON, name="//other")),
        ("source_silent", "ticket", "critical"),
        quiet(always(NOON), always(NOON, name="//other")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_once_and_ends_once(case):
    wrong, (rule, tier, severity), right = WRONG[case]
    watcher = Watcher()
    opened = watcher.look(wrong, 20, every=SECOND * 3)
    assert [(a.rule, a.status, a.tier, a.severity) for a in opened] == [(rule, "opened", tier, severity)]
    resolved = watcher.look(right, 30, every=SECOND * 3)
    assert [(a.rule, a.status, a.tier, a.severity) for a in resolved] == [(rule, "resolved", tier, severity)]
    assert resolved[0].dedup_key == opened[0].dedup_key
    assert resolved[0].episode == opened[0].episode == 1
    assert open_episodes(watcher.state) == []
    again = watcher.look(wrong, 20, every=SECOND * 3)
    assert [(a.status, a.episode, a.dedup_key) for a in again] == [("opened", 2, opened[0].dedup_key)]


RIGHT = {
    "nothing at all": Look(),
    "records that are on their way": lag(59),
    "cells that wait are the ledger's and no lag": lag(400, SPEND_CELLS),
    "a ledger that was never written": Look(marks=[], ledger_silent_us=None),
    "a transaction's marker that nobody counts": marks(6, 5),
    "messages that are retried": owed(5, 120, error="HTTP 500"),
    "nineteen calls without a price": unpriced(19),
    "one call in two hundred without a price": unpriced(40, total=8_000),
    "a source that speaks": quiet(always(NOON)),
    "a source that paused for five minutes": quiet(always(NOON - 5 * MINUTE)),
    "a source of two hours has no rhythm yet": quiet(heard(*range(NOON // MINUTE - 200, NOON // MINUTE - 80))),
    "a source that is gone for a week": quiet(always(NOON - 8 * 24 * HOUR)),
}


@pytest.mark.parametrize("case", RIGHT)
def test_what_is_right_is_not_said(case):
    assert Watcher().look(RIGHT[case], 30) == []


# -- episodes ---------------------------------------------------------------------------------------------------------


def test_one_unlucky_look_is_not_told():
    watcher = Watcher()
    assert watcher.look(lag(70)) == []
    assert watcher.look(lag(5), 10) == []


def test_between_the_bounds_nothing_changes_in_either_direction():
    watcher = Watcher()
    assert watcher.look(lag(45), 20) == []
    watcher.look(lag(70), 4)
    assert watcher.look(lag(45), 20) == []
    assert watcher.look(lag(29), 3) == []
    assert [alert.status for alert in watcher.look(lag(29), 3)] == ["resolved"]


def test_a_lag_that_becomes_a_page_is_an_update_of_its_episode_and_ends_as_a_page():
    watcher = Watcher()
    watcher.look(lag(70), 4)
    watcher.look(lag(350), 3)
    watcher.look(lag(100), 3)
    watcher.look(lag(0), 6)
    assert watcher.words() == [
        ("pipeline_lag", "opened", "ticket"), ("pipeline_lag", "updated", "page"), ("pipeline_lag", "resolved", "page"),
    ]  # fmt: skip
    assert len({alert.alert_id for alert in watcher.said}) == 3
    assert {alert.dedup_key for alert in watcher.said} == {"v1:pipeline_lag:pipeline:sluice:0"}


def test_a_successor_that_knows_only_the_last_state_says_the_same_under_the_same_ids():
    first = Watcher()
    first.look(lag(70), 2)
    before = first.state
    said = first.look(lag(70))
    _, repeated = step(before, lag(75), first.now, POLICY)
    assert [alert.alert_id for alert in repeated] == [alert.alert_id for alert in said]


def test_a_late_look_changes_nothing():
    watcher = Watcher()
    watcher.look(lag(70), 4)
    state, said = step(watcher.state, lag(0), NOON - HOUR, POLICY)
    assert (state, said) == (watcher.state, [])


def test_what_could_not_be_looked_at_stays_as_it_was():
    watcher = Watcher()
    watcher.look(owed(3, 301), 3)
    assert watcher.look(Look(), 100) == []
    assert [alert.rule for alert in open_episodes(watcher.state)] == ["delivery_failing"]


def test_a_receiver_that_is_configured_no_more_ends_its_alert():
    watcher = Watcher()
    watcher.look(owed(3, 301), 3)
    (ended,) = watcher.look(Look(receivers=[]))
    assert (ended.status, ended.summary) == ("resolved", "receiver slack is not there any more")


# -- what is said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("look", "words"),
    [
        pytest.param(
            Look(lags=[TopicLag("s", USAGE_EVENTS, 9_000, 130 * SECOND), TopicLag("s", SPEND_SCOPES, 5, SECOND)]),
            "Sluice is 2 min behind what arrives: usage.events.v1 for 2 min (9,000 unread)",
            id="a lag names the topics that are behind, and no others",
        ),
        pytest.param(
            owed(3, 301, error="HTTP 500"), "3 messages to slack wait, the oldest for 5 min: HTTP 500",
            id="a delivery says why it fails",
        ),
        pytest.param(
            unpriced(200, nanos=12_500_000_000),
            "200 calls of acme/m-1 in the last 2 hours have no price (20 % of all calls):"
            " $12.50 of it stands on the gateways' own figures",
            id="unpriced calls say what stands on the gateways' word",
        ),
        pytest.param(
            quiet(always(NOON - 20 * MINUTE), always(NOON, name="//other")),
            "//gateway/edge has sent nothing that counts for 19 min; at this time of the week it pauses for at most"
            " 15 min",
            id="a silence says how long is usual",
        ),
    ],
)  # fmt: skip
def test_the_summary(look, words):
    watcher = Watcher()
    (alert, *_) = watcher.look(look, 3)
    assert alert.summary.startswith(words)


@pytest.mark.parametrize(
    ("look", "seconds"),
    [
        pytest.param(lag(70), 70, id="the oldest unread record came"),
        pytest.param(owed(3, 400), 400, id="the oldest message was owed"),
        pytest.param(Look(marks=[], ledger_silent_us=150 * SECOND), 150, id="the ledger heard of METER last"),
    ],
)
def test_an_alert_says_since_when_and_not_when_it_was_seen(look, seconds):
    watcher = Watcher()
    (alert,) = watcher.look(look, 3)
    assert alert.occurred_at == format_instant(NOON - seconds * SECOND)


def test_a_silence_began_with_the_last_minute_in_which_it_was_heard():
    (alert,) = Watcher().look(quiet(always(NOON - 20 * MINUTE), always(NOON, name="//other")))
    assert alert.occurred_at == format_instant(NOON - 19 * MINUTE)


def test_unpriced_calls_of_a_replayed_day_are_history():
    watcher = Watcher()
    (alert,) = watcher.look(unpriced(500, hours_ago=20), 5)
    assert (alert.status, alert.tier, alert.historic) == ("opened", "note", True)
    (ended,) = watcher.look(Look(unpriced=[]), 5)
    assert (ended.status, ended.tier, ended.historic) == ("resolved", "note", True)


# -- the ledger -------------------------------------------------------------------------------------------------------


def test_a_ledger_that_follows_is_never_behind():
    watcher = Watcher()
    for step_number in range(200):
        assert watcher.look(marks(1_000 * step_number + 900, 1_000 * step_number)) == []


def test_a_ledger_that_lacks_what_was_committed_two_minutes_ago_is_behind():
    watcher = Watcher()
    watcher.look(marks(100, 50))
    said = []
    for step_number in range(14):
        said += watcher.look(marks(200 + 10 * step_number, 60))
    assert [(alert.rule, alert.status) for alert in said] == [("ledger_behind", "opened")]
    assert "lacks what METER had counted 2 min ago" in said[0].summary
    assert [alert.status for alert in watcher.look(marks(500, 500), 8)] == ["resolved"]


# -- dead letters -----------------------------------------------------------------------------------------------------


def letters(count, arrived=1_000_000, topic=USAGE_BILLING):
    return Look(letters=[LettersLook(topic, count, arrived)])


def test_letters_from_before_the_first_look_are_not_growth():
    assert Watcher().look(letters(5_000), 10) == []


def test_ten_new_letters_in_ten_minutes_are_a_ticket_that_ends_by_itself():
    watcher = Watcher()
    watcher.look(letters(5_000))
    (alert,) = watcher.look(letters(5_010), 4)
    assert (alert.rule, alert.status, alert.tier, alert.scope_id) == ("dead_letters", "opened", "ticket", USAGE_BILLING)
    assert alert.summary.startswith("10 records of usage.billing.v1 were dead-lettered in 10 minutes")
    (ended,) = watcher.look(letters(5_010), 50)
    assert ended.status == "resolved"


def test_half_of_what_arrives_is_a_page():
    watcher = Watcher()
    watcher.look(letters(0, arrived=0))
    (alert,) = watcher.look(letters(100, arrived=180), 2)
    assert (alert.tier, alert.severity) == ("page", "emergency")
    assert "55 % of what arrived" in alert.summary


def test_what_a_producer_always_sends_in_vain_is_usual_and_five_times_as_much_is_not():
    watcher = Watcher()
    count = 0
    for _ in range(36 * 60):  # 36 hours of 2 letters a minute: an alert at first, that is usual by the next day
        count += 2
        watcher.look(letters(count), every=MINUTE)
    assert [alert.status for alert in watcher.said] == ["opened", "resolved"]
    for _ in range(10):
        count += 12
        watcher.look(letters(count), every=MINUTE)
    assert [alert.status for alert in watcher.said] == ["opened", "resolved", "opened"]
    assert watcher.said[-1].summary.endswith("; usual are 20")


def test_letters_of_hours_in_which_nobody_looked_are_spread_over_them():
    watcher = Watcher()
    watcher.look(letters(0))
    watcher.now += 10 * HOUR
    assert watcher.look(letters(500), 4) == []


def test_a_topic_that_was_made_anew_begins_anew():
    watcher = Watcher()
    watcher.look(letters(5_000))
    assert watcher.look(letters(40, arrived=50), 4) == []


# -- sources ----------------------------------------------------------------------------------------------------------


def test_while_METER_lags_nobody_is_silent():
    watcher = Watcher()
    look = quiet(always(NOON - 20 * MINUTE), always(NOON, name="//other"))
    behind = look._replace(lags=[TopicLag("sluice", USAGE_EVENTS, 5, 70 * SECOND)])
    watcher.look(behind, 10)
    assert "source_silent" not in [alert.rule for alert in watcher.said]
    assert [alert.rule for alert in watcher.look(look, 10) if alert.rule == "source_silent"] == ["source_silent"]


def test_where_nobody_is_heard_it_is_one_page_and_then_a_ticket_of_who_stays_silent():
    watcher = Watcher()
    silent = quiet(always(NOON - 20 * MINUTE), always(NOON - 20 * MINUTE, name="//other"))
    assert [(alert.scope_type, alert.tier, alert.status) for alert in watcher.look(silent, 4)] == [
        ("pipeline", "page", "opened")
    ]
    then = watcher.look(quiet(always(watcher.now), always(NOON - 20 * MINUTE, name="//other")))
    assert sorted((alert.scope_type, alert.scope_id, alert.status) for alert in then) == [
        ("pipeline", "sluice", "resolved"), ("source", "//other", "opened"),
    ]  # fmt: skip


def test_a_young_source_is_missed_with_a_warning():
    (alert,) = Watcher().look(quiet(always(NOON - 20 * MINUTE, days=3), always(NOON, name="//other")))
    assert alert.severity == "warning"


def test_a_source_that_nobody_waits_for_any_more_ends_its_alert_after_a_week():
    watcher = Watcher()
    source = always(NOON - 20 * MINUTE)
    watcher.look(quiet(source, always(NOON, name="//other")))
    watcher.now = NOON + 8 * 24 * HOUR
    ended = watcher.look(quiet(source, always(watcher.now, name="//other")))
    assert [alert.summary for alert in ended] == ["source //gateway/edge is not there any more"]
