"""``sluice replay``: a recorded trace onto the usage topic, with a progress bar."""

from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from schemas.instants import format_instant
from streams.commands.running import complete
from streams.kafka_connection import connection
from streams.settings import Settings
from streams.sources import replay as source
from streams.sources.publisher import UsagePublishing
from streams.sources.traces import TraceError


async def run(
    settings: Settings,
    file: Path,
    kind: Literal["azure-llm", "burstgpt", "cloudevents"],
    speed: float | None,
    team_map: Path | None,
    at: str,
    out: Console,
) -> int:
    """Publish every row and say how many; 1 where the trace cannot be read or not every row was taken."""
    settings = complete(settings, "kafka_url")
    publisher = UsagePublishing(connection(settings), idempotence=settings.kafka_idempotence)
    bar = Progress(
        TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"),
        TimeElapsedColumn(), console=out,
    )  # fmt: skip
    try:
        await publisher.start()
        with bar:
            task = bar.add_task(file.name, total=None)

            def advance(progress: source.Progress) -> None:
                bar.update(task, completed=progress.rows, total=progress.rows_total)

            summary = await source.replay(
                file, kind, publisher, speed=speed, at=at, team_map=team_map, on_progress=advance
            )
    except (TraceError, source.ReplayError) as error:
        out.print(str(error), markup=False)
        return 1
    finally:
        await publisher.stop()
    out.print(
        f"{summary.published} of {summary.rows} rows published: {summary.input_tokens} input and"
        f" {summary.output_tokens} output tokens, {format_instant(summary.first_time)} to"
        f" {format_instant(summary.last_time)}",
        highlight=False,
    )
    return 0
