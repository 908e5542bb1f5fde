"""What the money of a scope's hours is made of: what partitions have stated of hours that may still change, and what is
usual, learned from those that cannot. Alerts are told from it why an hour is dear, and by whom.

An hour's parts replace each other by their rank, so what is known of it is a function of the newest ones. What is usual
follows hours when they are frozen, which is when nothing can change them any more; hours that were incidents are left
out.
"""

from collections.abc import Mapping
from fractions import Fraction
from itertools import islice

import msgspec

from schemas.alerts import Contributor, Drivers
from schemas.instants import HOUR
from schemas.money import format_usd
from schemas.statements import Figures, HourStatement
from schemas.versions import Versioned
from streams.core import detect_words as words
from streams.core.drivers import contributions, split_against, told
from streams.core.lanes import OTHERS
from streams.core.rollup import usage

#: What is usual is remembered of so many models, and of so many names of each kind.
MODELS_KEPT, NAMES_KEPT = 6, 4
#: How fast it follows.
_FOLLOW = 24

Names = Mapping[str, Mapping[str, int]]


class Usual(msgspec.Struct, frozen=True, kw_only=True):
    """What an hour of a scope is usually made of."""

    v: int = 1
    #: So many hours were learned, up to those that count; hours before ``until`` are not learned again.
    hours: int = 0
    until: int = 0
    models: dict[str, Figures] = {}
    by: dict[str, dict[str, int]] = {}

    def after(self, hour: int, models: Mapping[str, Figures], by: Names) -> "Usual":
        """With another hour in it."""
        weight = min(self.hours + 1, _FOLLOW)
        mixed = {
            name: _towards(self.models.get(name, _NONE), models.get(name, _NONE), weight)
            for name in sorted(self.models.keys() | models.keys())
        }
        ranked = sorted(mixed.items(), key=lambda item: (item[0] == OTHERS, -item[1].cost_nanos, item[0]))
        kept = {name: each for name, each in ranked[:MODELS_KEPT] if any(each.numbers())}
        for _, each in ranked[MODELS_KEPT:]:
            kept[OTHERS] = kept.get(OTHERS, _NONE).plus(each)
        names = {
            kind: _names_towards(self.by.get(kind, {}), by.get(kind, {}), weight)
            for kind in sorted(self.by.keys() | by.keys())
        }
        return Usual(hours=weight, until=hour + HOUR, models=kept, by=names)


USUALS = Versioned("what is usual of a scope", Usual)
_NONE = Figures()


class Composition:
    """All of one scope: of each hour that may still change the newest statement of each part, and what is usual."""

    __slots__ = ("hours", "usual")

    def __init__(self, usual: Usual | None = None) -> None:
        self.usual = Usual() if usual is None else usual
        self.hours: dict[int, dict[int, HourStatement]] = {}

    def take(self, statement: HourStatement) -> bool:
        """Put a part in its place; False where it says nothing new."""
        parts = self.hours.setdefault(statement.hour, {})
        known = parts.get(statement.part)
        if known is not None and _rank(known) >= _rank(statement):
            return False
        parts[statement.part] = statement
        return True

    def models(self, hour: int) -> dict[str, Figures]:
        """An hour by model, over all parts."""
        found: dict[str, Figures] = {}
        for each in self.hours.get(hour, {}).values():
            for model, figures in each.models.items():
                found[model] = found[model].plus(figures) if model in found else figures
        return found

    def by(self, hour: int) -> dict[str, dict[str, int]]:
        """An hour's nanodollars by kind and name, over all parts."""
        found: dict[str, dict[str, int]] = {}
        for each in self.hours.get(hour, {}).values():
            for kind, names in each.by.items():
                known = found.setdefault(kind, {})
                for name, nanos in names.items():
                    known[name] = known.get(name, 0) + nanos
        return found

    def freeze(self, before: int, odd: frozenset[int]) -> list[HourStatement]:
        """Learn the hours that began before an instant, but for ``odd`` ones, and let go of them; returns what they
        were made of."""
        gone: list[HourStatement] = []
        for hour in sorted(hour for hour in self.hours if hour < before):
            if hour not in odd and hour >= self.usual.until:
                self.usual = self.usual.after(hour, self.models(hour), self.by(hour))
            gone += self.hours.pop(hour).values()
        return gone

    def organisation(self, hour: int) -> str:
        """To whom most of an hour's money belongs; empty where nobody says."""
        names = self.by(hour).get("org", {})
        return max(names, key=lambda name: (names[name], name), default="")

    def contributors(self, kind: str, hour: int) -> list[tuple[str, int]]:
        """Who spent most of an hour, the largest first, of one kind of names; of ``model`` too."""
        names = self._names(hour).get(kind, {})
        return sorted(names.items(), key=lambda item: (-item[1], item[0]))

    def usual_cost(self, requests: int) -> int:
        """What so many requests cost where all is as usual, nanodollars; 0 where nothing is known."""
        known = sum(each.requests for each in self.usual.models.values())
        cost = sum(each.cost_nanos for each in self.usual.models.values())
        return cost * requests // known if known > 0 and cost > 0 else 0

    def drivers(self, hour: int, expected_nanos: int) -> Drivers | None:
        """Why an hour cost more than was expected, exactly, and by whom; None while nothing is known to be usual."""
        if not self.usual.hours:
            return None
        after, before = self.models(hour), self.usual.models
        parts = split_against(
            expected_nanos, {m: usage(f) for m, f in before.items()}, {m: usage(f) for m, f in after.items()}
        )
        cost = sum(each.cost_nanos for each in before.values())
        scale = Fraction(expected_nanos, cost) if cost > 0 else Fraction(1)
        usual = self.usual.by | {"model": {name: each.cost_nanos for name, each in before.items()}}
        # Whose keys it was is only known of strange hours: nothing is usual there.
        by = contributions(_flat(usual), _flat(self._names(hour)), scale)
        return told(parts, [one for one in by if one.kind != "org" and one.name != OTHERS])

    def _names(self, hour: int) -> dict[str, dict[str, int]]:
        return self.by(hour) | {"model": {name: each.cost_nanos for name, each in self.models(hour).items()}}


def listed(names: list[tuple[str, int]]) -> list[Contributor]:
    """Contributors as an alert has them."""
    return [Contributor(words.clip(name), format_usd(nanos)) for name, nanos in islice(names, 5)]


def _rank(statement: HourStatement) -> tuple[int, bool]:
    # Said once more when it is over.
    return statement.rank, statement.is_over


def _flat(names: Names) -> dict[tuple[str, str], int]:
    return {(kind, name): nanos for kind, each in names.items() for name, nanos in each.items()}


def _towards(usual: Figures, seen: Figures, weight: int) -> Figures:
    return Figures(*(old + (new - old) // weight for old, new in zip(usual.numbers(), seen.numbers(), strict=True)))


def _names_towards(usual: Mapping[str, int], seen: Mapping[str, int], weight: int) -> dict[str, int]:
    names = {
        name: usual.get(name, 0) + (seen.get(name, 0) - usual.get(name, 0)) // weight
        for name in usual.keys() | seen.keys()
    }
    ranked = sorted(names.items(), key=lambda item: (-item[1], item[0]))
    return {name: nanos for name, nanos in ranked[:NAMES_KEPT] if nanos > 0}


__all__ = ["USUALS", "Composition", "Usual", "listed"]
