"""The sentences of alerts: what a person reads first when woken. Numbers stay integers until they are
written.
"""

from schemas.instants import format_instant
from schemas.money import display_usd

UNATTRIBUTED = "__unattributed__"
SUMMARY_MAX = 1024
_NAME_MAX = 120


def scope_words(scope_type: str, scope_id: str) -> str:
    """The scope as the subject of a sentence.

    >>> scope_words("team", "search"), scope_words("team", "__unattributed__"), scope_words("feature", "")
    ('Team search', 'Spend without a team', 'Spend without a feature')
    >>> scope_words("org", "acme"), scope_words("org", ""), scope_words("team_feature", "a%2Fb/chat")
    ('Organisation acme', 'The organisation', "Team a/b's feature chat")
    """
    if scope_type == "team_feature":
        team, feature = team_and_feature(f"{scope_type}:{scope_id}")
        if UNATTRIBUTED in (team, feature) or not team or not feature:
            return f"{scope_words('team', team)}, {scope_words('feature', feature).lower()}"
        return f"{scope_words('team', team)}'s feature {clip(feature)}"
    if scope_id in ("", UNATTRIBUTED):
        return "The organisation" if scope_type == "org" else f"Spend without a {scope_type}"
    return f"{_KIND_WORDS.get(scope_type, scope_type.capitalize())} {clip(scope_id)}"


_KIND_WORDS = {"org": "Organisation"}


def team_and_feature(scope: str) -> tuple[str, str]:
    """The team and the feature that a scope names, each empty where it names none.

    >>> team_and_feature("team_feature:a%2Fb/chat"), team_and_feature("team:search"), team_and_feature("model:gpt-4o")
    (('a/b', 'chat'), ('search', ''), ('', ''))
    """
    kind, _, name = scope.partition(":")
    if kind == "team_feature":
        team, _, feature = name.partition("/")
        return _unquoted(team), _unquoted(feature)
    return name if kind == "team" else "", name if kind == "feature" else ""


def _unquoted(name: str) -> str:
    return name.replace("%2F", "/").replace("%25", "%")


def scopes_above(scope: str, org: str) -> tuple[str, ...]:
    """The scopes that hold all of this one's money, the closest first: while one of them pages, this one need not.

    >>> scopes_above("team_feature:a%2Fb/chat", "acme"), scopes_above("team:search", "acme")
    (('team:a/b', 'org:acme'), ('org:acme',))
    >>> scopes_above("feature:chat", "acme"), scopes_above("org:acme", "acme")
    ((), ())
    """
    kind = scope.partition(":")[0]
    if kind not in ("team", "team_feature"):
        return ()
    above = (f"org:{org}",)
    return above if kind == "team" else (f"team:{team_and_feature(scope)[0]}", *above)


def times_words(ratio_percent: int | None) -> str:
    """A ratio for people, rounded down to tenths: nobody is woken by a number that is rounded up.

    >>> times_words(310), times_words(156), times_words(2_400), times_words(None)
    ('3.1×', '1.5×', '24×', '')
    """
    if ratio_percent is None:
        return ""
    if ratio_percent >= 1_000:
        return f"{ratio_percent // 100:,}×"
    return f"{ratio_percent // 100}.{ratio_percent % 100 // 10}×"


def against_words(expected_nanos: int, ratio_percent: int | None) -> str:
    """What was expected, as the second half of a sentence.

    >>> against_words(27_100_000_000, 310), against_words(0, None)
    ('3.1× the expected $27.10', 'where nothing was expected')
    """
    if ratio_percent is None:
        return "where nothing was expected"
    return f"{times_words(ratio_percent)} the expected {display_usd(expected_nanos)}"


def hour_words(hour: int) -> str:
    """An hour that is over.

    >>> hour_words(1_800_000_000_000_000 // 3_600_000_000 * 3_600_000_000)
    'in the hour from 2027-01-15 08:00 UTC'
    """
    return f"in the hour from {format_instant(hour)[:16].replace('T', ' ')} UTC"


def percent_words(millionths: int) -> str:
    """A share in percent with one decimal, rounded down.

    >>> percent_words(32_999), percent_words(0)
    ('3.2', '0.0')
    """
    tenths = millionths // 1_000
    return f"{tenths // 10}.{tenths % 10}"


def clip(text: str, length: int = _NAME_MAX) -> str:
    """A name from outside, on one line and bounded.

    >>> clip("a\\nb"), clip("abcdef", 4)
    ('a b', 'abc…')
    """
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def explained(finding: str) -> str:
    """The last word on what people have explained.

    >>> explained("Team search spends $60.00")
    'Normal here or planned, as was answered: Team search spends $60.00'
    """
    return f"Normal here or planned, as was answered: {finding}"[:SUMMARY_MAX]
