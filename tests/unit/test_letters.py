"""Dead letters as values: what is read from one, what goes back, where to, and whether it would be counted."""

from dataclasses import dataclass, field

import pytest

from schemas import topics
from schemas.instants import DAY, MINUTE
from streams.agents.entries import dead_letter_record
from streams.core.letters import (
    ERRORS,
    REPLAY_COUNT,
    REPLAY_OF,
    escaped,
    fits,
    partition_for,
    read_letter,
    readable,
    refusal,
    replayed_headers,
)
from streams.core.meter import PartitionState
from streams.core.reading import Limits, Reason
from streams.core.replay_progress import Found, Progress, Survey, settle
from streams.core.rules import DeadLetter
from streams.transport import partition_of
from tests.unit.records import NOON, SOURCE, FlatPricing, rules, state, usage_record

LIMITS = Limits()


@dataclass
class Lying:
    """A record of a dead-letter topic."""

    value: bytes | None
    headers: list = field(default_factory=list)
    key: bytes | None = b"k"
    topic: str = topics.dead_letter(topics.USAGE_EVENTS)
    partition: int = 0
    offset: int = 3
    timestamp: int = NOON // 1000


def buried(record, reason=Reason.UNKNOWN_CURRENCY, **changes):
    """The letter that METER writes of a record, as it is read back."""
    out = dead_letter_record(DeadLetter(record, reason, "why"), SOURCE)
    return read_letter(Lying(out.value, list(out.headers), out.key, out.topic, **changes))


def test_a_letter_says_what_the_record_was_and_why_it_was_not_counted():
    record = usage_record(7, input_tokens=1)
    letter = buried(record, partition=2, offset=9)
    assert letter.headers == tuple(record.headers)
    assert (letter.key, letter.value) == (record.key, record.value)
    assert (letter.reason, letter.detail, letter.replays) == ("unknown_currency", "why", 0)
    assert (letter.source_topic, letter.source_partition, letter.source_offset) == (topics.USAGE_EVENTS, 0, 7)
    assert letter.place == "usage.events.v1.dlt[2]@9"


def test_the_same_record_written_twice_is_one_letter_and_another_record_is_another():
    one, two = buried(usage_record(7, input_tokens=1), offset=1), buried(usage_record(7, input_tokens=1), offset=2)
    assert one.identity() == two.identity()
    others = (usage_record(8, input_tokens=1), usage_record(7, input_tokens=2), usage_record(7, id="x", input_tokens=1))
    assert len({one.identity(), *(buried(other).identity() for other in others)}) == 4


def test_what_goes_back_is_the_record_with_its_replay_beside_it():
    record = usage_record(7, input_tokens=1)
    back = replayed_headers(buried(record))
    assert back == [*record.headers, (REPLAY_OF, b"usage.events.v1.dlt[0]@3"), (REPLAY_COUNT, b"1")]


def test_a_replay_that_is_refused_again_counts_its_replays_and_carries_only_the_last():
    record = usage_record(7, input_tokens=1)
    for number in (1, 2, 3):
        record.headers = replayed_headers(buried(record, offset=number))
        assert dict(record.headers)[REPLAY_COUNT] == b"%d" % number
        assert [name for name, _ in record.headers].count(REPLAY_OF) == 1
    assert buried(record).replays == 3
    assert not [name for name, _ in record.headers if name.startswith(ERRORS)]


def test_a_replayed_record_is_counted_by_meter_as_the_record_it_is():
    record = usage_record(7, input_tokens=5)
    record.headers = replayed_headers(buried(record))
    partition = state()
    partition.fold([record], 8)
    assert (partition.folded, partition.dead_letters) == (1, 0)


@pytest.mark.parametrize(
    ("header", "key", "wanted"),
    [
        pytest.param(b"3", b"k", 3, id="the original partition, whatever the key"),
        pytest.param(b"9", b"k", partition_of(b"k", 4), id="the key, where the partition is none of ours"),
        pytest.param(b"-1", None, 2, id="where it lies, without either"),
        pytest.param(b"two", b"k", partition_of(b"k", 4), id="the key, where the header is nonsense"),
    ],
)
def test_where_a_letter_goes_back_to(header, key, wanted):
    letter = read_letter(Lying(b"{}", [(ERRORS + "partition", header)], key, partition=2))
    assert partition_for(letter, 4, partition_of) == wanted


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        pytest.param([], "unknown", id="no headers"),
        pytest.param([(ERRORS + "exception", b"\xff\xfe")], "\ufffd\ufffd", id="a reason that is no text"),
        pytest.param([(ERRORS + "offset", b"9" * 400), (REPLAY_COUNT, b"-5")], "unknown", id="absurd numbers"),
        pytest.param([(ERRORS + "offset", None), ("x", None)], "unknown", id="null values"),
    ],
)
def test_what_others_wrote_there_is_read_all_the_same(headers, reason):
    letter = read_letter(Lying(None, headers, None))
    assert (letter.reason, letter.replays) == (reason, 0)
    assert letter.identity()
    assert letter.size > 0


@pytest.mark.parametrize(
    ("record", "now", "reason"),
    [
        pytest.param(usage_record(0, input_tokens=1), NOON, None, id="counts"),
        pytest.param(
            usage_record(0, input_tokens=1), NOON - 10 * MINUTE, Reason.IN_THE_FUTURE, id="still from the future"
        ),
        pytest.param(usage_record(0, input_tokens=1), NOON + 39 * DAY, None, id="39 days late"),
        pytest.param(usage_record(0, input_tokens=1), NOON + 41 * DAY, Reason.TOO_LATE, id="41 days late"),
        pytest.param(usage_record(0, input_tokens=-1), NOON, Reason.NEGATIVE_USAGE, id="never"),
    ],
)
def test_whether_a_letter_would_be_refused_again_is_judged_by_its_new_arrival(record, now, reason):
    refused = refusal(buried(record), LIMITS, FlatPricing(), now)
    assert (refused and refused.reason) == reason


def test_the_judgement_is_what_meter_then_does():
    for tokens in (1, -1):
        record = usage_record(4, input_tokens=tokens)
        refused = refusal(buried(record), LIMITS, FlatPricing(), NOON)
        partition = PartitionState(SOURCE, rules())
        partition.fold([record], 5)
        assert bool(refused) == bool(partition.letters)


def test_a_record_as_large_as_its_topic_takes_cannot_carry_the_headers_too():
    record = usage_record(0)
    record.value = b"x" * 4_194_304
    assert not fits(buried(record))
    assert refusal(buried(record), LIMITS, FlatPricing(), NOON).reason is Reason.TOO_LARGE


def _open(offset, searched_from):
    place = f"usage.events.v1.dlt[0]@{offset}"
    return Progress(state="sending", letter=place, topic="t", partition=0, searched_from=searched_from, at=0)


def test_what_a_crash_left_open_is_decided_by_what_lies_on_the_topic():
    open_ = {"there": _open(1, 10), "absent": _open(2, 10), "cut": _open(3, 4)}
    found = settle(open_, {("t", 0): Found(frozenset({"usage.events.v1.dlt[0]@1"}), begin=5)})
    assert [set(group) for group in found] == [{"there"}, {"absent"}, {"cut"}]


def test_a_survey_counts_each_letter_once_and_by_where_it_stands():
    letters = [buried(usage_record(number), offset=number) for number in range(4)]
    progress = {
        letters[0].identity(): _open(0, 0),
        letters[1].identity(): Progress(
            state="replayed", letter=letters[1].place, topic="t", partition=0, searched_from=0, at=0
        ),
    }
    survey = Survey(progress)
    assert [survey.add(letter) for letter in (*letters, letters[2])] == [
        "in doubt",
        "replayed",
        "waiting",
        "waiting",
        None,
    ]
    (pile,) = survey.piles()
    assert (pile.count, pile.waiting, pile.replayed, pile.in_doubt) == (4, 2, 1, 1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("\x1b]0;title\x07", "\\x1b]0;title\\x07", id="terminal sequences"),
        pytest.param("a\u202eb\u200f", "a\\u202eb\\u200f", id="writing direction"),
        pytest.param("a\tb\nc\r", "a\\tb\\nc\\r", id="white space that moves"),
        pytest.param("x\U000e0041", "x\\U000e0041", id="invisible tags"),
        pytest.param("naïve 日本 [bold]", "naïve 日本 [bold]", id="text of any language, and markup as text"),
    ],
)
def test_nothing_that_a_terminal_obeys_is_printed(text, shown):
    assert escaped(text) == shown
    assert all(line.isprintable() for line in readable(text.encode()))


def test_a_long_body_is_cut_and_says_by_how_much():
    assert readable(b"x" * 5_000, 4_096)[-1] == "… 904 bytes more"
