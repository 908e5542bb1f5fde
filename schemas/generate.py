"""Writes the published contracts: JSON Schemas of every payload, and the AsyncAPI document of the topics.

``python -m schemas.generate`` writes them and prints the digests that ``tests/unit/test_schemas_frozen.py`` pins;
``--check`` writes nothing and ends with 1 where a committed file differs.
"""

import sys
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from schemas import alerts, budgets, commands, events, notifications, statements, topics

FOLDER = Path(__file__).parent
DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: Why a record is dead-lettered; names as in Kafka Streams.
ERROR_HEADERS = tuple(f"__streams.errors.{name}" for name in ("exception", "message", "topic", "partition", "offset"))
_SCHEMA_FORMAT = "application/schema+json;version=draft-2020-12"


class Payload(NamedTuple):
    """One published payload: its file's name, its type, and where it is a CloudEvent, its CloudEvents types."""

    name: str
    type: type
    event_types: tuple[str, ...] = ()


PAYLOADS = (
    Payload("usage_event", events.UsageEvent, (events.USAGE_TYPE,)),
    Payload("gpu_sample", events.GpuSample, (events.GPU_TYPE,)),
    Payload("billing_record", events.BillingRecord, (events.BILLING_TYPE,)),
    Payload("cell_statement", statements.CellStatement),
    Payload("scope_statement", statements.ScopeStatement),
    Payload("spender_statement", statements.SpenderStatement),
    Payload("watermark", statements.Watermark),
    Payload("signal", statements.Signal),
    Payload("alert", alerts.Alert, (alerts.OPENED_TYPE, alerts.UPDATED_TYPE, alerts.RESOLVED_TYPE)),
    Payload("throttle_command", commands.ThrottleCommand, (commands.THROTTLE_TYPE,)),
    Payload("throttle_ack", commands.ThrottleAck, (commands.APPLIED_TYPE,)),
    Payload("job_command", commands.JobCommand, (commands.JOB_COMMAND_TYPE,)),
    Payload("job_ack", commands.JobAck, (commands.JOB_APPLIED_TYPE,)),
    Payload("budget", budgets.Budget),
    Payload("limit", budgets.Limit),
    Payload("override", budgets.Override),
    Payload("balance", budgets.OpeningBalance),
    Payload("run", budgets.Run),
    Payload("grant", budgets.Grant),
)
#: What is posted to webhooks and lies on no topic.
POSTED = (Payload("webhook_message", notifications.WebhookMessage),)
#: What each topic carries. Dead letters carry the untouched record.
CARRIES = {
    topics.USAGE_EVENTS: ("usage_event",),
    topics.USAGE_GPU: ("gpu_sample",),
    topics.USAGE_BILLING: ("billing_record",),
    topics.SPEND_CELLS: ("cell_statement", "spender_statement", "watermark"),
    topics.SPEND_SCOPES: ("scope_statement",),
    topics.USAGE_SIGNALS: ("signal",),
    topics.ALERTS: ("alert",),
    topics.GATEWAY_COMMANDS: ("throttle_command",),
    topics.GATEWAY_ACKS: ("throttle_ack",),
    topics.BUDGETS: ("budget", "limit", "override", "balance", "run", "grant"),
    topics.JOB_COMMANDS: ("job_command",),
    topics.JOB_ACKS: ("job_ack",),
}
#: Topics that others write; Sluice receives from them, and sends to all others.
RECEIVED = frozenset(
    {topics.USAGE_EVENTS, topics.USAGE_GPU, topics.USAGE_BILLING, topics.GATEWAY_ACKS, topics.JOB_ACKS}
)


def json_schema(payload: Payload) -> dict[str, Any]:
    """The JSON Schema of one payload. Members that it does not name are allowed, and ignored by readers."""
    found = msgspec.json.schema(payload.type)
    root = found["$ref"].rpartition("/")[2]
    definitions = dict(found["$defs"])
    body = definitions.pop(root)
    schema: dict[str, Any] = {"$schema": DIALECT, "$id": f"urn:sluice:{payload.name}:v1"} | body
    return schema | ({"$defs": definitions} if definitions else {})


def _headers(payload: Payload) -> dict[str, Any]:
    """The record headers: CloudEvents in binary mode."""
    text = {"type": "string", "minLength": 1}
    return {
        "type": "object",
        "required": ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time"],
        "properties": {
            "content-type": {"const": "application/json"},
            "ce_specversion": {"const": "1.0"},
            "ce_id": text | {"description": "Together with ce_source: what an event is counted once by."},
            "ce_source": text,
            "ce_type": {"enum": list(payload.event_types)},
            "ce_time": text | {"format": "date-time", "description": "Event time; decides hour and period."},
            "ce_subject": {"type": "string"},
            "ce_partitionkey": {"type": "string"},
        },
    }


def _message(payload: Payload) -> dict[str, Any]:
    reference = {"$ref": f"./json/{payload.name}.v1.json"}
    message: dict[str, Any] = {
        "name": payload.name,
        "title": payload.type.__name__,
        "summary": (payload.type.__doc__ or "").strip().splitlines()[0],
        "contentType": "application/json",
        "payload": {"schemaFormat": _SCHEMA_FORMAT, "schema": reference},
    }
    if payload.event_types:
        message["headers"] = _headers(payload)
    return message


def _dead_message() -> dict[str, Any]:
    return {
        "name": "dead_letter",
        "title": "DeadLetter",
        "summary": "A record that could not be read or priced: its value and headers untouched, and why.",
        "headers": {
            "type": "object",
            "required": list(ERROR_HEADERS),
            "properties": {name: {"type": "string"} for name in ERROR_HEADERS},
        },
        "payload": {"description": "The value as it came, of any form."},
    }


def _channel(topic: topics.Topic, messages: tuple[str, ...]) -> dict[str, Any]:
    policy = ["compact"] if topic.compacted else ["delete"]
    configuration: dict[str, Any] = {"cleanup.policy": policy, "max.message.bytes": topic.max_message_bytes}
    if topic.retention_ms is not None:
        configuration["retention.ms"] = topic.retention_ms
    return {
        "address": topic.name,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "description": f"Key: {topic.key}. All topics have the same number of partitions.",
        "bindings": {"kafka": {"topic": topic.name, "topicConfiguration": configuration, "bindingVersion": "0.5.0"}},
    }


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI document of all topics."""
    channels, operations = {}, {}
    for topic in topics.ALL:
        carried = CARRIES.get(topic.name, ("dead_letter",))
        channels[topic.name] = _channel(topic, carried)
        action = "receive" if topic.name in RECEIVED else "send"
        # A reference in JSON Pointer: "." needs no escape, and topic names hold neither "~" nor "/".
        channel = f"#/channels/{topic.name}"
        operations[f"{action}-{topic.name}"] = {
            "action": action,
            "channel": {"$ref": channel},
            "messages": [{"$ref": f"{channel}/messages/{name}"} for name in carried],
        }
    messages = {payload.name: _message(payload) for payload in PAYLOADS} | {"dead_letter": _dead_message()}
    for topic in topics.ALL:
        for name in CARRIES.get(topic.name, ()):
            messages[name].setdefault("bindings", {"kafka": _record_key(topic)})
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Sluice",
            "version": "1",
            "description": "Usage of AI in, spend, alerts and throttle commands out. Every total is cumulative: "
            "reading it twice changes nothing. Unknown members are to be ignored. Inputs are CloudEvents, in binary "
            "mode as described here or in structured mode.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "description": "The operator's cluster (SLUICE_KAFKA_URL).",
                "variables": {"bootstrap": {"default": "127.0.0.1:9092", "description": "host:port"}},
            }
        },
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }


def _record_key(topic: topics.Topic) -> dict[str, Any]:
    return {"key": {"type": "string", "description": topic.key}, "bindingVersion": "0.5.0"}


def documents() -> dict[Path, bytes]:
    """Every published file and what belongs into it."""
    found = {}
    for payload in (*PAYLOADS, *POSTED):
        text = msgspec.json.format(msgspec.json.encode(json_schema(payload)), indent=2) + b"\n"
        found[FOLDER / "json" / f"{payload.name}.v1.json"] = text
    head = "# Generated by `python -m schemas.generate`; not edited by hand.\n"
    body = yaml.safe_dump(asyncapi(), sort_keys=False, allow_unicode=True, width=100)
    found[FOLDER / "asyncapi.yaml"] = (head + body).encode()
    return found


def main(arguments: list[str]) -> int:
    """Write all files, or with ``--check`` only compare; the exit code."""
    wrong = 0
    for path, content in documents().items():
        name = path.relative_to(FOLDER).as_posix()
        if "--check" in arguments:
            if not path.is_file() or path.read_bytes() != content:
                print(f"schemas/{name} is not what `python -m schemas.generate` writes")
                wrong = 1
            continue
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        print(f'    "{name}": "{sha256(content).hexdigest()}",')
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
