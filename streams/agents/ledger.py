"""LEDGER's shell: cells and watermarks into PostgreSQL, with the commands and acknowledgements of the gateways."""

import logging
from typing import Any

import msgspec

from schemas.commands import ThrottleAck, ThrottleCommand
from schemas.statements import CellStatement, Watermark
from streams import metrics
from streams.agents.entries import is_watermark
from streams.agents.shell import decoded, fail_stop
from streams.clock import elapsed_s
from streams.ports import Ledger

logger = logging.getLogger("sluice.ledger")

_decode_cell = msgspec.json.Decoder(CellStatement).decode
_decode_watermark = msgspec.json.Decoder(Watermark).decode
_decode_command = msgspec.json.Decoder(ThrottleCommand).decode
_decode_ack = msgspec.json.Decoder(ThrottleAck).decode


class LedgerAgent:
    """Three streams, one transaction per batch each. Acknowledged only when PostgreSQL has committed."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def run_cells(self, stream: Any) -> None:
        """``spend.cells``: the newest total of each cell, then the watermarks that cover them."""
        async for event in stream.noack().events():
            started = elapsed_s()
            newest = {record.key: record for record in event.value.records}
            marks = [record for key, record in newest.items() if is_watermark(key)]
            cells = [record for key, record in newest.items() if not is_watermark(key)]
            try:
                await self._ledger.write_cells(
                    [cell for _, cell in decoded(cells, _decode_cell)],
                    [mark for _, mark in decoded(marks, _decode_watermark)],
                )
            except Exception as error:
                fail_stop("LEDGER", error)
            metrics.LEDGER_SECONDS.observe(elapsed_s() - started)
            event.ack()

    async def run_commands(self, stream: Any) -> None:
        """``gateway.commands``: what gateways were told, for the API."""
        async for event in stream.noack().events():
            try:
                await self._ledger.write_commands([c for _, c in decoded(event.value.records, _decode_command)])
            except Exception as error:
                fail_stop("LEDGER commands", error)
            event.ack()

    async def run_acks(self, stream: Any) -> None:
        """``gateway.acks``: what gateways answered."""
        async for event in stream.noack().events():
            try:
                await self._ledger.write_acks([ack for _, ack in decoded(event.value.records, _decode_ack)])
            except Exception as error:
                fail_stop("LEDGER acks", error)
            event.ack()
