"""The options of ``sluice feedback`` and ``planned``; what they do is in ``streams.commands.feedback``."""

from enum import StrEnum
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from streams.commands.budget_app import By, Json, Why, who
from streams.commands.invoking import out, run, settings


class Word(StrEnum):
    """What can be said of an alert."""

    YES = "yes"
    NO = "no"
    PLANNED = "planned"


class AlertOrCommand(TyperGroup):
    """``sluice feedback ALERT no``: what is no command of the group is an alert that is answered."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Whatever is no command's name goes to ``answer``."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["answer", *args]
        return super().resolve_command(ctx, args)


feedback_app = typer.Typer(
    cls=AlertOrCommand, no_args_is_help=True,
    help="Answer alerts, so that detectors learn: sluice feedback ALERT yes|no|planned --why …",
)  # fmt: skip
planned_app = typer.Typer(no_args_is_help=True, help="What is planned: launches, re-embeddings, load tests.")

AlertName = Annotated[str, typer.Argument(help="Its dedup key or id, or the beginning of one.", metavar="ALERT")]
EventId = Annotated[str, typer.Argument(help="As `list` shows it.", metavar="EVENT")]


@feedback_app.command()
def answer(
    alert: AlertName,
    word: Annotated[
        Word, typer.Argument(help="no: it is normal here. yes: it was an incident. planned: it was meant.")
    ],
    amount: Annotated[str, typer.Option(help="Of planned: dollars above the usual, for all of its time.")] = "",
    for_: Annotated[str, typer.Option("--for", "--until", help="Of planned: 6h, or an instant; else a day.")] = "",
    why: Why = "",
    by: By = "",
    as_json: Json = False,
) -> None:
    """Answer an alert: after no the same stays quiet, after yes it pages again, planned pages above 1.5 x --amount.

    `answer` itself may be left out: sluice feedback ALERT no --why "a nightly export"
    """
    from streams.commands import feedback

    raise typer.Exit(run(feedback.answer(settings(), alert, word.value, amount, for_, why, who(by), as_json, out)))


@feedback_app.command("list")
def list_(
    team: Annotated[str, typer.Option(help="On this team's alerts only.")] = "",
    word: Annotated[Word | None, typer.Option("--answer", help="Only these.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=5_000, help="The newest so many.")] = 50,
    as_json: Json = False,
) -> None:
    """The answers that stand, the newest first: when, what, who and why."""
    from streams.commands import feedback

    raise typer.Exit(run(feedback.show_list(settings(), team, word.value if word else "", limit, as_json, out)))


@feedback_app.command()
def show(alert: AlertName, as_json: Json = False) -> None:
    """Every answer to one alert, the newest first: that one holds."""
    from streams.commands import feedback

    raise typer.Exit(run(feedback.show_one(settings(), alert, as_json, out)))


@planned_app.command()
def add(
    scope: Annotated[str, typer.Argument(help="team:search, feature:chat, team_feature:search/chat, model:o3, org:…")],
    amount: Annotated[str, typer.Option(help="What it may cost above the usual, in dollars and in all.")],
    for_: Annotated[str, typer.Option("--for", "--until", help="6h from its beginning, or an instant.")],
    from_: Annotated[str, typer.Option("--from", help="now, 2h from now, or an instant.")] = "now",
    event_id: Annotated[str, typer.Option("--id", help="A name of your own.")] = "",
    why: Why = "",
    by: By = "",
    as_json: Json = False,
) -> None:
    """Declare a launch, a re-embedding or a load test: expected up to 1.5 x its amount, and never the usual."""
    from streams.commands import feedback

    raise typer.Exit(run(feedback.add(settings(), scope, amount, from_, for_, event_id, why, who(by), as_json, out)))


@planned_app.command("list")
def planned_list(
    over: Annotated[bool, typer.Option("--all", help="Also what is over.")] = False, as_json: Json = False
) -> None:
    """What runs or lies ahead: when, for which scope, how much, who and why."""
    from streams.commands import feedback

    raise typer.Exit(run(feedback.show_planned(settings(), over, as_json, out)))


@planned_app.command()
def end(event: EventId, why: Why = "", by: By = "", as_json: Json = False) -> None:
    """End an event now: what it has cost so far stays planned."""
    from streams.commands import feedback

    raise typer.Exit(run(feedback.end(settings(), event, why, who(by), as_json, out)))
