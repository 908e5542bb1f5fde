"""Two workers under load; one is killed, one is stopped and started, partitions move: every event counts exactly once."""

import asyncio
import json
import random
import signal

import pytest

from schemas import topics
from schemas.cloudevents import binary_headers
from schemas.events import USAGE_TYPE
from schemas.instants import format_instant
from streams.clock import WallClock

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

WORKERS = 2
#: Dynamic members: every death and birth moves partitions, which is what this is about.
SERVICE = {"session_timeout_s": 6.0}
TEAMS = 23


async def _load(service, count: int, chance: random.Random) -> dict[str, int]:
    """Send calls of many teams, some of them twice; return the tokens that count, by team."""
    oracle: dict[str, int] = {}
    waiting = []
    for number in range(count):
        team = f"team-{chance.randrange(TEAMS)}"
        tokens = chance.randrange(1, 5_000)
        oracle[team] = oracle.get(team, 0) + tokens
        data = {
            "provider": "openai",
            "request_model": "gpt-4o",
            "team_id": team,
            "feature": "f",
            "input_tokens": tokens,
        }
        now = format_instant(WallClock().now())
        headers = binary_headers(id=f"call-{number}", source="//load", type=USAGE_TYPE, time=now)
        for _ in range(2 if chance.random() < 0.05 else 1):
            waiting.append(
                await service.producer.send(
                    topics.USAGE_EVENTS, key=team.encode(), value=json.dumps(data).encode(), headers=headers
                )
            )
        if number % 50 == 0:
            # The event loop's own pace: about 5 000 events a second.
            await asyncio.sleep(0.01)
    await asyncio.gather(*waiting)
    return oracle


async def test_kills_stops_and_joins_under_load_change_no_total(service):
    loading = asyncio.create_task(_load(service, 30_000, random.Random(7)))

    async def counted(least: int) -> bool:
        found = await service.pool.fetchval("select coalesce(sum(requests), 0)::bigint from ledger_cells")
        return found >= least

    await service.until(lambda: counted(2_000), "the first events")
    await service.running.kill_worker(0, signal.SIGKILL)
    await service.until(lambda: counted(3_000), "the other worker to go on")
    await service.running.start_worker(0)
    await service.running.kill_worker(1, signal.SIGTERM)
    await service.running.start_worker(1)
    await service.running.kill_worker(1, signal.SIGKILL)
    oracle = await loading
    await service.running.start_worker(1)
    await service.caught_up(topics.USAGE_EVENTS)
    rows = await service.pool.fetch(
        "select team_id, sum(input_tokens)::bigint tokens, sum(cost_nanos)::bigint nanos, sum(requests)::bigint calls"
        " from ledger_cells group by team_id"
    )
    assert {row["team_id"]: row["tokens"] for row in rows} == oracle
    assert {row["team_id"]: row["nanos"] for row in rows} == {team: n * 2_500 for team, n in oracle.items()}
    assert sum(row["calls"] for row in rows) == 30_000
