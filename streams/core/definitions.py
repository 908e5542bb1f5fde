"""What is defined at an instant: a snapshot that is replaced whole, so that one decision never sees half a change."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from schemas.answers import AlertAnswer, PlannedEvent
from schemas.budgets import Budget, Definition, Grant, Limit, OpeningBalance, Override, Run
from schemas.versions import UnknownVersionError

_decode = msgspec.json.Decoder(Definition).decode
_NONE: Mapping[str, Any] = MappingProxyType({})


class Definitions(NamedTuple):
    """All definitions that hold, by record key (``budget|search-daily``); ``changes`` counts what was taken in."""

    budgets: Mapping[str, Budget] = _NONE
    limits: Mapping[str, Limit] = _NONE
    overrides: Mapping[str, Override] = _NONE
    balances: Mapping[str, OpeningBalance] = _NONE
    runs: Mapping[str, Run] = _NONE
    grants: Mapping[str, Grant] = _NONE
    answers: Mapping[str, AlertAnswer] = _NONE
    planned: Mapping[str, PlannedEvent] = _NONE
    changes: int = 0

    def changed(self, changes: Mapping[str, Definition | None]) -> "Definitions":
        """The snapshot after these, by record key; None withdraws what the key held."""
        held: dict[str, dict[str, Any]] = {}
        for key, definition in changes.items():
            field = _FIELDS.get(key.partition("|")[0])
            if field is None:
                continue
            if field not in held:
                held[field] = dict(getattr(self, field))
            if definition is None:
                held[field].pop(key, None)
            else:
                held[field][key] = definition
        return self._replace(changes=self.changes + len(changes), **held)

    def of_budget(self, budget_id: str) -> Budget | None:
        """The budget of an id."""
        return self.budgets.get(f"budget|{budget_id}")


_FIELDS = {
    "budget": "budgets", "limit": "limits", "override": "overrides", "balance": "balances", "run": "runs",
    "grant": "grants", "answer": "answers", "planned": "planned",
}  # fmt: skip


def read_definition(value: bytes) -> Definition:
    """A definition as it lies on its topic.

    Raises:
        UnknownVersionError: a newer release wrote it.
        msgspec.DecodeError: it is none.
    """
    found: Definition = _decode(value)
    if found.v != 1:
        raise UnknownVersionError(f"{found.key()} of version {found.v}, and this release reads 1: run a later release")
    return found
