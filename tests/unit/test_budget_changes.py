"""What is defined changes while budgets run: overrides, opening balances, limits, runs, values; and who must hear it."""

import asyncio

import msgspec
import pytest

from gateway.commands import CommandBook
from schemas import topics
from schemas.alerts import Alert
from schemas.budgets import Budget, Grant, Limit, OpeningBalance, Override, Period, Run
from schemas.commands import JobCommand, Target, ThrottleAck, ThrottleCommand
from schemas.instants import DAY, HOUR, MINUTE, SECOND, format_instant
from schemas.money import NANOS
from streams.agents.budgets import BudgetAgent
from streams.agents.gateways_heard import Heard
from streams.agents.replayed import AnswersInRealTime
from streams.core.budget_terms import FOREVER
from streams.core.budgets import Policy
from streams.core.definitions import Definitions
from tests.unit.records import NOON
from tests.unit.test_budget_commands import BUDGET, DAY_END, DAY_START, World, scope_of
from tests.unit.test_budgets import said

HARD = msgspec.structs.replace(BUDGET, hard=True)
SESSIONS = msgspec.structs.replace(
    HARD, id="agents", per="session", target=Target("session", "*"), match=(), period=Period("total"), pages=False
)
OVERRIDE = Override(id="o-1", budget_id=BUDGET.id, extra_nanos=50 * NANOS, starts=NOON, until=NOON + HOUR)


class Flight(World):
    """A BUDGET whose definitions change; it keeps everything that was said."""

    def __init__(self, *defined) -> None:
        self.said, self.rows = [], []
        self.database = asyncio.Event()
        self.database.set()
        super().__init__(*defined)

    def _started(self, defined) -> BudgetAgent:
        self.define(*defined, anew=True)
        self.agent = BudgetAgent(
            self.table, lambda: self.definitions, scope_of, self, self.clock, Policy(),
            ancestors_of=lambda budget_id, value: ("org-month",),
        )  # fmt: skip
        self.table.on_load(2, dict(self.states))
        return self.agent

    def define(self, *changed, withdrawn=(), anew: bool = False) -> "Flight":
        before = Definitions() if anew else self.definitions
        self.definitions = before.changed({each.key(): each for each in changed} | dict.fromkeys(withdrawn))
        return self

    async def write_budget_status(self, rows) -> None:
        await self.database.wait()
        self.rows += rows

    async def shown(self) -> list:
        """What the ledger has been told until now."""
        await self.agent.statuses.write()
        return self.rows

    async def write(self, records, partitions: int) -> None:
        self.said += records
        await super().write(records, partitions)

    def of(self, topic: str, kind: type) -> list:
        return [msgspec.json.decode(record.value, type=kind) for record in self.said if record.topic == topic]

    @property
    def alerts(self) -> list[Alert]:
        return self.of(topics.ALERTS, Alert)

    @property
    def actions(self) -> list[str]:
        return [command.action for command in self.commands]

    @property
    def commands(self) -> list[ThrottleCommand]:
        return self.of(topics.GATEWAY_COMMANDS, ThrottleCommand)

    async def acknowledge(self, command, gateway: str = "gw-1", after_s: float = 0.5, partition: int = 2) -> None:
        ack = ThrottleAck(
            command_id=command.command_id,
            command_key=command.key(),
            revision=command.revision,
            gateway=gateway,
            applied_at=format_instant(self.clock.at + int(after_s * SECOND)),
        )
        await self._batch(topics.GATEWAY_ACKS, [(command.key().encode(), msgspec.json.encode(ack))])


@pytest.fixture(autouse=True)
def everything_lives_here(monkeypatch):
    """The world is partition 2."""
    monkeypatch.setattr("streams.agents.budgets.partition_of", lambda key, partitions: 2)


async def test_a_raised_amount_takes_effect_at_the_next_tick_without_a_statement():
    world = Flight(HARD)
    await world.hear(said(110, offset=1))
    world.define(msgspec.structs.replace(HARD, amount_nanos=200 * NANOS))
    await world.tick(NOON + SECOND)
    assert world.actions == ["block", "allow"]
    assert (await world.shown())[-1].amount_nanos == 200 * NANOS


async def test_a_command_does_not_wait_for_the_database_and_of_many_changes_the_newest_is_written():
    world = Flight(HARD)
    world.database.clear()
    writing = asyncio.create_task(world.agent.statuses.run())
    for usd in (40, 80, 110):
        await world.hear(said(usd, offset=usd))
    assert (world.actions, world.rows) == (["block"], [])
    world.database.set()
    async with asyncio.timeout(5):
        while not world.rows or world.rows[-1].spent_nanos != 110 * NANOS:
            await asyncio.sleep(0)
    writing.cancel()
    assert len(world.rows) <= 2


async def test_what_was_not_written_when_a_worker_ended_is_written_by_the_next_one():
    world = Flight(HARD)
    await world.hear(said(70, offset=1))
    assert world.rows == []
    world.restart(HARD)
    assert [row.spent_nanos for row in await world.shown()] == [70 * NANOS]


async def test_a_lowered_amount_closes_at_the_next_tick():
    world = Flight(HARD)
    await world.hear(said(60, offset=1))
    await world.define(msgspec.structs.replace(HARD, amount_nanos=50 * NANOS)).tick()
    assert world.actions == ["block"]


LOWER = msgspec.structs.replace(HARD, amount_nanos=50 * NANOS)


@pytest.mark.parametrize("hours", [1, 4, 9], ids=["within the hour", "after four hours", "after nine"])
async def test_a_budget_that_has_long_been_silent_closes_when_its_amount_is_lowered_and_pages(hours):
    world = Flight(HARD)
    await world.hear(said(60, offset=1))
    await world.tick(NOON + hours * HOUR)
    await world.define(LOWER).tick(NOON + hours * HOUR + SECOND)
    await world.tick(NOON + hours * HOUR + 2 * SECOND)
    assert world.actions == ["block"]
    assert [(alert.threshold, alert.tier) for alert in world.alerts if alert.tier == "page"] == [("100 %", "page")]


async def test_a_silent_budget_whose_amount_was_lowered_while_no_worker_ran_closes_at_the_start():
    world = Flight(HARD)
    await world.hear(said(60, offset=1))
    changed = msgspec.structs.replace(LOWER, changed_at=NOON + 4 * HOUR)
    world.clock.at = NOON + 5 * HOUR
    world.restart(changed)
    await world.tick()
    assert world.actions == ["block"]


async def test_a_silent_budget_closes_when_the_override_ends_that_kept_it_open():
    world = Flight(HARD, msgspec.structs.replace(OVERRIDE, until=NOON + 5 * HOUR))
    await world.hear(said(110, offset=1))
    await world.tick(NOON + 4 * HOUR)
    assert world.actions == []
    await world.tick(NOON + 5 * HOUR)
    assert world.actions == ["block"]


async def test_a_silent_budget_closes_when_the_override_is_withdrawn_that_kept_it_open():
    world = Flight(HARD, msgspec.structs.replace(OVERRIDE, until=NOON + 9 * HOUR))
    await world.hear(said(110, offset=1))
    await world.tick(NOON + 4 * HOUR)
    await world.define(withdrawn=[OVERRIDE.key()]).tick(NOON + 4 * HOUR + SECOND)
    assert world.actions == ["block"]


async def test_a_backlog_stays_quiet_also_under_a_budget_that_was_defined_a_moment_ago():
    world = Flight(msgspec.structs.replace(LOWER, changed_at=NOON + 4 * HOUR))
    world.clock.at = NOON + 4 * HOUR + MINUTE
    await world.hear(said(60, offset=1))
    await world.tick()
    assert (world.actions, {alert.historic for alert in world.alerts}) == ([], {True})


async def test_a_change_of_another_budget_does_not_wake_what_is_history():
    world = Flight(LOWER)
    world.clock.at = NOON + 4 * HOUR
    await world.hear(said(60, offset=1))
    await world.define(SESSIONS).tick(NOON + 4 * HOUR + SECOND)
    assert world.actions == []


async def test_a_withdrawn_budget_lets_go_and_resolves_and_comes_back_above_what_it_said():
    world = Flight(HARD)
    await world.hear(said(110, offset=1))
    await world.define(withdrawn=[HARD.key()]).tick(NOON + SECOND)
    assert world.actions == ["block", "allow"]
    assert {alert.status for alert in world.alerts[-4:]} == {"resolved"}
    await world.define(HARD).tick(NOON + 2 * SECOND)
    assert world.actions == ["block", "allow", "block"]
    revisions = [command.revision for command in world.commands]
    assert revisions == sorted(set(revisions))


@pytest.mark.parametrize("lifts", [False, True], ids=["more money", "no measures at all"])
async def test_an_override_lets_go_until_its_time_and_then_closes_again(lifts):
    world = Flight(HARD)
    await world.hear(said(110, offset=1))
    override = msgspec.structs.replace(OVERRIDE, lifts=lifts, extra_nanos=0 if lifts else 50 * NANOS)
    await world.define(override).tick(NOON + SECOND)
    assert world.actions == ["block", "allow"]
    assert (await world.shown())[-1].override_nanos == override.extra_nanos
    await world.tick(NOON + HOUR - 1)
    assert world.actions == ["block", "allow"]
    await world.tick(NOON + HOUR)
    assert world.actions == ["block", "allow", "block"]


async def test_an_override_that_begins_later_lets_go_then():
    world = Flight(HARD, msgspec.structs.replace(OVERRIDE, starts=NOON + 10 * MINUTE))
    await world.hear(said(110, offset=1))
    await world.tick(NOON + 9 * MINUTE)
    assert set(world.actions) == {"block"}
    await world.tick(NOON + 10 * MINUTE)
    assert world.actions[-1] == "allow"


async def test_an_opening_balance_counts_in_its_period_alone():
    balance = OpeningBalance(budget_id=HARD.id, period_start=DAY_START, nanos=60 * NANOS)
    world = Flight(HARD, balance)
    await world.hear(said(45, offset=1))
    assert world.actions == ["block"]
    row = (await world.shown())[-1]
    assert (row.spent_nanos, row.opening_nanos) == (105 * NANOS, 60 * NANOS)
    tomorrow = said(45, offset=2, at=DAY_END + HOUR)
    tomorrow.period_start, tomorrow.period_end = DAY_END, DAY_END + DAY
    world.clock.at = DAY_END + HOUR
    await world.hear(tomorrow)
    assert (await world.shown())[-1].spent_nanos == 45 * NANOS


async def test_a_statement_that_comes_before_its_definition_counts_once_it_is_known():
    world = Flight()
    await world.hear(said(110, offset=1))
    assert world.said == []
    await world.define(HARD).tick()
    assert world.actions == ["block"]
    assert len(world.states) == 1


async def test_a_statement_of_what_was_withdrawn_is_forgotten_after_a_minute():
    world = Flight()
    await world.hear(said(110, offset=1))
    await world.tick(NOON + 2 * MINUTE)
    await world.define(HARD).tick()
    assert world.said == []


async def test_each_value_of_a_budget_is_throttled_by_itself():
    world = Flight(SESSIONS)
    for value, usd in (("s-1", 110), ("s-2", 20), ("s#3", 130)):
        await world.hear(said(usd, offset=1), scope=f"{scope_of(SESSIONS)}#{value}")
    assert [command.target.key() for command in world.commands] == ["session:s-1", "session:s#3"]
    assert {row.value: row.spent_nanos // NANOS for row in await world.shown()} == {"s-1": 110, "s-2": 20, "s#3": 130}
    assert {alert.tier for alert in world.alerts} == {"note", "ticket"}
    assert {alert.scope_id for alert in world.alerts} == {"agents#s-1", "agents#s#3"}
    await world.define(Override(id="o", budget_id="agents", value="s-1", lifts=True, starts=0, until=DAY_END)).tick()
    assert [(command.target.scope_id, command.action) for command in world.commands[2:]] == [("s-1", "allow")]


async def test_alerts_name_the_budgets_above():
    world = Flight(HARD)
    await world.hear(said(110, offset=1))
    assert {alert.ancestors for alert in world.alerts} == {("org-month",)}


LIMIT = Limit(id="burst", target=Target("team", "search"), rpm=100, tpm=9_000, mode="enforce")


async def test_a_standing_limit_is_commanded_before_anything_is_spent_and_renewed():
    world = Flight(LIMIT)
    await world.tick()
    await world.tick(NOON + SECOND)
    (command,) = world.commands
    assert (command.action, command.rpm_limit, command.tpm_limit) == ("rate_limit", 100, 9_000)
    assert (command.budget_id, command.target.key()) == ("limit:burst", "team:search")
    await world.tick(NOON + 6 * MINUTE)
    renewal = world.commands[-1]
    assert (renewal.command_id, renewal.revision) == (command.command_id, command.revision)
    assert renewal.expires_at > command.expires_at
    assert await world.shown() == []


async def test_a_limit_that_is_changed_is_commanded_anew_and_a_withdrawn_one_is_lifted():
    world = Flight(LIMIT)
    await world.tick()
    await world.tick()
    await world.define(msgspec.structs.replace(LIMIT, rpm=50)).tick(NOON + SECOND)
    assert [command.rpm_limit for command in world.commands] == [100, 50]
    await world.define(withdrawn=[LIMIT.key()]).tick(NOON + 2 * SECOND)
    assert world.actions == ["rate_limit", "rate_limit", "allow"]
    revisions = [command.revision for command in world.commands]
    assert revisions == sorted(set(revisions))


async def test_a_restart_neither_repeats_nor_forgets_a_limit():
    world = Flight(LIMIT)
    await world.tick()
    await world.tick()
    await world.restart(LIMIT).tick(NOON + SECOND)
    await world.hear_commands()
    assert len(world.commands) == 1


async def test_an_answer_is_measured_against_the_crossing_and_shown():
    world = Flight(HARD)
    await world.hear(said(110, offset=1))
    assert (await world.shown())[-1].ack_delay_ms is None
    await world.acknowledge(world.commands[0], after_s=0.25)
    assert (await world.shown())[-1].ack_delay_ms == 250
    await world.restart(HARD).tick(NOON + SECOND)
    assert world.agent._gateways.delay_us(NOON + SECOND) == 250_000


async def test_an_answer_that_lies_elsewhere_is_sent_on_to_where_its_budget_lives(monkeypatch):
    world = Flight(HARD)
    await world.hear(said(110, offset=1))
    places = {b"budget:search-daily": 3}
    monkeypatch.setattr("streams.agents.budgets.partition_of", lambda key, partitions: places[key])
    before = len(world.said)
    await world.acknowledge(world.commands[0])
    (sent_on,) = world.said[before:]
    assert (sent_on.topic, sent_on.partition) == (topics.GATEWAY_ACKS, 3)
    assert msgspec.json.decode(sent_on.value, type=ThrottleAck).gateway == "gw-1"


async def test_an_answer_of_a_newer_version_or_none_at_all_stops_nobody():
    world = Flight(HARD)
    values = [(b"k", b'{"v":99}'), (b"k", b"{"), (b"k", b'{"v":1,"command_id":"x"}')]
    await world._batch(topics.GATEWAY_ACKS, values)
    await world.hear(said(110, offset=1))
    assert world.actions == ["block"]


RUN = Run(id="r-7", team_id="ml", estimate_nanos=300 * NANOS, auto_shutdown=True, owner="lead@example.test")


@pytest.mark.parametrize(
    ("usd", "state", "told"),
    [
        (50, "announced", False),
        (51, "announced", True),
        (51, "recorded", False),
        (200, "recorded", False),
        (201, "recorded", True),
        (201, "approved", False),
        (201, "refused", False),
    ],
    ids=[
        "small", "not on record", "on record", "just small enough", "large and only on record", "approved", "refused",
    ],
)  # fmt: skip
async def test_a_run_wants_an_approval_by_its_estimate(usd, state, told):
    world = Flight(msgspec.structs.replace(RUN, estimate_nanos=usd * NANOS, state=state))
    await world.tick()
    await world.tick(NOON + SECOND)
    assert [(alert.rule, alert.tier) for alert in world.alerts] == ([("approval_wanted", "ticket")] if told else [])


async def test_the_approval_ends_the_ticket():
    world = Flight(RUN)
    await world.tick()
    await world.define(msgspec.structs.replace(RUN, state="approved")).tick(NOON + SECOND)
    assert [alert.status for alert in world.alerts] == ["opened", "resolved"]


@pytest.mark.parametrize(
    ("usd", "statuses"),
    [
        (300, ["opened"]),
        (250, ["opened"]),
        (301, ["opened", "opened", "resolved"]),
    ],
    ids=["the same again", "less: who was asked may still say yes", "more is another question"],
)
async def test_a_run_that_is_announced_anew_is_asked_about_anew_where_it_wants_more(usd, statuses):
    world = Flight(RUN)
    await world.tick()
    await world.define(msgspec.structs.replace(RUN, estimate_nanos=usd * NANOS)).tick(NOON + SECOND)
    await world.tick(NOON + 2 * SECOND)
    assert [alert.status for alert in world.alerts] == statuses
    assert [alert.observed for alert in world.alerts if alert.status == "opened"][-1] == str(max(usd, 300))
    closed = {alert.dedup_key for alert in world.alerts if alert.status == "resolved"}
    assert len({alert.dedup_key for alert in world.alerts} - closed) == 1
    await world.define(msgspec.structs.replace(RUN, state="approved")).tick(NOON + 3 * SECOND)
    assert world.alerts[-1].status == "resolved"


async def test_from_which_estimates_on_a_run_needs_what_is_the_operators_to_say():
    world = Flight(msgspec.structs.replace(RUN, state="recorded"))
    world.agent._policy = Policy(record_above=500 * NANOS, approve_above=1_000 * NANOS)
    await world.tick()
    assert world.alerts == []


def scope_of_run() -> str:
    return scope_of(Budget(id="run-r-7", match=(("run", "r-7"),), target=Target("run", "r-7"), amount_nanos=1,
                           period=Period("total"), thresholds=()))  # fmt: skip


@pytest.mark.parametrize("allowed", [True, False], ids=["it allows that", "it does not"])
async def test_a_run_that_passes_its_estimate_is_told_and_by_a_factor_stopped_where_it_allows_that(allowed):
    world = Flight(msgspec.structs.replace(RUN, state="approved", auto_shutdown=allowed))
    for offset, usd in enumerate([200, 310, 449, 451, 460]):
        await world.hear(said(usd, offset=offset, at=NOON + offset * MINUTE), scope=scope_of_run())
        await world.tick()
    assert [(alert.rule, alert.threshold, alert.tier) for alert in world.alerts] == [
        ("run_estimate", "100 %", "ticket"),
        ("run_estimate", "150 %", "ticket"),
    ]
    stops = world.of(topics.JOB_COMMANDS, JobCommand)
    assert [(stop.run_id, stop.action, stop.revision) for stop in stops] == (
        [("r-7", "stop_job", 1)] if allowed else []
    )
    assert world.commands == [], "gateways have nothing to do with it"


async def test_a_period_that_is_long_over_is_forgotten_and_the_next_one_speaks_above_it():
    world = Flight(HARD)
    await world.hear(said(110, offset=1))
    await world.tick(DAY_END)
    await world.tick(DAY_END + 2 * DAY + 1)
    assert world.states == {}
    later = said(110, offset=9, at=DAY_END + 2 * DAY + HOUR)
    later.period_start, later.period_end = DAY_START + 3 * DAY, DAY_END + 3 * DAY
    world.clock.at = later.stream_time
    await world.hear(later)
    assert world.actions == ["block", "allow", "block"]
    assert world.commands[-1].revision > world.commands[-2].revision


S_1 = f"{scope_of(SESSIONS)}#s-1"
MONTH = 30 * DAY


def in_all(usd: float, **more):
    """A statement as METER makes it of a budget that never begins anew."""
    found = said(usd, **more)
    found.period_start, found.period_end = 0, FOREVER
    return found


async def blocked_session(**changed) -> Flight:
    world = Flight(msgspec.structs.replace(SESSIONS, **changed))
    await world.hear(in_all(110, offset=1), scope=S_1)
    assert world.actions == ["block"]
    return world


@pytest.mark.parametrize(
    ("changed", "days", "is_kept"),
    [
        ({}, 29, True),
        ({}, 31, False),
        ({"period": Period("rolling", hours=24 * 45)}, 31, True),
        ({"period": Period("rolling", hours=24 * 45)}, 46, False),
    ],
    ids=["29 days", "31 days", "its window still has the money", "it left the window"],
)
async def test_a_blocked_session_is_let_go_and_forgotten_once_nothing_was_heard_of_it_for_thirty_days(
    changed, days, is_kept
):
    world = await blocked_session(**changed)
    await world.tick(NOON + days * DAY)
    await world.tick(NOON + days * DAY + SECOND)
    assert (world.actions[-1], bool(world.states)) == (("block", True) if is_kept else ("allow", False))
    opened = {alert.dedup_key for alert in world.alerts if alert.status == "opened"}
    resolved = {alert.dedup_key for alert in world.alerts if alert.status == "resolved"}
    assert resolved == (set() if is_kept else opened)


async def test_a_session_that_comes_back_after_it_was_forgotten_is_blocked_above_all_that_was_said_before():
    world = await blocked_session()
    await world.tick(NOON + MONTH + DAY)
    assert world.states == {}
    for days, offset in ((31, 7), (63, 9)):
        world.clock.at = NOON + days * DAY + 2 * HOUR
        await world.hear(in_all(120, offset=offset, at=world.clock.at), scope=S_1)
        assert world.actions[-1] == "block"
        await world.tick(world.clock.at + MONTH + DAY)
        assert (world.actions[-1], world.states) == ("allow", {})
    revisions = [command.revision for command in world.commands]
    assert revisions == sorted(set(revisions))


async def test_late_money_of_a_forgotten_session_does_not_lower_its_revision():
    world = await blocked_session()
    await world.tick(NOON + MONTH + DAY)
    world.clock.at = NOON + MONTH + 2 * DAY
    await world.hear(in_all(120, offset=7, at=NOON - 5 * DAY), in_all(130, offset=8, at=world.clock.at), scope=S_1)
    assert world.actions == ["block", "allow", "block"]
    revisions = [command.revision for command in world.commands]
    assert revisions == sorted(set(revisions))


async def test_a_session_that_was_never_blocked_is_forgotten_too_without_a_word():
    world = Flight(SESSIONS)
    await world.hear(in_all(20, offset=1), scope=S_1)
    await world.tick(NOON + DAY)
    await world.tick(NOON + MONTH + DAY)
    assert (world.actions, world.states) == ([], {})


async def test_a_restart_between_letting_go_and_forgetting_says_the_same_again():
    world = await blocked_session()
    before = dict(world.states)
    await world.tick(NOON + MONTH + DAY)
    world.states = before
    world.restart(SESSIONS)
    await world.tick()
    first, second = world.commands[1:]
    assert (first.action, first.command_id, first.revision) == (second.action, second.command_id, second.revision)


@pytest.mark.parametrize(
    ("real_s", "told"),
    [(0.4, []), (9.0, []), (11.0, ["opened"])],
    ids=["on its way", "still on its way", "late by any clock"],
)
async def test_in_a_replay_a_gateway_is_late_by_the_machine_s_clock_alone(real_s, told):
    world = Flight(HARD)
    elapsed = [0.0]
    world.agent._in_real_time = AnswersInRealTime(lambda: elapsed[0])
    world.agent._gateways.hear("gw-1", Heard(NOON + 2 * MINUTE, NOON, None))
    await world.hear(said(110, offset=1))
    await world.tick()
    elapsed[0] = real_s
    await world.tick(NOON + 4 * MINUTE)
    assert [alert.status for alert in world.alerts if alert.rule == "enforcement_gap"] == told


async def test_a_replay_s_commands_outlive_the_hours_between_two_renewals():
    world = Flight(HARD)
    world.agent._policy = Policy(valid_us=DAY)
    await world.hear(said(110, offset=1))
    await world.tick(NOON + 3 * HOUR)
    assert world.actions == ["block"]
    book = CommandBook(lambda: world.clock.at)
    for command in world.commands:
        book.apply(command.key(), command)
    assert not book.check(team="search").allowed


def grants(*pairs) -> list[Grant]:
    return [Grant(team_id=team, model=model, until=until) for team, model, until in pairs]


@pytest.mark.parametrize(
    ("granted", "allowed"),
    [
        ([], set()),
        ([("ml", "gpt-5-pro*", 0)], {("ml", "gpt-5-pro"), ("ml", "gpt-5-pro-max")}),
        ([("ml", "gpt-5-pro", 0)], {("ml", "gpt-5-pro")}),
        ([("ml", "gpt-5-pro", 0), ("search", "gpt-5-pro*", 0)],
         {("ml", "gpt-5-pro"), ("search", "gpt-5-pro"), ("search", "gpt-5-pro-max")}),
        ([("ml", "gpt-5-pro", NOON)], set()),
    ],
    ids=["nobody", "the pattern", "one model of it", "one model and the pattern", "a grant that has ended"],
)  # fmt: skip
async def test_an_expensive_model_is_refused_to_teams_without_a_grant(granted, allowed):
    world = Flight(*grants(("", "gpt-5-pro*", 0), *granted))
    await world.tick()
    await world.tick(NOON + SECOND)
    book = CommandBook(lambda: world.clock.at)
    for command in world.commands:
        book.apply(command.key(), command)
    found = {
        (team, model)
        for team in ("ml", "search")
        for model in ("gpt-5-pro", "gpt-5-pro-max", "gpt-5")
        if book.check(team=team, model=model).allowed
    }
    assert found == allowed | {("ml", "gpt-5"), ("search", "gpt-5")}
    assert not book.check(team="other", model="gpt-5-pro").allowed
    assert "needs a grant" in book.check(team="other", model="gpt-5-pro").reason


async def test_a_grant_that_ends_closes_the_model_again_by_the_clock():
    world = Flight(*grants(("", "o1-pro", 0), ("ml", "o1-pro", NOON + HOUR)))
    await world.tick()
    await world.tick(NOON + SECOND)
    assert world.commands[-1].match == (("model", "o1-pro"), ("team", "!ml"))
    await world.tick(NOON + HOUR)
    assert world.commands[-1].match == (("model", "o1-pro"),)
