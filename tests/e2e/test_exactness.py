"""A recorded trace through a running service whose worker is killed in the middle: the ledger equals an independent sum."""

import asyncio
import csv
import signal
from pathlib import Path

import pytest

from schemas import topics
from streams.sources.publisher import UsagePublishing
from streams.sources.replay import replay

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

TRACE = Path(__file__).parents[2].parent / "shared" / "data" / "azure-llm-2023" / "AzureLLMInferenceTrace_code.csv"
SUMS = "select sum(requests)::bigint, sum(input_tokens)::bigint, sum(output_tokens)::bigint, sum(cost_nanos)::bigint from ledger_cells"


@pytest.mark.skipif(not TRACE.exists(), reason="needs the recorded Azure trace, which is not part of the project")
async def test_every_row_of_the_trace_is_in_the_ledger_once_although_the_worker_was_killed_twice(service):
    with TRACE.open() as file:
        rows = list(csv.DictReader(file))
    tokens_in = sum(int(row["ContextTokens"]) for row in rows)
    tokens_out = sum(int(row["GeneratedTokens"]) for row in rows)
    # gpt-4o: 2.50 and 10.00 dollars per million, in nanodollars per token.
    wanted = (len(rows), tokens_in, tokens_out, tokens_in * 2_500 + tokens_out * 10_000)

    publisher = UsagePublishing(
        {"bootstrap_servers": service.running.kafka_url}, idempotence=service.running.settings.kafka_idempotence
    )
    killed = 0

    async def part_counted(share: float):
        count = await service.pool.fetchval("select coalesce(sum(requests), 0)::bigint from ledger_cells")
        return count >= len(rows) * share

    # Paced, so that the kills fall into the replay: 59 minutes in about 9 seconds.
    playing = asyncio.create_task(replay(TRACE, "azure-llm", publisher, speed=400))
    for share in (0.1, 0.5):
        await service.until(lambda share=share: part_counted(share), f"{share:.0%} of the trace to be counted")
        await service.running.kill_worker(0, signal.SIGKILL)
        killed += 1
        await service.running.start_worker(0)
    summary = await playing
    await publisher.stop()
    assert summary.published == len(rows)
    await service.caught_up(topics.USAGE_EVENTS)
    assert tuple(await service.pool.fetchrow(SUMS)) == wanted
    assert killed == 2
    # Said again, the trace changes nothing: its ids follow from its content.
    again = UsagePublishing(
        {"bootstrap_servers": service.running.kafka_url}, idempotence=service.running.settings.kafka_idempotence
    )
    await replay(TRACE, "azure-llm", again)
    await again.stop()
    await service.caught_up(topics.USAGE_EVENTS)
    assert tuple(await service.pool.fetchrow(SUMS)) == wanted
