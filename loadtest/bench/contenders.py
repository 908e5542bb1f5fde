"""Who is measured: how each is started, and where its durable progress is seen from outside."""

import pickle
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient

from loadtest.bench.machine import ROOT
from loadtest.bench.peers.place import Place
from loadtest.bench.stage import Stage, committed, prepare, python_of, worker, worker_settings
from schemas.topics import USAGE_EVENTS
from streams.app import group_of
from streams.embedded.process import ChildProcess
from streams.kafka_connection import connection
from streams.settings import load_settings
from streams.supervisor import child_environment
from streams.topic_admin import changelogs, ensure_topics

Progress = Callable[[AIOKafkaAdminClient], Awaitable[int]]


class Contender(NamedTuple):
    """One contender, ready to be started: its process, and how many events it has made durable."""

    child: ChildProcess
    progress: Progress


class Scene(NamedTuple):
    """What is the same for all contenders of a run."""

    stage: Stage
    partitions: int
    budgets: Path


def _of_group(group: str) -> Progress:
    """Offsets that the group committed: every one of them commits only what is durable."""

    async def progress(admin: AIOKafkaAdminClient) -> int:
        return await committed(admin, group)

    return progress


async def sluice(scene: Scene, run: str) -> Contender:
    """Sluice's worker as an operator starts it where METER is scaled apart: ``--set stages=meter``.

    It does not tell keys and users apart, since no peer does.
    """
    return await _sluice(scene, run, spenders_max=0)


async def sluice_spenders(scene: Scene, run: str) -> Contender:
    """The same as it is shipped: it also tells what each key and user spent of every cell."""
    return await _sluice(scene, run)


async def _sluice(scene: Scene, run: str, **more: Any) -> Contender:
    url = await prepare(scene.stage, run, scene.partitions)
    settings = worker_settings(scene.stage, run, url, scene.partitions, scene.budgets, stages=["meter"], **more)
    return Contender(worker(settings, scene.stage.folder), _of_group(group_of(settings)))


def _peer(scene: Scene, run: str, python: str, *command: str, progress: Progress | None = None) -> Contender:
    folder = scene.stage.folder / run
    folder.mkdir()
    place = Place(scene.stage.broker.bootstrap, USAGE_EVENTS, scene.partitions, run, folder, scene.budgets)
    # They read no settings of ours: only their place and where the project's code is.
    settings = worker_settings(scene.stage, run, "postgresql://unused", scene.partitions, scene.budgets)
    environment = child_environment(settings, place.environment() | {"PYTHONPATH": str(ROOT)})
    environment = {name: value for name, value in environment.items() if not name.startswith("SLUICE_")}
    child = ChildProcess(run, (python, *command), scene.stage.folder / f"{run}.log", env=environment)
    return Contender(child, progress or _of_group(run))


async def plain_faust(scene: Scene, run: str) -> Contender:
    """Stock Faust, of the version that Sluice is built on. Its changelogs are made beforehand: made by itself, they may
    not be known yet when the first event writes to them, and its agent then crashes for good."""
    settings = load_settings(kafka_url=scene.stage.broker.bootstrap)
    tables = changelogs(run, ("totals", "counters"))
    (await ensure_topics(connection(settings), scene.partitions, 1, topics=(), extra=tables)).demand()
    return _peer(
        scene, run, python_of(".venv"), "-m", "loadtest.bench.peers.plain_faust", "worker", "-l", "warn",
        "--without-web",
    )  # fmt: skip


async def quixstreams(scene: Scene, run: str) -> Contender:
    """quixstreams from its own environment."""
    return _peer(scene, run, python_of(".venv-bench"), "-m", "loadtest.bench.peers.quix")


async def bytewax(scene: Scene, run: str) -> Contender:
    """bytewax from its own environment, with one worker thread: Python's lock lets no second one help."""
    store = scene.stage.folder / f"{run}-recovery"
    store.mkdir()
    made = ChildProcess(
        "bytewax.recovery",
        (python_of(".venv-bench"), "-m", "bytewax.recovery", str(store), "1"),
        scene.stage.folder / f"{run}-recovery.log",
    )
    made.start()
    await made.ended(60.0)

    async def progress(_: AIOKafkaAdminClient) -> int:
        return recovered(store)

    return _peer(
        scene, run, python_of(".venv-bench"), "-m", "bytewax.run", "loadtest.bench.peers.bytewax_flow:flow",
        "-r", str(store), "-s", "5", "-b", "0", progress=progress,
    )  # fmt: skip


def recovered(store: Path) -> int:
    """How many events a restart from a bytewax recovery store would not read again: the offsets in its snapshots."""
    offsets: dict[str, tuple[int, int]] = {}
    for path in store.glob("*.sqlite3"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5) as database:
            rows = database.execute(
                "select s.state_key, s.snap_epoch, s.ser_change from snaps s where s.step_id like '%.kafka%' "
                "and s.snap_epoch < (select coalesce(min(worker_frontier), 0) from fronts)"
            ).fetchall()
        for key, epoch, change in rows:
            if change is not None and epoch >= offsets.get(key, (-1, 0))[0]:
                offsets[key] = (epoch, pickle.loads(change))
    return sum(max(0, offset) for _, offset in offsets.values())


async def aiokafka_read(scene: Scene, run: str) -> Contender:
    """The limit: aiokafka reads and nobody looks."""
    return _peer(scene, run, python_of(".venv"), "-m", "loadtest.bench.peers.aiokafka_read")


CONTENDERS: dict[str, Callable[[Scene, str], Awaitable[Contender]]] = {
    "sluice": sluice,
    "sluice_spenders": sluice_spenders,
    "aiokafka_read": aiokafka_read,
    "bytewax": bytewax,
    "quixstreams": quixstreams,
    "plain_faust": plain_faust,
}
