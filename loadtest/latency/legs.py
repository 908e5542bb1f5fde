"""Where a probe's time went: what the broker's own records say about its way from the call to the gate.

Four legs, one after the other: from the intended send time until the broker has the call (``sending``), until METER
has stated its total (``meter``), until BUDGET has written its command (``budget``), until the gateway refuses it
(``gate``). All clocks are this machine's.
"""

import re
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from loadtest.bench.figures import summary
from schemas.topics import GATEWAY_COMMANDS, SPEND_SCOPES, USAGE_EVENTS
from streams.core.scopes import BUDGET

#: What a probe passes, in order, and which topic says when.
STATIONS = {"sending": USAGE_EVENTS, "meter": SPEND_SCOPES, "budget": GATEWAY_COMMANDS}
LEGS = (*STATIONS, "gate")
SLOWEST = 5
_PROBE = re.compile(rb"(probe-\d+-\d+)")
_STATED = re.compile(rb'"%s(probe-\d+-\d+)' % BUDGET.encode())


async def legs(bootstrap: str, partitions: int, sent: Mapping[str, int], refused: Mapping[str, int]) -> dict[str, Any]:
    """Of the probes in ``sent`` (team to microseconds since 1970) that a gateway refused: each leg's milliseconds.

    Also ``slowest``: the legs of the few that took longest, since a sum's tail is not its parts' tails.
    """
    passed: dict[str, dict[str, int]] = {team: {} for team in sent}
    for leg, topic in STATIONS.items():
        for team, at in (await _first_seen(bootstrap, partitions, topic, sent)).items():
            passed[team][leg] = at
    whole = {
        team: _differences([sent[team], *(found[leg] for leg in STATIONS), refused[team]])
        for team, found in passed.items()
        if len(found) == len(STATIONS) and team in refused
    }
    slowest = sorted(whole, key=lambda team: -sum(whole[team].values()))[:SLOWEST]
    return {
        "legs": {leg: summary([parts[leg] for parts in whole.values()]) for leg in LEGS} if whole else {},
        "slowest": [{"at_s": round((sent[team] - min(sent.values())) / 1e6, 1), **whole[team]} for team in slowest],
    }


def _differences(instants: list[int]) -> dict[str, float]:
    return {
        leg: round((after - before) / 1_000, 1)
        for leg, before, after in zip(LEGS, instants[:-1], instants[1:], strict=True)
    }


async def _first_seen(bootstrap: str, partitions: int, topic: str, sent: Mapping[str, int]) -> dict[str, int]:
    """When the first record of each team came to a topic, microseconds since 1970."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        places = [TopicPartition(topic, partition) for partition in range(partitions)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        starts = await consumer.offsets_for_times(dict.fromkeys(places, min(sent.values()) // 1_000))
        for place, start in starts.items():
            consumer.seek(place, start.offset if start is not None else ends[place])
        seen: dict[str, int] = {}
        while any([await consumer.position(place) < ends[place] for place in places]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    team = _team(topic, record.key, record.value)
                    if team in sent:
                        seen.setdefault(team, record.timestamp * 1_000)
        return seen
    finally:
        await consumer.stop()


def _team(topic: str, key: bytes | None, value: bytes | None) -> str:
    """The probe that a record is about, or nothing that is one.

    >>> _team(GATEWAY_COMMANDS, b"team:probe-1000-0001|probe-1000-0001", b"{}")
    'probe-1000-0001'
    """
    # A statement's key is a digest; what it is about is in its value.
    told = _STATED.search(value or b"") if topic == SPEND_SCOPES else _PROBE.search(key or b"")
    return told[1].decode() if told else ""
