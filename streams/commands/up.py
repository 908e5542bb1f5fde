"""``sluice up``: the whole service on this machine, until a signal ends it."""

from rich.console import Console
from rich.markup import escape

from streams.commands.running import Running, note
from streams.settings import Settings
from streams.sinks.api_keys import ApiKeys
from streams.sinks.postgres import open_pool
from streams.supervisor import Supervisor

EXAMPLE = """curl -sS {api}/v1/events -H "Authorization: Bearer {key}" \\
  -H 'Content-Type: application/cloudevents+json' -d '{{
  "specversion": "1.0", "type": "ai.usage.recorded.v1", "source": "//my-gateway", "id": "'$(date +%s%N)'",
  "time": "'$(date -u +%FT%TZ)'", "subject": "search",
  "data": {{"provider": "openai", "request_model": "gpt-4o", "team_id": "search", "feature": "chat",
           "input_tokens": 1200, "output_tokens": 300}}}}'"""


async def serve(settings: Settings, workers: int, out: Console) -> int:
    """Start everything that is not given, say how to use it, and wait for SIGINT or SIGTERM."""

    def say(line: str) -> None:
        out.print(f"[dim]·[/] {escape(line)}")

    async with Supervisor(settings, workers, say=say) as running:
        path = note(
            settings.state_dir,
            Running(
                running.kafka_url,
                running.database_url,
                running.api_url,
                running.settings.kafka_idempotence,
            ),
        )
        try:
            out.print(f"\n[bold]Dashboard[/]  {running.api_url}/")
            out.print(f"[bold]Kafka[/]      {running.kafka_url}   (publish CloudEvents to usage.events.v1)")
            key = await _first_key(running.database_url)
            made = "this key is shown once" if key else "make a key with `sluice keys create NAME --scope ingest`"
            out.print(f"\nSend an event ({made}):\n")
            out.print(
                EXAMPLE.format(api=running.api_url, key=key or "$SLUICE_KEY"),
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
            out.print("\nCtrl-C stops everything.\n")
            await running.wait()
            out.print("stopping")
        finally:
            path.unlink(missing_ok=True)
    return 0


async def _first_key(database_url: str) -> str | None:
    """A key to begin with, if there is none yet."""
    pool = await open_pool(database_url)
    try:
        keys = ApiKeys(pool)
        return None if await keys.list() else await keys.create("first", ["ingest", "read"])
    finally:
        await pool.close()
