"""One worker process: starts the application and its loops, says when it is ready, stops in order."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
from pathlib import Path
from typing import Any

from schemas.budgets import Budget
from streams import metrics
from streams.agents.shell import FAIL_STOP_EXIT_CODE, Loop
from streams.app import Outside, Worker, create_app, wait_ready
from streams.core.budget_file import load_budgets
from streams.core.pricing import PriceBook
from streams.core.rate_card import RateCard, load_rate_card
from streams.settings import Settings, SettingsError
from streams.sinks.forecasts import PostgresForecasts
from streams.sinks.ledger import PostgresLedger
from streams.sinks.outbox import PostgresOutbox
from streams.sinks.postgres import migrate, open_pool
from streams.sinks.receivers import receivers

logger = logging.getLogger("sluice.worker")

STOP_DEADLINE_S = 20.0


async def serve(settings: Settings) -> int:
    """Run a worker until SIGINT or SIGTERM; return its exit code.

    Raises:
        SettingsError: no broker or database is given, or the budgets or the rate card cannot be used.
    """
    if settings.database_url is None:
        raise SettingsError(["database_url is not set: give postgresql://…, or use `sluice up`, which starts one"])
    url = settings.database_url.get_secret_value()
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    await migrate(url)
    async with contextlib.AsyncExitStack() as stack:
        pool = await open_pool(url)
        stack.push_async_callback(pool.close)
        reach = receivers(settings)
        for receiver in reach.values():
            stack.push_async_callback(receiver.close)
        outside = Outside(PostgresLedger(pool), PostgresOutbox(pool), reach, PostgresForecasts(pool))
        worker = create_app(settings, outside, read_budgets(settings), read_prices(settings))
        if settings.worker_metrics_port:
            metrics.serve(settings.api_host, settings.worker_metrics_port)
        return await _serve(worker, settings.ready_file)


def _collect_rarely() -> None:
    """Look for reference cycles rarely: a batch makes many thousand objects that are gone by the next one.

    Every 700 of them, which is Python's own threshold, a collection would walk through what is live, ten thousand
    cells with their histograms among it: measured at four fifths of the time of reading records.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


async def _serve(worker: Worker, ready_file: Path | None) -> int:
    app: Any = worker.app
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    app.finalize()
    _collect_rarely()
    await app.start()
    # The loops outlive the application's stop: its last commit waits for what only they acknowledge.
    tasks = [asyncio.create_task(_keep(part)) for part in worker.loops]
    ready = asyncio.create_task(_say_ready(app, ready_file))
    stopping = asyncio.create_task(stop.wait())
    gone = asyncio.create_task(app.wait_until_stopped())
    await asyncio.wait({stopping, gone}, return_when=asyncio.FIRST_COMPLETED)
    crashed = app.crashed
    if crashed:
        logger.critical("the application crashed: %r", app.crash_reason)
        # Nothing more may be committed; a successor resumes from what is durable.
        logging.shutdown()
        os._exit(FAIL_STOP_EXIT_CODE)
    logger.info("stopping: finishing what was read")
    finishing = asyncio.create_task(app.stop())
    await asyncio.wait({finishing}, timeout=STOP_DEADLINE_S)
    if not finishing.done():
        # Faust can swallow a cancellation, so the deadline must not depend on one. Nothing is lost.
        logger.warning("did not finish within %d s; a successor reads the rest again", STOP_DEADLINE_S)
        logging.shutdown()
        os._exit(0)
    for task in (*tasks, ready, stopping, gone):
        task.cancel()
    await asyncio.gather(*tasks, ready, stopping, gone, return_exceptions=True)
    return 0


async def _keep(part: Loop) -> None:
    await part.run_background()


async def _say_ready(app: Any, ready_file: Path | None) -> None:
    await wait_ready(app)
    if ready_file is not None:
        await asyncio.to_thread(ready_file.write_text, f"{os.getpid()}\n")
    logger.info("ready: tables are recovered and records flow")


def read_budgets(settings: Settings) -> tuple[Budget, ...]:
    """The budgets of the settings' file; none without one.

    Raises:
        SettingsError: with every error in the file.
    """
    if settings.budgets is None:
        return ()
    try:
        found = load_budgets(settings.budgets.read_text())
    except ValueError as error:
        raise SettingsError([f"{settings.budgets}: {line}" for line in str(error).splitlines()]) from error
    if len(found) > settings.budgets_max:
        raise SettingsError([f"{settings.budgets}: {len(found)} budgets, and budgets_max is {settings.budgets_max}"])
    return found


def read_prices(settings: Settings) -> PriceBook:
    """The price book: the operator's rate card before the catalogue.

    Raises:
        SettingsError: with every error in the rate card.
    """
    try:
        card = load_rate_card(settings.rate_card.read_text()) if settings.rate_card else RateCard()
    except ValueError as error:
        raise SettingsError([f"{settings.rate_card}: {line}" for line in str(error).splitlines()]) from error
    return PriceBook(card, frozenset(settings.self_hosted_providers))
