"""The options of ``sluice routes``; what it says is in ``streams.commands.routes``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from streams.commands.invoking import fail, out, settings

routes_app = typer.Typer(no_args_is_help=True, help="Who hears of which alert: the routes, and to try them.")

Routes = Annotated[Path | None, typer.Option("--routes", exists=True, dir_okay=False, help="Another routes.yaml.")]


def _settings(routes: Path | None) -> Any:
    """The settings, with another file of routes where one is given."""
    return settings(routes_file=routes) if routes else settings()


@routes_app.command()
def show(routes: Routes = None) -> None:
    """The tree of routes, the receivers, and what silences what."""
    from streams.commands.routes import draw
    from streams.routes_setting import read_routes
    from streams.settings import SettingsError

    try:
        draw(read_routes(_settings(routes)), out)
    except SettingsError as error:
        fail(error.problems, "These routes cannot be used:", code=2)


@routes_app.command("test")
def try_(
    alert: Annotated[
        list[str] | None,
        typer.Option("--alert", help="LABEL=VALUE, as many as you like (team=search, severity=critical), or a file."),
    ] = None,
    firing: Annotated[
        list[str] | None,
        typer.Option("--firing", help="Another alert that fires: LABEL=VALUE,LABEL=VALUE or a file; may be repeated."),
    ] = None,
    at: Annotated[str, typer.Option(help="Instant (RFC 3339) for quiet hours; else now.")] = "",
    to: Annotated[
        list[str] | None, typer.Option("--to", help="End with 1 unless exactly these are told; may be repeated.")
    ] = None,
    routes: Routes = None,
) -> None:
    """Which way an alert would go, and why: the walk through the tree, its groups, timings, what would mute it.

    Files are JSON, an alert as on alerts.v1. Try it: sluice routes test --alert severity=emergency --alert team=search
    """
    from schemas.instants import parse_instant
    from streams.clock import WallClock
    from streams.commands.routes import read_alerts, say
    from streams.core.route_walk import explain
    from streams.routes_setting import read_routes
    from streams.settings import SettingsError

    try:
        now = parse_instant(at) if at else WallClock().now()
        found = read_routes(_settings(routes))
        others = [each for given in firing or () for each in read_alerts(given.split(","), now)]
        tried = [explain(each, found, now, others) for each in read_alerts(alert or (), now)]
    except SettingsError as error:
        fail(error.problems, "These routes cannot be used:", code=2)
    except (ValueError, OSError) as error:
        fail([str(error)], "That cannot be tried:", code=2)
    wrong = False
    for each in tried:
        say(each, out)
        if to is not None and set(each.receivers()) != set(to):
            out.print(f"Expected: {', '.join(sorted(to))}.", style="bold red", markup=False, highlight=False)
            wrong = True
    raise typer.Exit(int(wrong))
