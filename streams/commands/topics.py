"""``sluice topics create``."""

from rich.console import Console

from streams.kafka_connection import connection
from streams.settings import Settings
from streams.topic_admin import changelogs, ensure_topics


async def create(settings: Settings, out: Console) -> int:
    """Create what is missing; 1 where a topic that exists is kept wrongly."""
    report = await ensure_topics(
        connection(settings), settings.partitions, settings.replication_factor, extra=changelogs(settings.app_id)
    )
    out.print(f"{len(report.created)} created, {len(report.existing)} found")
    for problem in report.wrong:
        out.print(problem, style="red", markup=False)
    return 1 if report.wrong else 0
