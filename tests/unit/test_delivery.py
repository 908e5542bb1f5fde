"""How a message that is owed gets through: retries, circuit, rate limit, digest and fallback, as tables."""

from random import Random

import msgspec
import pytest

from schemas.alerts import Alert
from schemas.instants import MINUTE, SECOND, format_instant
from streams.core.delivery import (
    ASKED_S_MAX,
    BACKOFF_S_MAX,
    FAILURES_TO_OPEN,
    GIVE_UP_AFTER_US,
    OPEN_S_MAX,
    PROBE_US,
    Bucket,
    ReceiverPolicy,
    after_failure,
    after_success,
    digest_of,
    is_down,
    policies,
    retry_in_s,
)
from streams.core.notifying import Notification
from streams.core.routes import Integration, RateLimit, ReceiverRule, Routes
from streams.core.routes_default import default_routes
from streams.delivering import Failure, Standing, Waiting
from tests.unit.records import NOON

DOWN = Standing(failures=FAILURES_TO_OPEN, opened_at=NOON, open_until=NOON + SECOND)
NO_ANSWER = Failure("no answer")


def alert(key="k", severity="critical", status="opened", at=NOON):
    return Alert(
        alert_id=f"{key}-{status}", dedup_key=key, episode=1, status=status, severity=severity, tier="page",
        rule="spend_spike", scope_type="team", scope_id=key, summary=f"what {key} did",
        occurred_at=format_instant(at), stated_at=format_instant(at),
    )  # fmt: skip


def message(*alerts, ident="n", at=NOON):
    return Notification(
        notification_id=ident, receiver="slack", thread_key="t", action="trigger", reason="opened", alerts=alerts,
        decided_at=at,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("attempt", "failure", "age", "low", "high"),
    [
        pytest.param(1, NO_ANSWER, 0, 0.5, 1, id="the first pause is about a second"),
        pytest.param(4, NO_ANSWER, 0, 4, 8, id="it doubles"),
        pytest.param(40, NO_ANSWER, 0, BACKOFF_S_MAX / 2, BACKOFF_S_MAX, id="up to five minutes"),
        pytest.param(1, Failure("429", asked_s=30), 0, 30, 33, id="never before the receiver asked for"),
        pytest.param(9, Failure("429", asked_s=0), 0, 0, 0, id="at once where it asks for that"),
        pytest.param(1, Failure("429", asked_s=1e9), 0, ASKED_S_MAX, ASKED_S_MAX * 1.1, id="an absurd wish is cut"),
        pytest.param(99, NO_ANSWER, GIVE_UP_AFTER_US - 1, 150, 300, id="for a whole day, however often it failed"),
    ],
)
def test_a_failed_message_is_tried_again(attempt, failure, age, low, high):
    assert low <= retry_in_s("id", attempt, NOON, failure, NOON + age) <= high


@pytest.mark.parametrize(
    ("failure", "age"),
    [
        pytest.param(Failure("400", is_permanent=True), 0, id="refused for good"),
        pytest.param(NO_ANSWER, GIVE_UP_AFTER_US, id="a day has passed"),
    ],
)
def test_a_message_is_given_up(failure, age):
    assert retry_in_s("id", 1, NOON, failure, NOON + age) is None


def test_messages_that_failed_together_do_not_come_back_together_and_each_is_as_patient_on_any_worker():
    pauses = {ident: retry_in_s(ident, 5, NOON, NO_ANSWER, NOON) for ident in map(str, range(50))}
    assert len(set(pauses.values())) == 50
    assert pauses == {ident: retry_in_s(ident, 5, NOON, NO_ANSWER, NOON) for ident in pauses}


def failed(times, start=NOON, failure=NO_ANSWER):
    standing = Standing()
    for number in range(times):
        standing = after_failure("slack", standing, failure, start + number, start + number)
    return standing


@pytest.mark.parametrize(
    ("standing", "down"),
    [
        pytest.param(failed(FAILURES_TO_OPEN - 1), False, id="a few failures are bad luck"),
        pytest.param(failed(FAILURES_TO_OPEN), True, id="so many in a row are an outage"),
        pytest.param(failed(99, failure=Failure("400", is_permanent=True)), False, id="refusals are answers"),
        pytest.param(failed(99, failure=Failure("429", asked_s=1)), False, id="who asks for patience works"),
        pytest.param(after_success(failed(99)), False, id="one success ends it"),
    ],
)
def test_a_circuit_opens_after_failures_that_speak_of_the_receiver(standing, down):
    assert is_down(standing) is down


def test_what_was_on_its_way_when_the_circuit_opened_says_nothing_new():
    assert after_failure("slack", DOWN, NO_ANSWER, NOON - SECOND, NOON + SECOND) == DOWN


def test_each_failed_probe_doubles_the_pause_up_to_a_quarter_of_a_minute():
    standing, now, pauses = failed(FAILURES_TO_OPEN), NOON, []
    for _ in range(9):
        now = standing.open_until
        standing = after_failure("slack", standing, NO_ANSWER, now, now)
        pauses.append((standing.open_until - now) / SECOND)
    assert pauses[0] < pauses[3] <= OPEN_S_MAX
    assert all(OPEN_S_MAX / 2 <= pause <= OPEN_S_MAX for pause in pauses[5:])


def test_what_a_receiver_asked_for_holds_for_all_messages_and_outlasts_a_success():
    asked = after_failure("slack", Standing(), Failure("429", asked_s=30), NOON, NOON)
    policy = ReceiverPolicy("slack")
    assert policy.turn(after_success(asked), 5, 8, NOON + 29 * SECOND).sends == 0
    assert policy.turn(after_success(asked), 5, 8, NOON + 30 * SECOND).sends == 5


@pytest.mark.parametrize(
    ("standing", "due", "room", "at", "sends"),
    [
        pytest.param(Standing(), 20, 8, NOON, 8, id="as many as there is room for"),
        pytest.param(Standing(), 3, 8, NOON, 3, id="as many as are due"),
        pytest.param(Standing(), 3, 0, NOON, 0, id="none without room"),
        pytest.param(DOWN, 20, 8, NOON, 0, id="none while the circuit is open"),
        pytest.param(DOWN, 20, 8, NOON + SECOND, 1, id="one tries whether it works again"),
    ],
)
def test_how_many_messages_a_receiver_is_sent(standing, due, room, at, sends):
    assert ReceiverPolicy("slack").turn(standing, due, room, at).sends == sends


def test_while_one_message_tries_nobody_else_sends_and_if_nobody_answers_for_it_the_next_one_tries():
    policy = ReceiverPolicy("slack")
    probing = policy.turn(DOWN, 20, 8, NOON + SECOND).standing
    assert policy.turn(probing, 20, 8, NOON + SECOND + PROBE_US - 1).sends == 0
    assert policy.turn(probing, 20, 8, NOON + SECOND + PROBE_US).sends == 1


@pytest.mark.parametrize("keeps_incidents", [True, False], ids=["waiting", "in digests"])
@pytest.mark.parametrize("messages", [1, 2, 3, 10, 60, 120, 600])
def test_no_span_holds_more_messages_than_the_limit(messages, keeps_incidents):
    policy = ReceiverPolicy("r", Bucket(RateLimit(messages, MINUTE)), keeps_incidents)
    random, now, standing, sent = Random(messages), NOON, Standing(), []
    for _ in range(3_000):
        now += random.choice((1, SECOND // 20, SECOND, 90 * SECOND if random.random() < 0.01 else 1))
        turn = policy.turn(standing, random.randrange(50), random.randrange(9), now)
        standing = turn.standing
        sent += [now] * (turn.sends + turn.digests)
    assert len(sent) > messages
    ends = zip(sent, sent[messages:], strict=False)
    assert all(last - first >= MINUTE for first, last in ends)


def flood(policy, *, seconds, due):
    """What is sent and when digests are, while ``due`` messages wait all the time."""
    standing, sent, digests = Standing(), 0, []
    for second in range(seconds):
        turn = policy.turn(standing, due, 8, NOON + second * SECOND)
        standing, sent = turn.standing, sent + turn.sends
        digests += [second] * turn.digests
    return sent, digests


def test_what_is_held_back_is_told_in_one_message_after_a_while_and_not_at_once():
    sent, digests = flood(ReceiverPolicy("slack", Bucket(RateLimit(60, MINUTE))), seconds=60, due=500)
    assert digests == [15, 31, 47]
    assert 12 <= sent <= 57


def test_incidents_are_never_told_in_a_digest():
    policy = ReceiverPolicy("pagerduty", Bucket(RateLimit(60, MINUTE)), keeps_incidents=True)
    sent, digests = flood(policy, seconds=60, due=500)
    assert (digests, 50 <= sent <= 57) == ([], True)


def test_a_burst_that_the_limit_bears_is_sent_as_it_is():
    turn = ReceiverPolicy("slack", Bucket(RateLimit(60, MINUTE))).turn(Standing(), 7, 8, NOON)
    assert (turn.sends, turn.digests, turn.standing.held_since) == (7, False, None)


@pytest.mark.parametrize(
    ("waiting", "standing", "falls"),
    [
        pytest.param(Waiting("n", 0, NOON, False), Standing(), False, id="it has not been tried"),
        pytest.param(Waiting("n", 2, NOON, False), Standing(failures=2), False, id="it failed twice, just now"),
        pytest.param(Waiting("n", 3, NOON, False), Standing(failures=3), True, id="it failed three times"),
        pytest.param(Waiting("n", 1, NOON - MINUTE, False), Standing(), True, id="it failed, and is late"),
        pytest.param(Waiting("n", 0, NOON - MINUTE, False), Standing(), False, id="the rate limit holds it back"),
        pytest.param(Waiting("n", 0, NOON, False), DOWN, True, id="the receiver is down"),
        pytest.param(Waiting("n", 1, NOON, True), Standing(), True, id="it was refused for good"),
    ],
)
def test_when_the_fallback_is_told(waiting, standing, falls):
    assert ReceiverPolicy("pagerduty").falls_back(waiting, standing, NOON) is falls


def test_a_digest_says_each_alert_once_as_it_stands_the_worst_first_and_what_ended_last():
    held = [
        message(alert("a", "warning"), ident="1"),
        message(alert("b", "emergency"), alert("c"), ident="2"),
        message(alert("c", status="resolved"), ident="3"),
    ]
    told = digest_of("slack", held, NOON + MINUTE)
    assert told.heading == "3 messages about 3 alerts were held back"
    assert told.paragraphs[1:] == ("Emergency: what b did", "Warning: what a did", "Resolved: what c did")
    assert (told.action, told.reason, told.thread_key) == ("tell", "digest", f"digest:{told.notification_id}")


def test_a_digest_of_hundreds_names_twenty_and_says_how_many_more():
    told = digest_of("slack", [message(alert(str(n)), ident=str(n)) for n in range(300)], NOON)
    assert (len(told.paragraphs), told.paragraphs[-1][:14]) == (22, "… and 280 more")


def test_a_digest_counts_what_its_messages_held_back_once_for_each_thread():
    def crowd(ident, thread, **held_back):
        return msgspec.structs.replace(message(alert("a"), ident=ident), thread_key=thread, held_back=held_back)

    held = [crowd("1", "t", warning=700), crowd("2", "t", warning=800, ended=10), crowd("3", "u", info=189)]
    told = digest_of("slack", held, NOON)
    assert told.heading == "3 messages about 1,000 alerts were held back"
    assert told.paragraphs[0].endswith("about 1,000 alerts, of which 10 have ended.")
    assert told.paragraphs[-1] == "… and 999 more: the dashboard shows all of them."


def test_the_same_held_messages_make_the_same_digest_in_any_order():
    held = [message(alert(str(n)), ident=str(n)) for n in range(3)]
    assert digest_of("slack", held, NOON).notification_id == digest_of("slack", held[::-1], NOON + 1).notification_id
    more = [*held, msgspec.structs.replace(held[0], notification_id="other")]
    assert digest_of("slack", more, NOON).notification_id != digest_of("slack", held, NOON).notification_id


@pytest.mark.parametrize(
    ("name", "messages"),
    [
        pytest.param("pagerduty", 120, id="what PagerDuty documents"),
        pytest.param("slack", 60, id="a message a second"),
        pytest.param("room/slack", 7, id="what routes.yaml says of its receiver"),
        pytest.param("gone", None, id="none for one that the routes do not know"),
    ],
)
def test_the_limit_of_a_receiver(name, messages):
    routes = default_routes(["pagerduty", "slack"])
    room = ReceiverRule("room", (Integration("room/slack", "slack"),), rate_limit=RateLimit(7, MINUTE))
    routes = Routes(routes.root, routes.receivers | {"room": room})
    bucket = policies(routes, [(name, False)])[name].bucket
    assert (bucket.limit.messages if bucket else None) == messages
