"""``sluice routes``: the tree as people read it, and one alert's way through it."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from schemas.alerts import Alert
from schemas.instants import DAY, HOUR, MINUTE, SECOND, format_instant
from schemas.readers import ALERTS
from streams.core.matchers import written
from streams.core.muting import Held
from streams.core.notifying import Matcher
from streams.core.placing import EACH
from streams.core.route_walk import Explanation, Told, alert_of
from streams.core.routes import Inhibition, Integration, QuietHours, ReceiverRule, Route, Routes, Span

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_BUILT_IN = {
    "emergency": "an emergency silences what is less of the same budget",
    "one-page": "one overspend is one page, at the highest budget of the tree that crossed",
    "one-spike": "the organisation's spike silences its teams', unless they differ",
}
_MUTED = {
    "inhibition": "silenced by the alert",
    "silence": "silenced by",
    "quiet_hours": "held back by the quiet hours",
}


def read_alerts(given: Sequence[str], now: int) -> list[Alert]:
    """Alerts of files, and one of all the LABEL=VALUE together.

    Raises:
        ValueError: a text that is neither, a value that does not exist, a file without an alert in it.
        OSError: a file that cannot be read.
    """
    found, pairs = [], []
    for text in given:
        name, sign, value = text.partition("=")
        if sign and not Path(text).is_file():
            pairs.append((name.strip(), value.strip().strip("\"'")))
        elif Path(text).is_file():
            found += _of_file(Path(text))
        else:
            raise ValueError(f"{text!r} is neither LABEL=VALUE nor a file")
    return [*found, alert_of(pairs, now)] if pairs or not found else found


def _of_file(path: Path) -> list[Alert]:
    try:
        read = msgspec.json.decode(path.read_bytes())
        bodies = read if isinstance(read, list) else [read]
        # A CloudEvent in structured mode has its alert under ``data``.
        return [ALERTS.convert(body.get("data", body) if isinstance(body, dict) else body) for body in bodies]
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"{path}: not an alert in JSON: {error}") from error


def draw(routes: Routes, out: Console) -> None:
    """The tree, who its receivers are, and what silences what."""
    out.print(_branch(routes.root))
    out.print("\nReceivers", style="bold")
    for rule in routes.receivers.values():
        out.print(f"  {_receiver(rule)}", markup=False, highlight=False, soft_wrap=True)
    hours = {each.name: each for route in routes.root.walk() for each in route.quiet}
    if hours:
        out.print("\nQuiet hours", style="bold")
        for each in hours.values():
            out.print(f"  {_hours(each)}", markup=False, highlight=False, soft_wrap=True)
    out.print("\nSilenced by other alerts", style="bold")
    for one in routes.inhibitions:
        out.print(f"  {_rule(one)}", markup=False, highlight=False, soft_wrap=True)
    if routes.owners:
        out.print(f"\n{len(routes.owners)} owner(s) of teams and budgets.")


def _branch(route: Route, tree: Tree | None = None) -> Tree:
    label = escape(_named(route) + ": " + ", ".join(route.receivers)) + f"  [dim]{escape(timings(route))}[/]"
    branch = Tree(label) if tree is None else tree.add(label)
    for below in route.routes:
        _branch(below, branch)
    return branch


def _named(route: Route) -> str:
    return _conditions(route.matchers) or "every alert"


def _conditions(matchers: Iterable[Matcher]) -> str:
    return ", ".join(written(one) for one in matchers)


def timings(route: Route) -> str:
    """How a route groups and when it speaks, in a line."""
    parts = [
        "each alert by itself" if route.group_by == (EACH,) else "grouped by " + ", ".join(route.group_by),
        f"first after {duration(route.wait_us)}" if route.wait_us else "first at once",
        _changes(route),
        *(f"quiet in {each.name}" for each in route.quiet),
        *(f"after {duration(step.after_us)} to {', '.join(step.receivers)}" for step in route.escalations),
        *(["goes on"] if route.goes_on else []),
    ]
    return "; ".join(parts)


def _changes(route: Route) -> str:
    changes = f"changes every {duration(route.interval_us)}" if route.interval_us else "changes at once"
    again = f"again every {duration(route.repeat_us)}" if route.repeat_us else "never again unchanged"
    return f"{changes}; {again}"


def duration(micros: float) -> str:
    """A duration as it is written in the file.

    >>> duration(600_000_000), duration(5_400_000_000), duration(500_000)
    ('10m', '90m', '500ms')
    """
    for unit, size in (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND)):
        if micros >= size and not micros % size:
            return f"{int(micros // size)}{unit}"
    return f"{int(micros * 1_000 // SECOND)}ms"


def _receiver(rule: ReceiverRule) -> str:
    more = [f"fallback {rule.fallback}"] if rule.fallback else []
    if rule.rate_limit:
        more.append(f"at most {rule.rate_limit.messages} in {duration(rule.rate_limit.per_us)}")
    reach = ", ".join(_integration(each) for each in rule.integrations) or "nobody (the dashboard shows every alert)"
    return f"{rule.name}: {reach}" + (f" ({', '.join(more)})" if more else "")


def _integration(one: Integration) -> str:
    target = msgspec.to_builtins(one.target) if one.target else {}
    where = target.get("channel") or target.get("to") or target.get("url") or target.get("routing_key")
    if one.target is None:
        where = "as the settings say"
    shown = ", ".join(where) if isinstance(where, tuple) else where or "a webhook"
    return f"{one.id} ({shown}{'; pages' if one.pages else ''})"


def _hours(quiet: QuietHours) -> str:
    spans = ", ".join(f"{_days(span)} {_time(span.start)}-{_time(span.end)}" for span in quiet.spans)
    held = "pages" if quiet.quiets == "pages" else "everything"
    passes = ", ".join(quiet.passes) or "nothing"
    return f"{quiet.name}: {spans} in {quiet.timezone} hold back {held}; {passes} may pass"


def _days(span: Span) -> str:
    return "daily" if len(span.days) == 7 else ",".join(_DAYS[day] for day in span.days)


def _time(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _rule(one: Inhibition) -> str:
    if one.name in _BUILT_IN:
        return f"{one.name}: {_BUILT_IN[one.name]}"
    equal = f", of the same {', '.join(one.equal)}" if one.equal else ""
    above = ", whose budget stands above" if one.above else ""
    what = " (pages only)" if one.quiets == "pages" else ""
    return f"{one.name}: {_conditions(one.source)} silences {_conditions(one.target)}{equal}{above}{what}"


def say(found: Explanation, out: Console) -> None:
    """One alert's way."""
    for line in lines(found):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def lines(found: Explanation) -> Iterator[str]:
    """The way of an alert in lines of text: its labels, the walk, its groups, what would mute it."""
    yield "Alert   " + " ".join(f"{name}={value}" for name, value in found.labels.items() if value)
    yield "Walk"
    for step in found.steps:
        line = f" (line {step.route.line})" if step.route.line else ""
        sign = "->" if step.is_taken else "  "
        yield f"  {sign} {'  ' * step.depth}{_named(step.route)}{line}: {step.why}"
    if found.nobody:
        yield f"Told    nobody: {found.nobody}"
    for number, told in enumerate(found.told, 1):
        yield from _group(number, told)
    for rule in found.may_silence:
        yield f"Silent  while an alert fires of the rule {_rule(rule)}"


def _group(number: int, told: Told) -> Iterator[str]:
    placed = told.placement
    yield f"Told {number}  {', '.join(placed.receivers)}"
    yield "  group   " + (" ".join(f"{k}={v}" for k, v in placed.group.labels.items()) or "all alerts of this route")
    yield f"  key     {placed.group.thread}"
    grace = f" (of them {duration(placed.grace_us)} for what may silence it)" if placed.grace_us else ""
    wait = f"after {duration(placed.wait_us)}{grace}" if placed.wait_us else "at once"
    yield f"  when    first {wait}; then {_changes(told.route)}"
    for name, after in told.escalations.items():
        yield f"  later   {name} after {duration(after * SECOND)}, if nobody has acknowledged"
    for held in told.held:
        yield f"  muted   {_muted(held)}"
    for quiet in told.rests:
        yield f"  may be  held back at other times: {_hours(quiet)}"


def _muted(held: Held) -> str:
    what = "pages" if held.quiets == "pages" else "everything"
    until = f", until {format_instant(held.until)}" if held.until is not None else ", while that fires"
    return f"now ({what}): {_MUTED[held.by]} {held.what}{until}"
