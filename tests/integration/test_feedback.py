"""Answers to alerts from the API to the detector's state: a whole service on real Kafka and PostgreSQL.

Spend comes in as usage events of the last four days, so every stage has a part in it.
"""

import io
import json
from uuid import uuid4

import httpx
import pytest
from rich.console import Console

from schemas import keys
from schemas.alerts import Alert
from schemas.cloudevents import binary_headers
from schemas.events import USAGE_TYPE
from schemas.instants import HOUR, MINUTE, format_instant
from schemas.topics import USAGE_EVENTS
from streams.clock import WallClock
from streams.commands import feedback
from streams.core.defining import RequestError
from streams.settings import load_settings
from streams.sinks.api_keys import ApiKeys
from streams.sinks.definitions import KafkaDefinitions
from streams.topic_admin import ensure_topics
from tests.e2e.conftest import Service, run_service
from tests.integration.api_parts import client_of
from tests.stores import record_alerts

pytestmark = pytest.mark.integration
#: History that a detector needs before it pages, and what an hour of it costs.
HOURS, USUAL = 96, 20


def paper() -> Console:
    return Console(file=io.StringIO(), width=200)


def text_of(out: Console) -> str:
    return out.file.getvalue()  # type: ignore[attr-defined]


class House:
    """A running service, and people who answer."""

    def __init__(self, service: Service, api: httpx.AsyncClient) -> None:
        self.service, self.api = service, api

    async def spends(self, team: str, usd: float, at: int = 0) -> None:
        """One call, now or at an instant, whose gateway says what it cost."""
        data = {
            "provider": "acme", "request_model": "house-1", "team_id": team, "feature": "chat", "input_tokens": 10,
            "reported_cost": f"{usd:.2f}",
        }  # fmt: skip
        headers = binary_headers(
            id=uuid4().hex, source="//test", type=USAGE_TYPE, time=format_instant(at or WallClock().now())
        )
        await self.service.send(data, id="", topic=USAGE_EVENTS, key=team, headers=headers)

    async def past(self, now: int, *teams: str) -> None:
        """Four days of twenty dollars an hour, of all teams together and hour by hour: a late history is none."""
        for hours, ago in enumerate(range(HOURS, 0, -1), 1):
            for team in teams:
                await self.spends(team, USUAL, now - now % HOUR - ago * HOUR + 30 * MINUTE)
            await self.counted(hours * len(teams))

    async def counted(self, events: int) -> None:
        """Wait until the ledger has so many events."""

        async def so() -> bool:
            return (await self.service.pool.fetchval("select sum(next_offset) from ledger_sources") or 0) >= events

        await self.service.until(so, f"{events} events to be counted")

    async def told(self, team: str) -> list[tuple[str, int]]:
        """Status and episode of each spend alert of a team, as they stand."""
        rows = await self.service.pool.fetch(
            "select status, episode from alerts where rule = 'spend_spike' and scope_type = 'team' and scope_id = $1",
            team,
        )
        return sorted((row["status"], row["episode"]) for row in rows)

    async def stands(self, team: str, *wanted: tuple[str, int]) -> None:
        async def so() -> bool:
            return await self.told(team) == list(wanted)

        await self.service.until(so, f"the alerts of {team} to stand as {wanted}, and not as {await self.told(team)}")

    async def seen(self, canary: str) -> None:
        """Wait until DETECT has judged all that was sent: another team's spike, sent after it, is told."""
        await self.spends(canary, 400)
        await self.stands(canary, ("opened", 1))


async def test_from_the_api_to_the_detector(fresh_kafka, postgres, tmp_path):
    database = await postgres.create_database(f"e2e_{uuid4().hex[:12]}")
    # One partition: what is sent later is judged later.
    changes = {"partitions": 1, "flush_interval_ms": 20, "rollup_interval_ms": 50}
    async with run_service(fresh_kafka, database, tmp_path / "state", **changes) as service:
        key = await ApiKeys(service.pool).create("on-call", ["read", "budgets:write"])
        store = KafkaDefinitions(
            {"bootstrap_servers": fresh_kafka.bootstrap}, service.pool, WallClock().now,
            service.running.settings.partitions, idempotence=fresh_kafka.is_real_kafka,
        )  # fmt: skip
        settings = load_settings(kafka_url=fresh_kafka.bootstrap, database_url=database, partitions=1)
        async with client_of(settings, service.pool, key, definitions=store, clock=WallClock()) as api:
            house, now = House(service, api), WallClock().now()
            await house.past(now, "search", "ads", "canary-1", "canary-2")
            await _answered(house)
            await _planned(house, settings)


async def _answered(house: House) -> None:
    await house.spends("search", 280)
    await house.stands("search", ("opened", 1))
    alert = await house.service.pool.fetchval("select dedup_key from alerts where scope_id = 'search'")
    answer = await house.api.post(f"/v1/alerts/{alert}/feedback", json={"answer": "no", "reason": "a nightly export"})
    assert (answer.status_code, answer.json()["teaches"]) == (201, "team:search")
    await house.stands("search", ("resolved", 1))
    await house.spends("search", 10)
    await house.seen("canary-1")
    assert await house.told("search") == [("resolved", 1)]
    read = (await house.api.get(f"/v1/alerts/{alert}/feedback")).json()["answers"]
    assert [(each["answer"], each["by"], each["reason"]) for each in read] == [("no", "on-call", "a nightly export")]


async def _planned(house: House, settings) -> None:
    out = paper()
    code = await feedback.add(settings, "team:ads", "500", "now", "3h", "launch", "the launch", "ann", False, out)
    assert (code, "may cost $500.00 more" in text_of(out)) == (0, True)
    await house.spends("ads", 500)
    await house.seen("canary-2")
    assert await house.told("ads") == []
    await house.spends("ads", 400)
    await house.stands("ads", ("opened", 1))


@pytest.fixture
async def settings(fresh_kafka, database_url, tmp_path):
    """A deployment of this test's own with one alert; no worker runs."""
    await ensure_topics({"bootstrap_servers": [fresh_kafka.bootstrap]}, 1, 1)
    found = load_settings(kafka_url=fresh_kafka.bootstrap, database_url=database_url, partitions=1, state_dir=tmp_path)
    async with feedback.desk(found) as at:
        await record_alerts(at.pool, [(spike(), ())])
    return found


async def printed(work, *arguments, code: int = 0) -> str:
    out = paper()
    assert await work(*arguments, False, out) == code
    return text_of(out)


async def test_answers_on_the_command_line(settings):
    alert = spike().dedup_key
    assert await printed(feedback.show_one, settings, alert, code=1) == f"nobody has answered {alert}\n"
    said = await printed(feedback.answer, settings, alert[:30], "no", "", "", "a nightly export", "first@desk")
    assert "no: team:search learns it within seconds: the same again stays quiet" in said
    said = await printed(feedback.answer, settings, alert, "planned", "100", "3h", "the backfill", "bob")
    assert "planned, $100.00 until" in said
    shown = await printed(feedback.show_one, settings, alert)
    listed = await printed(feedback.show_list, settings, "", "", 50)
    assert all("the backfill" in text and "bob" in text for text in (shown, listed))
    assert "first@desk" not in listed, "the newest word holds"
    as_json = paper()
    await feedback.show_list(settings, "search", "planned", 50, True, as_json)
    assert [one["amount"] for one in json.loads(text_of(as_json))["answers"]] == ["100"]


@pytest.mark.parametrize(
    ("alert", "word", "amount", "why", "says"),
    [
        pytest.param("v1:none", "no", "", "w", "ALERT: there is no alert 'v1:none'", id="no such alert"),
        pytest.param("v1:spend", "no", "", "", "reason: say why", id="no reason"),
        pytest.param("v1:spend", "planned", "", "w", "amount_usd: '' is no amount", id="planned without an amount"),
    ],
)
async def test_an_answer_that_cannot_be_taken_says_what_to_do(settings, alert, word, amount, why, says):
    with pytest.raises(RequestError) as refused:
        await feedback.answer(settings, alert, word, amount, "", why, "ann", False, paper())
    assert says in str(refused.value)


async def test_events_on_the_command_line(settings):
    scope = f"team:{uuid4().hex[:6]}"
    name = scope.removeprefix("team:")
    said = await printed(feedback.add, settings, scope, "500", "2h", "6h", name, "the launch", "ann")
    assert f"{scope} may cost $500.00 more" in said
    assert f"sluice planned end {name} --why …" in said
    assert "the launch" in await printed(feedback.show_planned, settings, False)
    assert await printed(feedback.end, settings, name, "postponed", "bob") == f"{name} is withdrawn before it began\n"
    assert name not in await printed(feedback.show_planned, settings, True)
    with pytest.raises(RequestError, match="there is no"):
        await feedback.end(settings, name, "again", "bob", False, paper())


def spike() -> Alert:
    at = "2026-11-21T14:00:00Z"
    key = keys.alert_dedup_key("spend_spike", "team:search", at)
    return Alert(
        alert_id=keys.alert_id(key, 1, "opened"), dedup_key=key, episode=1, status="opened", severity="critical",
        tier="page", rule="spend_spike", scope_type="team", scope_id="search", summary="Team search spends $60.00",
        occurred_at=at, stated_at=at, period_start=at, period_end="2026-11-21T15:00:00Z", team_id="search",
    )  # fmt: skip
