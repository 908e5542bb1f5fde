"""Reviews that open by themselves and weeks that are told once, on a real PostgreSQL."""

import asyncio
from datetime import date
from functools import partial

import msgspec
import pytest

from schemas.instants import DAY, HOUR, MINUTE, parse_instant, to_datetime
from streams.agents.aftercare import Aftercare, Digests
from streams.settings import Settings
from streams.sinks.ledger import PostgresLedger
from streams.sinks.owing import restored
from streams.sinks.reviews import PostgresReviews, list_reviews
from streams.sinks.weekly_reports import WeeklyReports
from tests.integration.alert_rows import alert, put
from tests.integration.api_parts import NO_BROKER, cell, client_of, got
from tests.integration.notify_parts import People

#: A Monday, half past eight in UTC.
NOW = parse_instant("2026-11-23T08:30:00Z")
WEDNESDAY = parse_instant("2026-11-18T10:00:00Z")
USD = 1_000_000_000


class Clock:
    def __init__(self, now: int = NOW) -> None:
        self.instant = now

    def now(self) -> int:
        return self.instant

    def observe(self, event_time: int, source: str = "") -> None:
        raise AssertionError("nobody's Monday moves with the stream")


def aftercare(
    pool, clock=None, *, receivers=("email", "slack"), zones=None, review_us=5 * DAY, own=None, **more
) -> Aftercare:
    digests = Digests(receivers, 8, "UTC", zones or {}, {"search": "lead@example.com"}, own or {})
    return Aftercare(
        PostgresReviews(pool), WeeklyReports(pool), clock or Clock(), digests, review_us=review_us,
        owners={"search": "lead@example.com", "*": "platform@example.com"}, **more,
    )  # fmt: skip


async def spend(pool) -> None:
    """Two teams, two weeks."""
    await PostgresLedger(pool).write_cells(
        [
            cell("search", "chat", "gpt-4o", WEDNESDAY, 800 * USD, input_tokens=1_000),
            cell("search", "kyc", "mini", WEDNESDAY + HOUR, 100 * USD, input_tokens=1_000),
            cell("search", "chat", "gpt-4o", WEDNESDAY - 7 * DAY, 400 * USD, input_tokens=1_000),
            cell("risk", "kyc", "gpt-4o", WEDNESDAY, 7 * USD, input_tokens=10),
            cell("search", "chat", "gpt-4o", WEDNESDAY + 5 * DAY, 5_000 * USD),
            cell("search", "chat", "gpt-4o", WEDNESDAY - 14 * DAY, 60 * USD),
        ],
        [],
    )


async def owed(pool) -> list[tuple[str, str, str]]:
    rows = await pool.fetch("select receiver, body from outbox order by position")
    return sorted((row["receiver"], row["body"]["group"]["team"], row["body"]["heading"]) for row in rows)


async def test_each_team_and_the_models_are_told_once_however_many_workers_there_are(pool):
    await spend(pool)
    await asyncio.gather(*(aftercare(pool).tell_weeks() for _ in range(4)))
    await aftercare(pool, Clock(NOW + DAY)).tell_weeks()
    told = await owed(pool)
    assert [(receiver, team) for receiver, team, _ in told] == [
        (receiver, team) for receiver in ("email", "slack") for team in ("", "risk", "search")
    ]
    assert "Team search in week 2026-W47: $900.00, 125 % more" in {heading for *_, heading in told}


async def test_a_digest_reaches_its_receivers_through_the_outbox(pool):
    await spend(pool)
    await aftercare(pool).tell_weeks()
    taken = await People(pool).take()
    assert {(said.receiver, said.action, said.reason) for said in taken} == {
        ("email", "tell", "report"), ("slack", "tell", "report"),
    }  # fmt: skip
    (mail,) = [said for said in taken if said.receiver == "email" and said.group["team"] == "search"]
    assert mail.paragraphs[0].startswith("16 November to 22 November 2026 (UTC): $900.00 spent")


async def test_a_team_that_cannot_be_told_now_holds_up_nobody_and_is_told_later(pool):
    await spend(pool)

    class Dying(WeeklyReports):
        async def tell(self, subject, name, *rest):
            if (subject, name) == ("team", "risk"):
                raise ConnectionError("the database goes away here")
            return await super().tell(subject, name, *rest)

    one = aftercare(pool)
    one._weeks = Dying(pool)
    with pytest.raises(ConnectionError):
        await one.tell_weeks()
    assert {team for _, team, _ in await owed(pool)} == {"", "search"}
    await aftercare(pool).tell_weeks()
    assert len(await owed(pool)) == 6


async def test_a_message_that_was_cleared_away_is_not_owed_again(pool):
    await spend(pool)
    await aftercare(pool).tell_weeks()
    await pool.execute("delete from outbox")
    await aftercare(pool).tell_weeks()
    assert await owed(pool) == []


async def test_whoever_comes_second_with_a_report_owes_nothing(pool):
    """Two workers that both found it untold; the first one's messages were cleared away since."""
    await spend(pool)
    await aftercare(pool).tell_weeks()
    said = [restored(row["body"]) for row in await pool.fetch("select body from outbox")]
    await pool.execute("delete from outbox")
    assert not await WeeklyReports(pool).tell("team", "search", date(2026, 11, 16), {}, said, NOW)
    assert await owed(pool) == []


async def test_a_team_in_another_zone_is_told_on_its_own_morning(pool):
    await spend(pool)
    clock = Clock()
    worker = aftercare(pool, clock, zones={"risk": "America/Los_Angeles"})
    await worker.tell_weeks()
    assert {team for _, team, _ in await owed(pool)} == {"", "search"}
    clock.instant = parse_instant("2026-11-23T15:59:00Z")
    await worker.tell_weeks()
    assert len(await owed(pool)) == 4
    clock.instant += MINUTE
    await worker.tell_weeks()
    assert len(await owed(pool)) == 6


@pytest.mark.parametrize("now", ["2026-11-23T07:59:00Z", "2026-11-27T08:00:00Z"], ids=["before eight", "on Friday"])
async def test_nothing_is_told_outside_of_its_days(pool, now):
    await spend(pool)
    await aftercare(pool, Clock(parse_instant(now))).tell_weeks()
    assert await owed(pool) == []


@pytest.mark.parametrize("receivers", [("email",), ()], ids=["beside others", "alone"])
async def test_a_team_with_receivers_of_its_own_is_told_there(pool, receivers):
    await spend(pool)
    await aftercare(pool, receivers=receivers, own={"risk": ["risk/slack"]}).tell_weeks()
    told = {(receiver, team) for receiver, team, _ in await owed(pool)}
    assert told == {("risk/slack", "risk")} | {(each, team) for each in receivers for team in ("", "search")}


async def test_a_review_is_for_the_owner_that_the_routes_name(pool):
    await put(pool, alert(at=NOW - HOUR))
    of_routes = partial(msgspec.structs.replace, owner="of-routes@example.com")
    await aftercare(pool, owned=of_routes).open_reviews()
    (row,) = await list_reviews(pool)
    assert row["owner"] == "of-routes@example.com"


async def test_without_receivers_or_spend_nothing_is_told(pool):
    await aftercare(pool).tell_weeks()
    await spend(pool)
    await aftercare(pool, receivers=()).tell_weeks()
    assert await owed(pool) == []


async def test_a_digest_goes_to_the_lead_else_to_the_owner_of_the_teams_budget(pool):
    await spend(pool)
    body = {"type": "budget", "id": "risk-daily", "match": [["team", "risk"]], "owner": "rita@example.com"}
    await pool.execute(
        "insert into definition_history values ('budget|risk-daily', 1, $1, 'x', 'x', now(), false)", body
    )
    await aftercare(pool).tell_weeks()
    rows = await pool.fetch("select body->'group' as who from outbox where receiver = 'email'")
    assert {row["who"]["team"]: row["who"]["owner"] for row in rows} == {
        "search": "lead@example.com", "risk": "rita@example.com", "": "",
    }  # fmt: skip


async def test_a_digest_has_the_teams_own_budgets_alerts_and_reviews(pool):
    await spend(pool)
    await put(pool, alert(at=WEDNESDAY))
    await put(pool, alert(key="of risk", team_id="risk", summary="risk is over", at=WEDNESDAY))
    await put(pool, alert(key="of next week", summary="later", at=NOW))
    rows = [("search-month", "team", "search"), ("org-month", "org", "acme"), ("by-definition", "feature", "chat")]
    for name, kind, scope in rows:
        await pool.execute(
            "insert into budget_status (budget_id, period_start, period_end, scope_type, scope_id, period, amount_nanos,"
            " spent_nanos, crossed_percent, commanded, mode, sequence, stated_at)"
            " values ($1, $2, $3, $4, $5, 'month', 4000000000000, 3000000000000, 75, 'allow', 'enforce', 1, $2)",
            name, to_datetime(WEDNESDAY - 17 * DAY), to_datetime(NOW + 7 * DAY), kind, scope,
        )  # fmt: skip
    body = {"match": [["feature", "chat"], ["team", "search"]]}
    await pool.execute(
        "insert into definition_history values ('budget|by-definition', 1, $1, 'x', 'x', now(), false)", body
    )
    async with client_of(Settings(kafka_url=NO_BROKER), pool) as client:
        found = await got(client, "/v1/digest?team=search&week=2026-W47")
    text = "\n".join(found["paragraphs"])
    assert "· by-definition 75.0 % of $4,000.00 (month)\n· search-month 75.0 %" in text
    assert "org-month" not in text
    assert "Alerts: 1 emergency. The worst: Budget search-daily is used up" in text
    assert (found["cost"], found["cost_before"]) == ("900", "400")
    assert "$1,360.00 in November so far" in text


async def test_the_digest_of_a_model_and_of_everything_can_be_read(pool):
    await spend(pool)
    async with client_of(Settings(kafka_url=NO_BROKER), pool) as client:
        assert (await got(client, "/v1/digest?model=mini&week=2026-W47"))["cost"] == "100"
        assert (await got(client, "/v1/digest?week=2026-W47"))["cost"] == "907"
        models = await got(client, "/v1/digest?models=true&week=2026-11-20")
        assert models["paragraphs"][1].startswith("gpt-4o: $807.00, 101 % more")
        await got(client, "/v1/digest?week=soon", 422)


async def test_a_critical_alert_has_its_review_by_itself_once(pool):
    await put(pool, alert(at=NOW - HOUR))
    await put(pool, alert(key="other", team_id="risk", severity="critical", tier="ticket", at=NOW - HOUR))
    await put(pool, alert(key="owned", owner="olga@example.com", at=NOW - HOUR))
    await put(pool, alert(key="small", severity="warning", tier="ticket", at=NOW - HOUR))
    await asyncio.gather(*(aftercare(pool).open_reviews() for _ in range(3)))
    found = {row["dedup_key"]: row for row in await list_reviews(pool)}
    assert {key: row["owner"] for key, row in found.items()} == {
        alert().dedup_key: "lead@example.com", "other": "platform@example.com", "owned": "olga@example.com",
    }  # fmt: skip
    assert found["other"]["due_at"] - found["other"]["opened_at"] == to_datetime(5 * DAY) - to_datetime(0)


async def test_where_reviews_are_off_none_is_opened(pool):
    await put(pool, alert(at=NOW - HOUR))
    await aftercare(pool, review_us=0).open_reviews()
    assert await list_reviews(pool) == []
