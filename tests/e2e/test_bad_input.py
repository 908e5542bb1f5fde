"""Bad input to a running service: each ends in the dead-letter topic or is counted as unpriced, and nothing else is lost."""

import json
from uuid import uuid4

import msgspec
import pytest

from schemas import topics
from schemas.events import BILLING_TYPE
from schemas.instants import DAY, format_instant
from streams.clock import WallClock

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


def usage(**changes):
    return {"provider": "openai", "request_model": "gpt-4o", "feature": "chat", "input_tokens": 1_000_000} | changes


def bill(**changes):
    start = WallClock().now() // DAY * DAY
    return {
        "billing_account_id": "acc", "charge_period_start": format_instant(start),
        "charge_period_end": format_instant(start + DAY), "billed_cost": "12.50", "billing_currency": "USD",
        "service_provider_name": "Pinecone", "service_name": "Vectors",
    } | changes  # fmt: skip


async def _team_cost(service, team):
    return await service.pool.fetchval("select sum(cost_nanos)::bigint from ledger_cells where team_id = $1", team)


CASES = [
    pytest.param({"data": b"not json at all"}, "not_json", id="not JSON"),
    pytest.param({"data": usage(input_tokens="many")}, "wrong_shape", id="a word where a number belongs"),
    pytest.param({"data": usage(input_tokens=-5)}, "negative_usage", id="negative usage"),
    pytest.param({"data": usage(output_tokens=10**15)}, "absurd_number", id="an absurd number"),
    pytest.param({"data": usage(), "time": "3000-01-01T00:00:00Z"}, "in_the_future", id="the year 3000"),
    pytest.param({"data": usage(), "time": "yesterday"}, "bad_time", id="a date in words"),
    pytest.param({"data": b'{"provider": "' + b"x" * 2_000_000 + b'"}'}, "too_large", id="a value of 2 MB"),
    pytest.param({"data": usage(), "headers": []}, "not_a_cloudevent", id="no envelope"),
    pytest.param(
        {"data": bill(billing_currency="ZZZ"), "type": BILLING_TYPE, "topic": topics.USAGE_BILLING},
        "unknown_currency",
        id="an unknown currency",
    ),
]


@pytest.mark.parametrize(("record", "reason"), CASES)
async def test_bad_input_is_dead_lettered_and_its_neighbour_is_counted(service, record, reason):
    team = f"team-{uuid4().hex[:8]}"
    bad_id = uuid4().hex
    await service.send(**({"id": bad_id, "key": team} | record))
    await service.send(usage(team_id=team), id=uuid4().hex, key=team)
    await service.until(lambda: _team_cost(service, team), "the good neighbour to be counted")
    assert await _team_cost(service, team) == 2_500_000_000

    async def letter():
        for found in await service.dead_letters(record.get("topic", topics.USAGE_EVENTS)):
            headers = dict(found.headers)
            if headers["__streams.errors.exception"] == reason.encode() and found.key == team.encode():
                return found, headers
        return None

    found, headers = await service.until(letter, f"a dead letter for {reason}")
    sent = record["data"] if isinstance(record["data"], bytes) else json.dumps(record["data"]).encode()
    assert found.value == sent
    assert headers["__streams.errors.message"]
    assert headers["__streams.errors.topic"].decode() == record.get("topic", topics.USAGE_EVENTS)


async def test_an_unknown_model_is_counted_as_unpriced_and_never_silently_free(service):
    team = f"team-{uuid4().hex[:8]}"
    await service.send(usage(team_id=team, request_model="no-such-model-9000"), id=uuid4().hex, key=team)

    async def row():
        return await service.pool.fetchrow(
            "select requests, unpriced_requests, cost_nanos, input_tokens from ledger_cells where team_id = $1", team
        )

    found = await service.until(row, "the unpriced call")
    assert tuple(found) == (1, 1, 0, 1_000_000)


async def test_a_missing_team_is_priced_under_unattributed(service):
    feature = f"feature-{uuid4().hex[:8]}"
    await service.send(usage(feature=feature), id=uuid4().hex, key=feature)

    async def row():
        return await service.pool.fetchrow("select team_id, cost_nanos from ledger_cells where feature = $1", feature)

    assert tuple(await service.until(row, "the unattributed call")) == ("__unattributed__", 2_500_000_000)


async def test_a_credit_is_good_input(service):
    team = f"team-{uuid4().hex[:8]}"
    data = bill(team_id=team, billed_cost="-3.25", charge_category="Credit")
    await service.send(data, id=uuid4().hex, type=BILLING_TYPE, topic=topics.USAGE_BILLING, key=team)
    await service.until(lambda: _team_cost(service, team), "the credit")
    assert await _team_cost(service, team) == -3_250_000_000


async def test_a_bill_for_metered_usage_is_reconciled_and_adds_nothing(service):
    team = f"team-{uuid4().hex[:8]}"
    data = bill(team_id=team, covers_metered_usage=True)
    await service.send(data, id=uuid4().hex, type=BILLING_TYPE, topic=topics.USAGE_BILLING, key=team)

    async def row():
        return await service.pool.fetchrow(
            "select cost_nanos, reconciled_cost_nanos from ledger_cells where team_id = $1", team
        )

    assert tuple(await service.until(row, "the reconciled line")) == (0, 12_500_000_000)


async def test_a_structured_event_counts_like_a_binary_one(service):
    team = f"team-{uuid4().hex[:8]}"
    envelope = {
        "specversion": "1.0", "id": uuid4().hex, "source": "//test", "type": "ai.usage.recorded.v1",
        "time": format_instant(WallClock().now()), "data": usage(team_id=team),
    }  # fmt: skip
    headers = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
    await service.send(msgspec.json.encode(envelope), id="", headers=headers, key=team)
    await service.until(lambda: _team_cost(service, team), "the structured event")
