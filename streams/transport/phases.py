"""Where the time of a restart goes: named phases that people can read in one line of the log."""

from streams.clock import elapsed_s


class Phases:
    """A stopwatch: ``ended`` gives the time since the last call to the phase that it names."""

    def __init__(self) -> None:
        self._began = self._last = elapsed_s()
        self._spent: dict[str, float] = {}

    def ended(self, phase: str) -> None:
        """A phase is over; one that comes again adds up."""
        now = elapsed_s()
        self._spent[phase] = self._spent.get(phase, 0.0) + now - self._last
        self._last = now

    @property
    def total_s(self) -> float:
        """Seconds since the beginning."""
        return elapsed_s() - self._began

    def __str__(self) -> str:
        return ", ".join(f"{spent:.2f} s {phase}" for phase, spent in self._spent.items()) or "nothing was done"
