"""One spend scope as DETECT hears it, for unit tests of spikes: what it costs by the hour, and what is said."""

from schemas.alerts import Alert
from schemas.instants import HOUR, MINUTE, parse_instant
from schemas.statements import ScopeStatement, Source
from streams.core.detect_spike import step_spike, tick_spike
from streams.core.detect_spike_policy import SpikePolicy
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
    segment: int = 0,
    revision: int = 0,
    by: dict[str, int] | None = None,
) -> ScopeStatement:
    """The statement that hour ``hour`` after Monday has cost ``usd`` so far; ``at`` is minutes after Monday."""
    start = MONDAY + hour * HOUR
    stream_time = start + 59 * MINUTE if at is None else MONDAY + at * MINUTE
    return ScopeStatement(
        scope=scope,
        period_start=start,
        period_end=start + HOUR,
        source=Source("usage.events.v1", 0, partition),
        segment=segment,
        revision=revision,
        offset=offset,
        cost_nanos=round(usd * USD),
        requests=1,
        tokens=1,
        stream_time=stream_time,
        arrived_at=stream_time,
        contributors=by or {},
    )


def minutes(count: int) -> int:
    return MONDAY + count * MINUTE


class Scope:
    """One scope whose clock is the stream's: every statement is taken in at its own stream time."""

    def __init__(self, policy: SpikePolicy = POLICY, behind: int = 0) -> None:
        self.policy, self.behind = policy, behind
        self.state: SpikeState | None = None
        self.alerts: list[Alert] = []

    def hear(self, *statements: ScopeStatement) -> list[Alert]:
        said: list[Alert] = []
        for statement in statements:
            now = statement.stream_time + self.behind
            self.state, new = step_spike(self.state, statement, now, self.policy)
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
