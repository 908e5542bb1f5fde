"""Silences as people ask for them: matchers read from texts, bounds checked, and whose business they are."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from schemas.instants import DAY, InstantError, parse_instant
from schemas.keys import digest
from streams.core.defining import RequestError, Wrong, said, until
from streams.core.matchers import parse_matcher, written
from streams.core.notifying import Matcher, Silence

#: Whoever needs longer changes the budget or the route, where others find it.
LONGEST = 90 * DAY
MATCHERS_MAX = 16
VALUE_MAX = 256
#: Patterns are tried against every label of every alert: what repeats more than so often could take for ever.
REPEATS_MAX = 3
_REPEAT = re.compile(r"(?<!\\)[*+{]")
_GROUP_REPEAT = re.compile(r"(?<!\\)\)[*+{]")
Result = TypeVar("Result")


def matcher_of(text: str) -> Matcher:
    """A matcher of a silence; anybody with a key may write one, so its pattern is bounded.

    >>> matcher_of("team=search").holds({"team": "search"})
    True

    Raises:
        ValueError: it is none, or its pattern cannot be used.
    """
    found = parse_matcher(text)
    if len(found.value) > VALUE_MAX:
        raise ValueError(f"the value of {found.label} has {len(found.value)} characters; at most {VALUE_MAX}")
    if found.op in ("=~", "!~") and (
        _GROUP_REPEAT.search(found.value) or len(_REPEAT.findall(found.value)) > REPEATS_MAX
    ):
        raise ValueError(f"{found.value[:60]!r} repeats too much: at most {REPEATS_MAX} of * + {{ and none after a )")
    return found


def silence_of(
    matchers: Sequence[str], *, starts: str = "", ends: str, why: str, by: str, now: int, team: str = ""
) -> Silence:
    """A silence of what was asked for.

    Args:
        matchers: as ``matcher_of`` reads them; every one has to hold.
        starts: an instant; empty: now.
        ends: an instant or a span from now.
        team: the only team whose alerts the caller may silence; empty: all.

    Raises:
        RequestError: with every field that is wrong.
    """
    wrongs: list[Wrong] = []
    read = [_read(wrongs, "matchers", partial(matcher_of, text)) for text in matchers]
    found = [each for each in read if each is not None]
    begin = now if not starts else _read(wrongs, "starts", partial(_instant, starts)) or now
    begin = max(begin, now)
    stop = _read(wrongs, "ends", partial(until, ends, now, LONGEST)) or 0
    reason = _read(wrongs, "reason", partial(said, why)) or ""
    if not matchers or len(matchers) > MATCHERS_MAX:
        wrongs.append(Wrong("matchers", f"give 1 to {MATCHERS_MAX}, such as team=search"))
    elif found and all(each.holds({}) for each in found):
        # What holds of nothing at all holds of everything, and would silence Sluice whole.
        wrongs.append(Wrong("matchers", "at least one has to ask for something, such as team=search"))
    if stop and stop <= begin:
        wrongs.append(Wrong("ends", "has to be after its start"))
    if team and Matcher("team", "=", team) not in found:
        wrongs.append(Wrong("matchers", f"this key belongs to team {team!r}: add team={team}"))
    if wrongs:
        raise RequestError(wrongs)
    ordered = tuple(sorted(dict.fromkeys(found), key=written))
    name = digest("silence", by, reason, str(begin), str(stop), *map(written, ordered))[:12]
    return Silence(id=name, matchers=ordered, starts=begin, ends=stop, author=by, reason=reason)


def _instant(text: str) -> int:
    try:
        return parse_instant(text.strip())
    except (InstantError, OverflowError) as error:
        raise ValueError(f"{text[:40]!r} is no instant such as 2026-11-21T18:00:00Z") from error


def _read(wrongs: list[Wrong], where: str, parse: Callable[[], Result]) -> Result | None:
    try:
        return parse()
    except ValueError as error:
        wrongs.append(Wrong(where, str(error)))
        return None
