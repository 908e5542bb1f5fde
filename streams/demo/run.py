"""``sluice demo``: starts the whole service on embedded parts, plays a day through it, and says what came of it."""

import asyncio
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
from rich.console import Console

from gateway.gate import ThrottleGate
from schemas.commands import ThrottleCommand
from schemas.instants import HOUR, MINUTE
from schemas.topics import USAGE_BILLING
from streams.clock import WallClock, elapsed_s
from streams.demo import budgeting, company, judging, traffic
from streams.demo.ladder import Ladder, ladder_of
from streams.demo.news import News
from streams.demo.raw import RawFile
from streams.demo.scenario import Scenario, plan
from streams.demo.screen import PlainScreen, Scene, TerminalScreen, course, outcome
from streams.demo.tape import HISTORY_STEP_MAX, PlayedClock, Tape
from streams.demo.verdict import Order, Page, stories
from streams.demo.watch import Watch
from streams.embedded.process import EmbeddedError, free_port
from streams.kafka_connection import connection
from streams.ports import DeliveryError
from streams.settings import Settings
from streams.sinks.postgres import open_pool
from streams.sources.publisher import UsagePublishing
from streams.standins.runner import StandIns
from streams.supervisor import Supervisor, SupervisorInterruptedError

RATE_CARD = Path(__file__).parents[2] / "examples" / "demo" / "rate-card.yaml"
#: Of a whole run without a limit, and what a limited one keeps for closing.
UNLIMITED_S = 90
CLOSING_S = 9.0
LIVE_S_MIN = 14.0
HISTORY_S = 7.0
#: How long after midnight the day waits for the release.
PAUSE_AFTER = 90 * MINUTE
#: The clock waits for the service beyond this lag, in simulated time.
LIVE_LAG_MAX = 2 * HOUR
#: From this hour of the day on the throttle is near: a service that lags would take several of its steps in one.
EVENING = 17 * HOUR
EVENING_LAG_MAX = 40 * MINUTE
HISTORY_LAG_MAX = 12 * HOUR
#: Deadlines of the stages, beyond which the service did not do its part.
PLAY_OVERTIME_S = 60.0
SETTLE_S = 20.0
FINISH_S = 25.0
REFRESH_S = 0.2


class StageError(Exception):
    """A stage did not do its part within its deadline; the text says which and what it lacked."""


def main(seconds: int | None, seed: int, settings: Settings, keep: bool = False) -> int:
    """Play the demo; 0 if every stage did its part.

    Args:
        seconds: end by itself within about this time; None plays at leisure and, in a terminal, leaves the dashboard
            up until Ctrl-C.
        seed: varies times, teams and sizes.
        settings: ``state_dir`` and ``api_port`` count; broker and database are always the demo's own.
        keep: leave the state folder in place; it stays after a failure anyway.
    """
    # What clients log while parts stop belongs into files, not across the picture.
    logging.getLogger().addHandler(logging.NullHandler())
    missing = [path for path in (RATE_CARD, judging.ORACLE) if not path.is_file()]
    if missing:
        print(f"the demo runs from a clone of the repository: {missing[0]} is not there", file=sys.stderr)
        return 2
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="demo-", dir=settings.state_dir)).absolute()
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=150)
    demo = Demo(seconds, plan(seed, WallClock().now()), settings, folder, console)
    try:
        failed = asyncio.run(demo.run())
    except (KeyboardInterrupt, SupervisorInterruptedError):
        shutil.rmtree(folder, ignore_errors=True)
        return 130
    except (EmbeddedError, DeliveryError, StageError, judging.OracleError, asyncpg.PostgresError, OSError) as error:
        _say_failures([str(error) or repr(error)], folder)
        failed = True
    if not failed and not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


def _say_failures(failures: list[str], folder: Path) -> None:
    sys.stdout.flush()
    for failure in failures:
        print(f"demo failed: {failure}", file=sys.stderr)
    if failures:
        print(f"logs are in {folder / 'logs'}, the raw input is {folder / 'raw.jsonl'}", file=sys.stderr)


class Demo:
    """One run. Times of the played day come from its own clock; deadlines are real."""

    def __init__(
        self, seconds: int | None, scenario: Scenario, settings: Settings, folder: Path, console: Console
    ) -> None:
        self._ends_by_itself = seconds is not None or not console.is_terminal
        self._seconds = float(seconds or UNLIMITED_S)
        self._scenario = scenario
        self._folder = folder
        self._console = console
        self._started = elapsed_s()
        self._clock = PlayedClock(WallClock())
        self._scene = Scene(scenario.seed, scenario.calendar)
        self._news = News()
        self._orders: list[Order] = []
        screen = TerminalScreen if console.is_terminal else PlainScreen
        self._screen = screen(console, lambda: self._scene)
        self._settings = self._own_settings(settings)

    def _own_settings(self, settings: Settings) -> Settings:
        budgets = self._folder / "budgets.yaml"
        budgets.write_text(budgeting.budgets_yaml(self._scenario))
        port = free_port(settings.api_port)
        own = {
            "state_dir": self._folder,
            "kafka_url": None,
            "database_url": None,
            "budgets": budgets,
            "rate_card": RATE_CARD,
            "clock": "stream",
            # Hours of the played day pass in seconds.
            "rollup_interval_ms": 100,
            # The demo's GPU costs a dollar an hour; a real company would not be woken by that.
            "gpu_page_usd": "1",
            # What can wait for the morning waits for the played day's.
            "morning_timezone": self._scenario.calendar.zone,
            "org_id": budgeting.ORG,
            "api_port": port,
            "public_url": f"http://127.0.0.1:{port}",
        }
        return settings.model_copy(update=own)

    async def run(self) -> bool:
        """Play and judge; returns whether a stage failed, after saying which.

        Raises:
            EmbeddedError, StageError, OracleError, DeliveryError: a stage could not go on.
        """
        say = self._screen.say
        say(f"Sluice demo: a day of six teams, seed {self._scenario.seed}. Starting broker, database, worker, API …")
        making = asyncio.create_task(asyncio.to_thread(self._records))
        async with AsyncExitStack() as stack:
            stack.callback(making.cancel)
            receivers = await stack.enter_async_context(StandIns(self._folder / "standins", self._clock))
            self._receivers = receivers
            running = await stack.enter_async_context(
                Supervisor(self._settings, workers=1, extra_env=receivers.environment(), say=say)
            )
            self._running = running
            say(f"dashboard: {running.api_url}")
            self._scene.dashboard = running.api_url
            tape, watch = await self._instruments(stack, running)
            failures = await self._play(tape, watch, await making)
            _say_failures(failures, self._folder)
            if not self._ends_by_itself:
                self._console.print(f"\nThe dashboard stays at [bold]{running.api_url}[/] until Ctrl-C.")
                await running.wait()
        return bool(failures)

    def _records(self) -> tuple[list[traffic.Moment], list[traffic.Moment]]:
        return traffic.history(self._scenario), traffic.live(self._scenario)

    async def _instruments(self, stack: AsyncExitStack, running: Supervisor) -> tuple[Tape, Watch]:
        """The simulated gateway, its tape, and the watch over the ledger."""
        where = connection(running.settings)
        idempotence = running.settings.kafka_idempotence
        publishing = UsagePublishing(where, idempotence=idempotence)
        stack.push_async_callback(publishing.stop)
        await publishing.start()
        gate = ThrottleGate(
            where,
            gateway=company.GATEWAY,
            clock=self._clock.now,
            ack_interval_s=1.0,
            idempotence=idempotence,
            on_command=self._ordered,
        )
        stack.push_async_callback(gate.stop)
        if not await gate.start(ready_within_s=SETTLE_S):
            raise StageError("GATEWAY: the gate did not read the commands topic in time")
        raw = stack.enter_context((self._folder / "raw.jsonl").open("w", encoding="utf-8"))
        pool = await open_pool(running.database_url)
        stack.push_async_callback(pool.close)
        watch = await stack.enter_async_context(Watch(pool, self._scenario.calendar))
        return Tape(publishing, gate, RawFile(raw), self._clock), watch

    def _ordered(self, key: str, command: ThrottleCommand | None) -> None:
        if command is not None and not command.dry_run:
            taken = self._clock.now(), command.command_id, command.measures, elapsed_s()
            self._orders.append(Order(command.budget_id, command.action, *taken))

    async def _play(
        self, tape: Tape, watch: Watch, records: tuple[list[traffic.Moment], list[traffic.Moment]]
    ) -> list[str]:
        history, live = records
        with self._screen:
            refreshing = asyncio.create_task(self._refresh(tape, watch))
            try:
                await self._play_history(tape, watch, history)
                await self._play_day(tape, watch, live)
                self._scene.phase = "closing: everything must arrive"
                await tape.settle(SETTLE_S)
                await self._until("METER and LEDGER", SETTLE_S, watch, lambda: self._lacks(tape, watch))
                # What is still missing after this is judged, not waited for.
                await self._wait(FINISH_S, watch, lambda: self._unfinished(tape, watch))
                self._scene.phase = "done"
            finally:
                refreshing.cancel()
            await watch.look()
            self._update(tape, watch)
        return await self._judge(tape, watch)

    async def _play_history(self, tape: Tape, watch: Watch, moments: list[traffic.Moment]) -> None:
        calendar = self._scenario.calendar
        self._scene.phase = "playing seven days of history"
        self._screen.say(f"history: {len(moments):,} events of seven days; then the day with its incidents")
        playing = tape.play(
            moments,
            (calendar.history, calendar.day),
            HISTORY_S,
            lambda: self._reached(tape, watch),
            lag_max=HISTORY_LAG_MAX,
            step_max=HISTORY_STEP_MAX,
        )
        await self._within("history", HISTORY_S + PLAY_OVERTIME_S, playing)
        await self._until("METER and LEDGER", SETTLE_S, watch, lambda: self._lacks(tape, watch))

    async def _play_day(self, tape: Tape, watch: Watch, moments: list[traffic.Moment]) -> None:
        """The day, its evening with the throttle, and what comes a while after midnight once that is released."""
        calendar = self._scenario.calendar
        self._scene.phase = "playing the day"
        evening, pause = calendar.day + EVENING, calendar.midnight + PAUSE_AFTER
        seconds = max(LIVE_S_MIN, self._seconds - (elapsed_s() - self._started) - CLOSING_S)
        begins, done = calendar.day, 0
        for ends, lag_max in ((evening, LIVE_LAG_MAX), (pause, EVENING_LAG_MAX), (calendar.end, LIVE_LAG_MAX)):
            part = [moment for moment in moments[done:] if moment.at <= ends]
            share = seconds * (ends - begins) / (calendar.end - calendar.day)
            playing = tape.play(part, (begins, ends), share, lambda: self._reached(tape, watch), lag_max=lag_max)
            await self._within("the day", share + PLAY_OVERTIME_S, playing)
            if ends > calendar.midnight:
                # The tape ends soon after; a service on a busy machine gets the time that it needs.
                await self._wait(SETTLE_S, watch, self._still_throttled)
            begins, done = ends, done + len(part)

    def _still_throttled(self) -> str:
        actions = [order.action for order in self._orders]
        return "the release" if actions and actions[-1] != "allow" else ""

    async def _judge(self, tape: Tape, watch: Watch) -> list[str]:
        receivers = self._receivers
        evidence = judging.Evidence(
            self._scenario, tape, watch.view, self._pages(), self._orders, self._ladder(tape, watch),
            [*(" ".join(errors) for errors in receivers.pagerduty.refused), *receivers.slack.refused],
            len(receivers.slack.messages), len(receivers.mail.messages), self._running.restarts,
        )  # fmt: skip
        found = await judging.judge(evidence, watch, self._folder / "raw.jsonl", self._running.api_url)
        told = stories(self._scenario, watch.view.findings, self._pages(), self._orders)
        self._console.print(outcome(self._scenario.calendar, told))
        self._console.print(course(self._scenario.calendar, evidence.ladder))
        sys.stdout.flush()
        print(json.dumps(found.summary, indent=2, ensure_ascii=False), flush=True)
        return found.failures

    # -- waiting ----------------------------------------------------------------------------------------------------

    async def _within(self, stage: str, seconds: float, work: "asyncio.Future[None] | object") -> None:
        try:
            async with asyncio.timeout(seconds):
                await work  # type: ignore[misc]
        except TimeoutError as error:
            raise StageError(f"{stage} was not played within {seconds:.0f} s: the service lags behind") from error

    async def _until(self, stage: str, seconds: float, watch: Watch, lacks: Callable[[], str]) -> None:
        if await self._wait(seconds, watch, lacks):
            return
        raise StageError(f"{stage} did not catch up within {seconds:g} s: {lacks()}")

    async def _wait(self, seconds: float, watch: Watch, lacks: Callable[[], str]) -> bool:
        deadline = elapsed_s() + seconds
        while lacks():
            watch.check()
            if elapsed_s() > deadline:
                return False
            await asyncio.sleep(0.1)
        return True

    def _lacks(self, tape: Tape, watch: Watch) -> str:
        """What the ledger does not have yet, in words; empty when it has everything."""
        epoch, has = self._settings.topic_epoch, watch.view.next_offsets
        behind = [
            f"{topic}[{partition}] is at {has.get(f'{topic}@{epoch}-{partition}', 0)} of {end}"
            for topic, slots in tape.ends.items()
            for partition, end in slots.items()
            if has.get(f"{topic}@{epoch}-{partition}", 0) < end
        ]
        return ", ".join(behind)

    def _reached(self, tape: Tape, watch: Watch) -> int:
        """How far the ledger is: the slowest partition counts, or hours would be judged before they are whole."""
        epoch, view = self._settings.topic_epoch, watch.view
        # A partition that the ledger has never heard of is at the beginning; bills say nothing of how far the day is.
        behind = [
            view.slot_times.get(slot, 0)
            for topic, ends in tape.ends.items()
            for slot, end in ((f"{topic}@{epoch}-{partition}", end) for partition, end in ends.items())
            if topic != USAGE_BILLING and view.next_offsets.get(slot, 0) < end
        ]
        return min(behind, default=view.stream_time)

    def _unfinished(self, tape: Tape, watch: Watch) -> str:
        told = stories(self._scenario, watch.view.findings, self._pages(), self._orders)
        missing = [f"{story.incident.kind}: {', '.join(story.missing)}" for story in told if story.missing]
        if watch.view.owed:
            missing.append(f"{watch.view.owed} messages owed")
        missing += [f"{action} is not acknowledged" for action in self._ladder(tape, watch).unacknowledged]
        return "; ".join(missing)

    # -- showing ----------------------------------------------------------------------------------------------------

    def _ladder(self, tape: Tape, watch: Watch) -> Ladder:
        subject = self._scenario.overrun.subject
        money = [(b.overshoot_nanos, b.amount_nanos) for b in watch.view.budgets if b.budget_id == subject]
        return ladder_of(
            subject, self._orders, watch.view.findings, watch.view.acks, tape.real_s, money[0] if money else (0, 0)
        )

    def _pages(self) -> list[Page]:
        return [Page(i.dedup_key, i.summary, i.opened_at, i.resolved_at) for i in self._receivers.pagerduty.incidents]

    async def _refresh(self, tape: Tape, watch: Watch) -> None:
        while True:
            self._update(tape, watch)
            await asyncio.sleep(REFRESH_S)

    def _update(self, tape: Tape, watch: Watch) -> None:
        scene, pages = self._scene, self._pages()
        fresh = self._news.take(watch.view.findings, pages, self._orders)
        scene.at, scene.published, scene.refused = self._clock.now(), tape.published, tape.refused
        scene.view, scene.pages, scene.orders = watch.view, pages, self._orders
        scene.ladder = self._ladder(tape, watch)
        scene.messages = len(self._receivers.slack.messages)
        scene.mails = len(self._receivers.mail.messages)
        scene.lines = self._news.lines
        self._screen.update(fresh)
