"""LEDGER's shell: cells and watermarks into PostgreSQL, with what gateways and runs were asked and answered."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

from schemas.readers import ACKS, CELL_STATEMENTS, COMMANDS, JOB_ACKS, JOB_COMMANDS, SPENDERS, WATERMARKS
from schemas.topics import JOB_ACKS as JOB_ACKS_TOPIC
from schemas.topics import JOB_COMMANDS as JOB_COMMANDS_TOPIC
from schemas.versions import UnknownVersionError, Versioned
from streams import metrics
from streams.agents.entries import is_of_spenders, is_watermark
from streams.agents.ledger_spenders import LedgerSpenders
from streams.agents.shell import Together, decoded, fail_stop
from streams.agents.slices import in_slices
from streams.clock import elapsed_s
from streams.ports import Change, Ledger

logger = logging.getLogger("sluice.ledger")


def _readable(records: Iterable[Any], reader: Versioned[Any]) -> list[Any]:
    """What can be read: gateways and executors are other people's programs, and none may stop the ledger."""
    found = []
    for record in records:
        try:
            found += [said for _, said in decoded([record], reader.decode)]
        except UnknownVersionError as error:
            logger.error("what lies at offset %d is passed over: %s", record.offset, error)
    return found


class LedgerAgent:
    """Five streams. Acknowledged only when PostgreSQL has committed."""

    def __init__(self, ledger: Ledger, change_of: Callable[[Any], Change | None]) -> None:
        self._ledger = ledger
        self._change_of = change_of
        self._spenders = LedgerSpenders(ledger)

    async def run_background(self) -> None:
        """Write who spent, beside what was spent."""
        await self._spenders.run()

    async def run_cells(self, stream: Any) -> None:
        """``spend.cells``: the newest totals of each cell, then the watermarks that cover them; spenders follow."""
        await Together("LEDGER", self._take_cells).run(stream)

    async def _take_cells(self, events: list[Any]) -> None:
        """What waits, in one transaction: the further behind, the fewer rows for each statement."""
        started = elapsed_s()
        cells: dict[tuple[int, bytes], Any] = {}
        beside = []
        for event in events:
            newest = {record.key: record for record in event.value.records}
            marks = [record for key, record in newest.items() if is_watermark(key)]
            spenders = [record for key, record in newest.items() if is_of_spenders(key)]
            beside.append((event, spenders, [mark for _, mark in decoded(marks, WATERMARKS.decode)]))
            for key, record in newest.items():
                if not (is_watermark(key) or is_of_spenders(key)):
                    cells[event.value.partition, key] = record
        statements = [cell for _, cell in await in_slices(decoded(cells.values(), CELL_STATEMENTS.decode))]
        await self._ledger.write_cells(statements, [mark for _, _, watermarks in beside for mark in watermarks])
        for event, spenders, watermarks in beside:
            said = [each for _, each in await in_slices(decoded(spenders, SPENDERS.decode))]
            self._spenders.keep(event, said, watermarks)
        metrics.LEDGER_SECONDS.observe(elapsed_s() - started)

    async def run_commands(self, stream: Any) -> None:
        """``gateway.commands``: what gateways were told, for the API."""
        async for event in stream.noack().events():
            try:
                await self._ledger.write_commands([c for _, c in decoded(event.value.records, COMMANDS.decode)])
            except Exception as error:
                fail_stop("LEDGER commands", error)
            event.ack()

    async def run_acks(self, stream: Any) -> None:
        """``gateway.acks``: what gateways answered."""
        async for event in stream.noack().events():
            try:
                await self._ledger.write_acks(_readable(event.value.records, ACKS))
            except Exception as error:
                fail_stop("LEDGER acks", error)
            event.ack()

    async def run_jobs(self, stream: Any) -> None:
        """``jobs.commands`` and ``jobs.acks``: what was asked of training runs, and what became of it."""
        async for event in stream.noack().events():
            readers = {JOB_COMMANDS_TOPIC: JOB_COMMANDS, JOB_ACKS_TOPIC: JOB_ACKS}
            try:
                await self._ledger.write_jobs(_readable(event.value.records, readers[event.value.topic]))
            except Exception as error:
                fail_stop("LEDGER jobs", error)
            event.ack()

    async def run_definitions(self, stream: Any) -> None:
        """``budgets``: every version of what was defined, with who and why."""
        async for event in stream.noack().events():
            try:
                await self._ledger.write_definitions(self._changes(event.value.records))
            except Exception as error:
                fail_stop("LEDGER definitions", error)
            event.ack()

    def _changes(self, records: Iterable[Any]) -> list[Change]:
        found = []
        for record in records:
            change = self._change_of(record)
            if change is None:
                logger.error("the definition at offset %d cannot be kept: it has no readable body", record.offset)
            else:
                found.append(change)
        return found
