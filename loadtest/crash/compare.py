"""Two tellings of the same run, compared row by row. Pure: what differs comes back in plain words."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from loadtest.crash.expected import Cell, Command, Expected, Rung, Spender
from schemas.keys import alert_id


class Check(NamedTuple):
    """One thing that was compared."""

    what: str
    expected: int
    found: int
    differences: list[str]


class Letter(NamedTuple):
    """A dead letter: where its record lay, and why it was refused."""

    place: tuple[str, int, int]
    reason: str


class Found(NamedTuple):
    """What the service says at the end of a run."""

    cells: Mapping[Cell, Counter[str]]
    spenders: Mapping[Spender, Counter[str]]
    #: ``{(topic, partition): (dead letters, duplicates)}`` as the ledger has it.
    sources: Mapping[tuple[str, int], tuple[int, int]]
    letters: Sequence[Letter]
    #: Statements on the topic of alerts, in its order, decoded.
    alerts: Sequence[Mapping[str, Any]]
    #: Commands on their topic, in its order, decoded.
    commands: Sequence[tuple[str, Mapping[str, Any]]]
    #: Dedup keys of the incidents that PagerDuty was told to open.
    incidents: Sequence[str]
    #: What is still owed to receivers, or was given up.
    unsent: int


def compare(expected: Expected, found: Found, planned_ids: Iterable[str]) -> list[Check]:
    """Everything that a run must have got right."""
    missing = sorted(set(planned_ids) - expected.ids)
    budget_alerts = [alert for alert in found.alerts if alert["rule"] == "budget_threshold"]
    return [
        _sent(expected.ids, missing),
        _cells(expected.cells, found.cells),
        _money(expected.cells, found.cells),
        _spenders(expected.spenders, found.spenders),
        _sources(expected, found),
        _letters(expected.letters, found.letters),
        _alerts(expected.statements(), budget_alerts),
        _commands(expected.commands(), found.commands),
        _pages(expected.statements(), budget_alerts, found),
    ]


def _sent(there: set[str], missing: list[str]) -> Check:
    return Check("ids sent", len(there) + len(missing), len(there), [f"{id} is not on its topic" for id in missing])


def _cells(expected: Mapping[Cell, Counter[str]], found: Mapping[Cell, Counter[str]]) -> Check:
    differences = []
    for cell in sorted(expected.keys() | found.keys(), key=str):
        name = _name(cell)
        if cell not in found:
            differences.append(f"{name}: not in the ledger; {_written(expected[cell])} expected")
        elif cell not in expected:
            differences.append(f"{name}: only in the ledger, with {_written(found[cell])}")
        else:
            differences += [
                f"{name}: {total} is {found[cell][total]:,} in the ledger and {expected[cell][total]:,} expected"
                for total in sorted(expected[cell].keys() | found[cell].keys())
                if expected[cell][total] != found[cell][total]
            ]
    return Check("cells of the ledger, every total", len(expected), len(found), differences)


def _money(expected: Mapping[Cell, Counter[str]], found: Mapping[Cell, Counter[str]]) -> Check:
    wanted = sum(cell["cost_nanos"] for cell in expected.values())
    got = sum(cell["cost_nanos"] for cell in found.values())
    return Check("nanodollars", wanted, got, [f"{got - wanted:+,} nanodollars"] if got != wanted else [])


def _spenders(expected: Mapping[Spender, Counter[str]], found: Mapping[Spender, Counter[str]]) -> Check:
    differences = [
        f"team {who[0]}, key {who[1]}, user {who[2]}: {_written(found.get(who, Counter()))} in the ledger and"
        f" {_written(expected.get(who, Counter()))} expected"
        for who in sorted(expected.keys() | found.keys())
        if expected.get(who) != found.get(who)
    ]
    return Check("keys and users, what each spent", len(expected), len(found), differences)


def _sources(expected: Expected, found: Found) -> Check:
    letters = Counter(place[:2] for place in expected.letters)
    places = letters.keys() | expected.duplicates.keys() | found.sources.keys()
    differences = []
    for place in sorted(places):
        wanted = (letters[place], expected.duplicates[place])
        got = found.sources.get(place, (0, 0))
        if wanted != got:
            differences.append(
                f"{place[0]}[{place[1]}]: (dead letters, duplicates) are {got} in the ledger and {wanted} expected"
            )
    total = sum(expected.duplicates.values())
    return Check("duplicates passed over", total, sum(d for _, d in found.sources.values()), differences)


def _letters(expected: Mapping[tuple[str, int, int], str], found: Sequence[Letter]) -> Check:
    # A letter that is written twice (a crash between it and its watermark) is one letter.
    distinct = dict(found)
    differences = [
        f"{place}: refused as {distinct.get(place)}, and {expected.get(place)} expected"
        for place in sorted(expected.keys() | distinct.keys())
        if expected.get(place) != distinct.get(place)
    ]
    return Check("dead letters, with their reasons", len(expected), len(distinct), differences)


def _alerts(expected: set[Rung], found: Sequence[Mapping[str, Any]]) -> Check:
    ids: dict[Rung, set[str]] = {}
    differences = []
    for alert in found:
        rung = Rung(alert["scope_id"], int(alert["threshold"].split()[0]), alert["status"])
        ids.setdefault(rung, set()).add(alert["alert_id"])
        derived = alert_id(alert["dedup_key"], alert["episode"], alert["status"])
        if alert["alert_id"] != derived:
            differences.append(f"{rung}: the id {alert['alert_id']} does not follow from its key and episode")
        if alert["episode"] != 1:
            differences.append(f"{rung}: told in episode {alert['episode']}, although it was passed once")
    for rung in sorted(expected | ids.keys()):
        if rung not in ids:
            differences.append(f"{rung}: never told")
        elif rung not in expected:
            differences.append(f"{rung}: told, although it did not happen")
        elif len(ids[rung]) > 1:
            differences.append(f"{rung}: told under {len(ids[rung])} ids")
    return Check("budget alerts by id", len(expected), sum(map(len, ids.values())), list(dict.fromkeys(differences)))


def _commands(expected: Mapping[str, Command], found: Sequence[tuple[str, Mapping[str, Any]]]) -> Check:
    last: dict[str, Command] = {}
    highest: dict[str, int] = {}
    differences = []
    newest: dict[str, int] = {}
    for key, command in found:
        last[key] = Command(command["action"], command.get("dry_run", False))
        newest[key] = command["revision"]
        highest[key] = max(highest.get(key, 0), command["revision"])
    # What an owner had under way when it was overtaken may come late; then what stands has to be said once more.
    differences += [
        f"{key}: compaction keeps revision {newest[key]}, and gates obey {most}"
        for key, most in highest.items()
        if newest[key] < most
    ]
    # A rig spends a budget in seconds: where it is not spent, calls may be let go slowly for a while, and no more.
    slowed = {key for key, command in last.items() if key not in expected and command.action in ("rate_limit", "allow")}
    for key in sorted((expected.keys() | last.keys()) - slowed):
        if expected.get(key) != last.get(key):
            differences.append(f"{key}: the last command is {last.get(key)}, and {expected.get(key)} expected")
    return Check("last commands of scopes", len(expected), len(last), differences)


def _pages(expected: set[Rung], alerts: Sequence[Mapping[str, Any]], found: Found) -> Check:
    wanted = {rung.budget_id for rung in expected if rung.status == "opened" and rung.percent == 100}
    # Detectors may page twice for what happens twice; a budget's rung is passed once in a run.
    paged = Counter(key for key in found.incidents if key.startswith("v1:budget_threshold:"))
    budgets = {alert["dedup_key"]: alert["scope_id"] for alert in alerts if alert["threshold"].startswith("100 ")}
    differences = [f"{key}: {count} incidents" for key, count in sorted(paged.items()) if count > 1]
    known = {budgets.get(key, "") for key in paged}
    differences += [f"{budget}: nobody was paged" for budget in sorted(wanted - known)]
    differences += [f"{budget}: paged for nothing" for budget in sorted(known - wanted - {""})]
    if found.unsent:
        differences.append(f"{found.unsent} messages are owed to receivers or were given up")
    pages = [key for key in paged if key in budgets]
    return Check("pages for spent budgets", len(wanted), len(pages), differences)


def _name(cell: Cell) -> str:
    return f"{cell[0]:%Y-%m-%d %H:00} " + "/".join(str(part) or "-" for part in cell[1:])


def _written(totals: Counter[str]) -> str:
    return f"{totals['requests']} requests, {totals['cost_nanos']:,} nanodollars"
