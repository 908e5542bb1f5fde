"""The batch transport: Faust with one event per fetched batch, exact acks, and tables written in batches.

``make_app`` builds a Faust application on it. docs/transport.md explains it and states its invariants.
"""

from streams.transport.batch import BatchSchema, RecordBatch
from streams.transport.driver import SCHEME, Connection, make_app
from streams.transport.eager import events_together
from streams.transport.producer import Outgoing, partition_of
from streams.transport.table import StateTable

__all__ = [
    "SCHEME",
    "BatchSchema",
    "Connection",
    "Outgoing",
    "RecordBatch",
    "StateTable",
    "events_together",
    "make_app",
    "partition_of",
]
