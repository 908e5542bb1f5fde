"""The journal of waiting events: what was kept is there after any end, torn bytes are dropped, acknowledged ones gone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.journal import Journal, JournalError, JournalFullError

ROOT = Path(__file__).parents[2]


def opened(folder, bytes_max=1 << 20, segment_bytes=100):
    journal = Journal(folder, bytes_max=bytes_max, segment_bytes=segment_bytes)
    assert journal.open()
    return journal


def left_in(folder):
    """What a new process finds, in order."""
    journal = opened(folder)
    found = [record for _, record in journal.read(1_000_000)]
    journal.close()
    return found


def record(number):
    return f"record-{number:04d}".encode()


def test_what_was_appended_is_read_in_order_over_many_segments(tmp_path):
    journal = opened(tmp_path)
    assert [journal.append(record(n)) for n in range(50)] == list(range(50))
    assert len(list(tmp_path.glob("*.segment"))) > 5
    assert journal.unread == 50
    assert journal.read(7) == [(n, record(n)) for n in range(7)]
    journal.append(record(50))
    assert journal.read(1_000) == [(n, record(n)) for n in range(7, 51)]
    assert (journal.unread, journal.read(10)) == (0, [])
    journal.close()
    assert left_in(tmp_path) == [record(n) for n in range(51)]


@pytest.mark.parametrize("before", [0, 1, 17, 49, 50], ids=lambda n: f"{n} acknowledged")
def test_what_was_acknowledged_is_not_there_any_more(tmp_path, before):
    journal = opened(tmp_path)
    for n in range(50):
        journal.append(record(n))
    journal.acknowledge(before)
    journal.close()
    assert left_in(tmp_path) == [record(n) for n in range(before, 50)]
    again = opened(tmp_path)
    assert again.append(b"next") == 50
    again.close()
    if before == 50:
        assert left_in(tmp_path) == [b"next"]


def test_acknowledged_segments_free_their_bytes(tmp_path):
    journal = opened(tmp_path)
    for n in range(50):
        journal.append(record(n))
    full = journal.bytes
    journal.acknowledge(50)
    assert len(list(tmp_path.glob("*.segment"))) == 1
    assert journal.bytes < full / 5
    assert journal.bytes == sum(path.stat().st_size for path in tmp_path.glob("*.segment"))


def test_a_full_journal_refuses_and_keeps_what_it_has(tmp_path):
    journal = opened(tmp_path, bytes_max=300)
    kept = 0
    while journal.bytes + 19 <= 300:
        journal.append(record(kept))
        kept += 1
    with pytest.raises(JournalFullError, match="of 300 that may"):
        journal.append(record(kept))
    assert 5 < kept < 20
    journal.close()
    assert left_in(tmp_path) == [record(n) for n in range(kept)]


def test_a_file_torn_at_any_byte_gives_the_records_before_it(tmp_path):
    journal = opened(tmp_path / "whole", segment_bytes=10_000)
    ends = [path_size(tmp_path / "whole")]
    for n in range(6):
        journal.append(record(n))
        ends.append(path_size(tmp_path / "whole"))
    journal.close()
    whole = next((tmp_path / "whole").glob("*.segment")).read_bytes()
    for size in range(len(whole) + 1):
        folder = tmp_path / f"torn-{size}"
        folder.mkdir()
        (folder / f"{0:020d}.segment").write_bytes(whole[:size])
        kept = max((count for count, end in enumerate(ends) if end <= size), default=0)
        again = opened(folder)
        assert [found for _, found in again.read(100)] == [record(n) for n in range(kept)]
        assert again.append(b"after") == kept
        again.close()
        assert left_in(folder) == [*(record(n) for n in range(kept)), b"after"]


def path_size(folder):
    return sum(path.stat().st_size for path in folder.glob("*.segment"))


def test_damage_within_costs_the_rest_of_its_segment_and_says_how_much(tmp_path):
    journal = opened(tmp_path)
    for n in range(12):
        journal.append(record(n))
    journal.close()
    first, second, *_ = sorted(tmp_path.glob("*.segment"))
    body = bytearray(first.read_bytes())
    body[20] ^= 1
    first.write_bytes(body)
    again = opened(tmp_path)
    assert again.lost == int(second.stem)
    assert [found for _, found in again.read(100)] == [record(n) for n in range(int(second.stem), 12)]


def test_a_damaged_cursor_tells_everything_again_rather_than_never(tmp_path):
    journal = opened(tmp_path, segment_bytes=10_000)
    for n in range(5):
        journal.append(record(n))
    journal.acknowledge(3)
    journal.close()
    (tmp_path / "acknowledged").write_bytes(b"\x07" * 12)
    assert left_in(tmp_path) == [record(n) for n in range(5)]


def test_records_after_a_cursor_that_is_ahead_of_the_disk_are_not_taken_for_acknowledged(tmp_path):
    """As after a loss of power: the cursor reached the disk and the records before it did not."""
    journal = opened(tmp_path, segment_bytes=10_000)
    for n in range(5):
        journal.append(record(n))
    journal.acknowledge(4)
    journal.close()
    segment = next(tmp_path.glob("*.segment"))
    os.truncate(segment, 8)
    again = opened(tmp_path)
    again.append(b"new")
    again.close()
    assert left_in(tmp_path) == [b"new"]


def test_a_folder_is_one_process_s_and_others_take_the_next(tmp_path):
    first, _ = Journal.claim(tmp_path)
    second, left = Journal.claim(tmp_path)
    assert (first.folder.name, second.folder.name, left) == ("0", "1", [])
    second.append(b"of the second")
    second.close()
    first.close()
    again, left = Journal.claim(tmp_path)
    assert again.folder.name == "0"
    assert [one.read(9) for one in left] == [[(0, b"of the second")]]


def test_a_file_of_somebody_else_is_not_overwritten(tmp_path):
    (tmp_path / f"{0:020d}.segment").write_bytes(b"something else entirely")
    with pytest.raises(JournalError, match="was not written by this"):
        opened(tmp_path)
    assert (tmp_path / f"{0:020d}.segment").read_bytes() == b"something else entirely"


def test_a_disk_that_refuses_leaves_what_was_kept(tmp_path, monkeypatch):
    journal = opened(tmp_path, segment_bytes=10_000)
    journal.append(b"kept")
    whole_write = os.write

    def half(file, data):
        return whole_write(file, data[: len(data) // 2])

    monkeypatch.setattr("gateway.journal.os.write", half)
    with pytest.raises(OSError, match="full"):
        journal.append(b"refused")
    monkeypatch.undo()
    assert journal.append(b"next") == 1
    journal.close()
    assert left_in(tmp_path) == [b"kept", b"next"]


#: Appends, reads and acknowledges; tells what it was promised; and dies at its nth step on the disk.
VICTIM = """
import os, signal, sys
from pathlib import Path
import gateway.journal as module
steps = [int(sys.argv[2])]
def dying(name, real):
    def step(*arguments):
        steps[0] -= 1
        if steps[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)
    return step
class Os:
    def __getattr__(self, name):
        found = getattr(os, name)
        return dying(name, found) if name in WATCHED else found
WATCHED = {"open", "write", "pwrite", "ftruncate", "truncate", "fdatasync", "close", "fstat"}
module.os = Os()
unlink = Path.unlink
Path.unlink = lambda self, missing_ok=False: dying("unlink", unlink)(self, missing_ok)
tell = sys.stdout
journal, _ = module.Journal.claim(Path(sys.argv[1]), bytes_max=1 << 20, segment_bytes=100)
start = journal.acknowledged
for round in range(4):
    for number in range(4):
        print("kept", journal.append(b"%06d" % journal.end), file=tell, flush=True)
    read = journal.read(3)
    print("acknowledging", read[-1][0] + 1, file=tell, flush=True)
    journal.acknowledge(read[-1][0] + 1)
    print("acknowledged", read[-1][0] + 1, file=tell, flush=True)
journal.close()
print("done", file=tell, flush=True)
"""


def test_a_process_killed_between_any_two_steps_loses_nothing_it_kept_and_repeats_nothing_it_acknowledged(tmp_path):
    step, done = 0, False
    while not done:
        step += 1
        folder = tmp_path / str(step)
        ended = subprocess.run(
            [sys.executable, "-c", VICTIM, str(folder), str(step)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        done = "done" in ended.stdout
        assert ended.returncode == (0 if done else -signal.SIGKILL), ended.stderr
        said = [line.split() for line in ended.stdout.splitlines()]
        kept = [int(words[1]) for words in said if words[0] == "kept"]
        sure = max((int(words[1]) for words in said if words[0] == "acknowledged"), default=0)
        asked = max((int(words[1]) for words in said if words[0] == "acknowledging"), default=0)
        found = [int(one) for one in left_in(folder / "0")]
        first = found[0] if found else max(kept, default=-1) + 1
        # Acknowledged ones are gone for good; the one that was being acknowledged may be there or not.
        assert sure <= first <= max(asked, sure)
        # All that was kept is there; the record that was being written when it died may be there too.
        assert found[: len(kept) - first] == kept[first:]
        assert len(found) - len(kept[first:]) in (0, 1)
    assert step > 40
