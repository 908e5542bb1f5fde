"""Single requests as a judge sees them: what the service sends of each, without the service."""

from detectors.base import Observation
from detectors.judging import UNKNOWN, Verdict
from detectors.runaway_request import RunawayRequest, Woken, news


class RequestJudge:
    """Every request above the limit is sent: a page where it is strange for the series and news, else a ticket.

    The score is above 1 where the size, or the number in its hour, is strange.
    """

    def __init__(self, limit: int = 50_000) -> None:
        self._requests = RunawayRequest(limit)
        self._woken: Woken | None = None

    def step(self, timestamp_us: int, value: float | None) -> Verdict:
        """Judge one request."""
        seen = Observation(timestamp_us, timestamp_us, value)
        score = self._requests.score_one(seen)
        if score is None:
            return UNKNOWN
        self._requests.learn_one(seen)
        self._woken, page = news(self._woken, timestamp_us, score)
        expected = None if score.expected is None else float(score.expected)
        return Verdict(expected, score.strangeness, page, score.excess > 0 and not page)
