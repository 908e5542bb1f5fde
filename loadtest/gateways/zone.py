"""A time zone of the rig's own, whose hours end when the rig wants a budget's hour to end.

Every clock stays as it is: brokers, gateways and Sluice agree on what time it is, as they do in production.
"""

import struct
from pathlib import Path

NAME = "Rig/Hour"
_HOUR_S = 3600


def write_zone(folder: Path, ends_s: int) -> Path:
    """Write the zone in which an hour ends at ``ends_s`` (seconds since 1970); the folder for ``PYTHONTZPATH``.

    The format is TZif, version 1 (RFC 8536): one kind of time, and no changes of it.
    """
    offset, name = -ends_s % _HOUR_S, b"RIG\0"
    counts = struct.pack(">6l", 0, 0, 0, 0, 1, len(name))
    path = folder / "zones" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(b"TZif" + bytes(16) + counts + struct.pack(">lBB", offset, 0, 0) + name)
    return folder / "zones"
