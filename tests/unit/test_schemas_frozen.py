"""The published contracts are what the types say, whole, and frozen.

Updating a digest is a deliberate act that shows up in this file's diff: run ``python -m schemas.generate`` and copy
what it prints. A member that is removed, renamed or given another type is a new version, not a new digest.
"""

from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml

from schemas import topics
from schemas.alerts import Alert, Contributor, Driver, Drivers
from schemas.answers import AlertAnswer, PlannedEvent
from schemas.budgets import Budget, Grant, Limit, OpeningBalance, Override, Period, Run, Rung
from schemas.commands import JobAck, JobCommand, Measure, Target, ThrottleAck, ThrottleCommand
from schemas.events import BillingRecord, GpuSample, UsageEvent
from schemas.generate import ERROR_HEADERS, FOLDER, PAYLOADS, POSTED, RECEIVED, documents, main
from schemas.notifications import TRIGGER_TYPE, NotificationData, WebhookMessage
from schemas.statements import (
    CellStatement,
    Dimensions,
    Figures,
    HourStatement,
    ScopeStatement,
    Signal,
    Source,
    SpenderRow,
    SpenderStatement,
    Totals,
    Watermark,
)

FROZEN = {
    "json/usage_event.v1.json": "8a0cfbe6c1d2bf4c0fba6c9477eacd56202c85479dfcac5718e58f7d7006c5a4",
    "json/gpu_sample.v1.json": "5ad19cae47e3749f80f22ea51b97eaf33b31a557d0507b67ac4f06fe5c4ce90b",
    "json/billing_record.v1.json": "3a55eb7666db644f8c70a3828b24aef3b47b1966520c4c3e3c0c3ed7c6f66094",
    "json/cell_statement.v1.json": "0ad391a206e29f2d9576181b4e96595359be20403af7b1f8bc155216ef85f82b",
    "json/scope_statement.v1.json": "019d3d8fcbf8b083856db697c0103cecfd08c6d0e9cd95b15e5d4496e7050e2f",
    "json/hour_statement.v1.json": "ebfa01ad9e44fbf7bfe80f3f3236bfdf4fc83213ca003cbf304587d2f5736a13",
    "json/spender_statement.v1.json": "b058b6d360312d94fcb0206f017161a642a10788be72065a54cf4e9b745940a0",
    "json/watermark.v1.json": "b2d84a861cf18ed78d04e3c1bfca064cc9a9b17184f37c8fe3864d4e030acdbf",
    "json/signal.v1.json": "45bd4f6fce9e4d2b1edfc89bbc170155d68758a345f7f546f0833b1757686be0",
    "json/alert.v1.json": "07a55913c7526b42e575511d9fdb882f633c0121980c416ea678ecb0b1e7f047",
    "json/throttle_command.v1.json": "3f33b3d0a1d0323b315ec830664866ea3e57484e7aa72045ee907818b8fc246c",
    "json/throttle_ack.v1.json": "6f8348c81eb536cee54516963bd3473ebb27077f5a1d894629b0eead82a9dd4f",
    "json/job_command.v1.json": "df4a679c6e189b6f3eeeb06b5e523b30983bb99713acc982077420b18a9e95bb",
    "json/job_ack.v1.json": "cb6a7bcfcaccfb1f1ca25941cac06bf3f22874729f971400bbd4c07ceedd47ad",
    "json/budget.v1.json": "169c36432478dd7b076c2043b90e41c3df52d1a9c2f03ca3d6a1a625f9b4b3c4",
    "json/limit.v1.json": "ed380f4d58046093b988cddaeb66a2a601da05b4f2906aea48aa8f22b83b742b",
    "json/override.v1.json": "f23252adfa47f7fc04af9b5a2984acde9d9570c5c7e6f0bcf2bb641506fd4d58",
    "json/balance.v1.json": "7e369d9bc88bef3fb85d342d4841c22c77e4a14f58de401d7a40ee48c216d794",
    "json/run.v1.json": "2a7531c39662908ed8e9a2f27b25e7a05f8a1123cff01b7899a57bdb2b814c15",
    "json/grant.v1.json": "6966fdd445a9d9d0ae7b7a6411bfce2574f0be0ad3ec866b2bf3cf52914d9796",
    "json/answer.v1.json": "666427a7f93a7600cf0c96805bee8a5e7784ab146ca3c7272b14b36438fa9371",
    "json/planned.v1.json": "eead27cb01378fdf7885c9bbbb33f105896a708c679e64e15d0b03ee01214081",
    "json/webhook_message.v1.json": "4d099de2cf3001e1fcdd98c534d242ad64c9c9eddbaf6d5787c7a964d3f89204",
    "asyncapi.yaml": "932e2368144fa58a2e05b6645628b8ade9980b560e38fe8549787d709564c63f",
}
SOURCE = Source(topics.USAGE_EVENTS, 0, 3)
EXAMPLES = {
    "usage_event": UsageEvent(provider="openai", request_model="gpt-4o", input_tokens=7, tags={"a": "b"}),
    "gpu_sample": msgspec.convert(
        {"gpu_uuid": "GPU-1", "window_start": "a", "window_end": "b", "allocated_seconds": "29.5"}, GpuSample
    ),
    "billing_record": msgspec.convert(
        {
            "billing_account_id": "a",
            "charge_period_start": "b",
            "charge_period_end": "c",
            "billed_cost": "-1.25",
            "billing_currency": "USD",
            "service_provider_name": "OpenAI",
        },
        BillingRecord,
    ),
    "cell_statement": CellStatement(
        cell_id="c",
        hour=0,
        dimensions=Dimensions("", "", "search", "", "chat", "gpt-4o", "openai", "", "interactive", "", "llm"),
        source=SOURCE,
        segment=0,
        revision=0,
        offset=5,
        totals=Totals(requests=1, cost_nanos=-5),
    ),
    "scope_statement": ScopeStatement(
        scope="team:search",
        period_start=0,
        period_end=1,
        source=SOURCE,
        segment=0,
        revision=0,
        offset=5,
        cost_nanos=1,
        requests=1,
        tokens=1,
        stream_time=1,
        arrived_at=1,
        contributors={"chat": 1},
    ),
    "hour_statement": HourStatement(
        scope="team:search",
        hour=0,
        part=3,
        rank=6,
        reach={SOURCE.slot(): 1},
        figures=Figures(1, cost_nanos=-5),
        models={"gpt-4o": Figures(1, cost_nanos=-5)},
        by={"feature": {"chat": 5}},
    ),
    "spender_statement": SpenderStatement(
        cell_id="c", hour=0, source=SOURCE, segment=0, revision=0, block=0, rows=[SpenderRow("k", "u", 5, -5, 1)]
    ),
    "watermark": Watermark(source=SOURCE, revision=0, next_offset=6, stream_time=1),
    "signal": Signal(
        kind="runaway_request",
        scope="team:search",
        event_id="1",
        event_source="/a",
        event_time=1,
        source=SOURCE,
        offset=5,
        team_id="search",
        feature="chat",
        model="gpt-4o",
        tokens=60_000,
        cost_nanos=1,
    ),
    "alert": Alert(
        alert_id="a",
        dedup_key="d",
        episode=1,
        status="opened",
        severity="critical",
        tier="page",
        rule="spend_spike",
        scope_type="team",
        scope_id="search",
        summary="s",
        occurred_at="2026-11-21T00:00:00Z",
        stated_at="2026-11-21T00:00:00Z",
        top_contributors=[Contributor("chat", "1.5")],
        drivers=Drivers(
            volume="1.5",
            model_mix="-0.5",
            tokens_per_request="0",
            cache="0",
            price="0",
            by=[Driver("team", "search", "1")],
        ),
    ),
    "throttle_command": ThrottleCommand(
        command_id="c",
        budget_id="b",
        target=Target("team", "search"),
        action="block",
        revision=2,
        reason="r",
        issued_at="a",
        effective_at="b",
        expires_at="c",
    ),
    "throttle_ack": ThrottleAck(
        command_id="c", command_key="k", revision=2, gateway="g", applied_at="2026-11-21T00:00:00Z"
    ),
    "job_command": JobCommand(
        command_id="j",
        run_id="run-7",
        action="stop_job",
        revision=1,
        reason="past its estimate",
        issued_at="a",
        expires_at="b",
    ),
    "job_ack": JobAck(command_id="j", run_id="run-7", revision=1, executor="node-1", outcome="stopped", applied_at="a"),
    "budget": Budget(
        id="search-daily",
        match=(("team", "search"), ("tag:launch", "yes")),
        target=Target("team", "search"),
        amount_nanos=50 * 10**9,
        period=Period("day", "Europe/Berlin"),
        thresholds=(Rung(100, "emergency", (Measure("rate_limit", ("batch",), rpm=6), Measure("block"))),),
    ),
    "limit": Limit(id="search-burst", target=Target("team", "search"), rpm=600),
    "override": Override(id="o", budget_id="search-daily", extra_nanos=5, starts=1, until=2),
    "balance": OpeningBalance(budget_id="search-daily", period_start=1, nanos=-3),
    "run": Run(id="run-7", team_id="search", estimate_nanos=70 * 10**9),
    "grant": Grant(team_id="search", model="gpt-5-pro"),
    "answer": AlertAnswer(
        alert="v1:spend_spike:team:search:2026-11-21T09:00:00Z",
        rule="spend_spike",
        answer="planned",
        teaches="team:search",
        starts=1,
        until=2,
        nanos=5,
        known_from=1,
    ),
    "planned": PlannedEvent(id="launch", scope="team:search", starts=1, until=2, nanos=5, known_from=1),
}
EXAMPLES["webhook_message"] = WebhookMessage(
    type=TRIGGER_TYPE,
    timestamp="2026-11-21T00:00:00Z",
    data=NotificationData(
        notification_id="n",
        thread_key="k",
        action="trigger",
        reason="opened",
        receiver="tickets",
        heading="h",
        group={"team": "search"},
        firing=1,
        alerts=(EXAMPLES["alert"],),
    ),
)
NAMES = [payload.name for payload in (*PAYLOADS, *POSTED)]


def schema_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode((FOLDER / "json" / f"{name}.v1.json").read_bytes())
    return found


def asyncapi() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "asyncapi.yaml").read_text())
    return found


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_the_committed_file_is_what_the_types_say(path: Path) -> None:
    assert path.read_bytes() == documents()[path], "run `python -m schemas.generate` and update FROZEN"


@pytest.mark.parametrize("name", FROZEN)
def test_the_committed_file_has_the_digest_that_is_pinned(name: str) -> None:
    assert sha256((FOLDER / name).read_bytes()).hexdigest() == FROZEN[name]


def test_every_published_file_is_pinned_and_nothing_else_lies_there() -> None:
    published = {path.relative_to(FOLDER).as_posix() for path in documents()}
    found = {path.relative_to(FOLDER).as_posix() for path in (FOLDER / "json").iterdir()}
    assert published == set(FROZEN) == found | {"asyncapi.yaml"}


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_valid_and_takes_what_the_type_writes(name: str) -> None:
    schema = schema_of(name)
    validator = jsonschema.Draft202012Validator
    validator.check_schema(schema)
    validator(schema).validate(msgspec.json.decode(msgspec.json.encode(EXAMPLES[name])))


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_allows_members_that_it_does_not_know(name: str) -> None:
    value = msgspec.json.decode(msgspec.json.encode(EXAMPLES[name])) | {"from_a_newer_version": 1}
    jsonschema.Draft202012Validator(schema_of(name)).validate(value)


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_refuses_a_payload_without_its_first_required_member(name: str) -> None:
    schema = schema_of(name)
    value = msgspec.json.decode(msgspec.json.encode(EXAMPLES[name]))
    value.pop(schema["required"][0])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(value)


def test_every_reference_of_the_asyncapi_document_resolves() -> None:
    document = asyncapi()
    found = list(references(document))
    assert len(found) > 30
    for reference in found:
        file, _, pointer = reference.partition("#")
        target = msgspec.json.decode((FOLDER / file).read_bytes()) if file else document
        for part in pointer.strip("/").split("/") if pointer else ():
            target = target[part]
        assert isinstance(target, dict), reference


def references(node: Any) -> Any:
    if isinstance(node, dict):
        yield from ([node["$ref"]] if "$ref" in node else [])
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def test_the_asyncapi_document_has_every_topic_with_its_kafka_binding_and_one_operation() -> None:
    document = asyncapi()
    assert set(document["channels"]) == {topic.name for topic in topics.ALL}
    for topic in topics.ALL:
        channel = document["channels"][topic.name]
        binding = channel["bindings"]["kafka"]
        assert channel["address"] == binding["topic"] == topic.name
        assert binding["topicConfiguration"]["cleanup.policy"] == [topic.config()["cleanup.policy"]]
        action = "receive" if topic.name in RECEIVED else "send"
        assert document["operations"][f"{action}-{topic.name}"]["action"] == action
    assert len(document["operations"]) == len(topics.ALL)


def test_an_input_is_described_as_a_cloudevent_and_a_dead_letter_with_its_reason() -> None:
    messages = asyncapi()["components"]["messages"]
    assert messages["usage_event"]["headers"]["properties"]["ce_type"] == {"enum": ["ai.usage.recorded.v1"]}
    assert {"ce_id", "ce_source"} <= set(messages["usage_event"]["headers"]["required"])
    assert tuple(messages["dead_letter"]["headers"]["required"]) == ERROR_HEADERS


def test_generating_twice_gives_the_same_and_check_agrees(capsys: pytest.CaptureFixture[str]) -> None:
    assert documents() == documents()
    assert main(["--check"]) == 0
    assert capsys.readouterr().out == ""
