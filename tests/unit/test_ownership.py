"""Whose entries count: whatever an overtaken owner still writes, and whatever compaction takes away, a restore finds
what the rightful owner kept."""

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.versions import UnknownVersionError
from streams.transport.ownership import CLAIM, CLAIM_VALUE, WHOLE_VALUE, entry_key, inherit, whole_key

KEYS = (b"a", b"b", b"c")


class Log:
    """One changelog partition: offsets survive compaction; of each key only the newest record does, and a deletion
    whose older records are gone may vanish."""

    def __init__(self) -> None:
        self.records: list[tuple[int, bytes, bytes | None]] = []
        self.end = 0

    def append(self, key: bytes, value: bytes | None) -> int:
        self.records.append((self.end, key, value))
        self.end += 1
        return self.end - 1

    def compact(self, upto: int, without_deletions: bool) -> None:
        newest = {key: offset for offset, key, _ in self.records if offset < upto}
        self.records = [
            (offset, key, value)
            for offset, key, value in self.records
            if offset >= upto or (newest[key] == offset and not (value is None and without_deletions))
        ]

    def newest(self, before: int) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for offset, key, value in self.records:
            if offset >= before:
                break
            if value is None:
                found.pop(key, None)
            else:
                found[key] = value
        return found


@dataclass
class Owner:
    """One ownership of the partition by one process, which may stop and go on at any point."""

    generation: int
    number: int = -1
    memory: dict[bytes, bytes] = field(default_factory=dict)
    leftovers: list[bytes] = field(default_factory=list)
    restated: int = 0
    step: str = "assigned"


class Group:
    """What is true, told apart from the log: the memory of the newest owner that became whole, as the model knows it."""

    def __init__(self) -> None:
        self.log = Log()
        self.owners: list[Owner] = []
        self.generation = 0
        self.rightful: Owner | None = None
        self.truth: dict[bytes, bytes] = {}
        self.values = 0

    def assign(self) -> None:
        self.generation += 1
        self.owners.append(Owner(self.generation))

    def advance(self, owner: Owner) -> None:
        """The next thing that an owner does while it takes over."""
        if owner.step == "assigned":
            owner.number = self.log.append(CLAIM, CLAIM_VALUE)
            # What it must take over is the truth at its claim.
            owner.memory, owner.step = dict(self.truth), "claimed"
        elif owner.step == "claimed":
            found = inherit(self.log.newest(owner.number + 1))
            owner.leftovers = found.leftovers
            if owner.generation == self.generation:
                assert found.entries == owner.memory
            owner.memory, owner.step = found.entries, "read"
        elif owner.step == "read":
            items = sorted(owner.memory.items())
            if owner.restated < len(items):
                key, value = items[owner.restated]
                self.log.append(entry_key(owner.number, key), value)
                owner.restated += 1
            else:
                # The coordinator refuses who is not of the present generation.
                owner.step = "confirmed" if owner.generation == self.generation else "refused"
        elif owner.step == "confirmed":
            self.log.append(whole_key(owner.number), WHOLE_VALUE)
            owner.step = "whole"
            if self.rightful is None or self.rightful.number < owner.number:
                self.rightful, self.truth = owner, dict(owner.memory)
        elif owner.step == "whole" and owner.leftovers:
            self.log.append(owner.leftovers.pop(0), None)

    def write(self, owner: Owner, key: bytes, deleting: bool) -> None:
        """An owner that is whole writes, whether or not it was overtaken meanwhile."""
        if owner.step != "whole":
            return
        self.values += 1
        value = None if deleting else b"%d" % self.values
        self.log.append(entry_key(owner.number, key), value)
        target = [owner.memory] + ([self.truth] if owner is self.rightful else [])
        for memory in target:
            if value is None:
                memory.pop(key, None)
            else:
                memory[key] = value

    def restore(self) -> dict[bytes, bytes]:
        number = self.log.append(CLAIM, CLAIM_VALUE)
        return inherit(self.log.newest(number + 1)).entries


def _run(seed: int, steps: int) -> Group:
    """A random life of one partition; any of its last three owners may be the one that goes on."""
    chance = Random(seed)
    group = Group()
    group.assign()
    for _ in range(steps):
        owner = group.owners[-chance.randint(1, min(3, len(group.owners)))]
        kind = chance.random()
        if kind < 0.08:
            group.assign()
        elif kind < 0.65:
            group.advance(owner)
        elif kind < 0.95:
            group.write(owner, chance.choice(KEYS), chance.random() < 0.2)
        else:
            # A reader is done before anything it reads can be compacted away (the compaction lag is longer).
            reading = [owner.number for owner in group.owners if owner.step == "claimed"]
            group.log.compact(min([chance.randint(0, group.log.end), *reading]), chance.random() < 0.5)
    return group


@settings(max_examples=1500, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 150))
def test_a_restore_finds_what_the_rightful_owner_kept_whatever_overtaken_ones_write_and_compaction_takes(seed, steps):
    group = _run(seed, steps)
    restored = group.restore()
    assert restored == group.truth
    # Only the member of the group's present generation can acknowledge anything: what it keeps is what counts.
    present = group.owners[-1]
    assert present.step != "whole" or restored == present.memory


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 80), st.integers(0, 5))
def test_a_worker_that_dies_while_it_takes_over_leaves_the_next_one_the_same(seed, steps, done):
    group = _run(seed, steps)
    group.assign()
    dying = group.owners[-1]
    for _ in range(done):
        group.advance(dying)
    group.log.compact(group.log.end, True)
    assert group.restore() == group.truth


def _two_owners() -> tuple[Group, Owner, Owner]:
    group = Group()
    for _ in range(2):
        group.assign()
        for _ in range(9):
            group.advance(group.owners[-1])
        group.write(group.owners[-1], b"a", False)
    return group, group.owners[0], group.owners[1]


def test_what_an_overtaken_owner_writes_late_is_not_restored_even_when_everything_older_is_compacted_away():
    group, old, new = _two_owners()
    group.write(old, b"a", False)
    group.write(old, b"b", False)
    group.log.compact(group.log.end, True)
    assert group.restore() == new.memory
    assert b"b" not in new.memory


def test_a_claim_that_comes_late_from_an_overtaken_owner_takes_nothing_over():
    group = Group()
    for _ in range(2):
        group.assign()
    stalled, rightful = group.owners
    for _ in range(9):
        group.advance(rightful)
    for _ in range(9):
        group.advance(stalled)
    group.write(rightful, b"a", False)
    assert stalled.number > rightful.number
    assert stalled.step == "refused"
    assert group.restore() == {b"a": b"1"}


def test_a_partition_that_comes_back_to_its_first_owner_is_another_ownership():
    group, old, _ = _two_owners()
    group.assign()
    for _ in range(9):
        group.advance(group.owners[-1])
    group.write(old, b"a", True)
    assert group.restore() == {b"a": b"2"}


def test_a_changelog_from_before_there_were_owners_is_taken_over_and_then_given_up():
    group = Group()
    group.log.append(b"team:search|1", b"old")
    group.assign()
    owner = group.owners[-1]
    group.truth = {b"team:search|1": b"old"}
    for _ in range(20):
        group.advance(owner)
    group.log.compact(group.log.end, True)
    assert group.restore() == {b"team:search|1": b"old"}
    assert b"team:search|1" not in group.log.newest(group.log.end)


def test_what_earlier_owners_left_is_deleted():
    group, old, _ = _two_owners()
    for _ in range(20):
        group.advance(group.owners[-1])
    assert not [key for key in group.log.newest(group.log.end) if b":%d" % old.number in key]


def test_any_bytes_are_a_key():
    log = Log()
    keys = [b"", b":", b"a|b", b"entry:1:x", b"whole:9", b"claim", "é\n".encode()]
    for key in keys:
        log.append(entry_key(0, key), b"v")
    log.append(whole_key(0), WHOLE_VALUE)
    assert set(inherit(log.newest(log.end)).entries) == set(keys)


def test_a_changelog_that_a_newer_release_keeps_in_its_own_way_is_refused():
    with pytest.raises(UnknownVersionError, match="run the release that wrote it"):
        inherit({whole_key(3): b'{"v":2}'})
