"""One of Sluice's own processes (a worker, the API) and how it is kept up."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable

from streams.clock import elapsed_s
from streams.embedded.process import POLL_S, ChildProcess, EmbeddedError

logger = logging.getLogger(__name__)

RESTART_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
#: Up for this long, a process counts as healthy again and its next restart is quick.
HEALTHY_S = 60.0
SIGNALLED_DEADLINE_S = 30.0


class Service:
    """A child process with a readiness check, started again when it ends unasked.

    Args:
        child: the process.
        probe: whether it is ready; asked many times a second.
        ready_deadline_s: from start to ready.
        stop_deadline_s: from SIGTERM to SIGKILL.
        before_start: what to clear so that ``probe`` does not speak of the run before.
    """

    def __init__(
        self,
        child: ChildProcess,
        probe: Callable[[], Awaitable[bool]],
        *,
        ready_deadline_s: float,
        stop_deadline_s: float,
        before_start: Callable[[], None] = lambda: None,
    ) -> None:
        self.child = child
        #: How often it was started again after a crash.
        self.restarts = 0
        self._wanted = False
        self._probe = probe
        self._ready_deadline_s = ready_deadline_s
        self._stop_deadline_s = stop_deadline_s
        self._before_start = before_start
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it and keep it up from then on.

        Raises:
            EmbeddedError: it ended or was not ready in time; with the end of its log.
        """
        await self._start_once()
        self._wanted = True
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_up(), name=f"keep up {self.child.name}")

    async def _start_once(self) -> None:
        self._before_start()
        self.child.start()
        try:
            await self.child.ready(self._probe, self._ready_deadline_s)
        except BaseException:
            self.child.kill()
            raise

    async def send(self, wanted: signal.Signals) -> None:
        """Send a signal; for one that ends it, wait for the end and leave it down until ``start``.

        Raises:
            TimeoutError: it did not end.
        """
        pausing = wanted in (signal.SIGSTOP, signal.SIGCONT)
        self._wanted = self._wanted and pausing
        self.child.send(wanted)
        if not pausing:
            await self.child.ended(SIGNALLED_DEADLINE_S)

    async def stop(self) -> None:
        """SIGTERM, SIGKILL at the deadline, and no restart."""
        self._wanted = False
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        if not await self.child.stop(deadline_s=self._stop_deadline_s):
            logger.warning("%s did not stop within %g s and was killed", self.child.name, self._stop_deadline_s)

    async def _keep_up(self) -> None:
        failures, up_since = 0, elapsed_s()
        while True:
            await asyncio.sleep(POLL_S)
            if not self._wanted or self.child.running:
                continue
            failures = 0 if elapsed_s() - up_since > HEALTHY_S else failures
            pause = RESTART_PAUSES_S[min(failures, len(RESTART_PAUSES_S) - 1)]
            failures += 1
            logger.error(
                "starting it again in %g s: %s", pause, self.child.failure(_how_it_ended(self.child.returncode))
            )
            await asyncio.sleep(pause)
            if not self._wanted:
                continue
            self.restarts += 1
            try:
                await self._start_once()
            except EmbeddedError as error:
                logger.error("%s", error)
            else:
                logger.warning("%s is back", self.child.name)
            up_since = elapsed_s()


def _how_it_ended(returncode: int | None) -> str:
    """In words: a signal that nobody here sent, or an exit code.

    >>> _how_it_ended(-9), _how_it_ended(70)
    ('was killed by signal 9', 'ended with exit code 70')
    """
    if returncode is not None and returncode < 0:
        return f"was killed by signal {-returncode}"
    return f"ended with exit code {returncode}"
