"""One overspend is one page, at the highest budget crossed, whichever of its alerts comes first."""

import pytest

from schemas.alerts import Alert
from tests.integration.notify_parts import People, alert

pytestmark = pytest.mark.integration
ABOVE = {"chat": ("search", "org"), "search": ("org",), "org": ()}


def page(budget: str, status: str = "opened", **more) -> Alert:
    return alert(budget, status, ancestors=ABOVE[budget], **more)


@pytest.mark.parametrize("order", [("org", "search", "chat"), ("chat", "search", "org"), ("search", "chat", "org")])
async def test_of_budgets_that_are_crossed_together_only_the_highest_pages(pool, order):
    people = People(pool)
    for budget in order:
        await people.hear(page(budget))
        if budget == "org":
            assert [said.receiver for said in await people.flush()] == ["pagerduty", "slack"]
    assert await people.told() == [("org", "trigger")]


async def test_an_inhibited_budget_is_told_in_slack_and_its_end_wakes_nobody(pool):
    people = await People(pool).hear(page("org"))
    await people.hear(page("chat"))
    assert [scope for scope, _ in await people.told("slack")] == ["org", "chat"]
    await people.hear(page("chat", "resolved", second=9), page("org", "resolved", second=10))
    assert await people.told() == [("org", "trigger"), ("org", "resolve")]


async def test_a_repeat_after_the_ancestors_page_ended_stays_what_it_was(pool):
    people = await People(pool).hear(page("org"), page("chat"))
    assert await people.told() == [("org", "trigger")]
    await people.hear(page("org", "resolved", second=5), page("chat"))
    assert "chat" not in [scope for scope, _ in await people.told()]
    await people.hear(page("chat", "resolved", second=6))
    await people.hear(page("chat", episode=2, second=7))
    assert (await people.told())[-1] == ("chat", "trigger")


async def test_a_page_that_was_sent_is_ended_though_its_ancestor_pages_by_then(pool):
    people = await People(pool).hear(page("chat"))
    await people.told()
    await people.hear(page("org", second=60), page("chat", "resolved", second=61))
    assert sorted(await people.told()) == [("chat", "resolve"), ("chat", "trigger"), ("org", "trigger")]


async def test_a_budget_beside_it_and_a_ticket_above_it_do_not_silence_a_page(pool):
    people = await People(pool).hear(page("org", tier="ticket"))
    await people.hear(page("search"))
    assert await people.told() == [("search", "trigger")]
