"""Matchers as people write them: ``team = search``, ``severity =~ "critical|emergency"``, ``environment != prod``."""

import re
from typing import cast

from streams.core.notifying import LABEL_NAMES, Matcher, MatchOp

VALUE_MAX = 512
_WRITTEN = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.:-]{0,63})\s*(=~|!~|!=|=)\s*(.*?)\s*", re.DOTALL)


def parse_matcher(text: str) -> Matcher:
    """Read one condition; the value may stand in quotes.

    >>> parse_matcher('severity =~ "critical|emergency"')
    Matcher(label='severity', op='=~', value='critical|emergency')
    >>> parse_matcher("team!=search").holds({"team": "ads"})
    True

    Raises:
        ValueError: it is none, or its pattern is no regular expression.
    """
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:80]!r} is no condition; write a label, one of = != =~ !~, and a value: team = search")
    label, op, value = found.groups()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return matcher(label, op, value)


def matcher(label: str, op: str, value: str) -> Matcher:
    """A condition of its parts.

    Raises:
        ValueError: the value is too long, or no regular expression where one is needed.
    """
    if len(value) > VALUE_MAX:
        raise ValueError(f"the value of {label} has {len(value)} characters; at most {VALUE_MAX}")
    if op in ("=~", "!~"):
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value[:80]!r} is no regular expression: {error}") from error
    return Matcher(LABEL_NAMES.get(label, label), cast(MatchOp, op), value)


def written(one: Matcher) -> str:
    """A matcher as it is written.

    >>> written(Matcher("team", "!=", "search"))
    'team != "search"'
    """
    return f'{one.label} {one.op} "{one.value}"'
