"""One spend scope as DETECT hears it, for unit tests of spikes: what it costs by the hour, and what is said."""

from schemas.alerts import Alert
from schemas.instants import HOUR, MINUTE, parse_instant
from schemas.statements import Figures, HourStatement
from streams.core.composition import Composition
from streams.core.detect_spike import step_spike, tick_spike
from streams.core.detect_spike_policy import SpikePolicy, kind_of
from streams.core.detect_spike_state import SpikeState

USD = 1_000_000_000
MONDAY = parse_instant("2026-11-16T00:00:00Z")
POLICY = SpikePolicy(runbook="https://runbooks.example/spike", quiet_hours=1)


def say(
    hour: int,
    usd: float,
    *,
    offset: int = 1,
    at: int | None = None,
    scope: str = "team:search",
    partition: int = 0,
    by: dict[str, int] | None = None,
    **more,
) -> HourStatement:
    """The statement that hour ``hour`` after Monday has cost ``usd`` so far; ``at`` is minutes after Monday."""
    start = MONDAY + hour * HOUR
    stream_time = start + 59 * MINUTE if at is None else MONDAY + at * MINUTE
    figures = Figures(requests=1, input_tokens=1, cost_nanos=round(usd * USD))
    return HourStatement(
        scope=scope,
        hour=start,
        part=partition,
        rank=offset,
        reach={f"usage.events.v1@0-{partition}": stream_time},
        figures=figures,
        models={"gpt-4o": figures},
        by={kind_of(scope).parts: by} if by else {},
        **more,
    )


def stream_time(statement: HourStatement) -> int:
    """How far its sources had come."""
    return max(statement.reach.values())


def minutes(count: int) -> int:
    return MONDAY + count * MINUTE


class Scope:
    """One scope whose clock is the stream's: every statement is taken in at its own stream time."""

    def __init__(self, policy: SpikePolicy = POLICY, behind: int = 0) -> None:
        self.policy, self.behind = policy, behind
        self.state: SpikeState | None = None
        self.alerts: list[Alert] = []
        self.made_of = Composition()

    def hear(self, *statements: HourStatement) -> list[Alert]:
        said: list[Alert] = []
        for statement in statements:
            now = stream_time(statement) + self.behind
            self.made_of.take(statement)
            self.state, new = step_spike(self.state, statement, now, self.policy, None, self.made_of)
            said += new
        self.alerts += said
        return said

    def tick(self, now: int) -> list[Alert]:
        assert self.state is not None
        self.state, said = tick_spike(self.state, now + self.behind, self.policy)
        self.alerts += said
        return said


def taught(usd: float = 20.0, days: int = 4, scope: str = "team:search", **more) -> Scope:
    """A scope that has spent ``usd`` every hour for ``days`` days, and after four of them until noon."""
    found = Scope(**more)
    found.hear(*(say(hour, usd, offset=hour, scope=scope) for hour in range(NOON if days == 4 else 24 * days)))
    assert found.alerts == []
    return found


NOON = 24 * 4 + 12


def brief(alerts: list[Alert]) -> list[str]:
    return [alert.status for alert in alerts]
