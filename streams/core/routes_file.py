"""``routes.yaml``: which alerts go to whom, grouped how, and what keeps them quiet.

Every error is reported at once, each with its line. Without a file the routes are those of ``routes_default``.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from schemas.instants import MINUTE, SECOND
from streams.core.inhibition import BUILT_IN as INHIBITIONS
from streams.core.marked_yaml import Document, DocumentError, Path
from streams.core.matchers import written
from streams.core.notifying import LABEL_NAMES
from streams.core.placing import EACH
from streams.core.routes import (
    BUILT_IN,
    OWNER,
    Escalation,
    Integration,
    Kind,
    QuietHours,
    ReceiverRule,
    Route,
    Routes,
    Target,
)  # fmt: skip
from streams.core.routes_checks import problems_of
from streams.core.routes_default import built_in_receivers
from streams.core.routes_rows import ReceiverRow, RouteRow, RoutesFile

#: Where a route groups by something and says no more: pages are still out in time.
GROUP_WAIT_US = 2 * SECOND
GROUP_INTERVAL_US = MINUTE

_MISSING = {
    "pagerduty": "pagerduty_routing_key is not set",
    "slack": "neither slack_webhook_url nor slack_bot_token is set",
    "email": "smtp_host is not set",
}


class RoutesFileError(DocumentError):
    """The routes cannot be used; ``problems`` has one line for every error."""


class _Inherited(NamedTuple):
    """What a route has from the one above it; None: nothing was said yet."""

    receivers: tuple[str, ...] = ()
    group_by: tuple[str, ...] = (EACH,)
    wait_us: int | None = None
    interval_us: int | None = None
    repeat_us: int = 0
    quiet: tuple[QuietHours, ...] = ()
    escalations: tuple[Escalation, ...] = ()


def load_routes(text: str, configured: Collection[str] = BUILT_IN) -> Routes:
    """Read a file.

    Args:
        configured: those of ``pagerduty``, ``slack`` and ``email`` that the settings configure; a route that names
            another reaches nobody by it, which ``unreachable`` tells.

    Raises:
        RoutesFileError: with every error found, one line each, each naming its line.
    """
    try:
        document = Document(text)
        loaded = document.validate(RoutesFile, problems_of(document))
    except DocumentError as error:
        raise RoutesFileError(error.problems) from error
    hours = {row.name: row.hours_of() for row in loaded.quiet_hours}
    receivers = built_in_receivers(configured) | {row.name: _receiver(row) for row in loaded.receivers}
    own = tuple(row.inhibition() for row in loaded.inhibit)
    return Routes(
        root=_route(document, ("route",), loaded.route, "", _Inherited(), hours),
        receivers=receivers,
        inhibitions=(*(INHIBITIONS if loaded.inhibit_defaults else ()), *own),
        owners=tuple(row.owner() for row in loaded.owners),
    )


def unreachable(routes: Routes, configured: Collection[str]) -> list[str]:
    """What routes name and the settings do not configure, so that nobody would be reached by it: a line each."""
    named = {name for route in routes.root.walk() for name in route.receivers}
    named |= {name for route in routes.root.walk() for step in route.escalations for name in step.receivers}
    named |= {row.receiver for row in routes.owners if row.receiver}
    named |= {rule.fallback for rule in routes.receivers.values() if rule.fallback}
    if OWNER in named:
        named.add("email")
    problems = [
        f"routes name the receiver {name}, and {_MISSING[name]}"
        for name in BUILT_IN
        if name in named and name not in configured and _is_built_in(routes.receivers[name])
    ]
    by_mail = [each.id for each in routes.integrations().values() if each.kind == "email" and each.target is not None]
    if by_mail and "email" not in configured:
        problems.append(f"{', '.join(by_mail)} sends mail, and {_MISSING['email']}")
    return problems


def _is_built_in(rule: ReceiverRule) -> bool:
    return all(each.target is None for each in rule.integrations)


def _receiver(row: ReceiverRow) -> ReceiverRule:
    given: tuple[tuple[Kind, list[Target]], ...] = (
        ("pagerduty", [each.target() for each in row.pagerduty]),
        ("slack", [each.target() for each in row.slack]),
        ("email", [each.target() for each in row.email]),
        ("webhook", [each.target() for each in row.webhook]),
    )
    found = []
    for kind, targets in given:
        for number, target in enumerate(targets, 1):
            name = kind if row.name == kind else f"{row.name}/{kind}"
            pages = kind == "pagerduty" or (kind == "webhook" and row.pages)
            found.append(Integration(name if number == 1 else f"{name}/{number}", kind, target, pages))
    return ReceiverRule(row.name, tuple(found), row.fallback, row.rate_limit.limit() if row.rate_limit else None)


def _route(
    document: Document, path: Path, row: RouteRow, name: str, above: _Inherited, hours: Mapping[str, QuietHours]
) -> Route:
    said = _Inherited(
        receivers=above.receivers if row.receiver is None else tuple(row.receiver),
        group_by=above.group_by
        if row.group_by is None
        else tuple(LABEL_NAMES.get(each, each) for each in row.group_by),
        wait_us=above.wait_us if row.group_wait is None else row.group_wait,
        interval_us=above.interval_us if row.group_interval is None else row.group_interval,
        repeat_us=above.repeat_us if row.repeat_interval is None else row.repeat_interval,
        quiet=above.quiet if row.quiet_hours is None else tuple(hours[each] for each in row.quiet_hours),
        escalations=above.escalations
        if row.escalate is None
        else tuple(sorted((each.escalation() for each in row.escalate), key=lambda step: step.after_us)),
    )
    is_each = EACH in said.group_by
    children = []
    names: dict[str, int] = {}
    for place, child in enumerate(row.routes):
        below = name + "/{" + ", ".join(written(one) for one in child.match) + "}"
        names[below] = names.get(below, 0) + 1
        below += f"#{names[below]}" if names[below] > 1 else ""
        children.append(_route(document, (*path, "routes", place), child, below, said, hours))
    return Route(
        id=name or "/",
        matchers=tuple(row.match),
        receivers=said.receivers,
        group_by=said.group_by,
        wait_us=said.wait_us if said.wait_us is not None else 0 if is_each else GROUP_WAIT_US,
        interval_us=said.interval_us if said.interval_us is not None else 0 if is_each else GROUP_INTERVAL_US,
        repeat_us=said.repeat_us,
        goes_on=row.continue_,
        quiet=said.quiet,
        escalations=said.escalations,
        routes=tuple(children),
        line=document.line(path),
    )
