"""routes.yaml: what is read, what is inherited, and that every mistake is named with its line."""

from pathlib import Path

import pytest

from schemas.instants import HOUR, MINUTE, SECOND, parse_instant
from streams.core.inhibition import BUILT_IN as INHIBITIONS
from streams.core.notifying import Matcher
from streams.core.quiet_hours import quiet_until
from streams.core.routes import Email, Escalation, PagerDuty, RateLimit, Slack, Span, Webhook
from streams.core.routes_file import RoutesFileError, load_routes, unreachable
from streams.core.routes_rows import duration_us, span_of

EXAMPLE = (Path(__file__).parents[2] / "examples" / "routes.yaml").read_text()


def test_the_example_can_be_used():
    routes = load_routes(EXAMPLE)
    assert set(routes.integrations()) == {
        "pagerduty", "slack", "email", "on-call/pagerduty", "on-call/slack", "duty-mail/email", "managers/email",
        "search-room/slack", "finance-desk/webhook",
    }  # fmt: skip
    assert [rule.name for rule in routes.inhibitions] == ["emergency", "one-page", "one-spike", "gateway-down"]


def test_integrations_have_the_shapes_that_receivers_are_built_of():
    found = {name: each.target for name, each in load_routes(EXAMPLE).integrations().items()}
    assert found["on-call/pagerduty"] == PagerDuty("env:ON_CALL_ROUTING_KEY")
    assert found["on-call/slack"] == Slack(bot_token="file:/run/secrets/slack-token", channel="#ai-spend-pages")
    assert found["duty-mail/email"] == Email(("duty@example.test",))
    assert found["finance-desk/webhook"] == Webhook(
        "https://finance.example.test/hooks/sluice", "env:FINANCE_HOOK_SECRET"
    )
    assert found["pagerduty"] is None


def test_a_second_integration_of_a_kind_has_a_name_of_its_own_and_the_first_keeps_its():
    routes = load_routes(
        "route: {receiver: a}\nreceivers: [{name: a, webhook: [{url: 'https://x', secret: env:X}, {url: 'https://y', secret: env:Y}]}]"
    )
    assert [each.id for each in routes.receivers["a"].integrations] == ["a/webhook", "a/webhook/2"]


def test_what_a_route_does_not_say_it_has_from_the_one_above():
    routes = load_routes(EXAMPLE)
    pages = next(route for route in routes.root.walk() if route.receivers == ("on-call",))
    assert pages.matchers == (Matcher("tier", "=", "page"),)
    assert pages.escalations == (Escalation(10 * MINUTE, ("managers",)),)
    (staging,) = pages.routes
    assert (staging.receivers, staging.escalations, staging.quiet) == (("slack",), pages.escalations, pages.quiet)
    assert (staging.wait_us, staging.interval_us, staging.repeat_us) == (0, 0, 0)
    search = next(route for route in routes.root.walk() if route.receivers == ("search-room",))
    assert (search.wait_us, search.interval_us, search.repeat_us) == (10 * SECOND, 5 * MINUTE, 12 * HOUR)


def test_a_route_that_groups_and_says_no_more_is_out_in_time():
    route = load_routes("route: {receiver: slack, group_by: team}").root
    assert (route.group_by, route.wait_us, route.interval_us) == (("team",), 2 * SECOND, MINUTE)


def test_a_route_keeps_its_id_whatever_changes_but_its_matchers():
    one = load_routes("route: {receiver: slack, routes: [{match: [team=a]}, {match: [team=b], repeat_interval: 1h}]}")
    other = load_routes("route: {receiver: email, routes: [{match: {x: y}}, {match: 'team = \"b\"', group_wait: 5s}]}")
    assert one.root.routes[1].id == other.root.routes[1].id == '/{team = "b"}'


def test_fallbacks_and_limits_are_found_by_integration():
    routes = load_routes(EXAMPLE)
    assert routes.fallbacks("on-call/slack") == ("duty-mail/email",)
    assert routes.fallbacks("duty-mail/email") == ()
    rule = routes.rule_of("on-call/slack")
    assert rule is not None
    assert rule.rate_limit == RateLimit(60, 10 * MINUTE)


def test_the_built_in_rules_of_silence_can_be_turned_off():
    assert load_routes("route: {receiver: slack}").inhibitions == INHIBITIONS
    assert load_routes("route: {receiver: slack}\ninhibit_defaults: false").inhibitions == ()


def test_receivers_that_the_settings_do_not_have_are_named():
    routes = load_routes("route: {receiver: owner, routes: [{match: [tier=page], receiver: pagerduty}]}", ("slack",))
    assert unreachable(routes, ("slack",)) == [
        "routes name the receiver pagerduty, and pagerduty_routing_key is not set",
        "routes name the receiver email, and smtp_host is not set",
    ]


@pytest.mark.parametrize(
    ("text", "micros"),
    [("30s", 30 * SECOND), ("10m", 10 * MINUTE), ("4 h", 4 * HOUR), ("500ms", SECOND // 2), ("never", 0), ("0s", 0)],
)
def test_durations_are_read_as_people_write_them(text, micros):
    assert duration_us(text) == micros


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("mon-fri 19:00-07:00", Span((0, 1, 2, 3, 4), 1140, 420)),
        ("sat,sun 00:00-24:00", Span((5, 6), 0, 1440)),
        ("Fri-Mon 8:30-9:00", Span((0, 4, 5, 6), 510, 540)),
        ("daily 22:00 - 06:00", Span(tuple(range(7)), 1320, 360)),
        ("wednesday 12:00-13:00", Span((2,), 720, 780)),
    ],
)
def test_hours_are_read_as_people_write_them(text, span):
    assert span_of(text) == span


BASE = "route:\n  receiver: slack\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: route: is missing"),
        ("route: {}", "line 1: route: needs a receiver: whoever hears of what no route below it takes"),
        ("route:\n  receiver: slak", "line 2: route.receiver: there is no receiver slak; did you mean slack?"),
        ("route:\n  receiver: slack\n  group_wiat: 5s", "line 3: route.group_wiat: unknown key; check its spelling"),
        ("route:\n  receiver: slack\n  group_wait: soon", "line 3: route.group_wait: 'soon' is no duration"),
        ("route:\n  receiver: slack\n  match: [team=a]", "line 3: route.match: the first route takes every alert"),
        (BASE + "  routes:\n    - receiver: email", "line 4: route.routes.0: needs match"),
        (BASE + "  routes:\n    - match: [team]", "line 4: route.routes.0.match: 'team' is no condition"),
        (BASE + "  routes:\n    - match: ['team =~ (']", "line 4: route.routes.0.match: '(' is no regular expression"),
        (
            BASE + "  routes:\n    - match: [severity = criticl]",
            "line 4: route.routes.0.match: there is no severity 'criticl'",
        ),
        (BASE + "  routes:\n    - match:\n        team:", "line 5: route.routes.0.match.team: has no value"),
        (
            BASE + "  routes:\n    - match: [team=a]\n    - match: {team: a}",
            "line 5: route.routes.1.match: is never asked: the route in line 4 takes the same alerts",
        ),
        (BASE + "  quiet_hours: nights", "line 3: route.quiet_hours: there is no quiet_hours nights in this file"),
        (BASE + "  escalate: [{after: 10m, to: slack}]", "line 3: route.escalate.0.to: slack is told at once"),
        (BASE + "  escalate: [{after: 1s, to: email}]", "line 3: route.escalate.0.after: is ten seconds"),
        (BASE + "receivers:\n  - name: a", "line 4: receivers.0: reaches nobody"),
        (BASE + "receivers:\n  - name: owner\n    email: {to: a@b.test}", "line 4: receivers.0.name: owner stands for"),
        (
            BASE + "receivers:\n  - name: a\n    pagerduty: {routing_key: 0123456789abcdef}",
            "line 5: receivers.0.pagerduty.0.routing_key: is a secret, and secrets are not written here",
        ),
        (
            BASE + "receivers:\n  - name: a\n    slack: {channel: x}",
            "line 5: receivers.0.slack.0: takes webhook_url, or",
        ),
        (
            BASE + "receivers:\n  - name: a\n    email: {to: nobody}",
            "line 5: receivers.0.email.0.to.0: 'nobody' is no mail",
        ),
        (
            BASE + "receivers:\n  - name: a\n    email: {to: a@b.test}\n    fallback: a",
            "line 6: receivers.0.fallback: is told instead of this one",
        ),
        (
            BASE + "receivers:\n  - {name: a, email: {to: a@b.test}}\n  - {name: a, email: {to: a@b.test}}",
            "line 5: receivers.1.name: a is defined twice",
        ),
        (BASE + "owners:\n  - {team: a, budget: b, address: a@b.test}", "line 4: owners.0: is the owner of one thing"),
        (BASE + "owners:\n  - {team: a}", "line 4: owners.0: cannot be reached: give address or receiver"),
        (
            BASE + "owners: [{team: a, address: a@b.test}, {team: a, receiver: slack}]",
            "line 3: owners.1: a second owner of team a",
        ),
        (
            BASE + "quiet_hours:\n  - {name: n, timezone: Europe/Atlantis, hours: daily 1:00-2:00}",
            "line 4: quiet_hours.0.timezone: 'Europe/Atlantis' is no IANA time zone",
        ),
        (
            BASE + "quiet_hours:\n  - {name: n, timezone: UTC, hours: nightly}",
            "line 4: quiet_hours.0.hours.0: 'nightly' is not",
        ),
        (
            BASE + "quiet_hours:\n  - {name: n, timezone: UTC, hours: daily 8:00-8:00}",
            "begins and ends at the same time",
        ),
        (
            BASE + "inhibit:\n  - {name: one-page, source: [team=a], target: [team=b]}",
            "line 4: inhibit.0.name: one-page is built in",
        ),
        (
            BASE + "inhibit:\n  - {name: x, source: [rule=spike], target: [team=b]}",
            "line 4: inhibit.0.source: there is no rule",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line_and_what_to_do(text, problem):
    with pytest.raises(RoutesFileError) as caught:
        load_routes(text)
    assert any(problem in line for line in caught.value.problems), caught.value.problems


def test_all_mistakes_come_at_once_in_the_order_of_the_text():
    text = "receivers:\n  - name: a\nroute:\n  receiver: b\n  group_wait: x\nowners: [{team: t}]"
    with pytest.raises(RoutesFileError) as caught:
        load_routes(text)
    assert [line.partition(":")[0] for line in caught.value.problems] == ["line 2", "line 4", "line 5", "line 6"]


def test_no_error_repeats_a_secret():
    text = "route: {receiver: a}\nreceivers:\n  - {name: a, pagerduty: {routing_key: hunter2}, webhook: {url: hunter2, secret: hunter2}}"
    with pytest.raises(RoutesFileError) as caught:
        load_routes(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("now", "until"),
    [
        pytest.param("2026-11-20T18:59:59+01:00", None, id="a minute before the evening nobody rests"),
        pytest.param(
            "2026-11-20T19:00:00+01:00", "2026-11-23T07:00:00+01:00", id="Friday evening rests to Monday morning"
        ),
        pytest.param("2026-11-22T12:00:00+01:00", "2026-11-23T07:00:00+01:00", id="a Sunday rests to Monday morning"),
        pytest.param("2026-11-23T07:00:00+01:00", None, id="at seven the day begins"),
        pytest.param(
            "2026-11-24T03:00:00+01:00", "2026-11-24T07:00:00+01:00", id="after midnight it is still the night"
        ),
        pytest.param(
            "2027-03-27T23:00:00+01:00", "2027-03-29T07:00:00+02:00", id="a night that loses an hour ends by the clock"
        ),
    ],
)
def test_quiet_hours_end_by_the_clock_on_the_wall(now, until):
    nights = load_routes(
        BASE
        + "  quiet_hours: n\nquiet_hours:\n  - name: n\n    timezone: Europe/Berlin\n"
        + "    hours: ['mon-fri 19:00-07:00', 'sat,sun 00:00-24:00', 'sun 19:00-07:00']"
    ).root.quiet[0]
    assert quiet_until(nights, parse_instant(now)) == (parse_instant(until) if until else None)
