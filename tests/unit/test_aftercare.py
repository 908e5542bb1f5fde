"""Who is told of weeks and who gets reviews, as settings and routes say."""

import pytest

from schemas.alerts import Alert
from streams.agents.aftercare import Digests
from streams.core.routes_file import load_routes
from streams.settings import Settings, SettingsError, load_settings
from streams.worker import aftercare

ROUTES = """
receivers:
  - name: search-people
    slack: {webhook_url: env:SEARCH_HOOK}
    pagerduty: {routing_key: env:SEARCH_KEY}
  - name: risk-machine
    pagerduty: {routing_key: env:RISK_KEY}
route: {receiver: [dashboard]}
owners:
  - {team: search, address: routes@example.com, receiver: search-people}
  - {team: risk, receiver: risk-machine}
  - {team: ml, address: ml@example.com}
"""
REACH = ("email", "slack", "pagerduty", "search-people/slack", "search-people/pagerduty", "risk-machine/pagerduty")


def digests(**said) -> Digests:
    made = aftercare(Settings(**said), None, load_routes(ROUTES), REACH)  # type: ignore[arg-type]
    assert made is not None
    return made._digests


def test_a_teams_report_goes_to_its_people_and_never_to_a_pager():
    assert digests().team_receivers == {"search": ["search-people/slack"]}
    assert list(digests().receivers) == ["email", "slack"]


@pytest.mark.parametrize(("said", "told"), [("", []), ("email", ["email"]), ("email, teams", ["email"])])
def test_only_receivers_that_are_there_are_told(said, told):
    found = digests(digest_receivers=said)
    assert list(found.receivers) == told
    assert bool(found.team_receivers) is bool(said)


def test_a_lead_of_the_settings_goes_before_the_owner_of_the_routes():
    found = digests(team_leads={"search": "lead@example.com", "*": "all@example.com"}).leads
    assert found == {"search": "lead@example.com", "ml": "ml@example.com", "*": "all@example.com"}


def test_where_the_stream_is_the_clock_there_are_neither_weeks_nor_reviews():
    assert aftercare(Settings(clock="stream"), None, load_routes(ROUTES), REACH) is None  # type: ignore[arg-type]


def test_a_review_asks_the_routes_whose_alert_it_is():
    made = aftercare(Settings(), None, load_routes(ROUTES), REACH)  # type: ignore[arg-type]
    assert made is not None
    alert = Alert(
        alert_id="a", dedup_key="k", episode=1, status="opened", severity="critical", tier="ticket", rule="spend_spike",
        scope_type="team", scope_id="ml", summary="s", occurred_at="", stated_at="", team_id="ml",
    )  # fmt: skip
    assert made._owned(alert).owner == "ml@example.com"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"digest_timezone": "Middle/Earth"}, "is no time zone"),
        ({"team_timezones": "search=Middle/Earth"}, "is no time zone"),
        ({"digest_hour": "24"}, "digest_hour"),
    ],
)
def test_a_zone_that_is_none_is_refused(said, words):
    with pytest.raises(SettingsError, match=words):
        load_settings(**said)
