"""A TCP proxy on 127.0.0.1 whose connections can be cut with a reset, as a failing network or firewall does."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

CHUNK_BYTES = 262_144
#: Linger for no time: closing sends RST in place of FIN, and what was on its way is lost.
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Passes bytes on to ``target()``, asked anew for each connection: a port, or None while nothing is there."""

    def __init__(self, target: Callable[[], int | None]) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=CHUNK_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more, and end what is open."""
        if self._server is not None:
            self._server.close()
        self.cut()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def cut(self) -> int:
        """Reset every open connection, on both sides; returns how many there were."""
        cut = len(self._open) // 2
        for writer in list(self._open):
            _reset(writer)
        return cut

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        try:
            await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            _reset(writer)
            self._pumps.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self._target()
        if port is None:
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port, limit=CHUNK_BYTES)
        both = {writer, far_writer}
        self._open |= both
        try:
            # When one side closes, the other has nobody to talk to.
            pumps = [asyncio.create_task(_pump(reader, far_writer)), asyncio.create_task(_pump(far_reader, writer))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            self._open -= both
            far_writer.close()
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    if writer.is_closing():
        return
    found = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
