"""``budgets.yaml``: who may spend how much in which period, what happens on the way there, and what is limited besides.

Every error is reported at once, each with its line. Amounts are read from their text, so no digit is lost.
"""

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from schemas.budgets import Budget, Definition, Grant, Limit
from streams.core.budget_checks import problems_of
from streams.core.budget_rows import BudgetRow, ExpensiveModel, GrantRow, LimitRow
from streams.core.budget_rungs import DEFAULT_LADDER
from streams.core.marked_yaml import Document, DocumentError

__all__ = ["DEFAULT_LADDER", "BudgetFile", "BudgetFileError", "definitions_of", "load_budget_file", "load_budgets"]


class BudgetFileError(DocumentError):
    """The budgets cannot be used; ``problems`` has one line for every error."""


class BudgetFile(NamedTuple):
    """Everything that a file defines. A grant without a team marks its model as expensive."""

    budgets: tuple[Budget, ...] = ()
    limits: tuple[Limit, ...] = ()
    grants: tuple[Grant, ...] = ()


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    budgets: list[BudgetRow] = Field(default=[], max_length=10_000)
    limits: list[LimitRow] = Field(default=[], max_length=10_000)
    expensive_models: list[ExpensiveModel] = Field(default=[], max_length=1_000)
    grants: list[GrantRow] = Field(default=[], max_length=10_000)


def load_budget_file(text: str) -> BudgetFile:
    """Read a file.

    Raises:
        BudgetFileError: with every error found, one line each, each naming its line.
    """
    try:
        document = Document(text)
        loaded = document.validate(_File, problems_of(document))
    except DocumentError as error:
        raise BudgetFileError(error.problems) from error
    expensive = [Grant(team_id="", model=model) for model in loaded.expensive_models]
    return BudgetFile(
        tuple(row.budget() for row in loaded.budgets),
        tuple(row.limit() for row in loaded.limits),
        (*expensive, *(row.grant() for row in loaded.grants)),
    )


def load_budgets(text: str) -> tuple[Budget, ...]:
    """Read the budgets of a file.

    Raises:
        BudgetFileError: with every error found, one line each, each naming its line.
    """
    return load_budget_file(text).budgets


def definitions_of(text: str) -> Mapping[str, Definition]:
    """Everything that a file defines, by the key under which it is published.

    Raises:
        BudgetFileError: with every error found, one line each, each naming its line.
    """
    loaded = load_budget_file(text)
    found: tuple[Definition, ...] = (*loaded.budgets, *loaded.limits, *loaded.grants)
    return {each.key(): each for each in found}
