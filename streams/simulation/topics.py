"""Recorded usage from Kafka: everything that arrived between two times, of calls, GPUs and bills."""

from collections.abc import Mapping
from typing import Any

from schemas import topics
from schemas.instants import HOUR
from streams.core.reading import Limits
from streams.dead_letters.log import LogReader, places_of
from streams.simulation.calls import Call, SimulationError, in_order, of_record

#: What happened before the end and arrived so much later still belongs to it.
LATE_US = HOUR


async def from_topics(connection: Mapping[str, Any], since: int, until: int, limits: Limits) -> list[Call]:
    """What happened between two instants, as the usage topics still have it.

    Raises:
        SimulationError: they have nothing of it, or too much.
        TimeoutError: the broker fell silent.
    """
    names = [topic.name for topic in topics.INPUTS]
    found: list[Call] = []
    async with LogReader(connection, committed=False) as log:
        places = places_of(await log.partitions(names))
        starts = await log.at(places, since // 1_000)
        ends = await log.at(places, (until + LATE_US) // 1_000)
        begins = {place: offset for place, offset in starts.items() if offset < ends[place]}
        async for record in log.read({place: ends[place] for place in begins}, begins):
            call = of_record(record, limits)
            if call is not None and since <= call.at < until:
                found.append(call)
    calls = in_order(found, since, until)
    if not calls:
        raise SimulationError("the usage topics have nothing of that time: they keep a week, bills a month")
    return calls
