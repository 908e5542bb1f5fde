"""Opening every gate at once, and closing the matter again: what is said under the release key, under what revision."""

from schemas import keys
from schemas.commands import RELEASE_KEY, Target, ThrottleCommand
from schemas.instants import DAY, HOUR, SECOND, format_instant, parse_instant

#: Named so in place of a budget; the command concerns every call.
RELEASE_ID = "release"
EVERYONE = Target("org", "*")
LONGEST = 7 * DAY


def release(previous: ThrottleCommand | None, until: int, by: str, why: str, now: int) -> ThrottleCommand:
    """Every gate is open from now until ``until``, whatever budgets say."""
    return _said(previous, now, "release", until, f"All throttling is lifted until {_clock(until)} by {by}: {why}")


def end_release(previous: ThrottleCommand | None, by: str, why: str, now: int) -> ThrottleCommand:
    """What budgets say holds again. It outlives the release: no gate that reads late takes that for the last word."""
    over = parse_instant(previous.expires_at) if previous is not None else now
    return _said(previous, now, "allow", max(over, now) + HOUR, f"The release was ended by {by}: {why}")


def is_live(command: ThrottleCommand | None, now: int) -> bool:
    """Whether gates are open because of it."""
    return command is not None and command.action == "release" and parse_instant(command.expires_at) > now


def _said(previous: ThrottleCommand | None, now: int, action: str, expires: int, reason: str) -> ThrottleCommand:
    # From the clock, so that it grows although nobody remembers; above the last one where the clock went back.
    revision = max(now, previous.revision + 1 if previous is not None else 0)
    return ThrottleCommand(
        command_id=keys.command_id(RELEASE_KEY, revision),
        budget_id=RELEASE_ID,
        target=EVERYONE,
        action="release" if action == "release" else "allow",
        revision=revision,
        reason=reason,
        issued_at=format_instant(now),
        effective_at=format_instant(now),
        expires_at=format_instant(expires),
        retry_after_s=1,
    )


def _clock(instant: int) -> str:
    return format_instant(instant - instant % SECOND)
