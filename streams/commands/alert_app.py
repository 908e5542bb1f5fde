"""The options of ``sluice alerts``, ``silences``, ``reviews`` and ``digest``."""

from enum import StrEnum
from typing import Annotated

import typer

from streams.commands.budget_app import By, Json, Why, who
from streams.commands.invoking import out, run, settings

alerts_app = typer.Typer(no_args_is_help=True, help="Alerts: what fires, what was said of it, what was sent to whom.")
silences_app = typer.Typer(no_args_is_help=True, help="Silences: no messages about some alerts, until a time.")
reviews_app = typer.Typer(no_args_is_help=True, help="Reviews: what critical alerts lead to, and what came of it.")

Key = Annotated[str, typer.Argument(help="Its id or dedup key, or the beginning of one.", metavar="ALERT")]
Team = Annotated[str, typer.Option(help="Of this team only.")]


class Status(StrEnum):
    """Which alerts are listed."""

    OPEN = "open"
    RESOLVED = "resolved"
    ALL = "all"


@alerts_app.command("list")
def alerts_list(
    status: Annotated[Status, typer.Option(help="Which.")] = Status.OPEN,
    team: Team = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """Alerts as they stand, open ones first."""
    from streams.commands import alerts

    raise typer.Exit(run(alerts.show_list(settings(), status.value, team, limit, as_json, out)))


@alerts_app.command()
def show(alert: Key, as_json: Json = False) -> None:
    """One alert: where it stands, its episodes, the words on it, and every message about it."""
    from streams.commands import alerts

    raise typer.Exit(run(alerts.show_one(settings(), alert, as_json, out)))


@alerts_app.command()
def ack(
    alert: Key,
    note: Annotated[str, typer.Option(help="What you are about to do.")] = "",
    by: By = "",
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Give it back: nobody has it in hand.")] = False,
    as_json: Json = False,
) -> None:
    """Take an alert in hand: escalation and repeats of its present episode end."""
    from streams.commands import alerts

    raise typer.Exit(run(alerts.acknowledge(settings(), alert, note, who(by), withdraw, as_json, out)))


@silences_app.command("list")
def silences_list(
    every: Annotated[bool, typer.Option("--all", help="Also those to come, and of the last 7 days.")] = False,
    as_json: Json = False,
) -> None:
    """Silences that hold: what they hold back, until when, by whom and why."""
    from streams.commands import silences

    raise typer.Exit(run(silences.show_list(settings(), every, as_json, out)))


@silences_app.command()
def add(
    matchers: Annotated[
        list[str], typer.Argument(help="team=search rule!=gpu_idle severity=~'info|warning'; all hold.")
    ],
    for_: Annotated[str, typer.Option("--for", "--until", help="2h, or an instant; 90 days at most.")],
    why: Why = "",
    starts: Annotated[str, typer.Option(help="An instant; else now.")] = "",
    by: By = "",
    as_json: Json = False,
) -> None:
    """Silence alerts: they are shown on, and nobody is told. `alert=KEY` names a single one."""
    from streams.commands import silences

    raise typer.Exit(run(silences.add(settings(), matchers, for_, starts, why, who(by), as_json, out)))


@silences_app.command()
def end(silence: Annotated[str, typer.Argument(help="Its id.")], by: By = "") -> None:
    """End a silence now: what it held back and is still true is told."""
    from streams.commands import silences

    raise typer.Exit(run(silences.end(settings(), silence, who(by), out)))


@reviews_app.command("list")
def reviews_list(
    closed: Annotated[bool, typer.Option("--closed", help="Also those that are done.")] = False,
    team: Team = "",
    as_json: Json = False,
) -> None:
    """Reviews, the first due first; overdue ones stand out."""
    from streams.commands import reviews

    raise typer.Exit(run(reviews.show_list(settings(), closed, team, as_json, out)))


ReviewId = Annotated[str, typer.Argument(help="Its id.", metavar="REVIEW")]


@reviews_app.command()
def close(
    review: ReviewId,
    outcome: Annotated[str, typer.Option(help="What was the cause, and what was done about it.")] = "",
    by: By = "",
) -> None:
    """Close a review with what came of it."""
    from streams.commands import reviews

    raise typer.Exit(run(reviews.close(settings(), review, outcome, who(by), out)))


@reviews_app.command()
def assign(
    review: ReviewId,
    owner: Annotated[str, typer.Option(help="Who looks into it.")] = "",
    due: Annotated[str, typer.Option(help="Until when: 3d, or an instant.")] = "",
) -> None:
    """Hand a review over, or move its day."""
    from streams.commands import reviews

    raise typer.Exit(run(reviews.assign(settings(), review, owner, due, out)))


def digest(
    team: Annotated[str, typer.Option(help="Of this team.")] = "",
    model: Annotated[str, typer.Option(help="Of this model.")] = "",
    models: Annotated[bool, typer.Option("--models", help="Of every model, a paragraph each.")] = False,
    week: Annotated[str, typer.Option(help="2026-W47, or a day of it; else the last whole week.")] = "",
    as_json: Json = False,
) -> None:
    """Print a week's digest: spend, change, forecast, budgets, alerts, drivers. Without an option: of everything."""
    from streams.commands import digests

    if bool(team) + bool(model) + models > 1:
        raise typer.BadParameter("give one of --team, --model and --models")
    raise typer.Exit(run(digests.show(settings(), team, model, models, week, as_json, out)))
