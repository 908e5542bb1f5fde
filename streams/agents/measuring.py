"""What METER's partitions tell of themselves in metrics."""

from collections.abc import Collection

from streams import metrics
from streams.core.meter import PartitionState


def measure(state: PartitionState) -> None:
    """Count what a partition folded since it was measured last."""
    topic, slot = state.source.topic, state.source.slot()
    metrics.EVENTS_FOLDED.labels(topic=topic).inc(state.folded)
    metrics.UNPRICED.inc(state.unpriced)
    state.folded = state.unpriced = 0
    metrics.DUPLICATES.labels(slot=slot).set(state.duplicates)
    metrics.DEDUPE_IDS.labels(slot=slot).set(len(state.window))
    metrics.DEDUPE_DROPPED_EARLY.inc(state.window.dropped_early)
    state.window.dropped_early = 0


def measure_all(states: Collection[PartitionState]) -> None:
    """Tell how much a worker holds."""
    metrics.CELLS_LIVE.set(sum(len(state.cells) for state in states))
    metrics.SPENDERS_LIVE.set(sum(len(state.spenders) for state in states))
