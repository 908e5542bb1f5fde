"""What fits together in ``routes.yaml``: names that are used and names that are defined, routes that can be reached.

Asked of the document as written, not of valid entries, so that these errors are told together with all others.
"""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, get_args

from schemas.alerts import Rule, Severity, Tier
from streams.core.inhibition import BUILT_IN as INHIBITIONS
from streams.core.marked_yaml import Document, Path, Problem
from streams.core.matchers import matcher, parse_matcher
from streams.core.notifying import Matcher
from streams.core.routes import BUILT_IN, DASHBOARD, OWNER

_KINDS = ("pagerduty", "slack", "email", "webhook")
_VALUES = {"rule": get_args(Rule), "severity": get_args(Severity), "tier": get_args(Tier)}


def problems_of(document: Document) -> Iterator[Problem]:
    """Every contradiction in a routes file, each where it is written."""
    receivers = document.items("receivers")
    known = {*BUILT_IN, DASHBOARD, *(str(entry.get("name", "")) for _, entry in receivers)}
    hours = {str(entry.get("name", "")) for _, entry in document.items("quiet_hours")}
    for section in ("receivers", "quiet_hours", "inhibit"):
        yield from _repeated(document, section)
    yield from _receivers(receivers, known)
    root = document.data.get("route") if isinstance(document.data, dict) else None
    if isinstance(root, dict):
        if root.get("match"):
            yield Problem(("route", "match"), "the first route takes every alert: write match in the routes below it")
        if "receiver" not in root:
            yield Problem(("route",), "needs a receiver: whoever hears of what no route below it takes")
        yield from _route(document, ("route",), root, known | {OWNER}, hours, ())
    for path, entry in document.items("inhibit"):
        for side in ("source", "target"):
            yield from _matching((*path, side), entry.get(side))
    yield from _owners(document, known)
    for path in document.blanks:
        # A condition that is left out would take more than was meant.
        if "match" in path or path[2:3] in (("source",), ("target",)):
            yield Problem(path, "has no value; write one, or take the line out")


def _repeated(document: Document, section: str) -> Iterator[Problem]:
    built_in = {rule.name for rule in INHIBITIONS} if section == "inhibit" else set()
    seen: set[str] = set()
    for path, entry in document.items(section):
        name = str(entry.get("name", ""))
        if name in seen:
            yield Problem((*path, "name"), f"{name} is defined twice")
        if name in built_in:
            yield Problem((*path, "name"), f"{name} is built in: take another name, or say inhibit_defaults: false")
        seen.add(name)


def _receivers(receivers: list[tuple[Path, dict[str, Any]]], known: set[str]) -> Iterator[Problem]:
    for path, entry in receivers:
        name = str(entry.get("name", ""))
        if name in (OWNER, DASHBOARD):
            words = "whoever owners names" if name == OWNER else "nobody: every alert is on the dashboard"
            yield Problem((*path, "name"), f"{name} stands for {words}; take another name")
        elif not any(kind in entry for kind in _KINDS):
            yield Problem(path, "reaches nobody: give " + ", ".join(_KINDS[:-1]) + " or " + _KINDS[-1])
        fallback = entry.get("fallback")
        if fallback is not None:
            if fallback in (name, DASHBOARD):
                yield Problem((*path, "fallback"), "is told instead of this one: name another receiver")
            else:
                yield from _unknown((*path, "fallback"), str(fallback), known, "receiver")


def _route(
    document: Document, path: Path, entry: dict[str, Any], known: set[str], hours: set[str], inherited: tuple[str, ...]
) -> Iterator[Problem]:
    receivers = tuple(_texts(entry["receiver"])) if "receiver" in entry else inherited
    if "receiver" in entry:
        for name in receivers:
            yield from _unknown((*path, "receiver"), name, known, "receiver")
    for name in _texts(entry.get("quiet_hours")):
        yield from _unknown((*path, "quiet_hours"), name, hours, "quiet_hours")
    escalations = entry.get("escalate")
    for place, step in enumerate(escalations if isinstance(escalations, list) else ()):
        for name in _texts(step.get("to")) if isinstance(step, dict) else ():
            where = (*path, "escalate", place, "to")
            if name in receivers or name in (OWNER, DASHBOARD):
                yield Problem(where, f"{name} is told at once, or is nobody: escalate to another receiver")
            else:
                yield from _unknown(where, name, known, "receiver")
    below = entry.get("routes")
    taken: dict[tuple[Matcher, ...], int] = {}
    for place, child in enumerate(below if isinstance(below, list) else ()):
        if not isinstance(child, dict):
            continue
        where = (*path, "routes", place)
        yield from _matching((*where, "match"), child.get("match"))
        matchers = _readable(child.get("match"))
        if not child.get("match"):
            yield Problem(where, "needs match: without one it would take every alert, as the route above does already")
        elif matchers in taken:
            yield Problem(
                (*where, "match"), f"is never asked: the route in line {taken[matchers]} takes the same alerts"
            )
        elif matchers and str(child.get("continue", "")).lower() not in ("true", "yes", "on", "1"):
            taken[matchers] = document.line(where)
        yield from _route(document, where, child, known, hours, receivers)


def _matching(path: Path, value: object) -> Iterator[Problem]:
    """Values of labels that can have only some: a typing error there is a route that takes nothing."""
    for one in _readable(value):
        values = _VALUES.get(one.label)
        if values and one.op in ("=", "!=") and one.value not in values:
            yield Problem(path, f"there is no {one.label} {one.value!r}; there are " + ", ".join(values))


def _readable(value: object) -> tuple[Matcher, ...]:
    """The matchers as far as they can be read; what cannot is told by the field itself."""
    try:
        if isinstance(value, dict):
            return tuple(sorted((matcher(str(k), "=", str(v)) for k, v in value.items()), key=_written))
        return tuple(sorted((parse_matcher(text) for text in _texts(value)), key=_written))
    except ValueError:
        return ()


def _written(one: Matcher) -> tuple[str, str, str]:
    return one.label, one.op, one.value


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _unknown(path: Path, name: str, known: set[str], kind: str) -> Iterator[Problem]:
    if name not in known:
        close = get_close_matches(name, sorted(known), 1)
        yield Problem(
            path, f"there is no {kind} {name}" + (f"; did you mean {close[0]}?" if close else " in this file")
        )


def _owners(document: Document, known: set[str]) -> Iterator[Problem]:
    seen: set[tuple[str, str]] = set()
    for path, entry in document.items("owners"):
        given = [(name, str(entry[name])) for name in ("team", "budget", "name") if entry.get(name)]
        if len(given) != 1:
            yield Problem(path, "is the owner of one thing: give team, budget or name (team: '*' is everybody else)")
        elif given[0] in seen:
            yield Problem(path, f"a second owner of {given[0][0]} {given[0][1]}")
        seen.update(given)
        if not entry.get("address") and not entry.get("receiver"):
            yield Problem(path, "cannot be reached: give address or receiver")
        if entry.get("receiver"):
            yield from _unknown((*path, "receiver"), str(entry["receiver"]), known, "receiver")
