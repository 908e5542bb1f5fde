"""Acknowledgements in PostgreSQL: who has which episode of an alert in hand.

Words are kept one by one and the newest of an episode holds: the order in which a webhook brings them does not matter.
"""

from collections.abc import Mapping, Sequence

import asyncpg

from schemas import keys
from schemas.instants import to_datetime, to_micros
from streams.core.notifying import Acknowledgement
from streams.sinks.postgres import storable

_HOLDING = """
select * from (
    select distinct on (dedup_key, episode) dedup_key, episode, said_by, said_at, via, withdrawn, note
    from acknowledgements where dedup_key = any($1::text[])
    order by dedup_key, episode, said_at desc, withdrawn desc, word_id) newest
where not withdrawn order by dedup_key, episode
"""
_ADD = """
insert into acknowledgements (word_id, dedup_key, episode, said_at, said_by, via, withdrawn, note)
values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (word_id) do nothing
"""


async def load_acknowledgements(
    connection: asyncpg.Connection | asyncpg.Pool, dedup_keys: Sequence[str]
) -> Mapping[tuple[str, int], Acknowledgement]:
    """The word that holds of each (dedup key, episode) of these alerts; what was withdrawn is not among them."""
    rows = await connection.fetch(_HOLDING, [storable(each) for each in dedup_keys])
    return {
        (row["dedup_key"], row["episode"]): Acknowledgement(
            dedup_key=row["dedup_key"],
            episode=row["episode"],
            by=row["said_by"],
            at=to_micros(row["said_at"]),
            via=row["via"],
        )
        for row in rows
    }


async def add_word(
    connection: asyncpg.Connection | asyncpg.Pool,
    said: Acknowledgement,
    *,
    withdrawn: bool = False,
    note: str = "",
) -> None:
    """Write that somebody has an episode in hand (``withdrawn``: not any more); a repeat changes nothing."""
    kind = "withdrawn" if withdrawn else "given"
    word_id = keys.digest("word", said.dedup_key, str(said.episode), str(said.at), said.by, said.via, kind)
    texts = (storable(said.by), said.via)
    key, note = storable(said.dedup_key), storable(note)
    await connection.execute(_ADD, word_id, key, said.episode, to_datetime(said.at), *texts, withdrawn, note)
