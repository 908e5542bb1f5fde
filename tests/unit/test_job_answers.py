"""A run that was told to stop: somebody has to answer in time, and has to have done it."""

import msgspec
import pytest

from schemas import topics
from schemas.budgets import Run
from schemas.commands import JobAck, JobCommand
from schemas.instants import MINUTE, SECOND, format_instant
from schemas.money import NANOS
from streams.core.budget_runs import ANSWER_US
from tests.unit.records import NOON
from tests.unit.test_budget_changes import Flight, scope_of_run
from tests.unit.test_budgets import said

RUN = Run(id="r-7", team_id="ml", estimate_nanos=100 * NANOS, state="approved", auto_shutdown=True)


@pytest.fixture(autouse=True)
def everything_lives_here(monkeypatch):
    """The world is partition 2."""
    monkeypatch.setattr("streams.agents.budgets.partition_of", lambda key, partitions: 2)


class Site(Flight):
    """A run that has just been told to stop, at noon."""

    @classmethod
    async def stopped(cls, **changed) -> "Site":
        site = cls(msgspec.structs.replace(RUN, **changed))
        await site.hear(said(151, offset=1, at=NOON), scope=scope_of_run())
        return site

    async def answer(self, outcome: str, revision: int = 1, executor: str = "node-1", detail: str = "") -> "Site":
        ack = JobAck(
            command_id="c", run_id="r-7", revision=revision, executor=executor, outcome=outcome,
            applied_at=format_instant(self.clock.at), detail=detail,
        )  # fmt: skip
        await self._batch(topics.JOB_ACKS, [(b"r-7", msgspec.json.encode(ack))])
        return self

    async def at(self, seconds: float) -> "Site":
        await self.tick(NOON + int(seconds * SECOND))
        return self

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(alert.status, alert.tier) for alert in self.alerts if alert.rule == "enforcement_gap"]

    @property
    def words(self) -> str:
        return [alert.summary for alert in self.alerts if alert.rule == "enforcement_gap"][-1]


LATE = ANSWER_US // SECOND + 1
OPENED, RESOLVED = ("opened", "ticket"), ("resolved", "ticket")


@pytest.mark.parametrize("outcome", ["stopped", "killed", "gone", "capped"])
async def test_who_did_it_in_time_is_nobodys_alert(outcome):
    site = await (await Site.stopped()).answer(outcome)
    assert (await site.at(LATE)).told == []


async def test_nobody_is_missed_before_its_time():
    site = await Site.stopped()
    assert len(site.of(topics.JOB_COMMANDS, JobCommand)) == 1
    assert (await site.at(LATE - 2)).told == []


async def test_a_command_that_nobody_answers_is_a_ticket_once():
    site = await (await (await Site.stopped()).at(LATE)).at(LATE + 60)
    assert site.told == [OPENED]
    assert "r-7 was told to stop, and nobody has answered within 3 minutes" in site.words


@pytest.mark.parametrize(
    ("outcomes", "told"),
    [
        (["stopped"], [OPENED, RESOLVED]),
        (["refused"], [OPENED]),
        (["refused", "gone"], [OPENED, RESOLVED]),
        (["stopped", "refused"], [OPENED, RESOLVED]),
        (["stopped", "stopped"], [OPENED, RESOLVED]),
    ],
    ids=["late is better than never", "no is no answer that helps", "then it ended", "another one says no", "twice"],
)
async def test_what_comes_after_the_ticket(outcomes, told):
    site = await (await Site.stopped()).at(LATE)
    for outcome in outcomes:
        await site.answer(outcome, executor=f"node-{outcome}")
    assert site.told == told


async def test_who_refuses_is_told_at_once_with_what_he_said():
    site = await (await Site.stopped()).answer("refused", detail="the job does not carry auto_shutdown: true")
    assert site.told == [OPENED]
    assert "node-1 refused: the job does not carry auto_shutdown: true" in site.words
    assert (await site.at(LATE)).told == [OPENED]


async def test_of_two_executors_one_that_did_it_is_enough():
    site = await (await Site.stopped()).answer("gone")
    await site.answer("refused", executor="node-2")
    assert (await site.at(LATE)).told == []


async def test_an_answer_to_an_earlier_command_is_none_to_this_one():
    site = await (await Site.stopped()).answer("stopped", revision=0)
    assert (await site.at(LATE)).told == [OPENED]


async def test_the_wait_outlives_a_restart():
    site = await Site.stopped()
    site.restart(RUN)
    assert (await site.at(LATE)).told == [OPENED]


async def test_a_run_that_has_ended_owes_nobody_an_answer():
    site = await (await Site.stopped()).at(LATE)
    await site.define(withdrawn=[RUN.key()]).tick(NOON + 5 * MINUTE)
    assert site.told == [OPENED, RESOLVED]


async def test_a_run_that_does_not_allow_it_is_not_told_and_not_waited_for():
    site = await (await Site.stopped(auto_shutdown=False)).at(LATE)
    assert (site.of(topics.JOB_COMMANDS, JobCommand), site.told) == ([], [])


@pytest.mark.parametrize("value", [b'{"v":99}', b"{", b'{"v":1,"run_id":"nobodys"}'], ids=["newer", "torn", "partial"])
async def test_an_answer_that_cannot_be_read_stops_nobody(value):
    site = await Site.stopped()
    await site._batch(topics.JOB_ACKS, [(b"r-7", value)])
    assert (await (await site.answer("stopped")).at(LATE)).told == []


async def test_an_answer_of_a_run_that_nobody_knows_is_passed_over():
    site = await Site.stopped()
    ack = JobAck(command_id="c", run_id="r-8", revision=1, executor="n", outcome="stopped", applied_at="")
    await site._batch(topics.JOB_ACKS, [(b"r-8", msgspec.json.encode(ack))])
    assert (await site.at(LATE)).told == [OPENED]


async def test_an_answer_that_lies_elsewhere_is_sent_on_to_where_the_run_lives(monkeypatch):
    site = await Site.stopped()
    monkeypatch.setattr("streams.agents.budgets.partition_of", lambda key, partitions: 3)
    before = len(site.said)
    await site.answer("stopped")
    (sent_on,) = site.said[before:]
    assert (sent_on.topic, sent_on.partition) == (topics.JOB_ACKS, 3)
