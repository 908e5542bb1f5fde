"""What an event has, and which of many conditions hold for it, without asking each of them."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from schemas.budgets import CALL_ATTRIBUTES, CELL_ATTRIBUTES, TAG

#: Attribute -> field of ``Dimensions``, and of the event where no cell has it.
CELL_FIELDS: Mapping[str, str] = {
    name: {"org": "org_id", "team": "team_id", "project": "project_id"}.get(name, name) for name in CELL_ATTRIBUTES
}
CALL_FIELDS: Mapping[str, str] = {name: f"{name}_id" for name in CALL_ATTRIBUTES}

Match = Iterable[tuple[str, str]]
#: Attribute -> the values that it may have.
Conditions = Mapping[str, frozenset[str]]
Values = Callable[[Any], tuple[str, ...]]


def is_attribute(name: str) -> bool:
    """Whether budgets can match on it.

    >>> [is_attribute(name) for name in ("team", "session", "tag:customer", "tag:", "planet")]
    [True, True, True, False, False]
    """
    return name in CELL_FIELDS or name in CALL_FIELDS or (name.startswith(TAG) and name != TAG)


def conditions_of(match: Match) -> Conditions:
    """The conditions of a match: every attribute, with one of its values."""
    found: dict[str, frozenset[str]] = {}
    for attribute, value in match:
        found[attribute] = found.get(attribute, frozenset()) | {value}
    return found


def values_of(attributes: Sequence[str]) -> Values:
    """Reads these attributes, none of which a cell has, from an event of any kind; empty where it has none."""
    fields = [CALL_FIELDS.get(attribute, "") for attribute in attributes]
    tags = [attribute.removeprefix(TAG) for attribute in attributes]

    def read(event: Any) -> tuple[str, ...]:
        carried = getattr(event, "tags", {})
        return tuple(
            [
                getattr(event, field, "") if field else carried.get(tag, "")
                for field, tag in zip(fields, tags, strict=True)
            ]
        )

    return read


def values_of_calls(attributes: Sequence[str]) -> Values:
    """``values_of``, for calls alone: as fast as can be where no tags are asked for."""
    fields = [CALL_FIELDS[attribute] for attribute in attributes if attribute in CALL_FIELDS]
    if len(fields) != len(attributes) or not fields:
        return values_of(attributes)
    if len(fields) == 1:
        get = attrgetter(fields[0])
        return lambda call: (get(call),)
    return attrgetter(*fields)


def pattern_of(patterns: Sequence[str]) -> Callable[[str], object]:
    """A test for names: whole ones, or with ``*`` for any characters.

    >>> free = pattern_of(["llama-*", "own"])
    >>> [bool(free(name)) for name in ("llama-3", "own", "owner", "a llama-3")]
    [True, True, False, False]
    """
    whole = "|".join(".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns)
    return re.compile(whole or "(?!)", re.DOTALL).fullmatch


class Index:
    """Finds the conditions that can hold. Each lies under the rarest that it asks for, so many are as fast as few."""

    def __init__(self, conditions: Sequence[Conditions]) -> None:
        self._always: list[int] = []
        self._under: dict[str, dict[str, list[int]]] = {}
        shared = Counter(
            (attribute, value) for each in conditions for attribute, values in each.items() for value in values
        )
        for position, each in enumerate(conditions):
            if not each:
                self._always.append(position)
                continue
            rarest = min(each, key=lambda attribute: sum(shared[attribute, value] for value in each[attribute]))
            for value in each[rarest]:
                self._under.setdefault(rarest, {}).setdefault(value, []).append(position)

    def candidates(self, value_of: Callable[[str], str | None]) -> list[int]:
        """The positions, in order, of those that can hold where attributes have these values; None: no value."""
        found = list(self._always)
        for attribute, positions in self._under.items():
            value = value_of(attribute)
            if value is not None:
                found += positions.get(value, ())
        return sorted(found)
