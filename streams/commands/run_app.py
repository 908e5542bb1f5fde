"""The options of ``sluice runs``, ``grants`` and ``release``; what they do is in ``streams.commands.runs``."""

from typing import Annotated

import typer

from streams.commands.budget_app import By, Json, Why, who
from streams.commands.invoking import out, run, settings

runs_app = typer.Typer(no_args_is_help=True, help="Training runs: what they announced, and who approved.")
grants_app = typer.Typer(no_args_is_help=True, help="Expensive models, and which team may use them.")

RunId = Annotated[str, typer.Argument(help="`run` of the events that the job sends.", metavar="RUN")]
Team = Annotated[str, typer.Argument(help="The team.")]
ModelName = Annotated[str, typer.Argument(help="The model, as gateways name it.", metavar="MODEL")]


@runs_app.command()
def announce(
    run_id: RunId,
    team: Annotated[str, typer.Option(help="Whose run it is.")],
    estimate: Annotated[str, typer.Option(help="What it will cost, in dollars.")],
    hours: Annotated[int, typer.Option(min=0, help="How long it will take.")] = 0,
    auto_shutdown: Annotated[
        bool, typer.Option("--auto-shutdown", help="It may be stopped when it passes its estimate by a factor.")
    ] = False,
    stop_at: Annotated[int, typer.Option(help="Where that is, in percent of the estimate.")] = 150,
    why: Why = "",
    by: By = "",
    as_json: Json = False,
) -> None:
    """Put a run on record. Ends with 0 where it may run, with 4 where it waits for its team's lead."""
    from streams.commands import runs

    raise typer.Exit(
        run(
            runs.announce(settings(), run_id, team, estimate, hours, auto_shutdown, stop_at, why, who(by), as_json, out)
        )
    )


@runs_app.command()
def approve(run_id: RunId, why: Why = "", by: By = "", as_json: Json = False) -> None:
    """Approve a run, in your name."""
    from streams.commands import runs

    raise typer.Exit(run(runs.decide(settings(), run_id, "approved", why, who(by), as_json, out)))


@runs_app.command()
def refuse(run_id: RunId, why: Why = "", by: By = "", as_json: Json = False) -> None:
    """Refuse a run, in your name; also one that was approved."""
    from streams.commands import runs

    raise typer.Exit(run(runs.decide(settings(), run_id, "refused", why, who(by), as_json, out)))


@runs_app.command()
def end(
    run_id: RunId,
    outcome: Annotated[str, typer.Option(help="How it ended.")] = "",
    by: By = "",
    as_json: Json = False,
) -> None:
    """Say that a run is over."""
    from streams.commands import runs

    raise typer.Exit(run(runs.end(settings(), run_id, outcome, who(by), as_json, out)))


@runs_app.command()
def show(run_id: RunId, as_json: Json = False) -> None:
    """Where a run stands. Ends with 0 where it may run, 4 where it waits for approval, 5 where it must not."""
    from streams.commands import runs

    raise typer.Exit(run(runs.show(settings(), run_id, as_json, out)))


@runs_app.command("list")
def list_(
    team: Annotated[str, typer.Option(help="Of this team only.")] = "",
    state: Annotated[str, typer.Option(help="announced, recorded, approved, refused or ended only.")] = "",
    as_json: Json = False,
) -> None:
    """Every run that was announced, the newest first."""
    from streams.commands import runs

    raise typer.Exit(run(runs.show_list(settings(), team, state, as_json, out)))


@runs_app.command()
def link(
    run_id: RunId,
    to: Annotated[str, typer.Option(help="Whose word it will be: a name or an address.")],
    for_: Annotated[str, typer.Option("--for", "--until", help="3d, or an instant; 14 days at most.")] = "3d",
    as_json: Json = False,
) -> None:
    """Make a signed link by which a team's lead approves or refuses this run."""
    from streams.commands import runs

    raise typer.Exit(run(runs.link(settings(), run_id, to, for_, as_json, out)))


@grants_app.command("list")
def grants_list(as_json: Json = False) -> None:
    """Expensive models, and which team may use them until when."""
    from streams.commands import runs

    raise typer.Exit(run(runs.show_grants(settings(), as_json, out)))


@grants_app.command()
def give(
    team: Team,
    model: ModelName,
    for_: Annotated[str, typer.Option("--for", "--until", help="30d, or an instant; else for good.")] = "",
    why: Why = "",
    by: By = "",
    as_json: Json = False,
) -> None:
    """Let a team use a model that is marked expensive."""
    from streams.commands import runs

    raise typer.Exit(run(runs.grant(settings(), team, model, for_, why, who(by), as_json, out)))


@grants_app.command()
def revoke(team: Team, model: ModelName, why: Why = "", by: By = "", as_json: Json = False) -> None:
    """Take a grant back."""
    from streams.commands import budgets

    raise typer.Exit(run(budgets.withdraw(settings(), f"grant|{team}|{model}", why, who(by), as_json, out)))


def release(
    everything: Annotated[bool, typer.Option("--all", help="Every gate: there is no smaller release.")] = False,
    for_: Annotated[str, typer.Option("--for", "--until", help="2h, or an instant; 7 days at most.")] = "",
    end: Annotated[bool, typer.Option("--end", help="End the release now.")] = False,
    why: Why = "",
    by: By = "",
    as_json: Json = False,
) -> None:
    """Open every gate at once, for a time: --all --for 2h. Needs the broker alone. Without options: is one in force?

    One budget alone is let go with `sluice budgets override BUDGET --lift --for 2h`.
    """
    from streams.commands import runs

    if end and everything:
        raise typer.BadParameter("--all opens and --end closes: give one")
    if end:
        raise typer.Exit(run(runs.stop_release(settings(), why, who(by), as_json, out)))
    if everything:
        if not for_:
            raise typer.BadParameter("say how long: --for 2h")
        raise typer.Exit(run(runs.release(settings(), for_, why, who(by), as_json, out)))
    if for_ or why:
        raise typer.BadParameter("say --all: it opens every gate there is")
    raise typer.Exit(run(runs.show_release(settings(), as_json, out)))
