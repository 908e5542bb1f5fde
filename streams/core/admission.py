"""Which combinations of attributes get a cell of their own; the excess is kept under ``__other__``.

Anybody can invent feature names, and each live cell costs memory, so a team has so many cells and a partition so many
in all. What is live decides, in offset order, and what is live is in the state. For a replay to admit the same ones two
things matter: cells of ``__other__`` do not count, and a team's own limit is asked before the partition's. Then a total
that was restored ahead of the watermark can neither take the place of one that came before it nor move a decision.
"""

from collections import Counter
from collections.abc import Iterable

from schemas.statements import Dimensions

#: What the excess is called in every dimension that it loses.
OTHER = "__other__"


class Admission:
    """Counts the live cells of one source partition by team."""

    def __init__(self, cells_max: int, team_cells_max: int) -> None:
        self._cells_max = cells_max
        self._team_cells_max = team_cells_max
        self._teams: Counter[tuple[str, str]] = Counter()
        self._count = 0

    def decide(self, dimensions: Dimensions) -> Dimensions:
        """The dimensions themselves, or those that they are folded under."""
        if self._teams[_team(dimensions)] >= self._team_cells_max:
            return _other(dimensions, dimensions.org_id, dimensions.cost_center, dimensions.team_id)
        if self._count >= self._cells_max:
            return _other(dimensions, OTHER, OTHER, OTHER)
        return dimensions

    def enter(self, dimensions: Dimensions) -> None:
        """A cell became live."""
        if not is_other(dimensions):
            self._teams[_team(dimensions)] += 1
            self._count += 1

    def leave(self, gone: Iterable[Dimensions]) -> None:
        """Cells left memory."""
        for dimensions in gone:
            if not is_other(dimensions):
                self._teams[_team(dimensions)] -= 1
                self._count -= 1


def is_other(dimensions: Dimensions) -> bool:
    """Whether a cell holds the excess of others."""
    return dimensions.feature == OTHER and dimensions.model == OTHER


def _team(dimensions: Dimensions) -> tuple[str, str]:
    return dimensions.org_id, dimensions.team_id


def _other(dimensions: Dimensions, org_id: str, cost_center: str, team_id: str) -> Dimensions:
    return Dimensions(
        org_id, cost_center, team_id, OTHER, OTHER, OTHER, OTHER, OTHER, "interactive", OTHER, dimensions.category
    )
