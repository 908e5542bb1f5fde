"""A Faust table whose state is exactly what its changelog says, per partition, written in batches.

The memory of a table is dropped at every rebalance and read back from the changelog with a reader of its own (whole
batches, hundreds of thousands of records a second), so no partition ever holds what somebody else has moved on from.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import faust
from faust.types import TP

from streams.transport import ownership
from streams.transport.changelog import Newest, read_newest
from streams.transport.ownership import Inherited, NotOwnedError
from streams.transport.phases import Phases
from streams.transport.producer import Outgoing

#: Not under this module's name: what an operator wants to see of the transport is this.
logger = logging.getLogger("sluice.restart")

RESTORE_TIMEOUT_S = 600.0
#: Half of the changelogs' ``min.compaction.lag.ms``: while a new owner reads, nothing that an overtaken owner writes
#: can compact away what is being read.
FENCED_RESTORE_TIMEOUT_S = 120.0
#: For each step but reading. A broker that is away for longer is waited for by a worker that starts anew, since what
#: hangs for another reason would hang for ever.
STEP_TIMEOUT_S = 30.0
CLAIM_TRIES = 5


async def _always() -> bool:
    return True


class StateTable(faust.Table):  # type: ignore[type-arg]
    """Raw keys and values by partition. Agents keep decoded state; the table keeps it durable.

    ``on_load(partition, entries)`` is called with everything the changelog holds once a partition is ours and read,
    before the first record is delivered; ``on_drop(partitions)`` when partitions are taken away.
    ``start_of(topic, partition)`` may ask for reading to start below the committed offset.

    With ``fenced`` set, before the table is first restored, every owner of a partition writes under a number of its own
    (``ownership.py``): what an owner writes after it was overtaken is never restored. Agents see their own keys only.
    """

    fenced: bool = False
    on_load: Callable[[int, dict[bytes, bytes]], None] | None = None
    on_drop: Callable[[set[int]], None] | None = None
    start_of: Callable[[str, int], int | None] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Under which number each partition of ours is written.
        self._numbers: dict[int, int] = {}
        self._confirm: Callable[[], Awaitable[bool]] = _always

    def _changelog_topic_name(self) -> str:
        return f"{self.app.state_of}-{self.name}-changelog"  # type: ignore[attr-defined]

    def persisted_offset(self, tp: TP) -> int | None:
        """Nothing is kept beside the changelog."""
        return None

    def start_offset(self, tp: TP) -> int | None:
        """Where this table needs the source partition to be read from; None for no wish."""
        return self.start_of(tp.topic, tp.partition) if self.start_of is not None else None

    async def write(self, partition: int, entries: Iterable[tuple[bytes, bytes | None]]) -> int:
        """Write changed entries to the changelog partition and wait until they are durable; None deletes.

        Raises:
            NotOwnedError: the table is fenced and the partition is not ours.
        """
        if self.fenced:
            number = self._numbers.get(partition)
            if number is None:
                raise NotOwnedError(f"{self.changelog_topic_name}[{partition}] is not ours to write")
            entries = [(ownership.entry_key(number, key), value) for key, value in entries]
        return await self._write(partition, entries)

    async def _write(self, partition: int, entries: Iterable[tuple[bytes, bytes | None]]) -> int:
        topic = self.changelog_topic_name
        records = (Outgoing(topic, partition, key, value) for key, value in entries)
        written: int = await self.app.producer.write(records, self.app.partitions)
        return written

    async def confirm(self) -> bool:
        """Ask the group's coordinator whether what was restored last is still ours."""
        return await self._confirm()

    def drop(self, partitions: set[int]) -> None:
        """Forget partitions that are no longer ours."""
        for partition in partitions:
            self._numbers.pop(partition, None)
        if self.on_drop is not None and partitions:
            self.on_drop(partitions)

    async def restore(
        self,
        partitions: set[int],
        still_ours: Callable[[], bool] = lambda: True,
        confirm: Callable[[], Awaitable[bool]] = _always,
    ) -> None:
        """Read the changelog of these partitions from its beginning, and hand it over.

        Nothing is handed over once ``still_ours`` says no: partitions that were revoked while they were read would
        live on here beside their new owner. ``confirm`` asks the group's coordinator the same; a process that was
        stalled learns of its eviction nowhere else.

        Raises:
            TimeoutError: the end was not reached within ``RESTORE_TIMEOUT_S``, or the table not taken over in time; it
                says which steps were done.
            UnknownVersionError: the changelog was written by a newer release.
        """
        if not partitions or self.on_load is None:
            return
        phases = Phases()
        if self.fenced:
            try:
                async with asyncio.timeout(FENCED_RESTORE_TIMEOUT_S):
                    await self._take_over(partitions, still_ours, confirm, phases)
            except TimeoutError as error:
                what = f"table {self.name} is not taken over after {phases.total_s:.0f} s"
                raise TimeoutError(f"{what}: {phases}") from error
            return
        async with asyncio.timeout(RESTORE_TIMEOUT_S):
            newest = await read_newest(self.app.connection, self.changelog_topic_name, partitions)  # type: ignore[attr-defined]
        phases.ended(_reading(newest))
        if still_ours():
            for partition, found in newest.entries.items():
                self.on_load(partition, found)
            phases.ended("taking it up")
            self._say_restored(partitions, phases)

    async def _take_over(
        self,
        partitions: set[int],
        still_ours: Callable[[], bool],
        confirm: Callable[[], Awaitable[bool]],
        phases: Phases,
    ) -> None:
        """Become the owner of these partitions: the steps of ``ownership.py``."""
        assert self.on_load is not None
        async with asyncio.timeout(STEP_TIMEOUT_S):
            drawn = await asyncio.gather(*(self._claim(partition) for partition in sorted(partitions)))
        numbers = dict(zip(sorted(partitions), drawn, strict=True))
        phases.ended("drawing numbers")
        until = {partition: number + 1 for partition, number in numbers.items()}
        newest = await read_newest(self.app.connection, self.changelog_topic_name, partitions, until)  # type: ignore[attr-defined]
        phases.ended(_reading(newest))
        inherited = {partition: ownership.inherit(newest.entries[partition]) for partition in numbers}
        for partition, found in inherited.items():
            number = numbers[partition]
            restated = [(ownership.entry_key(number, key), value) for key, value in found.entries.items()]
            async with asyncio.timeout(STEP_TIMEOUT_S):
                await self._write(partition, restated)
        phases.ended("writing it again")
        # Confirmed after the claim: whoever succeeds us is assigned later and claims later, so its number is higher.
        async with asyncio.timeout(STEP_TIMEOUT_S):
            if not still_ours() or not await confirm():
                return
            for partition, number in numbers.items():
                await self._write(partition, [(ownership.whole_key(number), ownership.WHOLE_VALUE)])
        if not still_ours():
            return
        phases.ended("making sure of it")
        self._confirm = confirm
        for partition, found in inherited.items():
            if not still_ours():
                return
            self._numbers[partition] = numbers[partition]
            self.on_load(partition, found.entries)
            # A partition's share may be most of a second's work, and somebody asks this process whether it is well.
            await asyncio.sleep(0)
        phases.ended("taking it up")
        await self._tidy(inherited)
        phases.ended("deleting the old")
        self._say_restored(partitions, phases)

    def _say_restored(self, partitions: set[int], phases: Phases) -> None:
        logger.info(
            "table %s: %d partitions restored in %.2f s: %s", self.name, len(partitions), phases.total_s, phases
        )

    async def _claim(self, partition: int) -> int:
        """Draw a number for a partition: the offset of a record of ours."""
        for _ in range(CLAIM_TRIES):
            sent = await self.app.producer.send_and_wait(
                self.changelog_topic_name, ownership.CLAIM, ownership.CLAIM_VALUE, partition, None, None
            )
            # A retry that the broker knows already is acknowledged without an offset.
            if sent.offset >= 0:
                return int(sent.offset)
        raise RuntimeError(f"{self.changelog_topic_name}[{partition}]: the broker tells no offsets of what it takes")

    async def _tidy(self, inherited: Mapping[int, Inherited]) -> None:
        for partition, found in inherited.items():
            await self._write(partition, [(key, None) for key in found.leftovers])


def _reading(newest: Newest) -> str:
    live = sum(map(len, newest.entries.values()))
    return f"reading ({newest.size / 1e6:,.1f} MB, {newest.records:,} records, {live:,} live)"
