"""Money that could not be counted comes back after the mend: once, whatever is killed on the way."""

from uuid import uuid4

from schemas import topics
from schemas.events import BILLING_TYPE
from schemas.instants import DAY, format_instant
from streams.clock import WallClock
from streams.commands import dlq
from streams.dead_letters.reading import read_progress
from streams.kafka_connection import connection
from tests.e2e.conftest import run_service
from tests.integration.letters import all_letters, came_back, killed_in_a_batch, paper, text_of

CARD = "fx:\n  - currency: {currency}\n    usd: 2\n    from: 2020-01-01\n"
COST = "select coalesce(sum(cost_nanos), 0)::bigint from ledger_cells where team_id = $1"


def bill(team):
    start = WallClock().now() // DAY * DAY
    return {
        "billing_account_id": "acc", "charge_period_start": format_instant(start),
        "charge_period_end": format_instant(start + DAY), "billed_cost": "12.50", "billing_currency": "ZZZ",
        "service_provider_name": "Pinecone", "service_name": "Vectors", "team_id": team,
    }  # fmt: skip


async def bring_back(settings, **asked):
    out = paper()
    asked = {"choice": dlq.Choice(), "limit": None, "dry_run": False, "anyway": False, "in_doubt": False} | asked
    await dlq.replay(settings, dlq.Replay(**asked), out)
    return text_of(out)


async def piles(settings):
    out = paper()
    await dlq.show_piles(settings, dlq.Choice(), out)
    return [line.split() for line in text_of(out).splitlines()[1:]]


async def test_a_bill_is_counted_once_after_its_currency_was_added_however_often_it_is_brought_back(
    fresh_kafka, database_url, tmp_path
):
    card = tmp_path / "rates.yaml"
    card.write_text(CARD.format(currency="EUR"))
    async with run_service(fresh_kafka, database_url, tmp_path, rate_card=card) as service:
        settings = service.running.settings
        teams = [f"team-{uuid4().hex[:8]}" for _ in range(3)]

        async def money():
            return [await service.pool.fetchval(COST, team) for team in teams]

        async def waiting(count):
            async def reached():
                return len(await all_letters(settings)) == count

            await service.until(reached, f"{count} dead letters")

        for team in teams:
            await service.send(bill(team), id=uuid4().hex, type=BILLING_TYPE, topic=topics.USAGE_BILLING, key=team)
        await waiting(3)
        # Not mended: it stays, or comes to lie here again, and says how often it was tried.
        assert "would be refused again and stay: unknown_currency" in await bring_back(settings)
        assert "1 brought back" in await bring_back(settings, limit=1, anyway=True)
        await waiting(4)
        assert (await piles(settings))[0][1:8] == ["unknown_currency", "4", "3", "1", "0", "1", "(≤1×)"]

        # The mend, and a worker that knows of it.
        card.write_text(CARD.format(currency="ZZZ"))
        await service.running.kill_worker(0)
        await service.running.start_worker(0)
        # A replay is killed after the broker took one of three: METER counts that one, its transaction notwithstanding.
        progress = await read_progress(connection(settings), settings.app_id)
        left = [letter for letter in await all_letters(settings) if letter.identity() not in progress]
        await killed_in_a_batch(settings, left, 1)
        assert "2 brought back; 2 had been before" in await bring_back(settings)
        await service.until(lambda: _is(money, [25_000_000_000] * 3), "every bill to be counted")
        assert "0 brought back; 4 had been before" in await bring_back(settings, anyway=True)
        # One more bill behind everything in each partition: what came twice would be in the ledger before it.
        for team in teams:
            await service.send(bill(team), id=uuid4().hex, type=BILLING_TYPE, topic=topics.USAGE_BILLING, key=team)
        await service.until(lambda: _is(money, [50_000_000_000] * 3), "the next bill of each team, and nothing else")
        assert set((await came_back(settings.kafka_url, topics.USAGE_BILLING)).values()) == {1}


async def _is(read, wanted):
    return await read() == wanted
