"""What was asked of training runs, and what executors answered, in PostgreSQL."""

from typing import Any

from schemas.commands import JobAck, JobCommand
from schemas.instants import InstantError, parse_instant, to_datetime
from streams.sinks.postgres import storable

INSERT_COMMAND = """
insert into job_commands (command_id, run_id, action, revision, reason, issued_at, expires_at, dry_run)
values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (command_id) do nothing
"""
#: An executor has one last word on a command.
UPSERT_ACK = """
insert into job_acks as old (command_id, executor, run_id, revision, outcome, detail, applied_at)
values ($1, $2, $3, $4, $5, $6, $7) on conflict (command_id, executor) do update
set outcome = excluded.outcome, detail = excluded.detail, applied_at = excluded.applied_at
where excluded.applied_at > old.applied_at
"""
#: What fits an index row.
_TEXT_MAX = {"command_id": 128, "run_id": 512, "executor": 256}
_DETAIL_MAX = 2_000
_BIGINT_MAX = 2**63 - 1


def command_row(command: JobCommand) -> tuple[Any, ...] | None:
    """None for what no table can hold: the topic may be written by others too."""
    times = _times(command, "issued_at", "expires_at")
    if times is None or not _fits(command, "command_id", "run_id"):
        return None
    texts = (storable(command.command_id), storable(command.run_id), command.action, command.revision)
    return (*texts, storable(command.reason[:_DETAIL_MAX]), *times, command.dry_run)


def ack_row(ack: JobAck) -> tuple[Any, ...] | None:
    """None for what no table can hold: executors are other people's programs."""
    times = _times(ack, "applied_at")
    if times is None or not _fits(ack, *_TEXT_MAX):
        return None
    texts = (storable(ack.command_id), storable(ack.executor), storable(ack.run_id), ack.revision)
    return (*texts, ack.outcome, storable(ack.detail[:_DETAIL_MAX]), *times)


def _fits(found: JobCommand | JobAck, *names: str) -> bool:
    fits = all(len(getattr(found, name)) <= _TEXT_MAX[name] for name in names)
    return fits and 0 <= found.revision <= _BIGINT_MAX


def _times(found: JobCommand | JobAck, *names: str) -> list[Any] | None:
    try:
        return [to_datetime(parse_instant(getattr(found, name))) for name in names]
    except (InstantError, OverflowError):
        return None
