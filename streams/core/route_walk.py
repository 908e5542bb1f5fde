"""Which way an alert goes through the routes, and why: what ``sluice routes test`` says."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, get_args

import msgspec

from schemas.alerts import Alert, Rule, Severity, Tier
from schemas.instants import SECOND, format_instant
from schemas.keys import alert_dedup_key, alert_id
from streams.core.inhibition import Inhibitors, Source, holds
from streams.core.matchers import written
from streams.core.muting import Held, inhibited, resting, silenced
from streams.core.notifying import LABEL_NAMES, Silence, labels_of
from streams.core.placing import Placement, escalations, matching, owned, placements
from streams.core.quiet_hours import quiet_until
from streams.core.routes import Inhibition, QuietHours, Route, Routes
from streams.core.telling import Member

#: What a field of an alert is called as a label, where that is another name.
_FIELDS = {"scope": "scope_id", "team": "team_id", "alert": "dedup_key"}
_WORDS = {"rule": get_args(Rule), "severity": get_args(Severity), "tier": get_args(Tier)}
_TAKEN = ("scope_type", "scope_id", "team_id", "feature", "owner", "dedup_key", "summary", "observed", "expected")


class Step(NamedTuple):
    """One route as the alert came past it."""

    depth: int
    route: Route
    is_taken: bool
    #: ``takes it``, which condition does not hold, or that it was not asked.
    why: str


class Told(NamedTuple):
    """One group that the alert would be told by."""

    placement: Placement
    route: Route
    #: Integration to the seconds after which it is told where nobody acknowledges.
    escalations: dict[str, float]
    #: What would keep it quiet now.
    held: tuple[Held, ...]
    #: Quiet hours that would hold it back at other times, and when they begin to matter is theirs to say.
    rests: tuple[QuietHours, ...]


class Explanation(NamedTuple):
    """Everything about one alert's way."""

    alert: Alert
    labels: dict[str, str]
    steps: tuple[Step, ...]
    told: tuple[Told, ...]
    #: Rules that would silence it while an alert of theirs fires.
    may_silence: tuple[Inhibition, ...]
    #: Why nobody is told, where that is so; else empty.
    nobody: str

    def receivers(self) -> tuple[str, ...]:
        """The integrations that are told at once, muted or not."""
        return tuple(name for one in self.told for name in one.placement.receivers)


def explain(
    alert: Alert, routes: Routes, now: int, firing: Sequence[Alert] = (), silences: Sequence[Silence] = ()
) -> Explanation:
    """Walk an alert through the routes at an instant.

    Args:
        firing: other alerts that fire, which may silence it.
    """
    alert = owned(alert, routes)
    labels = labels_of(alert)
    placed = placements(alert, routes)
    inhibitors = Inhibitors(routes, [Source(each) for each in firing])
    told = []
    for one in placed:
        route = routes.route(one.group.route)
        assert route is not None, "it was placed by it"
        member = Member(alert=alert, since=now, receivers=one.receivers)
        held = (
            *inhibited(member, inhibitors, now),
            *silenced(member, silences, now),
            *resting(member, route.quiet, now),
        )
        later = {name: after / SECOND for name, after in escalations(alert, one.group, routes).items()}
        rests = tuple(
            each for each in route.quiet if alert.severity not in each.passes and quiet_until(each, now) is None
        )
        told.append(Told(one, route, later, held, rests))
    rules = tuple(
        rule for rule in routes.inhibitions if holds(rule.target, labels) and (alert.ancestors or not rule.above)
    )
    return Explanation(
        alert, labels, tuple(_steps(alert, routes, labels)), tuple(told), rules, _nobody(alert, routes, placed)
    )


def _nobody(alert: Alert, routes: Routes, placed: Sequence[Placement]) -> str:
    if placed:
        return ""
    if alert.historic:
        return "it is history: shown on the dashboard, never told"
    if alert.tier == "note":
        return "it is a note: shown on the dashboard, and told only by routes with a matcher on tier"
    names = {name for path in matching(routes.root, labels_of(alert)) for name in path[-1].receivers}
    return f"{', '.join(sorted(names))} reaches nobody: the dashboard, or a receiver that the settings do not configure"


def _steps(alert: Alert, routes: Routes, labels: dict[str, str]) -> Iterator[Step]:
    final = {path[-1].id for path in matching(routes.root, labels)}
    on_the_way = {route.id for path in matching(routes.root, labels) for route in path}

    def walk(route: Route, depth: int, is_asked: bool) -> Iterator[Step]:
        wrong = next((one for one in route.matchers if not one.holds(labels)), None)
        if not is_asked:
            yield Step(depth, route, False, "not asked: a route before it has taken the alert")
        elif wrong is not None:
            value = labels.get(wrong.label, "")
            yield Step(depth, route, False, f"not {written(wrong)}: {wrong.label} is {value!r}")
        elif route.id in final:
            yield Step(depth, route, True, "takes it" + (", and goes on" if route.goes_on else ""))
        else:
            yield Step(depth, route, False, "matches, and a route below it takes it")
        if route.id in on_the_way:
            asked = True
            for below in route.routes:
                yield from walk(below, depth + 1, asked)
                asked = asked and (below.goes_on or not holds(below.matchers, labels))

    yield from walk(routes.root, 0, True)


def alert_of(pairs: Sequence[tuple[str, str]], now: int) -> Alert:
    """An alert to try the routes with, of labels as routes match on them; what is not given is like a budget's alert.

    Raises:
        ValueError: a rule, severity or tier that does not exist.
    """
    given = {(_FIELDS | LABEL_NAMES).get(name, name): value for name, value in pairs}
    for name, values in _WORDS.items():
        if name in given and given[name] not in values:
            raise ValueError(f"there is no {name} {given[name]!r}; there are " + ", ".join(values))
    rule = given.pop("rule", "budget_threshold")
    severity = given.pop("severity", "critical")
    tier = given.pop("tier", "page" if severity == "emergency" else "ticket")
    ancestors = tuple(each for each in given.pop("ancestors", "").split(",") if each)
    historic = given.pop("historic", "false").lower() in ("true", "yes", "1")
    fields = {"scope_type": "budget", "scope_id": "example"} | {
        name: given.pop(name) for name in _TAKEN if name in given
    }  # fmt: skip
    start = format_instant(now)
    key = fields.setdefault("dedup_key", alert_dedup_key(rule, f"{fields['scope_type']}:{fields['scope_id']}", start))
    said = {
        "alert_id": alert_id(key, 1, "opened"), "episode": 1, "status": "opened", "severity": severity, "tier": tier,
        "rule": rule, "summary": "An alert to try the routes with", "occurred_at": start, "stated_at": start,
        "ancestors": ancestors, "historic": historic, "labels": given,
    }  # fmt: skip
    return msgspec.convert(said | fields, Alert)
