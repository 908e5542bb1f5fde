"""Child processes that never outlive their parent, each with a log file that its errors quote.

On Linux the kernel signals a child when the *thread* that started it ends, so call ``start`` from a thread
that lives as long as the child should (the main thread), never from a pool.
"""

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from streams.clock import elapsed_s

LOG_LINES_QUOTED = 15
POLL_S = 0.05
PROBE_DEADLINE_S = 2.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class EmbeddedError(Exception):
    """A part that Sluice runs itself did not do its work; the text says what to do or quotes its log."""


def free_port(preferred: int | None = None) -> int:
    """A TCP port of 127.0.0.1 that nobody listens on: the preferred one if it is free."""
    for port in (preferred, 0) if preferred else (0,):
        with closing(socket.socket()) as probe:
            # As servers do: a port in TIME_WAIT from our own last run is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise EmbeddedError("no free TCP port on 127.0.0.1")


def log_tail(path: Path, lines: int = LOG_LINES_QUOTED) -> str:
    """The last lines of a log file, indented, ready to be quoted in an error."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16_384))
            found = file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        found = []
    return "\n".join(f"    {line}" for line in found) or "    (nothing was logged)"


class ChildProcess:
    """One child process: its output goes to ``log`` (the run before is kept as ``<log>.old``).

    Args:
        name: what errors call it.
        command: program and arguments.
        log: file for standard output and error.
        env: its whole environment; None inherits ours.
        death_signal: what the kernel sends it when we are gone, however we went (Linux).
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._env = env
        self._death_signal = death_signal
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, in a session of its own so that Ctrl-C reaches only us and the order of stopping is ours.

        Raises:
            EmbeddedError: the program cannot be started, or it runs already.
        """
        if self.running:
            raise EmbeddedError(f"{self.name} is running already, as process {self.pid}")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_name(self.log.name + ".old"))
        try:
            with self.log.open("wb") as output:
                self._popen = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(self._env) if self._env is not None else None,
                    start_new_session=True,
                    preexec_fn=self._die_with_parent(),
                )
        except OSError as error:
            raise EmbeddedError(f"{self.name} cannot be started: {error}") from error

    def _die_with_parent(self) -> Callable[[], None] | None:
        if _LIBC is None:
            return None
        libc, parent, wanted = _LIBC, os.getpid(), int(self._death_signal)

        def after_fork() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, wanted, 0, 0, 0)
            if os.getppid() != parent:  # It went between the fork and the call: nobody will signal us.
                os._exit(1)

        return after_fork

    @property
    def pid(self) -> int:
        """Process id of the last start.

        Raises:
            EmbeddedError: it was never started.
        """
        if self._popen is None:
            raise EmbeddedError(f"{self.name} was not started")
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether the process lives (a paused one does)."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit code of the last run (minus the signal's number if one ended it); None while it runs."""
        return None if self._popen is None else self._popen.poll()

    def send(self, wanted: signal.Signals) -> None:
        """Send a signal; nothing happens if the process is gone."""
        if self._popen is not None and self.running:
            self._popen.send_signal(wanted)

    def pause(self) -> None:
        """Freeze it (SIGSTOP): alive, connections open, silent."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on (SIGCONT)."""
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL) and wait until the kernel has taken it away."""
        if self._popen is not None:
            self.send(signal.SIGKILL)
            self._popen.wait()

    async def stop(self, polite: signal.Signals = signal.SIGTERM, deadline_s: float = 15.0) -> bool:
        """Ask it to end, and end it after the deadline. Returns whether it ended by itself."""
        self.resume()
        self.send(polite)
        try:
            await self.ended(deadline_s)
            return True
        except TimeoutError:
            return False
        finally:
            self.kill()

    async def ended(self, deadline_s: float) -> int:
        """Wait for its end and return the exit code.

        Raises:
            TimeoutError: it still runs at the deadline.
        """
        until = elapsed_s() + deadline_s
        while self.running:
            if elapsed_s() > until:
                raise TimeoutError(f"{self.name} still runs after {deadline_s:g} s")
            await asyncio.sleep(POLL_S)
        return self.returncode or 0

    async def ready(self, probe: Callable[[], Awaitable[bool]], deadline_s: float) -> None:
        """Wait until ``probe`` says yes.

        Raises:
            EmbeddedError: the process ended, or is not ready at the deadline; with the end of its log.
        """
        until = elapsed_s() + deadline_s
        while True:
            if not self.running:
                raise self.failure(f"ended with exit code {self.returncode} before it was ready")
            if await probe():
                return
            if elapsed_s() > until:
                raise self.failure(f"is not ready after {deadline_s:g} s")
            await asyncio.sleep(POLL_S)

    def failure(self, what: str) -> EmbeddedError:
        """An error about this process that quotes the end of its log."""
        return EmbeddedError(f"{self.name} {what}. The end of {self.log}:\n{log_tail(self.log)}")


async def port_answers(port: int) -> bool:
    """Whether something accepts connections on this port of 127.0.0.1."""
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), PROBE_DEADLINE_S)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def http_status(port: int, path: str) -> int | None:
    """Status that a server on 127.0.0.1 answers to GET; None where it does not answer in time.

    Written out because an HTTP client would log each of the many attempts while the server starts.
    """
    try:
        async with asyncio.timeout(PROBE_DEADLINE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with closing(writer):
                writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
                words = (await reader.readline()).split()
    except (OSError, TimeoutError):
        return None
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None
