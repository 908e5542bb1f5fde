"""Keeps two maps of a running HAProxy in step with the commands that hold, over its admin socket.

    python -m gateway.haproxy --kafka 127.0.0.1:9092 --name lb-1 --socket /run/haproxy/admin.sock --maps /etc/haproxy

``blocked.map`` has ``team:search`` -> ``60 why``, ``limits.map`` has ``team:search`` -> calls a minute. HAProxy sees
neither tokens nor models: a command that needs them, or that is about more than one attribute, is left out, and named.
The maps lie on disk too, so that a restarted HAProxy begins with what held; what differs is put right within seconds.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gateway.gate import ThrottleGate
from gateway.measures import Entry
from schemas.commands import Measure, ScopeType

log = logging.getLogger(__name__)

BLOCKED, LIMITS = "blocked.map", "limits.map"
PERIOD_S = 1.0
#: Every so many periods HAProxy is asked what it has: it may have been restarted.
ASKS_EVERY = 5
SOCKET_DEADLINE_S = 5.0
_LINES_A_TIME = 100


class HaproxyError(Exception):
    """HAProxy did not do what it was asked to; the message has its answer."""


class Maps(NamedTuple):
    """What the two maps are to hold, and the commands that HAProxy cannot carry out."""

    blocked: dict[str, str]
    limits: dict[str, str]
    beyond: list[str]


def wanted(
    entries: Sequence[Entry], scopes: Sequence[ScopeType], environment: str, request_type: str, now: int
) -> Maps:
    """What commands mean for an HAProxy whose calls are all of this environment and request type.

    A command that exempts models is left out: HAProxy cannot tell them apart, and what is exempt is never touched.
    """
    found = Maps({}, {}, [])
    for entry in entries:
        command = entry.command
        if not entry.effective <= now < entry.ends or entry.spares > now:
            continue
        if command.exempt_models or command.match or command.target.scope_type not in scopes:
            found.beyond.append(command.command_id)
            continue
        key = command.target.key()
        if len(key.split()) != 1:
            found.beyond.append(command.command_id)
            continue
        for rule in entry.rules if now < entry.expires else entry.stale:
            if rule.takes is not None and not rule.takes(request_type, environment):
                continue
            if rule.blocks:
                found.blocked.setdefault(key, f"{command.retry_after_s} {' '.join(rule.reason.split())}")
            elif not _limit(found, key, rule.measure):
                found.beyond.append(command.command_id)
    return found


def _limit(found: Maps, key: str, measure: Measure) -> bool:
    if measure.action != "rate_limit" or measure.rpm is None:
        return False
    found.limits[key] = str(min(measure.rpm, int(found.limits.get(key, measure.rpm))))
    return True


class AdminSocket:
    """HAProxy's command line: one connection a command, as it closes each."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def ask(self, command: str) -> str:
        """What it answers.

        Raises:
            HaproxyError, OSError, TimeoutError: it cannot be reached, or does not answer.
        """
        async with asyncio.timeout(SOCKET_DEADLINE_S):
            reader, writer = await asyncio.open_unix_connection(self._path)
            try:
                writer.write(command.encode() + b"\n")
                await writer.drain()
                return (await reader.read()).decode(errors="replace").strip()
            finally:
                writer.close()

    async def read(self, file: Path) -> dict[str, str]:
        """All of a map. Raises as ``ask`` does."""
        found = await self.ask(f"show map {file}")
        if "Unknown map" in found:
            raise HaproxyError(f"HAProxy does not use {file}: name it in its configuration (docs/gateways.md)")
        lines = (line.split(" ", 2) for line in found.splitlines() if line)
        return {parts[1]: parts[2] if len(parts) > 2 else "" for parts in lines if len(parts) > 1}

    async def bring(self, file: Path, held: Mapping[str, str], wanted: Mapping[str, str]) -> None:
        """Let a map that holds this hold that. What is to be refused comes first. Raises as ``ask`` does."""
        new = [f"{key} {value}" for key, value in wanted.items() if key not in held]
        for begin in range(0, len(new), _LINES_A_TIME):
            lines = "\n".join(new[begin : begin + _LINES_A_TIME])
            await self._do(f"add map {file} <<\n{lines}\n")
        for key, value in wanted.items():
            if key in held and held[key] != value:
                await self._do(f"set map {file} {_escaped(key)} {_escaped(value)}")
        for key in held:
            if key not in wanted:
                await self._do(f"del map {file} {_escaped(key)}")

    async def _do(self, command: str) -> None:
        answer = await self.ask(command)
        if answer:
            raise HaproxyError(f"{command.split('<<')[0].strip()}: {answer[:200]}")


class HaproxyEnforcer:
    """Drives one HAProxy.

    Args:
        connection: aiokafka's keyword arguments.
        name: of this gateway, in acknowledgements.
        socket_path: its admin socket (``stats socket … level admin``).
        folder: where the maps lie; HAProxy's configuration names the same files.
        scopes: which attributes HAProxy looks up.
        environment, request_type: of all calls through it.
        gate_options: for ``ThrottleGate``.
    """

    def __init__(
        self,
        connection: Mapping[str, Any],
        *,
        name: str,
        socket_path: str,
        folder: Path,
        scopes: Sequence[ScopeType] = ("team", "feature", "key"),
        environment: str = "",
        request_type: str = "interactive",
        **gate_options: Any,
    ) -> None:
        self._socket = AdminSocket(socket_path)
        self._files = {BLOCKED: folder / BLOCKED, LIMITS: folder / LIMITS}
        self._scopes, self._environment, self._request_type = scopes, environment, request_type
        #: What HAProxy has, as far as is known; None: it has to be asked.
        self._held: dict[str, dict[str, str] | None] = {BLOCKED: None, LIMITS: None}
        self._written: dict[str, dict[str, str]] = {}
        self._beyond: list[str] = []
        self._changed = asyncio.Event()
        self._in_step = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.gate = ThrottleGate(
            connection, gateway=name, on_command=lambda *_: self._changed.set(), before_ack=self.step, **gate_options
        )

    def prepare(self) -> None:
        """Make the files that HAProxy's configuration names, where they are not there; it does not start without."""
        for file in self._files.values():
            file.touch()

    async def start(self, ready_within_s: float = 5.0) -> bool:
        """Follow commands in the background; returns whether all have been read."""
        self.prepare()
        is_ready = await self.gate.start(ready_within_s)
        self._task = asyncio.create_task(self._run(), name="sluice-haproxy")
        return is_ready

    async def stop(self) -> None:
        """End following; what HAProxy refuses then, it goes on to refuse."""
        await self.gate.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def step(self) -> None:
        """Bring HAProxy to what holds now; a command is acknowledged only after this. Raises as ``ask`` does."""
        async with self._in_step:
            maps = wanted(self.gate.standing(), self._scopes, self._environment, self._request_type, self.gate.now())
            if maps.beyond != self._beyond:
                self._beyond = maps.beyond
                log.warning("HAProxy cannot carry out, and lets go: %s", ", ".join(maps.beyond) or "nothing any more")
            for name, found in ((BLOCKED, maps.blocked), (LIMITS, maps.limits)):
                held, self._held[name] = self._held[name], None
                if held is None:
                    held = await self._socket.read(self._files[name])
                await self._socket.bring(self._files[name], held, found)
                self._held[name] = found
                if self._written.get(name) != found:
                    _write(self._files[name], found)
                    self._written[name] = found

    async def _run(self) -> None:
        for period in range(sys.maxsize):
            if period % ASKS_EVERY == 0:
                self._held = {BLOCKED: None, LIMITS: None}
            self._changed.clear()
            try:
                await self.step()
            except (HaproxyError, OSError, TimeoutError) as error:
                log.error("HAProxy is not in step: %s", error or repr(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PERIOD_S):
                    await self._changed.wait()


def _escaped(text: str) -> str:
    """As one word of HAProxy's command line."""
    return "".join("\\" + char if char in " \\;#\"'" else char for char in text)


def _write(file: Path, entries: Mapping[str, str]) -> None:
    new = file.with_name(file.name + ".new")
    new.write_text("".join(f"{key} {value}\n" for key, value in entries.items()))
    os.replace(new, file)


async def serve(options: argparse.Namespace) -> int:
    """Drive one HAProxy until SIGINT or SIGTERM."""
    ended = asyncio.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(one, ended.set)
    enforcer = HaproxyEnforcer(
        {"bootstrap_servers": options.kafka},
        name=options.name,
        socket_path=options.socket,
        folder=Path(options.maps),
        scopes=options.scopes.split(","),
        environment=options.environment,
    )
    await enforcer.start()
    await ended.wait()
    await enforcer.stop()
    return 0


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m gateway.haproxy", description=__doc__)
    parser.add_argument("--kafka", required=True, help="bootstrap servers")
    parser.add_argument("--name", default=f"haproxy-{socket.gethostname()}", help="of this gateway")
    parser.add_argument("--socket", default="/run/haproxy/admin.sock", help="its admin socket")
    parser.add_argument("--maps", default="/etc/haproxy", help="the folder of its maps")
    parser.add_argument("--scopes", default="team,feature,key", help="what its configuration looks up")
    parser.add_argument("--environment", default="", help="of all calls through it, such as prod")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    return asyncio.run(serve(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
