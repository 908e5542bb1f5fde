"""Where a contender finds its broker, topic, budgets and folder: the environment that the runner sets."""

import os
from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """One run of one contender."""

    bootstrap: str
    topic: str
    partitions: int
    #: Consumer group and prefix of every topic it makes; new for each run.
    group: str
    folder: Path
    budgets: Path

    def environment(self) -> dict[str, str]:
        """The variables that ``here`` reads."""
        return {f"BENCH_{name.upper()}": str(value) for name, value in self._asdict().items()}


def here() -> Place:
    """The place that this process was started for."""
    found = {name: os.environ[f"BENCH_{name.upper()}"] for name in Place._fields}
    return Place(
        found["bootstrap"],
        found["topic"],
        int(found["partitions"]),
        found["group"],
        Path(found["folder"]),
        Path(found["budgets"]),
    )
