"""``sluice budgets forecast``: what a budget will have spent, when it is used up, and how wrong that was before."""

import asyncpg
from rich.console import Console

from schemas.money import display_usd, parse_nanos
from streams.clock import WallClock
from streams.commands.printing import print_line, print_table
from streams.commands.running import complete
from streams.settings import Settings
from streams.sinks.postgres import migrate, open_pool
from streams.web.forecasts import Estimate, Forecast, forecast_of


async def show(settings: Settings, budget_id: str, value: str, past: int, out: Console, as_json: bool) -> int:
    """Print the forecast of one budget; 1 where there is none."""
    database = complete(settings, "database_url").database_url
    assert database is not None
    await migrate(database.get_secret_value())
    pool: asyncpg.Pool = await open_pool(database.get_secret_value())
    try:
        found = await forecast_of(pool, budget_id, value, past, WallClock().now())
    finally:
        await pool.close()
    if found is None:
        print_line(out, f"nothing is forecast of budget {budget_id}: a new one has a forecast after a minute", "red")
        return 1
    if as_json:
        print_line(out, found.model_dump_json(indent=2))
    else:
        _print(found, out)
    return 0


def _print(found: Forecast, out: Console) -> None:
    print_line(
        out, f"{found.budget_id}{' ' + found.value if found.value else ''}: {_usd(found.spent)} of {_usd(found.limit)}"
    )
    print_line(out, f"spent since {_minute(found.period_start)}; looked ahead to {_minute(found.until)};")
    known = f"its spend has been known for {found.known_hours} hours. Estimates:"
    print_line(out, f"{_usd(found.burn_per_hour)} in the last hour; {known}")
    columns = ("method", "projected", "of limit", "between", "100 %", "past error", "bias")
    rows = [
        (
            ("* " if each.is_best else "  ") + each.method,
            _usd(each.projected),
            f"{each.projected_percent} %",
            f"{_usd(each.low)} and {_usd(each.high) if each.high is not None else '?'}",
            each.exhausts,
            *_past(each),
        )
        for each in found.estimates
    ]
    print_table(out, columns, rows, numbers=("projected", "of limit", "past error", "bias"))
    judged = [each for each in found.history if each.error_percent is not None]
    if judged:
        print_line(out, "Said before, and what came:")
        print_table(
            out,
            ("said at", "method", "projected", "came", "error"),
            [
                (_minute(e.said_at), e.method, _usd(e.projected), _usd(e.actual or "0"), f"{e.error_percent} %")
                for e in judged
            ],
            numbers=("projected", "came", "error"),
        )


def _usd(text: str) -> str:
    return display_usd(parse_nanos(text))


def _minute(text: str) -> str:
    return f"{text[:16].replace('T', ' ')} UTC"


def _past(each: Estimate) -> tuple[str, str]:
    past = each.past_error
    if not past.statements:
        return "no history yet", ""
    return f"{past.mean_percent} % of {past.statements}", f"{past.bias_percent} %"
