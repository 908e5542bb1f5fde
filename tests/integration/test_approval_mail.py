"""A run that waits for its lead: NOTIFY's mail to him, over a real SMTP server, and the link in it, at the real API."""

import asyncio
import contextlib
import json
import re
from uuid import uuid4

import pytest

from schemas.alerts import Alert
from schemas.budgets import Run
from schemas.instants import DAY, format_instant
from schemas.keys import alert_id
from schemas.money import NANOS
from streams.agents.definitions import KnownDefinitions
from streams.agents.notify import ByRoutes, Dispatcher, Woken
from streams.app import Outside, deliverer
from streams.core.definitions import Definitions
from streams.core.routes_default import default_routes
from streams.delivering import Batch
from streams.settings import load_settings
from streams.sinks.acknowledgements import load_acknowledgements
from streams.sinks.notify_groups import PostgresGroups
from streams.sinks.outbox import PostgresOutbox
from streams.sinks.postgres import migrate, open_pool
from streams.sinks.receivers import receivers
from streams.sinks.silences import load_silences
from streams.standins.runner import StandIns
from streams.worker import inviting
from tests.integration.api_parts import NO_BROKER, NOW, client_of
from tests.stores import MemoryDefinitions

RUN = Run(id="lab/ft 7", team_id="search", estimate_nanos=250 * NANOS, state="announced", owner="job@example.test")
LEADS = {"search": "lead@example.test"}
URL = re.compile(r"https://sluice\.example(/v1/approvals/[\w.-]+)")
KEY = "v1:approval_wanted:budget:run-lab/ft 7@0a:250000000000"


def asked(status: str = "opened", at: int = NOW, team: str = "search") -> Alert:
    return Alert(
        alert_id=alert_id(KEY, 1, status), dedup_key=KEY, episode=1, status=status, severity="warning", tier="ticket",
        rule="approval_wanted", scope_type="budget", scope_id=f"run-{RUN.id}", team_id=team, owner=RUN.owner,
        summary=f"Training run {RUN.id} of team {team} announced $250.00: it needs the team lead's approval",
        occurred_at=format_instant(at), stated_at=format_instant(at), observed="250",
    )  # fmt: skip


class House:
    """NOTIFY with its outbox, the mail server and the Slack channel that it writes to, and the API beside it."""

    def __init__(self, pool, standins: StandIns, **settings) -> None:
        self.pool, self.standins = pool, standins
        self.store = MemoryDefinitions(NOW)
        chosen = {"approval_secret": "s" * 32, "team_leads": LEADS} | settings
        self.settings = load_settings(kafka_url=NO_BROKER, public_url="https://sluice.example", **chosen)
        self.known = KnownDefinitions()

    async def announce(self, run: Run = RUN) -> "House":
        await self.store.publish([run], by="job", reason="announced")
        return self

    async def tell(self, alert: Alert) -> list:
        """Record the alert, let NOTIFY deliver all that is owed, and give the mails that came."""
        self.known = KnownDefinitions(Definitions().changed(await self.store.current()))
        reach = receivers(self.settings, inviting=inviting(self.settings, self.known))
        before = len(self.standins.mail.messages)
        groups = PostgresGroups(self.pool, load_silences, load_acknowledgements)
        routes = default_routes(reach)
        await groups.record(Batch(uuid4().hex, 1, [(0, alert)]), ByRoutes(routes))
        dispatcher = Dispatcher(groups, routes, Woken(), Woken())
        while await groups.flush(10, dispatcher.decide):
            pass
        outside = Outside(None, groups, PostgresOutbox(self.pool), reach, routes)
        delivery = asyncio.create_task(deliverer(outside, routes, Woken()).run_background())
        async with asyncio.timeout(20):
            while await self.pool.fetchval("select count(*) from outbox where state = 'owed'"):
                await asyncio.sleep(0.02)
        delivery.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await delivery
        for receiver in reach.values():
            await receiver.close()
        return self.standins.mail.messages[before:]

    async def link(self, alert: Alert) -> str:
        (mail,) = await self.tell(alert)
        return URL.search(text_of(mail))[1]

    def browser(self):
        return client_of(self.settings, self.pool, definitions=self.store)

    async def state(self) -> str:
        return (await self.store.current())[RUN.key()].state


def text_of(mail) -> str:
    return mail.get_body(("plain",)).get_content()


@pytest.fixture
async def make(database_url, tmp_path, monkeypatch):
    await migrate(database_url)
    pool = await open_pool(database_url)
    async with StandIns(tmp_path) as standins:
        for name, value in standins.environment().items():
            monkeypatch.setenv(name, value)

        async def house(run: Run = RUN, **settings) -> House:
            return await House(pool, standins, **settings).announce(run)

        yield house
    await pool.close()


async def test_the_lead_gets_the_link_and_it_decides_once(make):
    house = await make()
    (mail,) = await house.tell(asked())
    assert (mail["To"], "job@example.test" in mail.as_string()) == ("lead@example.test", False)
    path = URL.search(text_of(mail))[1]
    assert path in mail.get_body(("html",)).get_content()
    browser = house.browser()
    page = await browser.get(path)
    assert (page.status_code, "$250.00" in page.text, await house.state()) == (200, True, "announced")
    done = await browser.post(path, data={"verdict": "approved", "reason": "worth it"})
    assert (done.status_code, await house.state()) == (200, "approved")
    assert (await house.store.current())[RUN.key()].decided_by == "lead@example.test (signed link)"
    assert [(await browser.post(path, data={"verdict": word})).status_code for word in ("approved", "refused")] == [
        410
    ] * 2
    assert await house.state() == "approved"


async def test_the_mail_that_says_it_is_decided_goes_to_the_lead_too_and_has_no_link(make):
    house = await make()
    await house.link(asked())
    (mail,) = await house.tell(asked("resolved"))
    assert (mail["To"], "/v1/approvals/" in mail.as_string()) == ("lead@example.test", False)


@pytest.mark.parametrize(
    ("settings", "team", "to"),
    [
        pytest.param({}, "search", "lead@example.test", id="the team's lead"),
        pytest.param({"team_leads": {"*": "boss@example.test"}}, "search", "boss@example.test", id="whoever leads all"),
        pytest.param({"team_leads": LEADS | {"*": "boss@example.test"}}, "ml", "boss@example.test", id="all others"),
        pytest.param({"team_leads": {}}, "search", "on-call@example.test", id="nobody is named: mail_to"),
        pytest.param({"team_leads": LEADS}, "ml", "on-call@example.test", id="another team's lead alone is named"),
    ],
)
async def test_whom_the_link_goes_to(make, settings, team, to):
    house = await make(**settings)
    (mail,) = await house.tell(asked(team=team))
    assert (mail["To"], URL.search(text_of(mail)) is not None) == (to, True)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"state": "approved", "decided_by": "boss"}, id="decided before the mail left"),
        pytest.param({"state": "ended"}, id="over before the mail left"),
    ],
)
async def test_what_is_decided_is_told_without_a_link(make, change):
    house = await make(Run(**{name: getattr(RUN, name) for name in RUN.__struct_fields__} | change))
    (mail,) = await house.tell(asked())
    assert "/v1/approvals/" not in mail.as_string()


async def test_without_a_secret_the_mail_says_how_else_to_decide(make):
    house = await make(approval_secret=None)
    (mail,) = await house.tell(asked())
    assert ("/v1/approvals/" in mail.as_string(), "sluice runs approve" in text_of(mail)) == (False, True)


async def test_a_link_of_a_week_ago_decides_nothing(make):
    house = await make()
    path = await house.link(asked(at=NOW - 7 * DAY))
    browser = house.browser()
    assert (await browser.get(path)).status_code == 410
    assert (await browser.post(path, data={"verdict": "approved"})).status_code == 410
    assert await house.state() == "announced"


async def test_a_link_holds_for_no_more_than_was_asked_when_it_was_sent(make):
    house = await make()
    path = await house.link(asked())
    await house.announce(Run(id=RUN.id, team_id="search", estimate_nanos=251 * NANOS))
    assert (await house.browser().post(path, data={"verdict": "approved"})).status_code == 410


async def test_the_link_is_neither_in_the_database_nor_in_what_readers_are_told(make):
    house = await make()
    token = (await house.link(asked())).rpartition("/")[2]
    kept = [
        str(dict(row)) for table in ("alerts", "outbox") for row in await house.pool.fetch(f"select * from {table}")
    ]
    assert (len(kept) >= 2, [row for row in kept if token[:40] in row]) == (True, [])
    assert token[:40] not in (await house.browser().get("/v1/alerts")).text


@pytest.mark.parametrize("chosen", [False, True], ids=["not unless it is asked for", "where it is asked for"])
async def test_a_channel_gets_the_link_only_where_the_operator_wants_that(make, chosen):
    house = await make(approval_links_in_slack=chosen)
    await house.tell(asked())
    (message,) = house.standins.slack.messages
    assert (URL.search(json.dumps(message)) is not None, house.standins.slack.refused) == (chosen, [])


@pytest.mark.parametrize(
    "rule", ["budget_forecast", "enforcement_gap", "run_estimate", "approval_wanted", "budget_threshold"]
)
async def test_every_rule_of_budgets_can_be_mailed(make, rule):
    house = await make()
    alert = asked()
    alert.rule, alert.alert_id = rule, alert_id(KEY, 1, rule)
    (mail,) = await house.tell(alert)
    assert mail["Subject"].startswith("[Sluice] Training run")
