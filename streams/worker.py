"""One worker process: starts the application and its loops, says when it is ready, stops in order."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from asyncpg import Pool

from schemas import topics
from schemas.budgets import Budget, Definition
from schemas.instants import DAY
from streams import metrics
from streams.agents.aftercare import REPORTED, Aftercare, Digests
from streams.agents.definitions import KnownDefinitions
from streams.agents.forgetting import Forgetting
from streams.agents.invitations import Invitations
from streams.agents.shell import FAIL_STOP_EXIT_CODE, Loop
from streams.agents.watch import Watched
from streams.app import Outside, Worker, create_app, wait_ready
from streams.clock import WallClock
from streams.core.budget_file import definitions_of
from streams.core.definition_file import changes_of, said_by
from streams.core.placing import owned
from streams.core.pricing import PriceBook
from streams.core.rate_card import RateCard, load_rate_card
from streams.core.routes import Routes
from streams.doctor.standing import KafkaLooks
from streams.kafka_connection import connection
from streams.ports import RetryableError, Standing
from streams.routes_setting import read_routes
from streams.settings import Settings, SettingsError
from streams.settings_checks import is_loopback
from streams.sinks.acknowledgements import load_acknowledgements
from streams.sinks.definitions import KafkaDefinitions, Wanted
from streams.sinks.forecasts import PostgresForecasts
from streams.sinks.forgetting import PostgresHistory
from streams.sinks.heartbeat import HttpHeartbeat
from streams.sinks.ledger import PostgresLedger
from streams.sinks.notify_groups import PostgresGroups
from streams.sinks.outbox import PostgresOutbox
from streams.sinks.postgres import migrate, open_pool
from streams.sinks.receivers import receivers
from streams.sinks.resources import PostgresResources
from streams.sinks.reviews import PostgresReviews
from streams.sinks.silences import load_silences
from streams.sinks.watch import PostgresWatch
from streams.sinks.weekly_reports import WeeklyReports
from streams.transport.following import TopicFollower

logger = logging.getLogger("sluice.worker")

STOP_DEADLINE_S = 20.0
FILE_AGAIN_S = 1.0


async def serve(settings: Settings) -> int:
    """Run a worker until SIGINT or SIGTERM; return its exit code.

    Raises:
        SettingsError: no broker or database is given, or the budgets, the routes or the rate card cannot be
            used.
    """
    if settings.database_url is None:
        raise SettingsError(["database_url is not set: give postgresql://…, or use `sluice up`, which starts one"])
    url = settings.database_url.get_secret_value()
    logger.info("starting: %s", ", ".join(settings.stages))
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    await migrate(url)
    async with contextlib.AsyncExitStack() as stack:
        pool = await open_pool(url)
        stack.push_async_callback(pool.close)
        known = KnownDefinitions()
        routes = read_routes(settings)
        reach = receivers(settings, routes.integrations(), inviting=inviting(settings, known))
        for receiver in reach.values():
            stack.push_async_callback(receiver.close)
        groups = PostgresGroups(pool, load_silences, load_acknowledgements)
        watch = PostgresWatch(pool, settings.app_id)
        outside = Outside(
            PostgresLedger(pool), groups, PostgresOutbox(pool), reach, routes,
            PostgresForecasts(pool), PostgresResources(pool),
            forgetting=forgetting(settings, pool),
            aftercare=aftercare(settings, pool, routes, reach),
            heard=watch,
            watched=_watched(settings, watch, stack) if "notify" in settings.stages else None,
        )  # fmt: skip
        entries = read_budgets(settings)
        worker = create_app(settings, outside, known, read_prices(settings))
        if entries is not None and settings.budgets is not None:
            await publish_file(definition_store(settings, pool), settings.budgets, entries)
        follower = TopicFollower(connection(settings), topics.BUDGETS, settings.partitions, known.take)
        following = asyncio.create_task(follower.run_background())
        stack.callback(following.cancel)
        # Nothing is counted before it is known what is to be counted.
        await follower.ready()
        if settings.worker_metrics_port:
            metrics.serve(settings.api_host, settings.worker_metrics_port)
        return await _serve(worker, settings.ready_file)


def _watched(settings: Settings, store: PostgresWatch, stack: contextlib.AsyncExitStack) -> Watched:
    """What the watcher of this deployment works with; this worker is it only while it has the lease."""
    looks = KafkaLooks(connection(settings), settings.app_id, WallClock())
    stack.push_async_callback(looks.close)
    heartbeat = None
    if settings.heartbeat_url is not None:
        tells_failures = settings.heartbeat_style == "healthchecks"
        heartbeat = HttpHeartbeat(
            settings.heartbeat_url.get_secret_value(),
            "/fail" if tells_failures else "",
            "POST" if tells_failures else "GET",
        )
        stack.push_async_callback(heartbeat.close)
    return Watched(
        store, looks.look, heartbeat, f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}", settings.app_id
    )


def inviting(settings: Settings, known: KnownDefinitions) -> Invitations:
    """Who makes approval links, as the settings say."""
    secret = settings.approval_secret.get_secret_value() if settings.approval_secret else ""
    if secret and "notify" in settings.stages and is_loopback(urlsplit(settings.public_url).hostname or ""):
        logger.warning("approval links begin with %s: set public_url to where leads reach it", settings.public_url)
    return Invitations(
        known, secret, settings.public_url, settings.team_leads, in_slack=settings.approval_links_in_slack
    )


def aftercare(settings: Settings, pool: Pool, routes: Routes, reach: Collection[str]) -> Aftercare | None:
    """Reviews and weekly digests, as settings and routes say; where the stream is the clock it is nobody's Monday."""
    if settings.clock != "wall":
        return None
    kinds = {each.id: each.kind for each in routes.integrations().values()}
    # A report wakes nobody, and a machine has no use for it.
    told = {
        row.team: [each.id for each in routes.receivers[row.receiver].integrations if kinds[each.id] in REPORTED]
        for row in routes.owners
        if row.team and row.receiver in routes.receivers
    }
    leads = {row.team: row.address for row in routes.owners if row.team and row.address} | settings.team_leads
    digests = Digests(
        receivers=[name for name in settings.digest_receivers if name in reach],
        team_receivers={team: ids for team, ids in told.items() if ids and settings.digest_receivers},
        at_hour=settings.digest_hour,
        timezone=settings.digest_timezone,
        team_timezones=settings.team_timezones,
        leads=leads,
    )
    return Aftercare(
        PostgresReviews(pool), WeeklyReports(pool), WallClock(), digests,
        review_us=settings.review_days * DAY, owners=leads, owned=lambda alert: owned(alert, routes),
    )  # fmt: skip


def forgetting(settings: Settings, pool: Pool) -> Forgetting | None:
    """Who removes old deliveries; nobody where they are kept for ever."""
    kept = settings.delivery_history_days * DAY
    return Forgetting(PostgresHistory(pool), WallClock(), kept) if kept else None


def definition_store(settings: Settings, pool: Pool) -> KafkaDefinitions:
    """Where definitions are published."""
    return KafkaDefinitions(
        connection(settings), pool, WallClock().now, settings.partitions, idempotence=settings.kafka_idempotence
    )


def _collect_rarely() -> None:
    """Look for reference cycles rarely: a batch makes many thousand objects that are gone by the next one.

    Every 700 of them, which is Python's own threshold, a collection would walk through what is live, ten thousand
    cells with their histograms among it: measured at four fifths of the time of reading records.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def _take_turns_quickly() -> None:
    """Let the thread that fetches have the interpreter after 1 ms, not after Python's own 5.

    It asks for it after each of its system calls, several times a fetch, and all the agents are behind it.
    """
    sys.setswitchinterval(0.001)


async def _serve(worker: Worker, ready_file: Path | None) -> int:
    app: Any = worker.app
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    app.finalize()
    _collect_rarely()
    _take_turns_quickly()
    logger.info("joining the group %s", app.conf.id)
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


def read_budgets(settings: Settings) -> Mapping[str, Definition] | None:
    """What the settings' budgets file defines, by record key; None without a file.

    Raises:
        SettingsError: with every error in the file.
    """
    if settings.budgets is None:
        return None
    try:
        found = definitions_of(settings.budgets.read_text())
    except ValueError as error:
        raise SettingsError([f"{settings.budgets}: {line}" for line in str(error).splitlines()]) from error
    count = sum(isinstance(each, Budget) for each in found.values())
    if count > settings.budgets_max:
        raise SettingsError([f"{settings.budgets}: {count} budgets, and budgets_max is {settings.budgets_max}"])
    return found


async def publish_file(store: KafkaDefinitions, path: Path, entries: Mapping[str, Definition]) -> None:
    """Publish what the budgets file changed, trying until broker and database are there."""

    def decide(standing: Mapping[str, Standing]) -> list[Wanted]:
        found = changes_of(entries, standing, path.name)
        for change in found:
            logger.info("%s: %s %s", path, change.key, change.what)
        return [Wanted(change.key, change.definition, change.file_digest) for change in found]

    while True:
        try:
            await store.put(decide, by=said_by(path.name), reason=f"the file {path.name} says so")
            return
        except RetryableError as error:
            logger.warning("%s waits to be published: %s", path, error)
            await asyncio.sleep(FILE_AGAIN_S)


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
