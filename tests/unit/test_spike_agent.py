"""The spike shell: which statements it takes, what a young scope is measured by, and whose budgets count."""

import msgspec

from schemas.alerts import Alert
from schemas.answers import AlertAnswer
from schemas.budgets import Budget, Period
from schemas.commands import Target
from schemas.instants import HOUR, parse_instant
from streams.agents.definitions import KnownDefinitions, LessonsNow, MonthlyNow
from streams.agents.hours import Heard, SpikeAgent
from streams.clock import StreamClock
from streams.core.definitions import Definitions
from tests.unit.spike_scope import POLICY, USD, say


class Table:
    """A table's face; nothing is written here."""

    fenced = False


def agent_of(*names: str, days: int = 6) -> tuple[SpikeAgent, dict]:
    """An agent whose partition 0 knows these scopes, each at some 20 dollars an hour."""
    agent = SpikeAgent(Table(), StreamClock(), POLICY)
    states = agent._states[0] = {}
    agent._reading = 0
    for hour in range(24 * days):
        for n, name in enumerate(names):
            states[name], _ = agent.step(states.get(name), heard(say(hour, 20 + n + hour % 3, offset=hour, scope=name)))
    return agent, states


def heard(statement) -> Heard:
    return Heard(statement, msgspec.json.encode(statement))


def alerts(outgoing) -> list[Alert]:
    return [msgspec.json.decode(record.value, type=Alert) for record in outgoing]


def test_a_young_team_is_measured_by_the_teams_of_its_partition_and_not_by_features():
    agent, _ = agent_of("team:a", "team:b", "team:c", "feature:x", "feature:y")
    state, said = agent.step(None, heard(say(24 * 6, 300, scope="team:new")))
    assert [(a.status, a.tier) for a in alerts(said)] == [("opened", "ticket")]
    assert agent.step(None, heard(say(24 * 6, 300, scope="feature:new")))[1] == []
    assert state.outlooks[24 * 6 * HOUR + say(0, 1).hour].is_cold


def test_budgets_are_those_that_are_defined_now():
    known = KnownDefinitions()
    monthly = MonthlyNow(known)
    assert monthly.get("team:search") is None
    budget = Budget(
        id="b", match=(("team", "search"),), target=Target("team", "search"), amount_nanos=100 * USD,
        period=Period("month"), thresholds=(),
    )  # fmt: skip
    known._now = Definitions(budgets={budget.key(): budget})
    assert dict(monthly) == {"team:search": 100 * USD}
    known._now = Definitions()
    assert monthly.get("team:search") is None


def test_what_people_said_is_heard_with_the_next_statement_and_when_time_passes():
    agent, states = agent_of("team:a")
    state, said = agent.step(states["team:a"], heard(say(24 * 6, 300, scope="team:a", offset=10_000)))
    [opened] = alerts(said)
    answer = AlertAnswer(
        alert=opened.dedup_key, rule=opened.rule, answer="no", teaches=opened.teaches, known_from=0,
        starts=parse_instant(opened.period_start), until=parse_instant(opened.period_end),
    )  # fmt: skip
    known = KnownDefinitions(Definitions().changed({answer.key(): answer}))
    agent._taught = LessonsNow(known)
    for after, said in (
        agent.tick(state),
        agent.step(state, heard(say(24 * 6, 301, scope="team:a", offset=10_001))),
    ):
        assert [alert.status for alert in alerts(said)] == ["resolved"]
        assert after.taken
        assert agent.tick(after) == (after, [])
