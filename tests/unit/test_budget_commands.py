"""Commands under one key: all periods and definitions of a budget, and owners that were overtaken, speak there; the
highest revision is what gates obey, the last record is what compaction keeps, and both must be what stands."""

from types import SimpleNamespace

import msgspec
import pytest

from gateway.commands import CommandBook
from schemas import topics
from schemas.budgets import Budget, Period
from schemas.commands import Target, ThrottleCommand
from schemas.instants import DAY, HOUR, SECOND
from schemas.money import NANOS
from streams.agents.budgets import BudgetAgent
from streams.core.budgets import Policy
from streams.core.definitions import Definitions
from streams.transport import RecordBatch
from streams.transport.fetching import Unread
from tests.unit.records import NOON, RawRecord
from tests.unit.test_budgets import DAY_END, DAY_START, LADDER, said

BUDGET = Budget(
    id="search-daily",
    match=(("team", "search"),),
    target=Target("team", "search"),
    amount_nanos=100 * NANOS,
    period=Period("day"),
    thresholds=LADDER,
    mode="enforce",
)
OLD, NEW = BUDGET, msgspec.structs.replace(BUDGET, match=(*BUDGET.match, ("feature", "chat")))


def scope_of(budget: Budget) -> str:
    """The match is part of the scope's name."""
    return f"budget:{budget.id}@{len(budget.match)}"


class Clock:
    def __init__(self) -> None:
        self.at = NOON

    def now(self) -> int:
        return self.at

    def observe(self, event_time: int, source: str = "") -> None:
        """Time is set by the test."""


class World:
    """One BUDGET, and the topic that it commands on; ``hear_commands`` gives it back what lies there."""

    def __init__(self, *defined) -> None:
        self.clock = Clock()
        self.topic: list[tuple[bytes, bytes]] = []
        self.states: dict[bytes, bytes] = {}
        self.heard = 0
        self.ends: dict[str, int] = {}
        self.table = SimpleNamespace(app=SimpleNamespace(partitions=4, producer=self), write=self._keep)
        self.agent = self._started(defined)

    def _started(self, defined) -> BudgetAgent:
        ledger = SimpleNamespace(write_budget_status=self._ignore)
        self.definitions = Definitions({each.key(): each for each in defined})
        agent = BudgetAgent(self.table, lambda: self.definitions, scope_of, ledger, self.clock, Policy())
        self.table.on_load(2, dict(self.states))
        return agent

    async def _ignore(self, rows) -> None:
        """The dashboard's rows are looked at elsewhere."""

    async def _keep(self, partition: int, entries) -> None:
        for key, value in entries:
            self.states.pop(key, None) if value is None else self.states.update({key: value})

    async def write(self, records, partitions: int) -> None:
        for record in records:
            if record.topic == topics.GATEWAY_COMMANDS:
                assert record.partition == 2, "commands lie where their budget lives"
                self.topic.append((record.key, record.value))

    def restart(self, *defined) -> "World":
        self.agent = self._started(defined)
        return self

    async def hear(self, *statements, scope: str = scope_of(OLD)) -> "World":
        values = []
        for statement in statements:
            statement.scope = scope
            values.append((b"%d" % len(values), msgspec.json.encode(statement)))
        return await self._batch(topics.SPEND_SCOPES, values)

    async def hear_commands(self) -> "World":
        while self.heard < len(self.topic):
            new, self.heard = self.topic[self.heard :], len(self.topic)
            await self._batch(topics.GATEWAY_COMMANDS, new)
            assert len(self.topic) < 50, "it answers itself"
        return self

    async def _batch(self, topic: str, values) -> "World":
        begin = self.ends.get(topic, 0)
        self.ends[topic] = begin + len(values)
        records = [RawRecord(begin + place, NOON, value, key=key) for place, (key, value) in enumerate(values)]
        unread = Unread.of(begin, self.ends[topic], records)
        await self.agent.take([RecordBatch(topic, 2, begin, self.ends[topic], unread)])
        return self

    async def tick(self, at: int | None = None) -> "World":
        self.clock.at = at or self.clock.at
        await self.agent.tick_all([2])
        return self

    def from_elsewhere(self, action: str, revision_from: int, **more) -> "World":
        """What an overtaken owner says: a command of ours with another revision."""
        key, value = self.topic[0]
        command = msgspec.json.decode(value, type=ThrottleCommand)
        command = msgspec.structs.replace(
            command,
            action=action,
            revision=command.revision + revision_from,
            command_id=f"late-{revision_from}",
            **more,
        )
        self.topic.append((key, msgspec.json.encode(command)))
        return self

    def gate(self, compacted: bool = False) -> str:
        """What a gate does that reads the topic from its beginning, before or after compaction."""
        book = CommandBook(lambda: self.clock.at)
        for key, value in dict(self.topic).items() if compacted else self.topic:
            book.apply(key.decode(), msgspec.json.decode(value, type=ThrottleCommand))
        return "open" if book.check(team="search", feature="chat").allowed else "closed"

    def stands(self) -> set[str]:
        return {self.gate(), self.gate(compacted=True)}


def day(number: int, usd: float, **more):
    statement = said(usd, **more)
    statement.period_start += number * DAY
    statement.period_end += number * DAY
    return statement


@pytest.mark.parametrize("revision", [-1, 0, 1, 7])
@pytest.mark.parametrize(("usd", "action", "stands"), [(110, "allow", "closed"), (90, "block", "open")])
async def test_what_an_overtaken_owner_commands_does_not_stand(revision, usd, action, stands):
    world = World(BUDGET)
    await world.hear(said(110, offset=1))
    if usd < 100:
        await world.hear(said(usd, offset=2))
    await world.hear_commands()
    world.from_elsewhere(action, revision + len(world.topic) - 1)
    await world.hear_commands()
    assert world.stands() == {stands}
    # And it goes on from there.
    await world.hear(said(200 - usd, offset=3))
    await world.hear_commands()
    assert world.stands() == {"open" if stands == "closed" else "closed"}


async def test_a_block_that_nobody_here_ever_gave_is_lifted():
    world = World(BUDGET)
    await world.hear(said(110, offset=1))
    world.states.clear()
    block = world.topic[:]
    await world.restart(BUDGET).hear(said(60, offset=2))
    assert world.topic == block
    await world.hear_commands()
    assert world.stands() == {"open"}


async def test_what_agrees_with_us_is_taken_for_ours_and_starts_no_quarrel():
    world = World(BUDGET)
    await world.hear(said(110, offset=1))
    await world.from_elsewhere("block", 5).hear_commands()
    assert len(world.topic) == 2
    await world.hear(said(50, offset=2))
    assert world.stands() == {"open"}


async def test_hearing_our_own_commands_again_after_a_restart_says_nothing():
    world = World(BUDGET)
    await world.hear(said(110, offset=1))
    await world.hear(said(90, offset=2))
    world.heard = 0
    await world.restart(BUDGET).hear_commands()
    assert len(world.topic) == 2


@pytest.mark.parametrize("first", ["the old definition", "the new definition"])
async def test_a_budget_defined_anew_is_not_opened_by_its_old_definition_letting_go(first):
    world = World(OLD)
    await world.hear(said(110, offset=1))
    world.restart(NEW)
    if first == "the old definition":
        await world.tick()
    await world.hear(said(120, offset=5), scope=scope_of(NEW))
    await world.tick()
    assert world.stands() == {"closed"}
    await world.restart(NEW).tick(DAY_END)
    assert world.stands() == {"open"}


async def test_a_new_definition_that_crosses_later_blocks_above_what_the_old_one_said_on_its_way_out():
    world = World(OLD)
    await world.hear(said(110, offset=1))
    await world.restart(NEW).hear(said(60, offset=5), scope=scope_of(NEW))
    await world.tick()
    assert world.stands() == {"open"}
    await world.hear(said(130, offset=6), scope=scope_of(NEW))
    assert world.stands() == {"closed"}


@pytest.mark.parametrize("before_midnight", [True, False])
async def test_yesterday_that_lets_go_does_not_open_today(before_midnight):
    world = World(BUDGET)
    today, tomorrow = day(0, 110, offset=1), day(1, 110, offset=2, at=DAY_END - SECOND)
    # Event time runs a little ahead of the clock: the new day can be spent before the old one has ended.
    await world.hear(*((tomorrow, today) if before_midnight else (today, tomorrow)))
    await world.tick(DAY_END + SECOND)
    assert world.stands() == {"closed"}
    await world.tick(DAY_END + DAY + SECOND)
    assert world.stands() == {"open"}


async def test_a_long_run_of_days_only_ever_raises_the_revision():
    world = World(BUDGET)
    for number in range(5):
        world.clock.at = DAY_START + number * DAY + HOUR
        await world.hear(day(number, 110, offset=number, at=world.clock.at))
        await world.tick(DAY_START + (number + 1) * DAY)
    revisions = [msgspec.json.decode(value, type=ThrottleCommand).revision for _, value in world.topic]
    assert revisions == sorted(set(revisions))
    assert len(revisions) == 10
