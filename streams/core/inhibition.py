"""Alerts that silence others: which do, whom, and until when.

Two sides that both match a rule's source and target silence each other never: of two that are alike one has to speak.
"""

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

import msgspec

from schemas.alerts import Alert, Drivers
from schemas.instants import SECOND
from streams.core.notifying import Matcher, labels_of
from streams.core.routes import Inhibition, Routes

#: A source that has ended silences for so long: what ends with it (a period) ends a moment later, and must not speak.
LINGER_US = 15 * SECOND
_PARTS = ("volume", "model_mix", "tokens_per_request", "cache", "price")

EMERGENCY = Inhibition(
    name="emergency",
    source=(Matcher("rule", "=", "budget_threshold"), Matcher("severity", "=", "emergency")),
    target=(
        Matcher("rule", "=~", "budget_threshold|budget_forecast"),
        Matcher("severity", "=~", "info|warning|critical"),
    ),
    equal=("scope_type", "scope"),
)
ONE_PAGE = Inhibition(
    name="one-page",
    source=(Matcher("rule", "=", "budget_threshold"), Matcher("tier", "=", "page")),
    target=(Matcher("scope_type", "=", "budget"), Matcher("tier", "=", "page")),
    above=True,
    # Who was spared the page at first is not woken when the budget above is raised or its period ends.
    sticky=True,
    quiets="pages",
    wait_us=2 * SECOND,
)
ONE_SPIKE = Inhibition(
    name="one-spike",
    source=(Matcher("rule", "=", "spend_spike"), Matcher("scope_type", "=", "org")),
    target=(Matcher("rule", "=", "spend_spike"), Matcher("scope_type", "=", "team")),
    unless_differs=True,
    wait_us=2 * SECOND,
)
#: What silences what without anybody saying so; ``inhibit_defaults: false`` in the file turns it off.
BUILT_IN = (EMERGENCY, ONE_PAGE, ONE_SPIKE)


class Source(msgspec.Struct, frozen=True):
    """An alert that may silence others: one that fires, or has ended lately."""

    alert: Alert
    #: When its end was recorded, in microseconds; None: it fires.
    ended_at: int | None = None


class Inhibited(NamedTuple):
    """By which rule and alert something is silenced."""

    rule: Inhibition
    #: The source's dedup key.
    by: str
    #: When it ends by itself, in microseconds; None: when the source does, or never.
    until: int | None


def may_inhibit(alert: Alert, routes: Routes) -> bool:
    """Whether an alert is a source of any rule: only those need to be loaded for ``Inhibitors``."""
    labels = labels_of(alert)
    return not alert.historic and any(holds(rule.source, labels) for rule in routes.inhibitions)


def grace_us(alert: Alert, routes: Routes) -> int:
    """How long an alert waits for those that may silence it, in microseconds."""
    labels = labels_of(alert)
    waits = [
        rule.wait_us
        for rule in routes.inhibitions
        if rule.wait_us and (alert.ancestors or not rule.above) and holds(rule.target, labels)
    ]
    return max(waits, default=0)


def holds(matchers: Iterable[Matcher], labels: dict[str, str]) -> bool:
    """Whether all of them do."""
    return all(matcher.holds(labels) for matcher in matchers)


class _Indexed(NamedTuple):
    source: Source
    is_target_too: bool


class Inhibitors:
    """The sources, found by what they share with their targets."""

    def __init__(self, routes: Routes, sources: Iterable[Source]) -> None:
        """Index the sources: the firing ones, and of ended ones those that ended since the oldest ``Member.since``
        of the groups to be flushed or within ``LINGER_US``."""
        self._rules = routes.inhibitions
        self._found: dict[tuple[int, tuple[str, ...]], list[_Indexed]] = {}
        for source in sources:
            if source.alert.historic:
                continue
            labels = labels_of(source.alert)
            for number, rule in enumerate(self._rules):
                if holds(rule.source, labels):
                    shared = self._shared(rule, labels, source.alert.scope_id)
                    found = _Indexed(source, holds(rule.target, labels))
                    self._found.setdefault((number, shared), []).append(found)

    def of(self, alert: Alert, since: int, now: int) -> tuple[Inhibited, ...]:
        """What silences an alert whose episode began at ``since``: of each rule the source that does so longest."""
        if not self._found:
            return ()
        labels = labels_of(alert)
        silenced = []
        for number, rule in enumerate(self._rules):
            if not holds(rule.target, labels):
                continue
            is_source_too = holds(rule.source, labels)
            by = []
            for above in alert.ancestors if rule.above else ("",):
                for source, is_target_too in self._found.get((number, self._shared(rule, labels, above)), ()):
                    if source.alert.dedup_key == alert.dedup_key:
                        continue
                    # Budgets above cannot be below as well, so there both sides may be alike.
                    if is_target_too and is_source_too and not rule.above:
                        continue
                    if rule.unless_differs and not is_explained(alert, source.alert):
                        continue
                    ends = _ends(rule, source, since)
                    if ends is None or now < ends:
                        by.append(Inhibited(rule, source.alert.dedup_key, ends))
            silenced += sorted(by, key=lambda one: (one.until is not None, -(one.until or 0), one.by))[:1]
        return tuple(silenced)

    @staticmethod
    def _shared(rule: Inhibition, labels: dict[str, str], above: str) -> tuple[str, ...]:
        shared = tuple(labels.get(label, "") for label in rule.equal)
        return (*shared, above) if rule.above else shared


def _ends(rule: Inhibition, source: Source, since: int) -> int | None:
    """When a source's silence ends for an alert that began at ``since``; None: not by the clock."""
    if source.ended_at is None:
        return None
    if source.ended_at < since:
        return 0
    return None if rule.sticky else source.ended_at + LINGER_US


def is_explained(target: Alert, source: Alert) -> bool:
    """Whether the excess of an organisation explains a team's: then one alert says both.

    A team **differs**, and is told by itself, where any of these holds:

    - its excess is greater than the organisation's: others fell while it rose, so the organisation's figure hides it;
    - the organisation's alert names the teams that drive it, and this one is not among them;
    - both say what their excess is made of, and its largest part is another (dearer models here, more requests there);
    - both name features, models or keys behind it, and have none in common.
    """
    ours, theirs = _excess(target), _excess(source)
    if ours is not None and theirs is not None and ours > theirs:
        return False
    teams = _names(source, "team")
    if not teams and source.drivers is None:
        teams = {one.name for one in source.top_contributors}
    if teams and target.team_id not in teams:
        return False
    if target.drivers is None or source.drivers is None:
        return True
    if _largest(target.drivers) != _largest(source.drivers):
        return False
    behind = [
        {(one.kind, one.name) for one in each.by if one.kind != "team"} for each in (target.drivers, source.drivers)
    ]
    return not all(behind) or bool(behind[0] & behind[1])


def _names(alert: Alert, kind: str) -> set[str]:
    return {one.name for one in alert.drivers.by if one.kind == kind} if alert.drivers else set()


def _excess(alert: Alert) -> Decimal | None:
    try:
        return Decimal(alert.observed) - Decimal(alert.expected)
    except InvalidOperation:
        return None


def _largest(drivers: Drivers) -> str:
    return max(_PARTS, key=lambda part: Decimal(getattr(drivers, part)))
