"""Which groups an alert belongs to, who owns it, and which alerts explain others."""

import pytest

from schemas.alerts import Contributor, Driver, Drivers
from schemas.commands import Target
from schemas.instants import MINUTE, SECOND
from streams.core.budget_ladder import labels
from streams.core.budget_terms import Terms
from streams.core.inhibition import BUILT_IN, Inhibitors, Source, is_explained, may_inhibit
from streams.core.placing import due_at, owned, placements
from streams.core.routes_default import default_routes
from streams.core.routes_file import load_routes
from tests.unit.notify_world import World, alert
from tests.unit.records import NOON

TREE = load_routes("""
receivers:
  - {name: on-call, pagerduty: {routing_key: env:K}, slack: {webhook_url: env:S}}
  - {name: search-room, slack: {webhook_url: env:S}}
  - {name: leads, email: {to: owner}}
  - {name: archive, webhook: {url: "https://x.test", secret: env:X}}
owners:
  - {budget: org-month, address: cfo@x.test}
  - {name: Ann, address: ann@x.test}
  - {team: search, address: search@x.test}
  - {team: ads, receiver: search-room}
  - {team: "*", address: rest@x.test}
route:
  receiver: owner
  routes:
    - {match: [environment = prod], receiver: archive, continue: true}
    - {match: [environment =~ "prod|stage"], receiver: [archive, leads], group_by: rule, continue: true}
    - match: {tier: page}
      receiver: on-call
      routes:
        - {match: [team !~ "search|ads"], receiver: slack}
    - {match: [severity = warning], group_by: [team, rule], group_wait: 10s, group_interval: 5m}
    - {match: [tier = note, feature = chat], receiver: slack}
    - {match: [owner = nobody@x.test], receiver: dashboard}
""")


def ticket(**more):
    return alert(**({"tier": "ticket", "severity": "info"} | more))


@pytest.mark.parametrize(
    ("one", "receivers"),
    [
        pytest.param(ticket(), [("email",)], id="what no route takes goes to its owner by mail"),
        pytest.param(ticket(team_id="ads"), [("search-room/slack",)], id="an owner may be a receiver"),
        pytest.param(alert(), [("on-call/pagerduty", "on-call/slack")], id="a receiver is all of its integrations"),
        pytest.param(alert(team_id="x"), [("slack",)], id="the deepest route takes it"),
        pytest.param(
            ticket(labels={"environment": "prod"}), [("archive/webhook",), ("leads/email",)],
            id="a route that goes on asks the next, and nobody is told twice",
        ),
        pytest.param(ticket(labels={"environment": "stage"}), [("archive/webhook", "leads/email")], id="patterns match"),
        pytest.param(ticket(labels={"environment": "prod2"}), [("email",)], id="patterns match whole values"),
        pytest.param(ticket(tier="note"), [], id="a note is told by nobody who does not ask for it"),
        pytest.param(ticket(tier="note", feature="chat"), [("slack",)], id="a note is told by a route that asks for it"),
        pytest.param(alert(historic=True), [], id="history is told by nobody"),
        pytest.param(ticket(owner="nobody@x.test"), [], id="the dashboard is nobody"),
    ],
)  # fmt: skip
def test_an_alert_goes_the_way_that_the_tree_says(one, receivers):
    assert [each.receivers for each in placements(one, TREE)] == receivers


@pytest.mark.parametrize(
    ("one", "owner"),
    [
        (ticket(), "search@x.test"),
        (ticket(team_id="gpu"), "rest@x.test"),
        (ticket(team_id=""), "rest@x.test"),
        (ticket(name="org-month"), "cfo@x.test"),
        (ticket(name="org-month#eu", owner="lead@x.test"), "cfo@x.test"),
        (ticket(owner="lead@x.test"), "lead@x.test"),
        (ticket(owner="Ann"), "ann@x.test"),
        (ticket(owner="Bob"), "search@x.test"),
    ],
    ids=[
        "the team's", "everybody else's", "of no team", "the budget's", "of one value of a budget",
        "the address that the budget names", "the name that the budget has", "a name that nobody knows",
    ],
)  # fmt: skip
def test_an_owner_is_looked_up(one, owner):
    assert owned(one, TREE).owner == owner


def test_groups_of_owners_are_never_mixed():
    one, other = (placements(ticket(severity="warning", team_id=team), TREE)[0].group for team in ("search", "gpu"))
    assert one.key != other.key
    assert one.labels == {"team": "search", "rule": "budget_threshold", "owner": "search@x.test"}


def test_a_group_of_one_alert_has_its_dedup_key_for_a_thread_and_others_their_own():
    assert placements(alert(), TREE)[0].group.thread == alert().dedup_key
    group = placements(ticket(severity="warning"), TREE)[0].group
    assert group.thread == group.key
    assert len(placements(alert(key="k" * 255), TREE)[0].group.key) < 60


@pytest.mark.parametrize(
    ("one", "flushed", "due"),
    [
        pytest.param(ticket(severity="warning"), None, 10, id="the first waits for others"),
        pytest.param(ticket(severity="warning"), -60, 240, id="a change waits for the interval"),
        pytest.param(ticket(severity="warning"), -900, 0, id="after the interval it waits no more"),
        pytest.param(alert(), None, 0, id="a page alone is told at once"),
        pytest.param(alert(ancestors=("org",)), None, 2, id="a page below another budget waits for that one's"),
        pytest.param(alert(ancestors=("org",)), -900, 2, id="also in a group that has spoken"),
    ],
)
def test_when_a_group_is_due(one, flushed, due):
    placed = placements(one, TREE)[0]
    assert due_at(placed, one, None if flushed is None else NOON + flushed * SECOND, NOON) == NOON + due * SECOND


# What explains what


def spike(scope_type: str, scope: str, excess: int, **more):
    tier = "page"
    return alert(
        scope, key=f"v1:spend_spike:{scope_type}:{scope}", rule="spend_spike", scope_type=scope_type, severity="critical",
        tier=tier, team_id=scope if scope_type == "team" else "", observed=str(100 + excess), expected="100", **more,
    )  # fmt: skip


def made(by=(), **parts):
    fields = dict.fromkeys(("volume", "model_mix", "tokens_per_request", "cache", "price"), "0")
    return Drivers(**(fields | parts), by=[Driver(kind, name, "1") for kind, name in by])


ORG = spike("org", "acme", 500)


@pytest.mark.parametrize(
    ("team", "org", "explained"),
    [
        pytest.param(spike("team", "ads", 300), ORG, True, id="a part of the organisation's excess"),
        pytest.param(spike("team", "ads", 501), ORG, False, id="more than the organisation's: others fell"),
        pytest.param(
            spike("team", "ads", 300), spike("org", "acme", 500, top_contributors=[Contributor("ads", "400")]), True,
            id="the organisation's alert names the team",
        ),
        pytest.param(
            spike("team", "ads", 300), spike("org", "acme", 500, top_contributors=[Contributor("search", "400")]), False,
            id="it names other teams",
        ),
        pytest.param(
            spike("team", "ads", 300, drivers=made(volume="300")), spike("org", "acme", 500, drivers=made(volume="500")),
            True, id="both are more requests",
        ),
        pytest.param(
            spike("team", "ads", 300, drivers=made(model_mix="300")), spike("org", "acme", 500, drivers=made(volume="500")),
            False, id="dearer models here, more requests there",
        ),
        pytest.param(
            spike("team", "ads", 300, drivers=made([("model", "a")], volume="300")),
            spike("org", "acme", 500, drivers=made([("team", "ads"), ("model", "b")], volume="500")),
            False, id="other models are behind it",
        ),
        pytest.param(
            spike("team", "ads", 300, drivers=made([("model", "a"), ("key", "k")], volume="300")),
            spike("org", "acme", 500, drivers=made([("team", "ads"), ("model", "a")], volume="500")),
            True, id="the same model is behind it",
        ),
        pytest.param(
            spike("team", "ads", 300, drivers=made(volume="300")),
            spike("org", "acme", 500, drivers=made([("team", "search")], volume="500")),
            False, id="its drivers name other teams",
        ),
    ],
)  # fmt: skip
def test_a_team_differs_where_the_organisations_excess_does_not_explain_its_own(team, org, explained):
    assert is_explained(team, org) is explained


def test_an_organisations_spike_silences_its_teams_unless_they_differ():
    routes = default_routes(("pagerduty", "slack"))
    world = World(routes).hear(spike("team", "ads", 300), spike("team", "search", 800), ORG).pass_until(3)
    assert {text for text in world.told() if "pagerduty" in text} == {
        "pagerduty opened acme",
        "pagerduty opened search",
    }


def test_only_alerts_that_may_silence_others_have_to_be_loaded():
    routes = default_routes(("slack",))
    found = {
        name: may_inhibit(one, routes)
        for name, one in {
            "a budget's emergency": alert(tier="ticket"),
            "a budget's page": alert(severity="critical"),
            "the organisation's spike": ORG,
            "a team's spike": spike("team", "ads", 300),
            "a warning": ticket(severity="warning"),
            "history": alert(historic=True),
        }.items()
    }
    assert [name for name, may in found.items() if may] == [
        "a budget's emergency", "a budget's page", "the organisation's spike",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ended", "since", "now", "by"),
    [
        pytest.param(None, 0, 0, ["one-page"], id="while the source fires"),
        pytest.param(5, 0, MINUTE, ["one-page"], id="for the whole episode of what it silenced once"),
        pytest.param(5, 6, MINUTE, [], id="what began after its end was never silenced"),
    ],
)
def test_how_long_one_page_lasts(ended, since, now, by):
    routes = default_routes(("slack",))
    source = Source(alert("org"), None if ended is None else NOON + ended)
    found = Inhibitors(routes, [source]).of(alert("chat", ancestors=("org",)), NOON + since, NOON + now)
    assert [one.rule.name for one in found] == by


def test_the_built_in_rules_have_names_of_their_own():
    assert len({rule.name for rule in BUILT_IN}) == 3


def test_history_silences_nobody():
    inhibitors = Inhibitors(default_routes(("slack",)), [Source(alert("org", historic=True))])
    assert inhibitors.of(alert("chat", ancestors=("org",)), NOON, NOON) == ()


def test_what_is_silent_for_good_is_not_asked_again():
    world = World(default_routes(("pagerduty",))).hear(alert("org"), alert("chat", ancestors=("org",))).pass_until(10)
    assert world.told() == ["pagerduty opened org"]
    assert [stored.due for stored in world.groups.values()] == [None, None]


@pytest.mark.parametrize(
    ("target", "match", "expected"),
    [
        pytest.param(("team", "search"), (), {}, id="a team and a feature are labels already"),
        pytest.param(("cost_center", "cc-1"), (), {"cost_centre": "cc-1"}, id="what the budget throttles"),
        pytest.param(("org", "*"), (), {}, id="everything is nothing in particular"),
        pytest.param(
            ("team", "search"), (("environment", "production"), ("environment", "prod"), ("model", "gpt-4o")),
            {"environment": "prod,production", "model": "gpt-4o"}, id="what it matches, several values in order",
        ),
        pytest.param(("model", "o1"), (("team", "!search"),), {"model": "o1"}, id="what it leaves out is no label"),
    ],
)  # fmt: skip
def test_a_budgets_alert_knows_where_its_money_is_spent(target, match, expected):
    assert labels(Terms("b", "s", Target(*target), 1, "month", (), True, match=match)) == expected


def test_a_cost_centre_may_be_spelt_as_in_a_budget():
    routes = load_routes(
        "route: {receiver: slack, group_by: cost_center, routes: [{match: [cost_center = cc-1], receiver: pagerduty}]}"
    )
    (placed,) = placements(alert(labels={"cost_centre": "cc-1"}), routes)
    assert (placed.receivers, placed.group.labels) == (("pagerduty",), {"cost_centre": "cc-1"})
