"""The records of ``budgets.v1`` and what the ledger keeps of them: one row for every version.

Version, who, why and when travel in headers, so that a withdrawal says them too; a record without them (another
program's) is known by its place in the log.
"""

import json
from typing import Any

import msgspec

from schemas.budgets import Definition
from schemas.instants import to_datetime
from streams.ports import Change
from streams.sinks.postgres import storable

VERSION, BY, WHY, AT, FILE = "sluice_version", "sluice_by", "sluice_why", "sluice_at", "sluice_file"
INSERT_DEFINITION = """
insert into definition_history (key, version, body, changed_by, reason, changed_at, withdrawn, file_digest)
values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (key, version) do nothing
"""
_VERSION_MAX = 2**31 - 1


def headers_of(change: Change) -> list[tuple[str, bytes]]:
    """The headers of a change's record."""
    return [
        (VERSION, str(change.version).encode()),
        (BY, change.changed_by.encode()),
        (WHY, change.reason.encode()),
        (AT, str(change.changed_at).encode()),
        (FILE, change.file_digest.encode()),
    ]


def change_of(record: Any) -> Change | None:
    """What a record of the topic says; None where it says nothing that can be kept."""
    try:
        headers = {name: value.decode() for name, value in record.headers}
        body = None if record.value is None else json.loads(record.value)
        told = body if isinstance(body, dict) else {}
        version = int(headers.get(VERSION) or told.get("version") or record.offset + 1)
        return Change(
            record.key.decode(),
            min(version, _VERSION_MAX),
            body,
            headers.get(BY) or str(told.get("changed_by", "")),
            headers.get(WHY) or str(told.get("reason", "")),
            int(headers.get(AT) or record.timestamp * 1_000),
            headers.get(FILE, ""),
        )
    except (ValueError, TypeError, AttributeError):
        return None


def definition_row(change: Change) -> tuple[Any, ...]:
    """A change as the row that is kept of it."""
    return (
        storable(change.key),
        change.version,
        change.body,
        storable(change.changed_by),
        storable(change.reason),
        to_datetime(change.changed_at),
        change.body is None,
        storable(change.file_digest),
    )


def value_of(definition: Definition | None) -> bytes | None:
    """A definition as it lies on its topic."""
    return None if definition is None else msgspec.json.encode(definition)
