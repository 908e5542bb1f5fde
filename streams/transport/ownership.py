"""Whose entries in a changelog count: pure, over the records of one partition in the order of the log.

A new owner of a partition draws a number: it appends a *claim*, and the claim's offset is its number. So numbers only
grow, no two are alike, and nothing (group generations, member names, clocks) can make them start over. Then:

1. it reads the log up to its own claim and takes the entries of the highest owner that was *whole*;
2. it writes all of them again under its own number;
3. it asks the group's coordinator whether it is still a member, and only then writes that it is whole;
4. it deletes what lower numbers left, and begins to work, writing under its own number.

An owner that was overtaken writes on under a lower number, where nobody looks (docs/decisions/0005).
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from schemas.versions import Versioned

#: The record that draws a number. All owners share the key, so compaction keeps the newest only: its place in the log
#: is all it says.
CLAIM = b"claim"
_ENTRY = re.compile(rb"entry:(\d+):", re.DOTALL)
_WHOLE = re.compile(rb"whole:(\d+)")


class Whole(msgspec.Struct):
    """Says that an owner has written everything it took over; ``v`` is the version of this way of keeping entries."""

    v: int = 1


_encode = msgspec.json.Encoder().encode
_decode_whole = Versioned("a changelog's layout", Whole).decode
CLAIM_VALUE = WHOLE_VALUE = _encode(Whole())


class NotOwnedError(RuntimeError):
    """A partition was written that is not ours, or not read back yet."""


class Inherited(NamedTuple):
    """What a new owner finds."""

    entries: dict[bytes, bytes]
    #: Keys in the log to delete once the entries are whole under the new owner's number.
    leftovers: list[bytes]


def entry_key(number: int, key: bytes) -> bytes:
    """The changelog key of one owner's entry.

    >>> entry_key(120, b"team:search")
    b'entry:120:team:search'
    """
    return b"entry:%d:%b" % (number, key)


def whole_key(number: int) -> bytes:
    """The changelog key that says an owner is whole.

    >>> whole_key(120)
    b'whole:120'
    """
    return b"whole:%d" % number


def inherit(newest: Mapping[bytes, bytes]) -> Inherited:
    """What an owner takes over, given the newest value of every key in the log up to its claim.

    All numbers in it are lower than its own. A changelog from before there were owners has plain keys; they count until
    the first owner is whole.

    Raises:
        UnknownVersionError: a newer release keeps this changelog in a way of its own.
    """
    owners = [int(found[1]) for key in newest if (found := _WHOLE.fullmatch(key))]
    best = max(owners, default=None)
    if best is not None:
        _decode_whole(newest[whole_key(best)])
    entries: dict[bytes, bytes] = {}
    for key, value in newest.items():
        if found := _ENTRY.match(key):
            if int(found[1]) == best:
                entries[key[found.end() :]] = value
        elif best is None and key != CLAIM:
            entries[key] = value
    return Inherited(entries, [key for key in newest if key != CLAIM])
