"""Dead letters come back once: filters, order of keys, crashes at every point, two at a time."""

import asyncio
import gc
import signal
from collections import Counter

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from schemas import topics
from schemas.instants import DAY
from streams.clock import WallClock
from streams.commands import dlq
from streams.core.letters import REPLAY_COUNT, REPLAY_OF
from streams.core.reading import Reason
from streams.dead_letters import DeadLetterError
from streams.dead_letters.reading import read_progress
from streams.dead_letters.replaying import Replayer
from streams.topic_admin import ensure_topics
from tests.integration.letters import (
    all_letters,
    bury,
    came_back,
    forget_records,
    killed_in_a_batch,
    paper,
    raw,
    settings_for,
    start_sluice,
    text_of,
)
from tests.integration.reading import connection, records_of

EVENTS_DLT = topics.dead_letter(topics.USAGE_EVENTS)
MENDED = Reason.UNKNOWN_CURRENCY


@pytest.fixture
async def empty(fresh_kafka, app_id, tmp_path):
    """Settings of a deployment of this test's own, on topics without records."""
    url = fresh_kafka.bootstrap
    await ensure_topics(connection(url), 4, 1)
    await forget_records(url)
    return settings_for(url, app_id, tmp_path)


async def bring_back(settings, *, limit=None, dry_run=False, anyway=False, in_doubt=False, topic=(), reason=()):
    out = paper()
    await dlq.replay(settings, dlq.Replay(dlq.Choice(topic, reason), limit, dry_run, anyway, in_doubt), out)
    return text_of(out)


async def piles(settings):
    out = paper()
    await dlq.show_piles(settings, dlq.Choice(), out)
    return text_of(out)


async def test_a_letter_goes_back_untouched_to_its_partition_and_says_where_it_was(empty):
    record = raw(17)
    await bury(empty.kafka_url, [(3, record, MENDED)])
    assert "1 brought back; 0 had been before" in await bring_back(empty)
    (back,) = await records_of(empty.kafka_url, topics.USAGE_EVENTS, lambda record: True)
    (letter,) = await records_of(empty.kafka_url, EVENTS_DLT, lambda record: True)
    assert (back.partition, back.key, back.value) == (3, record.key, record.value)
    assert list(back.headers) == [
        *record.headers,
        (REPLAY_OF, f"{EVENTS_DLT}[3]@{letter.offset}".encode()),
        (REPLAY_COUNT, b"1"),
    ]


async def test_a_second_replay_brings_nothing_back(empty):
    await bury(empty.kafka_url, [(number % 4, raw(number), MENDED) for number in range(250)])
    assert "250 brought back; 0 had been before" in await bring_back(empty)
    assert "0 brought back; 250 had been before" in await bring_back(empty)
    found = await came_back(empty.kafka_url)
    assert (len(found), set(found.values())) == (250, {1})


async def test_a_letter_that_meter_wrote_twice_over_a_crash_goes_back_once(empty):
    record = raw(5)
    await bury(empty.kafka_url, [(0, record, MENDED), (0, record, MENDED)])
    assert "1 brought back" in await bring_back(empty)
    assert (await came_back(empty.kafka_url)).total() == 1


@pytest.mark.parametrize(
    ("asked", "back"),
    [
        pytest.param({"topic": (topics.USAGE_GPU,)}, {"gpu": 1}, id="by topic"),
        pytest.param({"topic": (EVENTS_DLT,)}, {"currency": 2, "future": 1}, id="by dead-letter topic"),
        pytest.param({"reason": ("unknown_currency",)}, {"currency": 2}, id="by reason"),
        pytest.param({"topic": (topics.USAGE_EVENTS,), "limit": 2}, {"currency": 2}, id="by number"),
    ],
)
async def test_what_a_filter_does_not_match_stays_and_waits(empty, asked, back):
    gpu = raw(0, b"gpu")
    await bury(
        empty.kafka_url,
        [
            (0, raw(0, b"currency"), MENDED),
            (0, raw(1, b"currency"), MENDED),
            (0, raw(2, b"future"), Reason.IN_THE_FUTURE),
        ],
    )
    await bury(empty.kafka_url, [(0, gpu, Reason.WRONG_SHAPE)], topics.USAGE_GPU)
    await bring_back(empty, anyway=True, **asked)
    found = Counter()
    for topic in (topics.USAGE_EVENTS, topics.USAGE_GPU):
        found.update(r.value.decode() for r in await records_of(empty.kafka_url, topic, lambda record: True))
    assert found == back
    assert f"{4 - sum(back.values())} brought back; {sum(back.values())} had been before" in await bring_back(
        empty, anyway=True
    )


async def test_a_dry_run_says_what_would_happen_and_does_nothing(empty):
    await bury(empty.kafka_url, [(0, raw(0), MENDED), (1, raw(1, b"{"), Reason.NOT_JSON)])
    said = await bring_back(empty, dry_run=True)
    assert "1 would be brought back" in said
    assert "(not_json) would be refused again and stay: not_json" in said
    assert not await came_back(empty.kafka_url)
    assert await read_progress(connection(empty.kafka_url), empty.app_id) == {}


async def test_what_would_be_refused_again_stays_unless_it_is_sent_anyway(empty):
    old = WallClock().now() - 39 * DAY
    await bury(empty.kafka_url, [(0, raw(0, at=old), MENDED), (0, raw(1, at=old - 2 * DAY), MENDED)])
    said = await bring_back(empty)
    assert "1 brought back" in said, "39 days are within lateness_s_max"
    assert "1 of usage.events.v1.dlt (unknown_currency) would be refused again and stay: too_late" in said
    assert "1 brought back; 1 had been before" in await bring_back(empty, anyway=True)


async def test_a_letter_without_a_key_goes_to_its_original_partition(empty):
    await bury(empty.kafka_url, [(2, raw(0, key=None), MENDED)])
    await bring_back(empty)
    (back,) = await records_of(empty.kafka_url, topics.USAGE_EVENTS, lambda record: True)
    assert (back.partition, back.key) == (2, None)


async def test_the_list_counts_what_waits_and_what_was_brought_back_by_reason(empty):
    assert await piles(empty) == "no dead letters\n"
    await bury(empty.kafka_url, [(0, raw(0), MENDED), (1, raw(1), MENDED), (1, raw(2, b"{"), Reason.NOT_JSON)])
    await bring_back(empty, limit=1)
    rows = {line.split()[1]: line.split()[2:6] for line in (await piles(empty)).splitlines()[1:]}
    assert rows == {"unknown_currency": ["2", "1", "1", "0"], "not_json": ["1", "1", "0", "0"]}


async def test_a_letter_is_shown_safely(empty):
    await bury(
        empty.kafka_url,
        [(1, raw(0, b'{"a":"\\u001b[2J","n":1.10}'), MENDED), (1, raw(1, b"\x1b]0;x\x07\xff"), Reason.NOT_JSON)],
    )
    out = paper()
    assert await dlq.show_letters(empty, dlq.Choice(), None, 10, False, out) == 0
    shown = text_of(out)
    assert "\x1b" not in shown
    assert "\\x1b]0;x\\x07\\xff" in shown
    assert '"n": 1.10' in shown
    assert "because of not_json" in shown
    (_, second) = await records_of(empty.kafka_url, EVENTS_DLT, lambda record: True)
    out = paper()
    assert await dlq.show_letters(empty, dlq.Choice((EVENTS_DLT,)), (1, second.offset), 10, False, out) == 0
    assert text_of(out).startswith(f"{EVENTS_DLT}[1]@{second.offset}\n")
    assert await dlq.show_letters(empty, dlq.Choice((EVENTS_DLT,)), (1, second.offset + 9), 10, False, paper()) == 1


# -- crashes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent", [0, 3, 6], ids=["before the first record", "after half of the records", "before the commit"]
)
async def test_a_replay_killed_in_the_middle_of_a_batch_loses_nothing_and_repeats_nothing(empty, sent):
    await bury(empty.kafka_url, [(number % 4, raw(number), MENDED) for number in range(6)])
    found = await all_letters(empty)
    await killed_in_a_batch(empty, found, sent)
    assert (await came_back(empty.kafka_url)).total() == sent, "METER reads what is not committed"
    assert (await piles(empty)).splitlines()[1].split()[2:6] == ["6", "0", "0", "6"], "all are in doubt"
    said = await bring_back(empty)
    assert f"{6 - sent} brought back; {sent} had been before" in said
    back = await came_back(empty.kafka_url)
    assert (len(back), set(back.values())) == (6, {1})
    assert "0 brought back; 6 had been before" in await bring_back(empty)


async def test_the_command_killed_again_and_again_brings_every_letter_back_once(empty):
    count = 3_000
    await bury(empty.kafka_url, [(number % 4, raw(number), MENDED) for number in range(count)])
    kills = 0
    for share in (0.05, 0.3, 0.6):
        running = await start_sluice(empty, "dlq", "replay")
        while running.returncode is None and (await came_back(empty.kafka_url)).total() < share * count:
            await asyncio.sleep(0)
        if running.returncode is None:
            running.send_signal(signal.SIGKILL)
            kills += 1
        await running.wait()
    running = await start_sluice(empty, "dlq", "replay")
    said, wrong = await running.communicate()
    assert running.returncode == 0, wrong.decode()
    assert kills >= 1, said.decode()
    found = await came_back(empty.kafka_url)
    assert (len(found), set(found.values())) == (count, {1})
    assert f"0 brought back; {count} had been before" in await bring_back(empty)


async def test_a_second_replay_takes_over_from_the_first_and_nothing_goes_twice(empty):
    await bury(empty.kafka_url, [(number % 4, raw(number), MENDED) for number in range(8)])
    found = await all_letters(empty)

    async def these(some):
        for letter in some:
            yield letter

    async with Replayer(connection(empty.kafka_url), empty.app_id, 1, WallClock()) as first:
        assert await first.replay(these(found[:2])) == 2
        assert "6 brought back; 2 had been before" in await bring_back(empty)
        with pytest.raises(DeadLetterError, match="another replay has taken over"):
            await first.replay(these(found[2:]))
    # The fenced producer leaves failed futures behind; they are shouted about here and not under another test.
    gc.collect()
    back = await came_back(empty.kafka_url)
    assert (len(back), set(back.values())) == (8, {1})


async def test_what_nobody_can_tell_any_more_stays_in_doubt_until_it_is_asked_for(empty):
    await bury(empty.kafka_url, [(0, raw(0), MENDED)])
    await killed_in_a_batch(empty, await all_letters(empty), 0)
    # Retention takes the part of the log where the record would lie.
    place = TopicPartition(topics.USAGE_EVENTS, 0)
    async with AIOKafkaProducer(bootstrap_servers=empty.kafka_url) as producer:
        last = await producer.send_and_wait(topics.USAGE_EVENTS, b"later", partition=0)
    admin = AIOKafkaAdminClient(bootstrap_servers=empty.kafka_url)
    await admin.start()
    await admin.delete_records({place: RecordsToDelete(before_offset=last.offset + 1)})
    await admin.close()
    said = await bring_back(empty)
    assert "0 brought back" in said
    assert "1 in doubt stay" in said
    assert "1 brought back" in await bring_back(empty, in_doubt=True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["show", "usage.x", "1", "2"], "--topic usage.x: no such dead-letter topic", id="topic"),
        pytest.param(["replay", "--reason", "nonsense"], "--reason nonsense: there are empty_value", id="reason"),
        pytest.param(["show", "usage.events.v1", "1"], "a partition goes with an offset", id="half a place"),
    ],
)
async def test_what_there_is_not_is_refused_in_words(empty, arguments, says):
    running = await start_sluice(empty, "dlq", *arguments)
    _, wrong = await running.communicate()
    assert running.returncode == 2
    assert says in " ".join(wrong.decode().split())
    assert "Traceback" not in wrong.decode()
