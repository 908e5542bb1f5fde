"""One overspend is one page, at the highest budget crossed, whichever of its alerts comes first."""

import msgspec
import pytest

from schemas import keys
from schemas.alerts import Alert
from schemas.instants import SECOND, format_instant
from streams.core.routing import receivers_of
from streams.sinks.outbox import PostgresOutbox
from streams.sinks.postgres import migrate, open_pool
from tests.unit.records import NOON

pytestmark = pytest.mark.integration
RECEIVERS = ("pagerduty", "slack", "email")
ABOVE = {"chat": ("search", "org"), "search": ("org",), "org": ()}


@pytest.fixture
async def pool(database_url):
    await migrate(database_url)
    opened = await open_pool(database_url)
    yield opened
    await opened.close()


def page(budget: str, status: str = "opened", *, episode: int = 1, second: int = 0, **more) -> Alert:
    key = f"v1:budget_threshold:budget:{budget}:2026:100"
    return Alert(
        alert_id=keys.alert_id(key, episode, status), dedup_key=key, episode=episode, status=status,
        severity="emergency", tier="page", rule="budget_threshold", scope_type="budget", scope_id=budget,
        summary=f"{budget} {status}", occurred_at=format_instant(NOON + second * SECOND),
        stated_at=format_instant(NOON + second * SECOND), ancestors=ABOVE[budget], **more,
    )  # fmt: skip


class People:
    """The outbox with everything in it taken out and sent, the grace over."""

    def __init__(self, pool) -> None:
        self.pool, self.outbox = pool, PostgresOutbox(pool)
        self.paged: list[tuple[str, str]] = []

    async def hear(self, *alerts: Alert) -> "People":
        told = [(alert, receivers_of(alert, RECEIVERS)) for alert in alerts]
        await self.outbox.record(told, lambda ticket: receivers_of(ticket, RECEIVERS))
        return self

    async def sent(self) -> list[tuple[str, str]]:
        """The budgets and statuses that PagerDuty was sent, in order."""
        await self.pool.execute("update outbox set due_at = now() - interval '1 second'")
        while owed := await self.outbox.lease(20, 30):
            for delivery in owed:
                await self.outbox.sent(delivery.notification_id, "receipt")
                if delivery.receiver == "pagerduty":
                    self.paged.append((delivery.alert.scope_id, delivery.alert.status))
        return self.paged


@pytest.mark.parametrize("order", [("org", "search", "chat"), ("chat", "search", "org"), ("search", "chat", "org")])
async def test_of_budgets_that_are_crossed_together_only_the_highest_pages(pool, order):
    people = People(pool)
    for budget in order:
        await people.hear(page(budget))
    assert await people.sent() == [("org", "opened")]
    rows = await pool.fetch("select scope_id, tier from alerts order by 1")
    assert {row["scope_id"]: row["tier"] for row in rows} == {"chat": "ticket", "org": "page", "search": "ticket"}


async def test_an_inhibited_budget_is_told_in_slack_and_its_end_wakes_nobody(pool):
    people = await People(pool).hear(page("org"))
    await people.hear(page("chat"))
    assert await pool.fetchval("select count(*) from outbox where receiver = 'slack' and state = 'owed'") == 2
    await people.sent()
    await people.hear(page("chat", "resolved", second=9), page("org", "resolved", second=10))
    assert await people.sent() == [("org", "opened"), ("org", "resolved")]


async def test_a_repeat_after_the_ancestors_page_ended_stays_what_it_was(pool):
    people = await People(pool).hear(page("org"), page("chat"))
    await people.hear(page("org", "resolved", second=5), page("chat"))
    assert ("chat", "opened") not in await people.sent()
    await people.hear(page("chat", "resolved", second=6), page("chat", episode=2, second=7))
    assert (await people.sent())[-1] == ("chat", "opened")


async def test_a_page_that_was_sent_is_ended_though_its_ancestor_pages_by_then(pool):
    people = await People(pool).hear(page("chat"))
    await people.sent()
    await people.hear(page("org", second=60), page("chat", "resolved", second=61))
    assert await people.sent() == [("chat", "opened"), ("org", "opened"), ("chat", "resolved")]


async def test_a_budget_beside_it_and_a_ticket_above_it_do_not_silence_a_page(pool):
    people = await People(pool).hear(msgspec.structs.replace(page("org"), tier="ticket"))
    await people.hear(page("search"))
    assert await people.sent() == [("search", "opened")]
