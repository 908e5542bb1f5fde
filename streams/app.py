"""The composition root of a worker: the only place that picks real parts and binds them to each other."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, NamedTuple

from schemas import topics
from schemas.events import GpuSample
from schemas.instants import DAY, MINUTE, SECOND
from schemas.keys import digest
from schemas.money import parse_nanos
from streams.agents.budgets import BudgetAgent
from streams.agents.definitions import AncestorsNow, KnownDefinitions, LessonsNow, MonthlyNow, WatchedNow
from streams.agents.deliver import Deliverer
from streams.agents.detect import GpuAgent, IdleAgent, LoopAgent, RunawayAgent
from streams.agents.forecast import ForecastLoop
from streams.agents.forecast_standings import Standings
from streams.agents.heard import HeardLoop
from streams.agents.hours import RegimeAgent, SpikeAgent, UnusualAgent
from streams.agents.ledger import LedgerAgent
from streams.agents.meter import Meter
from streams.agents.notify import Dispatcher, NotifyAgent, Woken
from streams.agents.rollup import RollupAgent
from streams.agents.shell import Loop
from streams.agents.waste import WasteLoop
from streams.agents.watch import Watched, WatchLoop, WatchTimes
from streams.clock import Clock, WallClock, clock_for
from streams.core.budget_terms import Policy
from streams.core.charging import Charging
from streams.core.delivery import policies
from streams.core.detection import detection_policy
from streams.core.pricing import PriceBook
from streams.core.reading import Limits
from streams.core.routes import Routes
from streams.core.rules import Rules
from streams.core.scopes import ScopeWatchlist, definition_scope
from streams.core.waste import WastePolicy
from streams.core.watch_heartbeat import bounds_of
from streams.core.watch_look import WatchPolicy
from streams.delivering import Groups, Outbox
from streams.history_ports import Forecasts, Resources
from streams.kafka_connection import connection
from streams.ports import Ledger, Receiver
from streams.settings import Settings
from streams.settings_checks import STAGES
from streams.sinks.definition_rows import change_of
from streams.transport import BatchSchema, Outgoing, StateTable, make_app
from streams.transport.driver import App
from streams.watch_ports import HeardSources


class Outside(NamedTuple):
    """The real parts beyond Kafka."""

    ledger: Ledger
    groups: Groups
    outbox: Outbox
    receivers: Mapping[str, Receiver]
    routes: Routes
    #: None: nothing is forecast.
    forecasts: Forecasts | None = None
    #: None: nobody looks for waste.
    resources: Resources | None = None
    #: Reviews and weekly digests; None: there are none.
    aftercare: Loop | None = None
    #: Removes what was delivered long ago; None: it is kept.
    forgetting: Loop | None = None
    #: None: which sources are heard is not kept, and nobody watches Sluice itself.
    heard: HeardSources | None = None
    watched: Watched | None = None


class Worker(NamedTuple):
    """A worker, not yet started: the Faust application, and the loops that run beside its agents."""

    app: App
    loops: Sequence[Loop]


def create_app(settings: Settings, outside: Outside, definitions: KnownDefinitions, prices: PriceBook) -> Worker:
    """Bind the stages that the settings name to their topics, tables and sinks."""
    app = make_app(
        group_of(settings),
        connection(settings),
        partitions=settings.partitions,
        state_of=settings.app_id,
        fetch_wait_ms=settings.fetch_wait_ms,
        fetch_max_bytes=settings.fetch_max_bytes,
        session_timeout_s=settings.session_timeout_s,
        rebalance_timeout_s=settings.rebalance_timeout_s,
        group_instance_id=settings.group_instance_id,
        idempotence=settings.kafka_idempotence,
        folder=settings.state_dir / "faust",
    )
    app.express_topics = express_topics(settings)
    loops: list[Loop] = []
    for stage, bind in (
        ("meter", lambda: _bind_meter(app, settings, outside, definitions, prices)),
        ("budget", lambda: _bind_budget(app, settings, outside, definitions)),
        ("detect", lambda: _bind_detect(app, settings, outside, definitions, prices)),
        ("ledger", lambda: _bind_ledger(app, outside)),
        ("notify", lambda: _bind_notify(app, settings, outside)),
    ):
        if stage in settings.stages:
            loops += bind()
    return Worker(app, loops)


def group_of(settings: Settings) -> str:
    """The consumer group: one for each set of stages, since all members of a group read the same topics.

    The state is named after ``app_id`` alone, so that stages can be taken apart and put together again.
    """
    return settings.app_id if len(settings.stages) == len(STAGES) else "-".join([settings.app_id, *settings.stages])


def _bind_meter(
    app: App, settings: Settings, outside: Outside, definitions: KnownDefinitions, prices: PriceBook
) -> list[Loop]:
    inputs = tuple(topic.name for topic in topics.INPUTS)
    meter = Meter(
        _table(app, "meter"),
        _table(app, "digests"),
        _rules(settings, prices),
        outside.ledger,
        inputs,
        epoch=settings.topic_epoch,
        writer=lambda: _writer(app),
        flush_interval_s=settings.flush_interval_ms / 1000,
        scope_interval_s=settings.scope_interval_ms / 1000,
        watchlist=WatchedNow(definitions),
    )
    _bind(app, "meter", meter.run, *inputs)
    return [meter] if outside.heard is None else [meter, HeardLoop(meter.take_heard, outside.heard, WallClock())]


def _bind_budget(app: App, settings: Settings, outside: Outside, definitions: KnownDefinitions) -> list[Loop]:
    forecasts: list[ForecastLoop] = []
    budget = BudgetAgent(
        _table(app, "budgets"),
        definitions,
        definition_scope,
        outside.ledger,
        clock_for(settings.clock),
        Policy(
            settings.live_within_s * SECOND,
            # Hours of a replay pass in seconds: a command must not run out between two of them.
            valid_us=DAY if settings.clock == "stream" else Policy().valid_us,
            record_above=parse_nanos(settings.run_record_usd),
            approve_above=parse_nanos(settings.run_approval_usd),
        ),
        ancestors_of=AncestorsNow(definitions),
        projected=lambda budget_id, value, now: forecasts[0].foreseen(budget_id, value, now) if forecasts else None,
    )
    _bind(app, "budget", budget.run, topics.SPEND_SCOPES, topics.GATEWAY_COMMANDS, topics.GATEWAY_ACKS, topics.JOB_ACKS)
    if outside.forecasts is not None:
        # FORECAST follows BUDGET's partitions: it reads where the budgets stand from BUDGET's own states.
        standings = Standings(budget.states, definitions, definition_scope)
        forecasts.append(ForecastLoop(standings.at, standings.match_of, outside.forecasts, budget.clock))
    return [budget, *forecasts]


def _bind_detect(
    app: App, settings: Settings, outside: Outside, definitions: KnownDefinitions, prices: PriceBook
) -> list[Loop]:
    rollup = RollupAgent(
        _table(app, "rollup"),
        clock_for(settings.clock),
        interval_s=settings.rollup_interval_ms / 1000,
        is_leaving=lambda: _is_leaving(app),
    )
    _bind(app, "rollup", rollup.run, topics.SPEND_CELLS)
    names = ("spikes", "regimes", "unusuals", "runaways", "loops", "gpus", "idles")
    tables = {name: _table(app, name) for name in names}
    detectors = _detectors(settings, tables, definitions, prices)
    for topic, detector in detectors:
        _bind(app, f"detect-{detector.name.lower()}", detector.run, topic)
    loops: list[Loop] = [rollup, *(detector for _, detector in detectors)]
    if outside.resources is not None:
        loops.append(WasteLoop(outside.resources, _said_by(app), clock_for("wall"), waste_policy(settings)))
    return loops


def _is_leaving(app: App) -> bool:
    """Whether the flow of records has stopped, as it does before partitions are given away."""
    consumer: Any = app.consumer
    return not consumer.flow_active


def _said_by(app: App) -> Callable[[Sequence[Outgoing]], Awaitable[None]]:
    async def say(records: Sequence[Outgoing]) -> None:
        producer: Any = app.producer
        await producer.write(list(records), app.partitions)

    return say


def waste_policy(settings: Settings) -> WastePolicy:
    """When waste is worth a ticket, as the settings say."""
    return WastePolicy(
        floor_nanos_per_month=parse_nanos(settings.waste_floor_usd_per_month),
        unused_days=settings.unused_days,
        stop_days=settings.unused_stop_days,
    )


def _bind_ledger(app: App, outside: Outside) -> list[Loop]:
    ledger = LedgerAgent(outside.ledger, change_of)
    _bind(app, "ledger-cells", ledger.run_cells, topics.SPEND_CELLS)
    _bind(app, "ledger-commands", ledger.run_commands, topics.GATEWAY_COMMANDS)
    _bind(app, "ledger-acks", ledger.run_acks, topics.GATEWAY_ACKS)
    _bind(app, "ledger-jobs", ledger.run_jobs, topics.JOB_COMMANDS, topics.JOB_ACKS)
    _bind(app, "ledger-definitions", ledger.run_definitions, topics.BUDGETS)
    return [ledger]


def _bind_notify(app: App, settings: Settings, outside: Outside) -> list[Loop]:
    routes = outside.routes
    groups_woken, outbox_woken = Woken(), Woken()
    notify = NotifyAgent(outside.groups, routes, settings.topic_epoch, groups_woken)
    _bind(app, "notify", notify.run, topics.ALERTS)
    dispatcher = Dispatcher(outside.groups, routes, groups_woken, outbox_woken)
    after = [loop for loop in (outside.aftercare, outside.forgetting) if loop is not None]
    watch = [_watch(app, settings, outside.watched)] if outside.watched is not None else []
    return [notify, dispatcher, deliverer(outside, routes, outbox_woken), *after, *watch]


def deliverer(outside: Outside, routes: Routes, woken: Woken) -> Deliverer:
    """Who brings to people what is owed to the receivers."""
    reach = outside.receivers
    keeping = [(name, receiver.keeps_incidents) for name, receiver in reach.items()]
    # A fallback that is not configured would never be told.
    fallbacks = {name: tuple(each for each in routes.fallbacks(name) if each in reach) for name in reach}
    return Deliverer(outside.outbox, reach, policies(routes, keeping), fallbacks, woken)


def _watch(app: App, settings: Settings, watched: Watched) -> WatchLoop:
    """What goes by arrival and not by event time: always by the machine's clock, in a replay too."""

    async def say(records: Sequence[Outgoing]) -> None:
        producer: Any = app.producer
        await producer.write(records, app.partitions)

    policy = watch_policy(settings)
    return WatchLoop(
        watched, say, WallClock(), policy, bounds_of(policy, settings.partitions, str(settings.kafka_url)),
        epoch=settings.topic_epoch, times=WatchTimes(settings.watch_interval_s, settings.heartbeat_interval_s),
    )  # fmt: skip


def watch_policy(settings: Settings) -> WatchPolicy:
    """Where alerts about Sluice itself begin, as the settings say."""
    return WatchPolicy(
        app_id=settings.app_id,
        # Two looks: the second may come a moment early.
        hold_us=min(20 * SECOND, round(0.9 * settings.watch_interval_s * SECOND)),
        settle_us=min(MINUTE, round(4 * settings.watch_interval_s * SECOND)),
        lag_us=settings.watch_lag_s * SECOND,
        lag_page_us=settings.watch_lag_page_s * SECOND,
        ledger_us=settings.watch_ledger_s * SECOND,
        letters_min=settings.watch_dead_letters_min,
        silence_us=settings.watch_silence_s * SECOND,
        unpriced_percent=settings.watch_unpriced_percent,
        unpriced_min=settings.watch_unpriced_min,
        delivery_us=settings.watch_delivery_s * SECOND,
        live_within_us=settings.live_within_s * SECOND,
    )


def _rules(settings: Settings, prices: PriceBook) -> Rules:
    return Rules(
        limits=limits_of(settings),
        pricing=Charging(prices, frozenset(settings.metered_providers)),
        watchlist=ScopeWatchlist(()),
        org_id=settings.org_id,
        runaway_tokens=settings.runaway_tokens,
        dedupe_window_us=settings.dedupe_window_s * SECOND,
        dedupe_ids_max=settings.dedupe_ids_max,
        cells_idle_us=settings.cells_idle_s * SECOND,
        cells_max=settings.cells_max,
        team_cells_max=settings.team_cells_max,
        spenders_max=settings.spenders_max,
        team_spenders_max=settings.team_spenders_max,
    )


class _GpuRates(Mapping[str, int]):
    """Nanodollars of an hour of each GPU model, as the price book has it now; for words in alerts."""

    def __init__(self, prices: PriceBook, clock: Clock) -> None:
        self._prices = prices
        self._clock = clock

    def __getitem__(self, model: str) -> int:
        name, _, profile = model.partition("|")
        hour = GpuSample(
            gpu_uuid="",
            window_start="",
            window_end="",
            allocated_seconds=Decimal(3600),
            model=name,
            mig_profile=profile,
        )
        nanos = self._prices.price_gpu(hour, self._clock.now()).nanos
        if not nanos:
            raise KeyError(model)
        return nanos

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _detectors(
    settings: Settings, tables: Mapping[str, StateTable], definitions: KnownDefinitions, prices: PriceBook
) -> list[tuple[str, Any]]:
    kind = settings.clock
    policy = detection_policy(
        live_within_s=settings.live_within_s,
        spike_ratio_percent=settings.spike_ratio_percent,
        spike_floor_usd=settings.spike_floor_usd,
        spike_monthly_nanos=MonthlyNow(definitions),
        morning_timezone=settings.morning_timezone,
        runaway_tokens=settings.runaway_tokens,
        loop_floor_usd=settings.loop_floor_usd,
        loop_page_usd=settings.loop_page_usd,
        gpu_idle_percent=settings.gpu_idle_percent,
        gpu_idle_exit_percent=settings.gpu_idle_exit_percent,
        gpu_idle_s=settings.gpu_idle_s,
        gpu_gap_s=settings.gpu_gap_s,
        gpu_page_usd=settings.gpu_page_usd,
        gpu_ticket_usd_per_day=settings.gpu_ticket_usd_per_day,
        gpu_quiet_s=settings.gpu_quiet_s,
    )
    gpu_clock = clock_for(kind)
    # Signals are rare: only what is spent says how time passes until the next one.
    spend_clock = clock_for(kind)
    gpu = replace(policy.gpu, nanos_per_hour=_GpuRates(prices, gpu_clock))
    taught = LessonsNow(definitions)
    return [
        (topics.SPEND_HOURS, SpikeAgent(tables["spikes"], spend_clock, policy.spike, taught)),
        (topics.SPEND_HOURS, RegimeAgent(tables["regimes"], spend_clock, policy.regime, taught)),
        (topics.SPEND_HOURS, UnusualAgent(tables["unusuals"], spend_clock, policy.unusual, taught)),
        (topics.USAGE_SIGNALS, RunawayAgent(tables["runaways"], spend_clock, policy.runaway, taught)),
        (topics.USAGE_SIGNALS, LoopAgent(tables["loops"], spend_clock, policy.loop, taught)),
        (topics.USAGE_GPU, GpuAgent(tables["gpus"], gpu_clock, gpu, limits_of(settings))),
        (topics.USAGE_SIGNALS, IdleAgent(tables["idles"], gpu_clock, policy.idle, taught)),
    ]


def express_topics(settings: Settings) -> frozenset[str]:
    """What gates and people wait for, on its way from METER to them: small, and not to queue behind state."""
    said = (topics.SPEND_SCOPES, topics.USAGE_SIGNALS, topics.ALERTS, topics.GATEWAY_COMMANDS, topics.GATEWAY_ACKS)
    return frozenset({*said, topics.JOB_COMMANDS, topics.JOB_ACKS, f"{settings.app_id}-budgets-changelog"})


def limits_of(settings: Settings) -> Limits:
    """What is believable, as the settings say."""
    return Limits(
        value_bytes_max=settings.value_bytes_max,
        tokens_max=settings.tokens_max,
        id_length_max=settings.id_length_max,
        text_length_max=settings.text_length_max,
        tags_max=settings.tags_max,
        lateness_us_max=settings.lateness_s_max * SECOND,
        future_us_max=settings.future_s_max * SECOND,
    )


def _table(app: App, name: str) -> StateTable:
    table = StateTable(app, name=name, partitions=app.partitions)
    app.tables.add(table)
    return table


def _bind(app: App, name: str, run: Callable[[Any], Any], *topic_names: str) -> None:
    """An agent with a name of its own: Faust would take the name, and with it the topic, from the module's path."""

    async def agent(stream: Any) -> None:
        await run(stream)

    app.agent(app.topic(*topic_names, schema=BatchSchema()), name=name, concurrency=1)(agent)


def _writer(app: App) -> str:
    """Names one ownership of partitions: the group's generation and our member id, so no two are alike."""
    consumer: Any = app.consumer
    coordinator = consumer._thread._ensure_consumer()._coordinator
    return f"{coordinator.generation}-{digest(coordinator.member_id)[:12]}"


async def wait_ready(app: App) -> None:
    """Wait until every table is recovered and records flow."""
    while not (app.started and app.tables.actives_ready):
        await asyncio.sleep(0.05)
