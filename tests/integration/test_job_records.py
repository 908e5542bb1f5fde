"""What became of job commands, in the ledger, over the API and on the metrics page."""

import pytest

from schemas.budgets import Run
from schemas.commands import JobAck, JobCommand
from schemas.instants import HOUR, MINUTE, SECOND, format_instant
from schemas.money import NANOS
from streams.settings import load_settings
from streams.sinks.ledger import PostgresLedger
from tests.integration.api_parts import NO_BROKER, NOW, client_of
from tests.stores import MemoryDefinitions


def asked(revision: int = 1, **changes) -> JobCommand:
    fields = {
        "command_id": f"c{revision}", "run_id": "ft-7", "action": "stop_job", "revision": revision, "reason": "over",
        "issued_at": format_instant(NOW - MINUTE), "expires_at": format_instant(NOW + HOUR),
    }  # fmt: skip
    return JobCommand(**(fields | changes))


def answered(outcome: str = "stopped", revision: int = 1, seconds: int = 2, **changes) -> JobAck:
    fields = {
        "command_id": f"c{revision}", "run_id": "ft-7", "revision": revision, "executor": "node-1", "outcome": outcome,
        "applied_at": format_instant(NOW - MINUTE + seconds * SECOND), "detail": "it ended after SIGTERM",
    }  # fmt: skip
    return JobAck(**(fields | changes))


async def run_of(pool, said) -> dict:
    await PostgresLedger(pool).write_jobs(said)
    store = MemoryDefinitions(NOW)
    await store.publish([Run(id="ft-7", team_id="search", estimate_nanos=NANOS)], by="job", reason="r")
    client = client_of(load_settings(kafka_url=NO_BROKER), pool, definitions=store)
    (found,) = (await client.get("/v1/runs")).json()["runs"]
    page = (await client.get("/metrics")).text
    (gauge,) = [line for line in page.splitlines() if line.startswith("sluice_job_commands_unanswered ")]
    return found | {"unanswered": float(gauge.split()[1])}


@pytest.mark.parametrize(
    ("said", "outcomes", "unanswered"),
    [
        pytest.param([], [], 0, id="nothing was asked"),
        pytest.param([asked()], [[]], 1, id="nobody answered yet"),
        pytest.param([asked(), answered()], [["stopped"]], 0, id="done"),
        pytest.param([answered(), asked()], [["stopped"]], 0, id="in the other order"),
        pytest.param([asked(), answered(), answered(), asked()], [["stopped"]], 0, id="told twice"),
        pytest.param(
            [asked(), answered("refused", executor="node-2", seconds=1), answered()], [["refused", "stopped"]], 0,
            id="two executors",
        ),
        pytest.param([asked(1), answered("refused"), asked(2)], [["refused"], []], 1, id="asked again"),
        pytest.param([asked(expires_at=format_instant(NOW - SECOND))], [[]], 0, id="it does not hold any more"),
        pytest.param([asked(dry_run=True)], [[]], 0, id="a dry run asks nothing"),
    ],
)  # fmt: skip
async def test_what_became_of_a_run_is_on_record(pool, said, outcomes, unanswered):
    found = await run_of(pool, said)
    assert [[answer["outcome"] for answer in each["answers"]] for each in found["commands"]] == outcomes
    assert found["unanswered"] == unanswered


@pytest.mark.parametrize(
    "nonsense",
    [
        pytest.param({"applied_at": "yesterday"}, id="a time that is none"),
        pytest.param({"revision": 2**70}, id="a revision beyond 64 bits"),
        pytest.param({"executor": "".join(map(str, range(4_000)))}, id="a name too long for an index"),
    ],
)
async def test_an_executor_that_answers_nonsense_does_not_stop_the_ledger(pool, nonsense, caplog):
    found = await run_of(pool, [asked(), answered(**nonsense), answered(executor="a\x00b", detail="d\x00" * 9_000)])
    assert [answer["executor"] for answer in found["commands"][0]["answers"]] == ["a\ufffdb"]
    assert "passed over" in caplog.text
