"""What a group says to whom, and when next: one function of values and ``now``.

The order is written once, in ``flush``: inhibit, silence, quiet hours, escalate, needs-update, say. Muting decides who
is told of an alert, never whether it fires: what was told as firing is told as ended, muted or not.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from streams.core.inhibition import Inhibitors
from streams.core.muting import Held, MutedBy, asks_again, inhibited, resting, silenced
from streams.core.notifying import Acknowledgement, Notification, Silence, Told
from streams.core.placing import Group, escalations, owned, placements
from streams.core.routes import Integration, Route, Routes
from streams.core.telling import Member, Standing, ended_of, knows, needs_update, say, thread_key

__all__ = ["Flushed", "Member", "Mute", "flush"]


class Mute(NamedTuple):
    """Why a firing alert is not told, for the dashboard."""

    dedup_key: str
    by: MutedBy
    #: The inhibiting alert's dedup key, the silence's id, or the name of the quiet hours.
    what: str
    #: Empty: whom it concerns at all; else only these integrations.
    receivers: tuple[str, ...] = ()


class Flushed(NamedTuple):
    """What a flush decided; all of it is written in one transaction."""

    notifications: tuple[Notification, ...]
    #: The ``Told`` of every receiver that has one, whether it changed or not. Those with nothing firing are to be kept:
    #: they count the incidents.
    told: tuple[Told, ...]
    #: When to flush again though no statement comes, in microseconds; None: never.
    due: int | None
    mutes: tuple[Mute, ...] = ()


class _Desk(NamedTuple):
    """What every receiver of the group is judged by."""

    group: Group
    route: Route | None
    routes: Routes
    integrations: Mapping[str, Integration]
    members: Mapping[str, Member]
    #: Of every alert that fires: why it is not told.
    held: Mapping[str, tuple[Held, ...]]
    #: Of the present episodes.
    acknowledged: Mapping[str, Acknowledgement]
    now: int

    def audible(self, integration: Integration) -> dict[str, Member]:
        """The alerts that fire and are not muted for an integration."""
        heard = (key for key, held in self.held.items() if not any(one.mutes(integration) for one in held))
        return {key: self.members[key] for key in heard}


def flush(
    group: Group,
    members: Sequence[Member],
    told: Sequence[Told],
    silences: Sequence[Silence],
    acknowledgements: Sequence[Acknowledgement],
    inhibitors: Inhibitors,
    routes: Routes,
    now: int,
) -> Flushed:
    """Decide what the group's receivers are owed now.

    The same values give the same notifications under the same ids, whatever ``now`` is: an id follows from the group,
    the receiver and how much it was told before. A group whose route is gone says only what ended.

    Args:
        members: every alert of the group whose newest statement fires, and every one that has ended and is still in
            the ``firing`` of some ``Told``.
        told: what each receiver was told last, at most one for each.
        silences: those in force, or all; ``now`` decides.
        acknowledgements: of the members, of any episode.
        inhibitors: made of all alerts that may silence others, once for many flushes.
    """
    route = routes.route(group.route)
    present = {one.alert.dedup_key: msgspec.structs.replace(one, alert=owned(one.alert, routes)) for one in members}
    firing = {key: member for key, member in present.items() if member.fires()} if route else {}
    held = {
        key: (
            *inhibited(member, inhibitors, now),
            *silenced(member, silences, now),
            *resting(member, route.quiet if route else (), now),
        )
        for key, member in firing.items()
    }
    in_hand = {one.dedup_key: one for one in acknowledgements if _is_of(one, firing)}
    desk = _Desk(group, route, routes, routes.integrations(), present, held, in_hand, now)
    tolds = {one.receiver: one for one in told}
    notifications: list[Notification] = []
    due: list[int | None] = [asks_again(each, now) for each in held.values()]
    # Those who are told at once come first: escalation counts from what they know.
    for integration in _receivers(desk, tolds):
        shown = {key: one for key, one in desk.audible(integration).items() if _hears(desk, tolds, integration.id, one)}
        escalates = any(integration.id not in member.receivers for member in shown.values())
        repeat_us = route.repeat_us if route else 0
        stands = Standing(present, shown, in_hand, integration.kind, escalates, repeat_us)
        knowing = _without_moved(tolds.get(integration.id), integration, desk)
        while (reason := needs_update(knowing, stands, now)) is not None:
            notification, knowing = say(knowing, reason, stands, group, integration.id, now)
            notifications.append(notification)
        if knowing is not None:
            tolds[integration.id] = knowing
            if shown and repeat_us and not stands.is_all_acknowledged():
                due.append(knowing.at + repeat_us)
    due += [at for key in held for at in _escalations(desk, tolds, desk.members[key]).values() if at > now]
    when = min((at for at in due if at is not None), default=None)
    return Flushed(tuple(notifications), tuple(tolds.values()), when, tuple(_mutes(desk)))


def _is_of(one: Acknowledgement, firing: Mapping[str, Member]) -> bool:
    member = firing.get(one.dedup_key)
    return member is not None and member.alert.episode == one.episode


def _receivers(desk: _Desk, tolds: Mapping[str, Told]) -> Iterator[Integration]:
    """Whom the group concerns: those its alerts are placed for, those it escalates to, and whoever was told before.

    An integration that the file has no more cannot be told anything.
    """
    placed = [name for member in desk.members.values() for name in member.receivers]
    steps = desk.route.escalations if desk.route else ()
    rules = [desk.routes.receivers[name] for step in steps for name in step.receivers if name in desk.routes.receivers]
    escalated = [each.id for rule in rules for each in rule.integrations]
    for name in dict.fromkeys((*placed, *escalated, *tolds)):
        if name in desk.integrations:
            yield desk.integrations[name]


def _hears(desk: _Desk, tolds: Mapping[str, Told], receiver: str, member: Member) -> bool:
    """Whether an alert concerns a receiver: it is placed for it, it was told of it before, or nobody acknowledged."""
    if receiver in member.receivers or knows(tolds.get(receiver), member):
        return True
    at = _escalations(desk, tolds, member).get(receiver)
    return at is not None and at <= desk.now


def _escalations(desk: _Desk, tolds: Mapping[str, Told], member: Member) -> dict[str, int]:
    """When an alert is told to whom because nobody acknowledged; nothing where somebody did, or nobody was told.

    Where it pages, it counts from the page: what was only written at night is no reason to wake the next one.
    """
    key = member.alert.dedup_key
    if desk.route is None or not desk.route.escalations or key not in desk.held or key in desk.acknowledged:
        return {}
    placed = [desk.integrations[name] for name in member.receivers if name in desk.integrations]
    asked = [one.id for one in placed if one.pages] or [one.id for one in placed]
    first = min(
        (tolds[one].since.get(key, tolds[one].at) for one in asked if knows(tolds.get(one), member)), default=None
    )
    if first is None:
        return {}
    found = {}
    for name, after_us in escalations(member.alert, desk.group, desk.routes).items():
        integration = desk.integrations.get(name)
        muted = integration is None or any(one.mutes(integration) for one in desk.held[key])
        if not muted and not knows(tolds.get(name), member):
            found[name] = first + after_us
    return found


def _without_moved(told: Told | None, integration: Integration, desk: _Desk) -> Told | None:
    """What a receiver knows, without the alerts that another group tells it of in the same thread: nothing ended."""
    if told is None:
        return None
    stands = Standing(desk.members, {}, {}, integration.kind)
    thread = thread_key(desk.group, integration.kind, told.incident)
    moved = set()
    for key in ended_of(told, stands):
        member = desk.members[key]
        if member.departed and member.alert.status != "resolved":
            elsewhere = [one.group for one in placements(member.alert, desk.routes) if integration.id in one.receivers]
            if any(thread_key(one, integration.kind, member.alert.episode) == thread for one in elsewhere):
                moved.add(key)
    if not moved:
        return told
    return msgspec.structs.replace(
        told,
        firing={key: marked for key, marked in told.firing.items() if key not in moved},
        since={key: at for key, at in told.since.items() if key not in moved},
        acknowledged=tuple(key for key in told.acknowledged if key not in moved),
    )


def _mutes(desk: _Desk) -> Iterator[Mute]:
    for key, held in desk.held.items():
        for one in held:
            pages = [name for name in desk.members[key].receivers if name in desk.integrations]
            pages = [name for name in pages if desk.integrations[name].pages]
            if one.quiets == "all":
                yield Mute(key, one.by, one.what)
            elif pages:
                yield Mute(key, one.by, one.what, tuple(pages))
