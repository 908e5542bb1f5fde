"""The shipped detectors as judges of one series, by the kind of what it holds."""

from detectors.gpu_judge import GpuJudge
from detectors.judging import Judge, Kind, Verdict
from detectors.request_judge import RequestJudge
from detectors.series_judge import SeriesJudge
from detectors.spend_judge import SpendJudge


def make_judge(kind: Kind, step_us: int, floor: float | None = None) -> Judge:
    """The shipped detector for a series of this kind with rows every ``step_us``, knowing nothing yet.

    ``floor`` is in the unit of the values (dollars, where they are dollars); None: it scales with the series.

    Raises:
        ValueError: the step is not above zero, or the kind is unknown.
    """
    if step_us <= 0:
        raise ValueError("the step of a series is a time above zero")
    if kind == "spend":
        return AnyRows(step_us) if floor is None else SpendJudge(step_us, floor)
    if kind == "gpu":
        return GpuJudge(step_us)
    if kind == "requests":
        return RequestJudge()
    raise ValueError(f"a series is of spend, gpu or requests, and not of {kind!r}")


class AnyRows:
    """Rows of nobody knows what: each has a score of its own, up or down, and a ticket where that is high; what pages
    is what the running hour comes to, as of spend.
    """

    def __init__(self, step_us: int) -> None:
        self._rows, self._hours = SeriesJudge(step_us), SpendJudge(step_us, None)

    def step(self, timestamp_us: int, value: float | None) -> Verdict:
        """Judge one row, then learn it."""
        row, hour = self._rows.step(timestamp_us, value), self._hours.step(timestamp_us, value)
        return Verdict(row.expected, row.score, hour.page, row.ticket and not hour.page)
