"""All metric names of Sluice in one place. What operators see is interface: a rename is a [CHANGE] in the changelog.

Labels are bounded sets (topics, reasons, rules, receivers), never ids of teams or keys.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server

_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

#: What a worker counts. The API serves a registry of its own, so that nobody mistakes its zeros for a worker's.
WORKER = CollectorRegistry()
ProcessCollector(registry=WORKER)

# METER
EVENTS_READ = Counter("sluice_events_read_total", "Records read from a usage topic.", ["topic"], registry=WORKER)
EVENTS_FOLDED = Counter("sluice_events_folded_total", "Events counted into cells.", ["topic"], registry=WORKER)
DEAD_LETTERS = Counter(
    "sluice_dead_letters_total", "Records dead-lettered, by reason.", ["topic", "reason"], registry=WORKER
)
UNPRICED = Counter(
    "sluice_unpriced_events_total", "Events counted without a price: their money is missing.", registry=WORKER
)
RECORDS_LOST = Counter(
    "sluice_records_lost_total", "Records deleted by retention before they were read.", registry=WORKER
)
STATEMENTS = Counter("sluice_statements_total", "Records written to Sluice's own topics by METER.", registry=WORKER)
DUPLICATES = Gauge(
    "sluice_duplicates", "Events that came again, since the partition's beginning.", ["slot"], registry=WORKER
)
DEDUPE_IDS = Gauge("sluice_dedupe_ids", "Ids in the de-duplication window.", ["slot"], registry=WORKER)
DEDUPE_DROPPED_EARLY = Counter(
    "sluice_dedupe_dropped_early_total", "Parts of the window dropped because it was full.", registry=WORKER
)
OVERFLOWS = Counter(
    "sluice_cells_overflow_total",
    "Hours in which a team had more cells than it may have; the rest is under __other__.",
    ["status"],
    registry=WORKER,
)
CELLS_LIVE = Gauge("sluice_cells_live", "Cells in memory.", registry=WORKER)
SPENDERS_WRITTEN = Counter(
    "sluice_ledger_spender_blocks_total", "Blocks of keys and users that the ledger took.", registry=WORKER
)
SPENDERS_LIVE = Gauge("sluice_spenders_live", "Keys and users that the cells in memory tell apart.", registry=WORKER)
FLUSH_SECONDS = Histogram("sluice_flush_seconds", "Making state durable.", buckets=_SECONDS, registry=WORKER)

# Definitions
DEFINITIONS = Gauge("sluice_definitions", "Budgets, limits, overrides and the like that hold.", registry=WORKER)
DEFINITIONS_UNREADABLE = Counter(
    "sluice_definitions_unreadable_total", "Definitions that could not be read and changed nothing.", registry=WORKER
)

# BUDGET, DETECT
ALERTS = Counter("sluice_alerts_total", "Alert statements.", ["rule", "severity", "status"], registry=WORKER)
COMMANDS = Counter("sluice_gateway_commands_total", "Throttle commands.", ["action"], registry=WORKER)
FORECASTS = Gauge("sluice_forecasts", "Budgets, and values of them, that are forecast here.", registry=WORKER)
FORECAST_SECONDS = Gauge("sluice_forecast_seconds", "What the last round of forecasts took.", registry=WORKER)

ENFORCEMENT_SECONDS = Histogram(
    "sluice_enforcement_seconds", "From a budget's crossing to a gateway's obeying.", buckets=_SECONDS, registry=WORKER
)
ENFORCEMENT_P95_SECONDS = Gauge(
    "sluice_enforcement_p95_seconds", "The delay that measures are taken early by.", registry=WORKER
)
GATEWAYS_LIVE = Gauge("sluice_gateways_live", "Gateways heard within five minutes.", registry=WORKER)
OVERSHOOT = Counter(
    "sluice_budget_overshoot_nanodollars_total",
    "Money spent beyond the rungs that block, of budgets that enforce.",
    registry=WORKER,
)
JOB_ACKS = Counter("sluice_job_acks_total", "What became of commands to training runs.", ["outcome"], registry=WORKER)
ACKS_ROUTED = Counter(
    "sluice_acks_routed_total", "Acknowledgements sent on to the partition of their budget.", registry=WORKER
)

# NOTIFY
NOTIFICATIONS = Counter(
    "sluice_notifications_total", "Messages to receivers.", ["receiver", "outcome"], registry=WORKER
)

NOTIFICATIONS_OWED = Counter(
    "sluice_notifications_owed_total", "Messages that groups had to say.", ["receiver", "reason"], registry=WORKER
)
NOTIFICATION_SECONDS = Histogram(
    "sluice_notification_seconds",
    "From a message's being owed to its receiver's taking it.",
    ["receiver"],
    buckets=(*_SECONDS, 30.0, 60.0, 300.0, 1800.0),
    registry=WORKER,
)
NOTIFICATIONS_FELL_BACK = Counter(
    "sluice_notifications_fell_back_total",
    "Messages that were owed to a fallback because the receiver did not take them.",
    ["receiver"],
    registry=WORKER,
)
NOTIFY_FLUSH_SECONDS = Histogram(
    "sluice_notify_flush_seconds", "Deciding what due groups say, and owing it.", buckets=_SECONDS, registry=WORKER
)
NOTIFY_GROUPS_FAILED = Counter(
    "sluice_notify_groups_failed_total", "Groups that could not be decided and are tried again.", registry=WORKER
)
DELIVERIES_FORGOTTEN = Counter(
    "sluice_deliveries_forgotten_total", "Rows of delivery history removed for their age.", ["table"], registry=WORKER
)
# The watcher of Sluice itself
WATCHING = Gauge("sluice_watching", "1 where this worker is the one that watches the deployment.", registry=WORKER)
WATCH_SECONDS = Gauge("sluice_watch_seconds", "What the last look at the deployment took.", registry=WORKER)
WATCH_ALERTS = Gauge(
    "sluice_watch_alerts_open", "Alerts about Sluice itself that are open; at the watcher.", ["rule"], registry=WORKER
)
WATCH_LAG_SECONDS = Gauge(
    "sluice_watch_lag_seconds", "For how long the oldest unread record has waited; at the watcher.", registry=WORKER
)
HEARTBEATS = Counter(
    "sluice_heartbeats_total", "Requests to the dead man's switch: well, failing, not_taken.", ["outcome"],
    registry=WORKER,
)  # fmt: skip

# LEDGER
LEDGER_SECONDS = Histogram(
    "sluice_ledger_write_seconds", "One batch into PostgreSQL.", buckets=_SECONDS, registry=WORKER
)

# LEDGER as a whole, set by the API when it is scraped: scrape one API process for them.
LEDGER_UP = Gauge("sluice_ledger_up", "1 where the ledger could be read for this scrape.")
SOURCE_LAG_SECONDS = Gauge("sluice_source_lag_seconds", "From a source partition's newest event time to now.", ["slot"])
SOURCE_NEXT_OFFSET = Gauge("sluice_source_next_offset", "The ledger holds everything below this offset.", ["slot"])
ALERTS_OPEN = Gauge("sluice_alerts_open", "Alerts that are not resolved.", ["rule", "severity"])
REVIEWS_OPEN = Gauge("sluice_reviews_open", "Reviews of critical alerts that nobody has closed.", ["state"])
SILENCES_LIVE = Gauge("sluice_silences_live", "Silences that hold now.")
THROTTLES_ACTIVE = Gauge("sluice_throttles_active", "Restrictions that are live now.")
JOBS_UNANSWERED = Gauge(
    "sluice_job_commands_unanswered", "Commands to training runs that hold and that no executor has answered."
)
OUTBOX_OWED = Gauge("sluice_outbox_owed", "Messages to receivers that have not been taken yet.")
OUTBOX_GIVEN_UP = Gauge("sluice_outbox_given_up", "Messages that no receiver will take.")
RECEIVER_UP = Gauge("sluice_receiver_up", "0 while a receiver's circuit is open.", ["receiver"])
OUTBOX_OLDEST_SECONDS = Gauge(
    "sluice_outbox_oldest_seconds", "How long the oldest message waits that a receiver is owed.", ["receiver"]
)

# API and sources
API_REQUESTS = Counter("sluice_api_requests_total", "HTTP requests.", ["route", "method", "status"])
API_SECONDS = Histogram("sluice_api_request_seconds", "Answering one HTTP request.", ["route"], buckets=_SECONDS)
RECORDS_PUBLISHED = Gauge("sluice_records_published", "Records of HTTP sources and scrapers that Kafka took.")
RECORDS_FAILED = Gauge("sluice_records_failed", "Records of HTTP sources and scrapers that Kafka did not take.")
GPU_SCRAPES = Gauge("sluice_gpu_scrapes", "Scrapes of GPU exporters, by outcome.", ["outcome"])
GPU_SAMPLES_LOST = Gauge("sluice_gpu_samples_lost", "GPU samples dropped because too many waited for Kafka.")


def serve(host: str, port: int) -> None:
    """Expose the metrics of this process for Prometheus."""
    start_http_server(port, addr=host, registry=WORKER)
