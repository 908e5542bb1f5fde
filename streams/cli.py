"""The ``sluice`` command line: thin commands over the parts; each imports what it needs when it runs."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from streams.commands.alert_app import alerts_app, digest, reviews_app, silences_app
from streams.commands.budget_app import budgets_app, limits_app
from streams.commands.invoking import Flags, err, out, settings
from streams.commands.invoking import run as _run
from streams.commands.routes_app import routes_app
from streams.commands.run_app import grants_app, release, runs_app
from streams.settings import load_settings

app = typer.Typer(
    name="sluice", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="AI spend as it happens: exact money per team and feature, budgets that hold, few and true pages.",
)  # fmt: skip
topics_app = typer.Typer(no_args_is_help=True, help="The Kafka topics.")
dlq_app = typer.Typer(no_args_is_help=True, help="Dead letters: records that could not be counted.")
keys_app = typer.Typer(no_args_is_help=True, help="API keys: for producers, gateways and readers.")
app.add_typer(topics_app, name="topics")
app.add_typer(dlq_app, name="dlq")
app.add_typer(keys_app, name="keys")
app.add_typer(budgets_app, name="budgets")
app.add_typer(limits_app, name="limits")
app.add_typer(routes_app, name="routes")
app.add_typer(runs_app, name="runs")
app.add_typer(grants_app, name="grants")
app.add_typer(alerts_app, name="alerts")
app.add_typer(silences_app, name="silences")
app.add_typer(reviews_app, name="reviews")
app.command()(release)
app.command()(digest)


class TraceFormat(StrEnum):
    """Recorded traces that can be replayed."""

    AZURE_LLM = "azure-llm"
    BURSTGPT = "burstgpt"
    CLOUDEVENTS = "cloudevents"


@app.callback()
def options(
    config: Annotated[Path | None, typer.Option(help="Settings file (YAML).")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, NAME=VALUE; may be repeated.")] = None,
) -> None:
    """Options of every command."""
    flags: dict[str, Any] = {"config_file": config} if config else {}
    for given in set_ or []:
        name, sign, value = given.partition("=")
        if not sign:
            raise typer.BadParameter(f"--set takes NAME=VALUE, not {given!r}")
        flags[name.strip()] = value
    Flags.values = flags


@app.command()
def up(
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
) -> None:
    """Run the whole service here; a broker and a database are started where none are given."""
    from streams.commands.up import serve

    raise typer.Exit(_run(serve(settings(), workers, out)))


@app.command()
def worker() -> None:
    """Run one worker: METER, BUDGET, DETECT, NOTIFY and LEDGER."""
    from streams.log import set_up
    from streams.worker import serve

    found = settings()
    set_up(found.log_format, found.log_level)
    raise typer.Exit(_run(serve(found)))


@app.command()
def api() -> None:
    """Run the API with the dashboard, and the GPU scraper where gpu_targets are set."""
    from streams.commands.api import serve
    from streams.log import set_up

    found = settings()
    set_up(found.log_format, found.log_level)
    raise typer.Exit(_run(serve(found)))


@app.command()
def gate(
    name: Annotated[
        str, typer.Option(help="Of this one, in acknowledgements; another for each process. Default: decide-HOSTNAME.")
    ] = "",
    listen: Annotated[str, typer.Option(help="HOST:PORT; whoever reaches it can ask.")] = "127.0.0.1:8687",
    closed: Annotated[bool, typer.Option("--closed", help="Refuse until all commands have been read.")] = False,
) -> None:
    """Answer gateways that ask over HTTP (Envoy ext_authz, nginx auth_request) at /v1/decide.

    Try it: curl -i 'http://127.0.0.1:8687/v1/decide?team=search&model=gpt-4o' — 200: go; 429 with Retry-After: do not.
    """
    from streams.commands.gate import serve

    raise typer.Exit(_run(serve(settings(), name, listen, "closed" if closed else "open")))


@app.command()
def demo(
    seconds: Annotated[int | None, typer.Option(min=30, max=3600, help="End by itself within about this time.")] = None,
    seed: Annotated[int, typer.Option(help="Varies times, teams and sizes.")] = 1,
) -> None:
    """Play a lively day of six teams: a spike, a runaway request, an idle GPU, a budget that runs out."""
    from streams.demo.run import main as play

    raise typer.Exit(play(seconds, seed, settings()))


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The trace.")],
    format: Annotated[TraceFormat, typer.Option(help="How the trace is written.")],
    speed: Annotated[float | None, typer.Option(min=0.001, help="Times event time; else as fast as it goes.")] = None,
    team_map: Annotated[Path | None, typer.Option(exists=True, help="YAML: which rows belong to which team.")] = None,
    at: Annotated[str, typer.Option(help="now: the trace ends now; original; or an RFC 3339 start.")] = "now",
    kafka: Annotated[
        str | None, typer.Option("--kafka", "--kafka-url", help="Broker; else that of the running `sluice up`.")
    ] = None,
) -> None:
    """Publish a recorded trace as usage events."""
    from streams.commands.replay import run

    flags = {"kafka_url": kafka} if kafka else {}
    raise typer.Exit(_run(run(settings(**flags), file, format.value, speed, team_map, at, out)))


@app.command()
def simulate(
    budgets: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="The proposed budgets (YAML).")],
    file: Annotated[Path | None, typer.Argument(exists=True, dir_okay=False, help="A trace; else Kafka.")] = None,
    format: Annotated[TraceFormat | None, typer.Option(help="How the trace is written.")] = None,
    since: Annotated[str | None, typer.Option("--from", help="Date or RFC 3339 instant.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Date or RFC 3339 instant, not included.")] = None,
    team_map: Annotated[Path | None, typer.Option(exists=True, help="YAML: which rows belong to which team.")] = None,
    delay_s: Annotated[float, typer.Option(min=0, max=60, help="From a command to the gateways that obey.")] = 1.0,
    as_written: Annotated[bool, typer.Option("--as-written", help="Budgets that observe throttle nobody.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Run recorded usage against proposed budgets: what would have been throttled, when, and the money saved."""
    from streams.commands.simulate import run

    if (file is None) != (format is None):
        raise typer.BadParameter("a trace goes with --format")
    trace = None if file is None or format is None else (file, format.value, team_map)
    raise typer.Exit(_run(run(settings(), budgets, trace, since, until, delay_s, as_written, as_json, out)))


@app.command("check-config")
def check_config(
    config: Annotated[Path | None, typer.Option(help="Settings file (YAML).")] = None,
    changes: Annotated[bool, typer.Option(help="Also what publishing the budgets file would change.")] = False,
) -> None:
    """Check settings, budgets file, rate card and routes: every error at once, or the settings as they are in force."""
    from streams.commands.check_config import check

    flags = Flags.values | ({"config_file": config} if config else {})
    code = check(flags, out, err)
    if changes and not code:
        from streams.commands.file_changes import show

        code = _run(show(load_settings(**flags), out))
    raise typer.Exit(code)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    lag_s: Annotated[float, typer.Option(min=1, help="A record unread for so many seconds is a failure.")] = 300.0,
    skew_s: Annotated[float, typer.Option(min=1, help="Clocks so many seconds apart are a failure.")] = 30.0,
    dead_letters: Annotated[int, typer.Option(min=0, help="So many may wait.")] = 0,
) -> None:
    """Check the deployment: what is well, what is not, and what to do. Ends with 1 where anything fails."""
    from streams.clock import WallClock
    from streams.commands.doctor import examine

    bounds = {"lag_s_fail": lag_s, "skew_s_fail": skew_s, "dead_letters_max": dead_letters}
    raise typer.Exit(_run(examine(settings(), WallClock(), out, as_json=as_json, **bounds)))


@topics_app.command("create")
def topics_create() -> None:
    """Create the topics that are missing; check those that are there."""
    from streams.commands.topics import create

    raise typer.Exit(_run(create(settings(), out)))


@topics_app.command("list")
def topics_list() -> None:
    """The topics, their keys and how they are kept."""
    from schemas import topics
    from streams.topic_admin import changelogs

    table = Table("topic", "key", "kept")
    for topic in (*topics.ALL, *changelogs(settings().app_id)):
        days = "" if topic.retention_ms is None else f"{topic.retention_ms // topics.DAY_MS} days"
        table.add_row(topic.name, topic.key, days or "last of each key")
    out.print(table)


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="Who holds it.")],
    scope: Annotated[
        list[str],
        typer.Option(help="ingest, read, gateway, budgets:write, approve, alerts:write, admin; may be repeated."),
    ],
    team: Annotated[str, typer.Option(help="Events sent with it belong to this team, whatever they say.")] = "",
) -> None:
    """Make a key and print it, this once; only a hash is kept."""
    from streams.commands.keys import create

    raise typer.Exit(_run(create(settings(), name, scope, team, out)))


@keys_app.command("list")
def keys_list() -> None:
    """The keys, without their secrets."""
    from streams.commands.keys import show

    raise typer.Exit(_run(show(settings(), out)))


@keys_app.command("revoke")
def keys_revoke(key_id: Annotated[str, typer.Argument(help="The id, as `sluice keys list` shows it.")]) -> None:
    """End a key; seen everywhere within seconds."""
    from streams.commands.keys import revoke

    raise typer.Exit(_run(revoke(settings(), key_id, out)))


Topics = Annotated[list[str] | None, typer.Option("--topic", help="Of this topic only; may be repeated.")]
Reasons = Annotated[list[str] | None, typer.Option("--reason", help="Of this reason only; may be repeated.")]


@dlq_app.command("list")
def dlq_list(topic: Topics = None, reason: Reasons = None) -> None:
    """How many dead letters there are, by topic and reason, and how many wait."""
    from streams.commands import dlq

    raise typer.Exit(_run(dlq.show_piles(settings(), dlq.Choice(topic or (), reason or ()), out)))


@dlq_app.command("show")
def dlq_show(
    topic: Annotated[
        str | None, typer.Argument(help="The dead-letter topic, or the topic its records came from.")
    ] = None,
    partition: Annotated[int | None, typer.Argument(help="With OFFSET: one letter.")] = None,
    offset: Annotated[
        int | None, typer.Argument(help="As `list` and `show` write it: topic[partition]@offset.")
    ] = None,
    reason: Reasons = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The newest so many.")] = 10,
    full: Annotated[bool, typer.Option("--full", help="The whole body, however long.")] = False,
) -> None:
    """One dead letter, or the newest: its reason, headers and body, safe to print."""
    from streams.commands import dlq

    if (partition is None) != (offset is None):
        raise typer.BadParameter("a partition goes with an offset")
    place = None if partition is None or offset is None else (partition, offset)
    choice = dlq.Choice((topic,) if topic else (), reason or ())
    raise typer.Exit(_run(dlq.show_letters(settings(), choice, place, limit, full, out)))


@dlq_app.command("replay")
def dlq_replay(
    topic: Topics = None,
    reason: Reasons = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and do nothing.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Also those that would be refused again.")] = False,
    in_doubt: Annotated[
        bool, typer.Option("--in-doubt", help="Also those of which nobody can tell whether they came back.")
    ] = False,
) -> None:
    """Bring dead letters back onto their topic, each once. Mend first, and restart the workers."""
    from streams.commands import dlq

    asked = dlq.Replay(dlq.Choice(topic or (), reason or ()), limit, dry_run, anyway, in_doubt)
    raise typer.Exit(_run(dlq.replay(settings(), asked, out)))


def main() -> None:
    """The console script."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
