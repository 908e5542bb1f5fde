"""The options of ``sluice budgets`` and ``sluice limits``; what they do is in ``streams.commands.budgets``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from streams.commands.invoking import out, run, settings

budgets_app = typer.Typer(no_args_is_help=True, help="Budgets: define, look at, raise, show back.")
limits_app = typer.Typer(no_args_is_help=True, help="Standing limits against bursts.")

Json = Annotated[bool, typer.Option("--json", help="For machines.")]
Why = Annotated[str, typer.Option("--why", help="Stands in the history for everybody to read.")]
By = Annotated[str, typer.Option("--by", help="In whose name; else the login name.")]
BudgetId = Annotated[str, typer.Argument(help="The budget's id.", metavar="BUDGET")]
Value = Annotated[str, typer.Option(help="Of a `per` budget only this one.")]


def who(by: str) -> str:
    """In whose name something is done."""
    from streams.commands.desk import login_name

    return by.strip() or login_name()


@budgets_app.command("list")
def list_(team: Annotated[str, typer.Option(help="Of this team only.")] = "", as_json: Json = False) -> None:
    """Every budget and where it stands, the fullest first."""
    from streams.commands import budgets

    raise typer.Exit(run(budgets.show_list(settings(), team, as_json, out)))


@budgets_app.command()
def show(
    budget: BudgetId,
    as_json: Json = False,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="As `set` takes it.")] = False,
) -> None:
    """One budget: how it is defined, where it stands, what was added to it."""
    from streams.commands import budgets

    raise typer.Exit(run(budgets.show_one(settings(), budget, as_json, as_yaml, out)))


@budgets_app.command("set")
def set_(
    file: Annotated[Path, typer.Argument(help="As budgets.yaml; - is what is piped in.", allow_dash=True)],
    why: Why = "",
    by: By = "",
    version: Annotated[int | None, typer.Option(min=0, help="Only if this version stands; 0: if none does.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Define what a file says: budgets, limits and grants. What it does not name stays. 3: somebody was faster."""
    from streams.commands import budgets

    if str(file) != "-" and (not file.exists() or file.is_dir()):
        raise typer.BadParameter(f"no such file: {file}")
    text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    raise typer.Exit(run(budgets.define(settings(), text, why, who(by), version, dry_run, as_json, out)))


@budgets_app.command()
def withdraw(budget: BudgetId, why: Why = "", by: By = "", as_json: Json = False) -> None:
    """End a budget: what it throttles is let go, its history stays."""
    from streams.commands import budgets

    raise typer.Exit(run(budgets.withdraw(settings(), f"budget|{budget}", why, who(by), as_json, out)))


@budgets_app.command()
def override(
    budget: BudgetId,
    extra: Annotated[str, typer.Option(help="So many dollars more, while it lasts.")] = "",
    lift: Annotated[bool, typer.Option("--lift", help="Throttle nothing, while it lasts.")] = False,
    for_: Annotated[str, typer.Option("--for", "--until", help="2h, 1d12h, or an instant.")] = "",
    value: Value = "",
    end: Annotated[str, typer.Option(help="End this override now (its id).", metavar="ID")] = "",
    why: Why = "",
    by: By = "",
    as_json: Json = False,
) -> None:
    """More money for a budget, or no throttling, until a time."""
    from streams.commands import budgets

    if end:
        raise typer.Exit(run(budgets.withdraw(settings(), f"override|{end}", why, who(by), as_json, out)))
    if not for_:
        raise typer.BadParameter("say how long: --for 2h")
    raise typer.Exit(run(budgets.override(settings(), budget, extra, lift, for_, value, why, who(by), as_json, out)))


@budgets_app.command()
def history(
    budget: BudgetId, limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50, as_json: Json = False
) -> None:
    """Every version of a budget, its overrides and opening balances: when, what, who and why."""
    from streams.commands import budgets

    raise typer.Exit(run(budgets.history(settings(), budget, limit, as_json, out)))


@budgets_app.command("open-balance")
def open_balance(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV or a FOCUS bill.")],
    budget: Annotated[list[str] | None, typer.Option(help="Of this budget only; may be repeated.")] = None,
    before: Annotated[str, typer.Option(help="Of a bill: leave out charges that begin at this instant or later.")] = "",
    why: Why = "",
    by: By = "",
    yes: Annotated[bool, typer.Option("--yes", help="Write it.")] = False,
    as_json: Json = False,
) -> None:
    """Bring in what was spent in the period before Sluice was there.

    The CSV has the columns budget, period_start, amount_usd and, of `per` budgets, value. A bill in the FOCUS format is
    summed by each budget's match, in the periods that still run. Shows what it will set, and writes with --yes.
    """
    from streams.commands import opening

    raise typer.Exit(run(opening.open_balance(settings(), file, budget or (), before, why, who(by), yes, as_json, out)))


@budgets_app.command()
def showback(
    budget: BudgetId,
    by: Annotated[str, typer.Option(help="feature, model, user, key, hour, team, …")] = "feature",
    at: Annotated[str, typer.Option(help="An instant in the period that is meant; else now.")] = "",
    value: Value = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000)] = 20,
    as_json: Json = False,
) -> None:
    """Who spent it. The rows add up to what was spent, and a note says what is exact."""
    from streams.commands import budgets

    raise typer.Exit(run(budgets.showback(settings(), budget, by, at, value, limit, as_json, out)))


@budgets_app.command()
def forecast(
    budget: BudgetId,
    value: Value = "",
    past: Annotated[int, typer.Option(min=0, max=5_000, help="So many earlier statements.")] = 30,
    as_json: Json = False,
) -> None:
    """What it will have spent at its period's end, when it is used up, and how wrong that was before."""
    from streams.commands import forecast

    raise typer.Exit(run(forecast.show(settings(), budget, value, past, out, as_json)))


@limits_app.command("list")
def limits_list(as_json: Json = False) -> None:
    """The standing limits. `sluice budgets set` defines them, with a file that has `limits:`."""
    from streams.commands import limits

    raise typer.Exit(run(limits.show_list(settings(), as_json, out)))


@limits_app.command("withdraw")
def limits_withdraw(
    limit: Annotated[str, typer.Argument(help="The limit's id.")], why: Why = "", by: By = "", as_json: Json = False
) -> None:
    """End a limit."""
    from streams.commands import budgets

    raise typer.Exit(run(budgets.withdraw(settings(), f"limit|{limit}", why, who(by), as_json, out)))
