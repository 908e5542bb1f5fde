"""A worker that is stopped for longer than its session and then goes on, as after a long pause of its machine."""

import sys

import pytest

from streams.embedded.process import ChildProcess
from tests.integration.transport_parts import Scene, until

pytestmark = pytest.mark.integration


@pytest.fixture
async def scene(kafka_url, topics, app_id, tmp_path):
    async with Scene(kafka_url, topics, app_id, tmp_path) as scene:
        yield scene


@pytest.fixture
def stalling(scene, tmp_path):
    """Starts a worker in a process of its own."""
    children = []

    def start(topic: str) -> ChildProcess:
        command = [sys.executable, "-m", "tests.integration.transport_member", scene.url, scene.group, topic]
        children.append(ChildProcess("the worker", [*command, str(tmp_path)], tmp_path / "worker.log"))
        children[-1].start()
        return children[-1]

    yield start
    for child in children:
        child.kill()


async def test_what_a_stalled_worker_writes_late_is_not_restored_and_its_successor_reads_all_its_records(
    scene, stalling
):
    topic, changelog = await scene.topic(), await scene.changelog()
    loaded = []
    await scene.append(topic, [b"early"] * 5)
    stalled = stalling(topic)
    await scene.commits(topic, 5)
    stalled.pause()
    before = [record for record in await scene.log(changelog) if record.key.endswith(b":mine")][-1]
    await scene.append(topic, [b"meanwhile"] * 5)
    successor = scene.member(topic)
    table = successor.table(fenced=True, on_load=lambda partition, entries: loaded.append(dict(entries)))
    # Joining takes until the group has given up the other one.
    await (await successor.start()).ready()
    assert loaded[-1][b"mine"] >= before.value or len(loaded[-1][b"mine"]) > len(before.value)
    await table.write(0, [(b"mine", b"the successor's")])
    await scene.commits(topic, 10)
    assert successor.offsets() == list(range(5, 10))
    taken_over_at = await scene.end(changelog)
    stalled.resume()

    async def wrote_late() -> bool:
        late = [record for record in await scene.log(changelog) if record.offset >= taken_over_at]
        return any(record.key == before.key and record.value for record in late)

    await until(wrote_late)
    await until(lambda: "not ours any more" in stalled.log.read_text())
    stalled.kill()
    third = scene.member(topic)
    table = third.table(fenced=True, on_load=lambda partition, entries: loaded.append(dict(entries)))
    async with third.app.producer:
        await table.restore({0})
    assert loaded[-1] == {b"mine": b"the successor's"}
