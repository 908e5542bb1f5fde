"""Why a firing alert is not told: another alert says it, somebody silenced it, or people rest."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from schemas.instants import SECOND
from streams.core.inhibition import Inhibitors
from streams.core.notifying import Silence, labels_of
from streams.core.quiet_hours import quiet_until
from streams.core.routes import Integration, QuietHours, Quiets
from streams.core.telling import Member

#: While something is muted its group asks again: a silence may end early, and what inhibits may be resolved elsewhere.
ASK_AGAIN_US = 30 * SECOND

MutedBy = Literal["inhibition", "silence", "quiet_hours"]


class Held(NamedTuple):
    """One reason why an alert is not told, and until when."""

    by: MutedBy
    #: The inhibiting alert's dedup key, the silence's id, or the name of the quiet hours.
    what: str
    quiets: Quiets
    #: When it ends by the clock, in microseconds; None: when something else does.
    until: int | None
    #: It lasts as long as the alert's episode: there is nothing to ask again.
    for_good: bool = False

    def mutes(self, integration: Integration) -> bool:
        """Whether it concerns an integration."""
        return self.quiets == "all" or integration.pages


def inhibited(member: Member, inhibitors: Inhibitors, now: int) -> Iterator[Held]:
    """By other alerts."""
    for found in inhibitors.of(member.alert, member.since, now):
        yield Held("inhibition", found.by, found.rule.quiets, found.until, found.rule.sticky)


def silenced(member: Member, silences: Sequence[Silence], now: int) -> Iterator[Held]:
    """By people; the silence that ends last speaks for all."""
    labels = labels_of(member.alert)
    found = [silence for silence in silences if silence.mutes(labels, now)]
    if found:
        last = max(found, key=lambda one: (one.ends, one.id))
        yield Held("silence", last.id, "all", last.ends)


def resting(member: Member, quiet: Iterable[QuietHours], now: int) -> Iterator[Held]:
    """By the hour."""
    for hours in quiet:
        if member.alert.severity not in hours.passes:
            until = quiet_until(hours, now)
            if until is not None:
                yield Held("quiet_hours", hours.name, hours.quiets, until)


def asks_again(held: Iterable[Held], now: int) -> int | None:
    """When a muted alert is to be looked at again, in microseconds; None: it stays muted to its end."""
    times = []
    for one in held:
        if one.for_good:
            continue
        if one.by == "quiet_hours" and one.until is not None:
            times.append(one.until)
        else:
            times.append(min(one.until or now + ASK_AGAIN_US, now + ASK_AGAIN_US))
    return min(times, default=None)
