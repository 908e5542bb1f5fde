"""Scrapes GPU exporters on the ticks of the clock and publishes what happened between two ticks.

Ticks are multiples of the interval since 1970: two scrapers of one exporter name the same windows alike, and
METER counts each once. A scrape that fails gives no sample: a gap is unknown. Samples that the broker does
not take wait here, up to ``WAITING_MAX``, and go with a later tick.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import aiohttp

from streams.clock import Clock
from streams.ports import DeliveryError, PermanentError
from streams.sources.gpu_metrics import Scrape, ScrapeError, parse, window
from streams.sources.ingest import Publisher
from streams.sources.intake import gpu_record
from streams.sources.publisher import Record

log = logging.getLogger(__name__)

BODY_BYTES_MAX = 32 * 1024 * 1024
WAITING_MAX = 50_000
TIMEOUT_S_MAX = 10.0


class GpuScraper:
    """Scrapes ``targets`` (URLs of ``/metrics``) every ``interval_s`` for ``usage.gpu.v1``.

    ``team_by_namespace`` gives a Kubernetes namespace's GPUs to a team; without it they have no owner.
    The counters say what happened since the start: scrapes that succeeded and failed, samples published, and
    samples lost because too many waited for the broker.
    """

    def __init__(
        self,
        targets: Sequence[str],
        publisher: Publisher,
        clock: Clock,
        *,
        interval_s: float = 30.0,
        team_by_namespace: Mapping[str, str] | None = None,
    ) -> None:
        self._targets = tuple(_metrics_url(target) for target in targets)
        self._publisher = publisher
        self._clock = clock
        self._interval_s = interval_s
        self._interval_us = round(interval_s * 1_000_000)
        self._teams = dict(team_by_namespace or {})
        self._previous: dict[str, Scrape] = {}
        self._failing: dict[str, str] = {}
        self._waiting: deque[Record] = deque()
        self.scrapes_ok = 0
        self.scrapes_failed = 0
        self.samples_published = 0
        self.samples_lost = 0

    @property
    def failing(self) -> Mapping[str, str]:
        """Targets whose last scrape failed, and why."""
        return self._failing

    async def run(self, stop_event: asyncio.Event) -> None:
        """Scrape on every tick until ``stop_event`` is set."""
        if not self._targets:
            return
        timeout = aiohttp.ClientTimeout(total=min(TIMEOUT_S_MAX, self._interval_s * 0.8))
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while not stop_event.is_set():
                await self.scrape(session, self._clock.now() // self._interval_us * self._interval_us)
                now = self._clock.now()
                next_tick = (now // self._interval_us + 1) * self._interval_us
                try:
                    async with asyncio.timeout((next_tick - now) / 1_000_000):
                        await stop_event.wait()
                except TimeoutError:
                    continue

    async def scrape(self, session: aiohttp.ClientSession, tick: int) -> None:
        """Scrape every target once for the instant ``tick`` (microseconds), and publish."""
        async with asyncio.TaskGroup() as group:
            for target in self._targets:
                group.create_task(self._scrape_one(session, target, tick))
        await self._publish()

    async def _scrape_one(self, session: aiohttp.ClientSession, target: str, tick: int) -> None:
        try:
            async with session.get(target) as response:
                response.raise_for_status()
                body = await response.content.read(BODY_BYTES_MAX + 1)
                while len(body) <= BODY_BYTES_MAX and not response.content.at_eof():
                    body += await response.content.read(BODY_BYTES_MAX + 1 - len(body))
            if len(body) > BODY_BYTES_MAX:
                raise ScrapeError(f"{target} answers with more than {BODY_BYTES_MAX} bytes")
            text = body.decode("utf-8", "replace")
            scrape = await asyncio.to_thread(parse, text, source=_source(target), at=tick)
        except (aiohttp.ClientError, TimeoutError, OSError, ScrapeError) as error:
            self.scrapes_failed += 1
            if target not in self._failing:
                log.warning("GPU exporter %s can't be scraped, its GPUs are unknown: %r", target, error)
            self._failing[target] = str(error) or type(error).__name__
            return
        self.scrapes_ok += 1
        if self._failing.pop(target, None) is not None:
            log.info("GPU exporter %s answers again", target)
        previous = self._previous.get(target)
        self._previous[target] = scrape
        if previous is None:
            return
        for named in window(previous, scrape, self._interval_s, self._teams):
            self._waiting.append(gpu_record(named.sample, id=named.id, source=scrape.source))
        while len(self._waiting) > WAITING_MAX:
            self._waiting.popleft()
            self.samples_lost += 1

    async def _publish(self) -> None:
        records = list(self._waiting)
        if not records:
            return
        try:
            await self._publisher.publish_all(records)
        except PermanentError as error:
            log.error("%d GPU samples are refused by the broker and lost: %s", len(records), error)
            self.samples_lost += len(records)
            self._waiting.clear()
            return
        except DeliveryError as error:
            # They keep their ids, so those that arrived after all are not counted twice.
            log.warning("%d GPU samples wait for the broker: %s", len(records), error)
            return
        self._waiting.clear()
        self.samples_published += len(records)


def _metrics_url(target: str) -> str:
    """An exporter's URL; a bare host and port means its /metrics."""
    parts = urlsplit(target if "//" in target else f"http://{target}")
    return parts._replace(path=parts.path if parts.path not in ("", "/") else "/metrics").geturl()


def _source(target: str) -> str:
    parts = urlsplit(target)
    return f"//gpu/{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}{parts.path}"
