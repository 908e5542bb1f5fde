"""Reading what an earlier release wrote, and refusing what a later one did.

Everything durable carries its layout's version in a field ``v``; where it is missing it is 1. A release reads its own
version and every one it has a reader for; it never guesses at a newer one and never drops it in silence.
"""

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

Value = TypeVar("Value", bound=msgspec.Struct)


class UnknownVersionError(Exception):
    """A value of a version that this release does not know. Deliberately no decoding error: nobody may pass it over."""


class _Version(msgspec.Struct):
    v: int = 1


_version_of = msgspec.json.Decoder(_Version).decode


class Versioned(Generic[Value]):
    """Reads one kind of value. The present version is the default of the struct's field ``v``.

    ``older`` has a reader for each earlier version that differs: bytes in, the present struct out.

    >>> class Spend(msgspec.Struct):
    ...     v: int = 2
    ...     nanos: int = 0
    >>> class SpendV1(msgspec.Struct):
    ...     usd: int = 0
    >>> def of_v1(value: bytes) -> Spend:
    ...     return Spend(nanos=msgspec.json.decode(value, type=SpendV1).usd * 1_000_000_000)
    >>> read = Versioned("spend", Spend, {1: of_v1}).decode
    >>> read(b'{"usd":3}'), read(b'{"v":2,"nanos":5}')
    (Spend(v=2, nanos=3000000000), Spend(v=2, nanos=5))
    >>> read(b'{"v":3}')
    Traceback (most recent call last):
    schemas.versions.UnknownVersionError: spend of version 3, and this release reads 1 to 2: run the release that ...
    """

    def __init__(
        self, name: str, kind: type[Value], older: Mapping[int, Callable[[bytes], Value]] | None = None
    ) -> None:
        self.name = name
        self.version: int = _default_version(kind)
        if self.version != 1 and kind.__struct_config__.omit_defaults:
            # Its version would be left out on the wire, and be taken for 1.
            raise TypeError(
                f"{kind.__name__}: with omit_defaults, v must stay 1 by default and be set where it is made"
            )
        self._kind = kind
        self._older = dict(older or {})
        self._decode = msgspec.json.Decoder(kind).decode

    def decode(self, value: bytes) -> Value:
        """The value in its present layout.

        Raises:
            UnknownVersionError: it was written by a newer release, or by one that is too old.
            msgspec.DecodeError: it is no such value at all.
        """
        version = _version_of(value).v
        return self._decode(value) if version == self.version else self._read_older(version, value)

    def convert(self, body: Any) -> Value:
        """The same for a value that was JSON and is decoded already, as a database's document is.

        Raises:
            UnknownVersionError, msgspec.ValidationError: as ``decode`` does.
        """
        return self.decode(msgspec.json.encode(body))

    def _read_older(self, version: int, value: bytes) -> Value:
        reader = self._older.get(version)
        if reader is not None:
            return reader(value)
        oldest = min([self.version, *self._older])
        known = f"{oldest} to {self.version}" if oldest < self.version else f"{self.version}"
        what = "run the release that wrote it, or a later one" if version > self.version else "upgrade in smaller steps"
        raise UnknownVersionError(f"{self.name} of version {version}, and this release reads {known}: {what}")


def _default_version(kind: type[msgspec.Struct]) -> int:
    for field in msgspec.structs.fields(kind):
        if field.name == "v" and isinstance(field.default, int):
            return field.default
    raise TypeError(f"{kind.__name__} has no field v with its version as the default")
