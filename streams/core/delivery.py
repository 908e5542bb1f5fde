"""How a message that is owed gets through: retries, the circuit and the rate limit of its receiver, the digest of what
was held back, and when the fallback is told. Pure: values and ``now`` in microseconds."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from schemas.instants import MINUTE, SECOND, format_instant
from schemas.keys import digest
from streams.core.notifying import Notification
from streams.core.routes import Kind, RateLimit, Routes
from streams.delivering import Failure, Standing, Turn, Waiting

#: The first pause between two attempts, and the longest.
BACKOFF_S, BACKOFF_S_MAX = 1.0, 300.0
#: What a receiver may ask for. Longer than this nobody leaves a page alone.
ASKED_S_MAX = 900.0
#: A message is tried for so long.
GIVE_UP_AFTER_US = 24 * 60 * MINUTE
#: So many failures in a row open a receiver's circuit, for the first pause or longer.
FAILURES_TO_OPEN = 5
OPEN_S, OPEN_S_MAX = 2.0, 15.0
#: While it is tried whether a receiver works again, nothing else is sent to it; longer than any attempt takes.
PROBE_US = 20 * SECOND
#: Who is told instead is told after so many failures of a message, or so long after it was owed and failed.
FALL_BACK_AFTER_TRIES, FALL_BACK_AFTER_US = 3, 10 * SECOND
#: What a receiver cannot be told at once waits for so long, and is then told in one message.
HOLD_US = 15 * SECOND
#: How many alerts a digest names.
DIGEST_LINES_MAX = 20
SEVERITIES = ("emergency", "critical", "warning", "info")
#: What the services document, and what a mailbox bears; a route's own ``rate_limit`` replaces it.
LIMITS: dict[Kind, RateLimit] = {
    "pagerduty": RateLimit(120, MINUTE),
    "slack": RateLimit(60, MINUTE),
    "email": RateLimit(60, MINUTE),
    "webhook": RateLimit(600, MINUTE),
}


def jitter(*parts: str) -> float:
    """A number in [0, 1) that the parts decide: workers that failed together do not come back together.

    >>> 0 <= jitter("a", "1") < 1, jitter("a", "1") == jitter("a", "1"), jitter("a", "1") == jitter("a", "2")
    (True, True, False)
    """
    return int(digest(*parts)[:13], 16) / 16**13


def retry_in_s(notification_id: str, attempt: int, owed_at: int, failure: Failure, now: int) -> float | None:
    """Seconds until the next attempt; None gives up.

    What the receiver asked for and up to a tenth more, else doubling from a second, of which between half and all.
    """
    if failure.is_permanent or now - owed_at >= GIVE_UP_AFTER_US:
        return None
    share = jitter(notification_id, str(attempt))
    if failure.asked_s is not None:
        return min(max(failure.asked_s, 0.0), ASKED_S_MAX) * (1 + share / 10)
    return float(min(BACKOFF_S * 2 ** min(attempt - 1, 16), BACKOFF_S_MAX)) * (0.5 + share / 2)


def after_success(standing: Standing) -> Standing:
    """How the receiver stands after it took a message; a pause that it asked for goes on."""
    until = standing.open_until if standing.opened_at is None else None
    return msgspec.structs.replace(standing, failures=0, open_until=until, opened_at=None)


def after_failure(receiver: str, standing: Standing, failure: Failure, started: int, now: int) -> Standing:
    """How the receiver stands after an attempt that began at ``started`` failed.

    What it asked for holds for everything owed to it. A message that was refused for good says nothing about the
    receiver but that it answers; and what was on its way when the circuit opened says nothing new.
    """
    if failure.is_permanent:
        return after_success(standing)
    if failure.asked_s is not None:
        # It works, and wants to be left alone.
        until = now + round(min(max(failure.asked_s, 0.0), ASKED_S_MAX) * SECOND)
        return msgspec.structs.replace(standing, failures=0, opened_at=None, open_until=until)
    if standing.opened_at is not None and started < standing.opened_at:
        return standing
    failures = standing.failures + 1
    if failures < FAILURES_TO_OPEN:
        return msgspec.structs.replace(standing, failures=failures)
    pause = min(OPEN_S * 2 ** min(failures - FAILURES_TO_OPEN, 16), OPEN_S_MAX)
    pause *= 0.5 + jitter(receiver, str(failures)) / 2
    return msgspec.structs.replace(
        standing, failures=failures, open_until=now + round(pause * SECOND), opened_at=standing.opened_at or now
    )


def is_down(standing: Standing) -> bool:
    """Whether the receiver's circuit is open or being tried."""
    return standing.opened_at is not None


@dataclass(frozen=True)
class Bucket:
    """A rate limit as tokens: never more than ``limit.messages`` in any span of ``limit.per_us``.

    A fifth may be sent at once; that and what refills in one span are a twentieth less than the limit, for what the
    network delays and then delivers together.
    """

    limit: RateLimit

    @property
    def size(self) -> int:
        """What may be sent at once."""
        return max(1, self.limit.messages // 5)

    @property
    def per_span(self) -> int:
        """What refills in one span."""
        return max(1, self.limit.messages * 19 // 20 - self.size)

    def filled(self, standing: Standing, now: int) -> float:
        """The tokens at ``now``."""
        if standing.tokens is None or standing.refilled_at is None:
            return float(self.size)
        gained = max(0, now - standing.refilled_at) * self.per_span / self.limit.per_us
        return min(float(self.size), standing.tokens + gained)


@dataclass(frozen=True)
class ReceiverPolicy:
    """What is decided for one receiver; implements ``streams.delivering.Policy``."""

    receiver: str
    bucket: Bucket | None = None
    #: It keeps incidents under a key: each has to be opened and ended there, so what is held back waits instead of
    #: going into a digest.
    keeps_incidents: bool = False
    hold_us: int = HOLD_US

    def turn(self, standing: Standing, due: int, room: int, now: int) -> Turn:
        """What to send of ``due`` messages where ``room`` can be sent at once."""
        if room <= 0 or not due or (standing.open_until is not None and now < standing.open_until):
            return Turn(0, False, standing)
        if is_down(standing):
            # One message tries whether it works again; if nobody answers for it, the next one may.
            turn = self._within_limit(standing, due, 1, now)
            return turn._replace(standing=msgspec.structs.replace(turn.standing, open_until=now + PROBE_US))
        return self._within_limit(msgspec.structs.replace(standing, open_until=None), due, room, now)

    def _within_limit(self, standing: Standing, due: int, room: int, now: int) -> Turn:
        if self.bucket is None:
            return Turn(min(due, room), False, standing)
        tokens = self.bucket.filled(standing, now)
        whole = int(tokens)
        digests, held_since = False, None
        if self.keeps_incidents or due <= whole:
            sends = min(due, room, whole)
        else:
            held_since = now if standing.held_since is None else standing.held_since
            # The last token is the digest's.
            sends = min(room, max(0, whole - 1))
            if whole and now - held_since >= self.hold_us:
                digests, held_since, sends = True, None, min(sends, room - 1)
        left = msgspec.structs.replace(
            standing, tokens=tokens - sends - digests, refilled_at=now, held_since=held_since
        )
        return Turn(sends, digests, left)

    def digest(self, held: Sequence[Notification], now: int) -> Notification:
        """One message instead of those that were held back, under an id that they decide."""
        return digest_of(self.receiver, held, now)

    def falls_back(self, waiting: Waiting, standing: Standing, now: int) -> bool:
        """Whether the fallback is to be told: the receiver is down, or has refused or failed this message."""
        if waiting.is_given_up or is_down(standing):
            return True
        is_late = waiting.attempts > 0 and now - waiting.owed_at >= FALL_BACK_AFTER_US
        return is_late or waiting.attempts >= FALL_BACK_AFTER_TRIES


def digest_of(receiver: str, held: Sequence[Notification], now: int) -> Notification:
    """What was held back in one message: each alert as it stands by the last of them, the worst first."""
    last = {alert.dedup_key: alert for one in held for alert in one.alerts}
    found = sorted(
        last.values(),
        key=lambda alert: (alert.status == "resolved", SEVERITIES.index(alert.severity), alert.stated_at),
    )
    lines = [
        f"{'Resolved' if alert.status == 'resolved' else alert.severity.capitalize()}: {alert.summary}"
        for alert in found[:DIGEST_LINES_MAX]
    ]
    # Of groups too large to be told whole the last message of a thread counts the rest.
    rest = Counter[str]()
    for one in {one.thread_key: one for one in held}.values():
        rest.update(one.held_back)
    ended = sum(alert.status == "resolved" for alert in found) + rest["ended"]
    count = len(found) + rest.total()
    if count > len(lines):
        lines.append(f"… and {count - len(lines):,} more: the dashboard shows all of them.")
    since = format_instant(min(one.decided_at for one in held))
    first = (
        f"Since {since} there was more to say than {receiver} may be sent. This message stands for {len(held)}"
        f" about {count:,} alerts, of which {ended:,} have ended."
    )
    ident = digest("digest", receiver, *sorted(one.notification_id for one in held))
    return Notification(
        notification_id=ident,
        receiver=receiver,
        thread_key=f"digest:{ident}",
        action="tell",
        reason="digest",
        alerts=(),
        heading=f"{len(held)} messages about {count:,} alerts were held back",
        paragraphs=(first, *lines),
        decided_at=now,
    )


def policies(routes: Routes, receivers: Sequence[tuple[str, bool]]) -> dict[str, ReceiverPolicy]:
    """A policy for each receiver, given with whether it keeps incidents."""
    known = routes.integrations()
    found = {}
    for name, keeps_incidents in receivers:
        rule = routes.rule_of(name)
        limit = rule.rate_limit if rule else None
        if limit is None and name in known:
            limit = LIMITS[known[name].kind]
        found[name] = ReceiverPolicy(name, Bucket(limit) if limit else None, keeps_incidents)
    return found
