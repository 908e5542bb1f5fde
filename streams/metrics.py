"""All metric names of Sluice in one place. What operators see is interface: a rename is a [CHANGE] in the changelog.

Labels are bounded sets (topics, reasons, rules, receivers), never ids of teams or keys.
"""

from prometheus_client import Counter, Gauge, Histogram, start_http_server

_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# METER
EVENTS_READ = Counter("sluice_events_read_total", "Records read from a usage topic.", ["topic"])
EVENTS_FOLDED = Counter("sluice_events_folded_total", "Events counted into cells.", ["topic"])
DEAD_LETTERS = Counter("sluice_dead_letters_total", "Records dead-lettered, by reason.", ["topic", "reason"])
UNPRICED = Counter("sluice_unpriced_events_total", "Events counted without a price: their money is missing.")
RECORDS_LOST = Counter("sluice_records_lost_total", "Records deleted by retention before they were read.")
STATEMENTS = Counter("sluice_statements_total", "Records written to Sluice's own topics by METER.")
DUPLICATES = Gauge("sluice_duplicates", "Events that came again, since the partition's beginning.", ["slot"])
DEDUPE_IDS = Gauge("sluice_dedupe_ids", "Ids in the de-duplication window.", ["slot"])
CELLS_LIVE = Gauge("sluice_cells_live", "Cells in memory.")
FLUSH_SECONDS = Histogram("sluice_flush_seconds", "Making state durable.", buckets=_SECONDS)

# BUDGET, DETECT
ALERTS = Counter("sluice_alerts_total", "Alert statements.", ["rule", "severity", "status"])
COMMANDS = Counter("sluice_gateway_commands_total", "Throttle commands.", ["action"])

# NOTIFY
NOTIFICATIONS = Counter("sluice_notifications_total", "Messages to receivers.", ["receiver", "outcome"])

# LEDGER
LEDGER_SECONDS = Histogram("sluice_ledger_write_seconds", "One batch into PostgreSQL.", buckets=_SECONDS)


def serve(host: str, port: int) -> None:
    """Expose the metrics of this process for Prometheus."""
    start_http_server(port, addr=host)
