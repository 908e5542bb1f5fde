"""What a budget's row says of its future, and of everything that holds of it now."""

import pytest

from schemas.commands import Measure, Target, ThrottleCommand
from schemas.instants import DAY, HOUR, MINUTE, format_instant, parse_instant
from schemas.money import NANOS
from streams.history_ports import ForecastRow
from streams.ports import BudgetStatus
from streams.settings import load_settings
from streams.sinks.forecasts import PostgresForecasts
from streams.sinks.ledger import PostgresLedger
from tests.integration.api_parts import NO_BROKER, NOW, client_of

MONTH, MONTH_END = parse_instant("2026-11-01T00:00:00Z"), parse_instant("2026-12-01T00:00:00Z")
GRADED = (
    Measure("rate_limit", request_types=("batch", "background"), rpm=6),
    Measure("downgrade", models={"gpt-4o": "gpt-4o-mini"}),
    Measure("block", environments=("!prod", "!production")),
)


def status(budget: str = "search-month", value: str = "", spent: float = 40, **changes) -> BudgetStatus:
    fields = {
        "budget_id": budget, "scope_type": "session" if value else "team", "scope_id": value or "search",
        "period": "month", "period_start": MONTH, "period_end": MONTH_END, "amount_nanos": 50 * NANOS,
        "spent_nanos": int(spent * NANOS), "crossed_percent": 75, "commanded": "allow", "mode": "enforce",
        "sequence": 1, "stated_at": NOW, "value": value,
    }  # fmt: skip
    return BudgetStatus(**(fields | changes))


def estimate(method: str, usd: float, *, budget: str = "search-month", value: str = "", **changes) -> ForecastRow:
    fields = {
        "budget_id": budget, "value": value, "period_start": MONTH, "method": method, "at": NOW - 20 * MINUTE,
        "said_at": NOW - MINUTE, "until": MONTH_END, "timezone": "UTC", "spent_nanos": 40 * NANOS,
        "limit_nanos": 50 * NANOS, "projected_nanos": int(usd * NANOS), "low_nanos": int(usd * 0.9 * NANOS),
        "high_nanos": int(usd * 1.1 * NANOS), "exhausts_at": NOW + 3 * DAY if usd > 50 else None, "is_best": False,
        "burn_nanos_per_hour": NANOS, "known_us": 20 * DAY, "judged": 5, "error_permille": 124, "bias_permille": -30,
    }  # fmt: skip
    return ForecastRow(**(fields | changes))


def command(measures=GRADED, *, budget: str = "search-month", target=("team", "search"), **changes) -> ThrottleCommand:
    fields = {
        "command_id": f"{budget} {target}", "budget_id": budget, "target": Target(*target), "action": "block",
        "revision": 1, "reason": "spent", "issued_at": format_instant(NOW), "effective_at": format_instant(NOW),
        "expires_at": format_instant(NOW + HOUR), "measures": measures,
    }  # fmt: skip
    return ThrottleCommand(**(fields | changes))


THREE = [estimate("plain", 57.5), estimate("run_rate", 61.2), estimate("seasonal", 48, is_best=True)]


async def write(pool, *, rows=(), said=(), commands=()) -> None:
    await PostgresLedger(pool).write_budget_status(list(rows))
    await PostgresLedger(pool).write_commands(list(commands))
    await PostgresForecasts(pool).keep([], list(said), [])


async def shown(pool, **written) -> list[dict]:
    await write(pool, **written)
    return (await client_of(load_settings(kafka_url=NO_BROKER), pool).get("/v1/budgets")).json()["budgets"]


async def test_a_budget_shows_what_all_methods_say_the_best_first_with_their_past_error(pool):
    (budget,) = await shown(pool, rows=[status()], said=THREE)
    assert [each["method"] for each in budget["forecasts"]] == ["seasonal", "plain", "run_rate"]
    assert [each["exhausts"] for each in budget["forecasts"]] == [
        "will not pass 100 %", "will pass 100 % on the 24th at about 15:00", "will pass 100 % on the 24th at about 15:00",
    ]  # fmt: skip
    assert {each["past_error"]["mean_percent"] for each in budget["forecasts"]} == {"12.4"}


@pytest.mark.parametrize(
    "said",
    [
        pytest.param([], id="nothing was said"),
        pytest.param([estimate("plain", 60, period_start=MONTH - 30 * DAY)], id="of an earlier period"),
        pytest.param([estimate("plain", 60, said_at=NOW - DAY)], id="a day ago, and nothing since"),
        pytest.param([estimate("plain", 60, budget="other")], id="of another budget"),
    ],
)
async def test_what_is_not_of_now_is_not_shown(pool, said):
    (budget,) = await shown(pool, rows=[status()], said=said)
    assert budget["forecasts"] == []


async def test_the_last_word_of_a_method_counts(pool):
    earlier = estimate("plain", 10, at=NOW - 90 * MINUTE, said_at=NOW - 80 * MINUTE)
    (budget,) = await shown(pool, rows=[status()], said=[earlier, estimate("plain", 60)])
    assert [each["projected"] for each in budget["forecasts"]] == ["60"]


async def test_every_measure_that_holds_is_shown_the_strictest_first(pool):
    (budget,) = await shown(pool, rows=[status(commanded="block")], commands=[command()])
    assert [each["action"] for each in budget["measures"]] == ["block", "downgrade", "rate_limit"]
    assert budget["measures"][0]["environments"] == ["!prod", "!production"]
    assert budget["measures"][1]["models"] == {"gpt-4o": "gpt-4o-mini"}
    assert budget["measures"][2]["rpm"] == 6
    assert {each["dry_run"] for each in budget["measures"]} == {False}


@pytest.mark.parametrize(
    ("given", "actions"),
    [
        pytest.param(command((), action="allow"), [], id="allowed"),
        pytest.param(command(expires_at=format_instant(NOW)), [], id="expired"),
        pytest.param(command((), action="rate_limit", rpm_limit=5), ["rate_limit"], id="said as earlier releases did"),
        pytest.param(command(dry_run=True), ["block", "downgrade", "rate_limit"], id="a dry run says so itself"),
        pytest.param(command(budget="other"), [], id="another budget's"),
    ],
)
async def test_what_holds_is_what_was_last_commanded(pool, given, actions):
    (budget,) = await shown(pool, rows=[status()], commands=[given])
    assert [each["action"] for each in budget["measures"]] == actions
    assert {each["dry_run"] for each in budget["measures"]} <= {given.dry_run}


async def test_each_value_of_a_per_budget_has_its_own(pool):
    rows = [status("agents", value) for value in ("s-1", "s-2")]
    given = [command(GRADED[2:], budget="agents", target=("session", "s-2"))]
    said = [estimate("plain", 60, budget="agents", value="s-1")]
    found = {each["value"]: each for each in await shown(pool, rows=rows, commands=given, said=said)}
    assert {value: len(each["measures"]) for value, each in found.items()} == {"s-1": 0, "s-2": 1}
    assert {value: len(each["forecasts"]) for value, each in found.items()} == {"s-1": 1, "s-2": 0}
