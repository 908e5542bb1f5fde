"""The single events that a per-event detector must see."""

from schemas.cloudevents import read_record
from schemas.statements import Dimensions, Signal, Source
from streams.core.batch_reading import Row


def runaway(source: Source, row: Row, dimensions: Dimensions, nanos: int) -> Signal:
    """A call with more tokens than a single one should have."""
    record, _, _, event, event_time = row
    envelope = read_record(record.headers, record.value)
    return Signal(
        kind="runaway_request",
        scope=f"feature:{dimensions.feature}",
        event_id=envelope.id,
        event_source=envelope.source,
        event_time=event_time,
        source=source,
        offset=record.offset,
        team_id=dimensions.team_id,
        feature=dimensions.feature,
        model=dimensions.model,
        tokens=event.input_tokens + event.output_tokens,
        cost_nanos=nanos,
        key_id=event.key_id,
        session_id=event.session_id,
    )
