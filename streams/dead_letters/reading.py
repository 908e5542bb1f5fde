"""What lies on the dead-letter topics, and what of it was brought back. Writes nothing."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from schemas import topics
from schemas.topics import Topic
from streams.core.letters import Letter, read_letter
from streams.core.replay_progress import Progress, Survey
from streams.dead_letters.log import LogReader, places_of

ALL = tuple(topic.name for topic in topics.DEAD_LETTERS)
_decode = msgspec.json.Decoder(Progress).decode


def progress_topic(app_id: str) -> Topic:
    """Where replays keep what they have done: compacted, one partition, made by the first replay.

    >>> progress_topic("sluice").name
    'sluice-dead-letter-replays'
    """
    return Topic(f"{app_id}-dead-letter-replays", "identity of the dead letter", None)


async def read_progress(connection: Mapping[str, Any], app_id: str) -> dict[str, Progress]:
    """By identity: everything that was brought back, or was about to be. Empty before the first replay."""
    found: dict[str, Progress] = {}
    async with LogReader(connection, committed=True) as log:
        name = progress_topic(app_id).name
        ends = await log.ends(places_of(await log.partitions([name])))
        async for record in log.read(ends, {}):
            if record.value is None:
                found.pop(record.key.decode(), None)
            else:
                found[record.key.decode()] = _decode(record.value)
    return found


async def letters(log: LogReader, names: Sequence[str] = ALL) -> AsyncIterator[Letter]:
    """Every letter that lies on these topics now, oldest first within each partition."""
    ends = await log.ends(places_of(await log.partitions(names)))
    async for record in log.read(ends, {}):
        yield read_letter(record)


async def survey(connection: Mapping[str, Any], app_id: str, names: Sequence[str] = ALL) -> Survey:
    """Count what lies there, by topic and reason, and where it stands."""
    counted = Survey(await read_progress(connection, app_id))
    async with LogReader(connection, committed=False) as log:
        async for letter in letters(log, names):
            counted.add(letter)
    return counted
