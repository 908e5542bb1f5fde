"""Which groups an alert belongs to: the walk down the tree of routes."""

from collections.abc import Iterator

import msgspec

from schemas.alerts import Alert
from schemas.keys import digest
from streams.core.inhibition import grace_us, holds
from streams.core.notifying import labels_of
from streams.core.routes import OWNER, Email, Owner, Route, Routes

#: The label that makes every alert a group of its own.
EACH = "alert"


class Group(msgspec.Struct, frozen=True):
    """Alerts that are told together: those of one route that share the labels of its ``group_by``."""

    #: Derived from the route's id and the labels; at most 255 characters.
    key: str
    #: ``Route.id``.
    route: str
    labels: dict[str, str]
    #: The thread of its first incident: the alert's own dedup key where every alert is a group of its own.
    thread: str


class Placement(msgspec.Struct, frozen=True):
    """One group of an alert, and whom this alert is told to by it."""

    group: Group
    #: Ids of integrations. One that an earlier placement of the same alert has is not here: nobody is told twice.
    receivers: tuple[str, ...]
    #: How long the group's first message waits for others; never less than ``grace_us``.
    wait_us: int
    #: How long after the group's last flush a change of it waits.
    interval_us: int
    #: How long this alert waits for those that may silence it.
    grace_us: int = 0


def placements(alert: Alert, routes: Routes) -> tuple[Placement, ...]:
    """The groups that an alert which fires belongs to, in the order of the tree; none for what is only shown.

    Asked of firing statements (``opened``, ``updated``). A resolved one ends the alert in the groups that it is in,
    whatever its labels have become; one that a later statement places elsewhere has departed from the others.

    History is shown and never told. A note is told only by routes that ask for it, with a matcher on ``tier``.
    """
    if alert.historic:
        return ()
    alert = owned(alert, routes)
    labels = labels_of(alert)
    grace = grace_us(alert, routes)
    found = []
    served: set[str] = set()
    for path in matching(routes.root, labels):
        route = path[-1]
        if alert.tier == "note" and not any(one.label == "tier" for each in path for one in each.matchers):
            continue
        receivers = tuple(one for one in _addressed(alert, route, routes) if one not in served)
        if receivers:
            served.update(receivers)
            group = _group(route, labels, routes)
            found.append(Placement(group, receivers, max(route.wait_us, grace), route.interval_us, grace))
    return tuple(found)


def escalations(alert: Alert, group: Group, routes: Routes) -> dict[str, int]:
    """Whom a group may escalate an alert to, and how long after its first word, in microseconds.

    Where an alert is in several groups, the first of them escalates it; who is told at once is not told again.
    """
    placed = placements(alert, routes)
    served = {name for each in placed for name in each.receivers}
    found: dict[str, int] = {}
    for each in placed:
        route = routes.route(each.group.route)
        steps: dict[str, int] = {}
        for step in route.escalations if route else ():
            rules = [routes.receivers[name] for name in step.receivers if name in routes.receivers]
            for integration in (one for rule in rules for one in rule.integrations):
                if integration.id not in served:
                    steps.setdefault(integration.id, step.after_us)
        served.update(steps)
        if each.group.key == group.key:
            found = steps
    return found


def matching(root: Route, labels: dict[str, str]) -> Iterator[tuple[Route, ...]]:
    """The routes that take an alert, each as the way down to it: the deepest that match, the first of siblings, and
    those after it while they ``continue``."""
    if not holds(root.matchers, labels):
        return
    is_taken = False
    for below in root.routes:
        for path in matching(below, labels):
            is_taken = True
            yield (root, *path)
        if not below.goes_on and holds(below.matchers, labels):
            break
    if not is_taken:
        yield (root,)


def due_at(placement: Placement, alert: Alert, flushed_at: int | None, now: int) -> int:
    """When the group is to be flushed for a firing statement, in microseconds; the earlier of this and what it is.

    A page joins a group that has spoken already without waiting for the group's interval.

    Args:
        flushed_at: the group's last flush since it has had firing members; None: there was none.
    """
    if flushed_at is None:
        return now + placement.wait_us
    if alert.tier == "page":
        return min(now + placement.wait_us, max(now + placement.grace_us, flushed_at + placement.interval_us))
    return max(now + placement.grace_us, flushed_at + placement.interval_us)


def owned(alert: Alert, routes: Routes) -> Alert:
    """The alert with the owner that ``owners`` has for its budget, its owner's name, its team, or everybody else.

    A budget's own row goes before the owner that ``budgets.yaml`` names, and that one before its team's row.
    """
    row = owner_row(alert, routes)
    if row is None or not row.address or row.address == alert.owner:
        return alert
    return msgspec.structs.replace(alert, owner=row.address)


def owner_row(alert: Alert, routes: Routes) -> Owner | None:
    """The row of ``owners`` that an alert falls to, if any."""
    if not routes.owners:
        return None
    budget = alert.scope_id.partition("#")[0] if alert.scope_type == "budget" else ""
    for row in routes.owners:
        if row.budget and row.budget in (budget, alert.scope_id):
            return row
    if alert.owner:
        addressed = next((row for row in routes.owners if row.name == alert.owner or row.address == alert.owner), None)
        if addressed is not None or "@" in alert.owner:
            return addressed
    team = next((row for row in routes.owners if row.team and row.team == alert.team_id), None)
    return team or next((row for row in routes.owners if row.team == "*"), None)


def _addressed(alert: Alert, route: Route, routes: Routes) -> Iterator[str]:
    """The integrations that a route tells of an alert, ``owner`` looked up."""
    for name in route.receivers:
        if name == OWNER:
            row = owner_row(alert, routes)
            name = row.receiver if row and row.receiver else "email"
        rule = routes.receivers.get(name)
        if rule is not None:
            yield from (each.id for each in rule.integrations)


def _group(route: Route, labels: dict[str, str], routes: Routes) -> Group:
    by = route.group_by
    if EACH not in by and _is_private(route, routes):
        # What goes to an owner is grouped by owner, or one team would read of another's money.
        by = tuple(dict.fromkeys((*by, "owner", "team")))
    shared = {label: labels.get(label, "") for label in by}
    parts = [text for pair in sorted(shared.items()) for text in pair]
    key = "v1:group:" + digest("group", route.id, *parts)
    return Group(key, route.id, shared, labels[EACH] if EACH in by else key)


def _is_private(route: Route, routes: Routes) -> bool:
    """Whether the route tells owners: by name, by the built-in mail, or by an address that is ``owner``."""
    if OWNER in route.receivers:
        return True
    rules = [routes.receivers[name] for name in route.receivers if name in routes.receivers]
    return any(
        each.kind == "email" and (each.target is None or (isinstance(each.target, Email) and OWNER in each.target.to))
        for rule in rules
        for each in rule.integrations
    )
