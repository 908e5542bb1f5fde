"""Which gateways are live, and how long they take to obey: what BUDGET remembers of answers across its budgets."""

from collections.abc import Mapping
from typing import NamedTuple

from schemas.instants import SECOND
from streams import metrics
from streams.core.budget_watch import LIVE_US, percentile95


class Heard(NamedTuple):
    """A gateway: when it was last heard, and what its last answer took, in microseconds."""

    at: int
    applied_at: int
    delay_us: int | None


class GatewaysHeard:
    """The gateways of the last five minutes. Order and repetition of what is heard do not matter."""

    def __init__(self) -> None:
        self._heard: dict[str, Heard] = {}

    def hear(self, name: str, heard: Heard) -> None:
        """Of each gateway the last answer that a delay can be told from counts, whichever budget it was to."""
        known = self._heard.get(name)
        if known is not None:
            is_older = heard.delay_us is None or (known.delay_us is not None and heard.applied_at < known.applied_at)
            heard = (known if is_older else heard)._replace(at=max(known.at, heard.at))
        self._heard[name] = heard

    def live(self, now: int) -> Mapping[str, int]:
        """When each live gateway was last heard."""
        for name in [name for name, heard in self._heard.items() if now - heard.at >= LIVE_US]:
            del self._heard[name]
        metrics.GATEWAYS_LIVE.set(len(self._heard))
        return {name: heard.at for name, heard in self._heard.items()}

    def delay_us(self, now: int) -> int:
        """From command to acknowledgement, at the 95th percentile of the live gateways."""
        found = [heard.delay_us for heard in self._heard.values() if now - heard.at < LIVE_US]
        delay = percentile95(each for each in found if each is not None)
        metrics.ENFORCEMENT_P95_SECONDS.set(delay / SECOND)
        return delay
