"""What an evaluation found, for people: everything, also what is bad."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from streams.commands.printing import Cell, print_line, print_table
from streams.evaluation.injections import INCIDENTS, SHAPES
from streams.evaluation.targets import targets

QUIET_KINDS = tuple(name for name in SHAPES if name not in INCIDENTS)
AS_SHIPPED = "its own"


def show(result: dict[str, Any], out: Console) -> None:
    """Print every table, and the targets last."""
    for name, panel in result["spend"].items():
        _panel(name, panel, out)
    titles = {
        "gpu": "Idle GPUs",
        "requests": "Runaway requests",
        "habits": "Unusual hours",
    }
    for name, title in titles.items():
        if name in result:
            print_line(out, f"\n{title}", "bold")
            _side_by_side(result[name], out)
    if result["skipped"]:
        print_line(out, f"\nnot judged, the traces are not here: {', '.join(result['skipped'])}", "yellow")
    print_line(out, "\nTargets", "bold")
    styles = {True: ("met", "green"), False: ("missed", "red"), None: ("not measured", "yellow")}
    rows = [(target.words, target.figure, styles[target.is_met]) for target in targets(result)]
    print_table(out, ("target", "figure", ""), rows, numbers=("figure",))


def _panel(name: str, panel: dict[str, Any], out: Console) -> None:
    print_line(out, f"\n{name}: {panel['series']} series, {panel['injections']} injections", "bold")
    print_line(out, "bar: its own, or for so many pages per series-week, set on one half and measured on the other")
    print_line(out, "(seen: set on the very series on which it is measured, with hindsight)")
    rows, kinds = [], []
    for contender, found in panel["contenders"].items():
        for bar, figures in _bars(found):
            rows.append((contender, bar, *_recalls(figures)))
            kinds.append((contender, bar, *_kinds(figures)))
    columns = ("contender", "bar", "pages/wk", "recall", *INCIDENTS, "precision", "by luck")
    print_table(out, columns, rows, numbers=columns[1:])
    print_line(
        out, "minutes to detect (median / p90), share of the money that escaped before; pages in each quiet case"
    )
    slowest = ("x10/1h", "x5/3h", "storm", "ramp")
    columns = ("contender", "bar", *slowest, *(f"{kind} $" for kind in slowest), *QUIET_KINDS)
    print_table(out, columns, kinds, numbers=columns[1:])
    recalls = next(iter(panel["contenders"].values()))["pages_at_recall"]
    print_line(out, "pages per series-week at equal recall")
    columns = ("contender", *(f"recall {recall}" for recall in recalls))
    equal = [(n, *map(_number, found["pages_at_recall"].values())) for n, found in panel["contenders"].items()]
    print_table(out, columns, equal, numbers=columns[1:])


def _bars(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    own = [(AS_SHIPPED, found["as_shipped"])] if "as_shipped" in found else []
    with_tickets = found.get("with_tickets")
    if with_tickets and with_tickets["pages_per_series_week"] > found["as_shipped"]["pages_per_series_week"]:
        own.append(("+ tickets", with_tickets))
    held_out = [(budget, each) for budget, each in found["held_out"].items() if each is not None]
    return [*own, *held_out, *((f"{budget} seen", each) for budget, each in found.get("in_sample", {}).items())]


def _recalls(figures: dict[str, Any]) -> list[Cell]:
    kinds = figures["kinds"]
    return [
        _number(figures["pages_per_series_week"]),
        _number(figures["recall_mean"]),
        *(_number(kinds.get(kind, {}).get("recall")) for kind in INCIDENTS),
        _number(figures["precision"]),
        _number(figures["luck"]),
    ]


def _kinds(figures: dict[str, Any]) -> list[Cell]:
    kinds, slowest = figures["kinds"], ("x10/1h", "x5/3h", "storm", "ramp")
    return [
        *(f"{_minutes(kinds, kind, 'median')} / {_minutes(kinds, kind, 'p90')}" for kind in slowest),
        *(_percent(kinds.get(kind, {}).get("escaped_share")) for kind in slowest),
        *(_number(kinds.get(kind, {}).get("pages_per_case")) for kind in QUIET_KINDS),
    ]


def _minutes(kinds: dict[str, Any], kind: str, which: str) -> str:
    found = kinds.get(kind, {}).get(f"minutes_{which}")
    return "-" if found is None else f"{found:.0f}"


def _side_by_side(found: dict[str, dict[str, Any]], out: Console) -> None:
    names: Sequence[str] = list(dict.fromkeys(name for each in found.values() for name in each))
    rows = [(name.replace("_", " "), *(_number(each.get(name)) for each in found.values())) for name in names]
    print_table(out, ("", *found), rows, numbers=tuple(found))


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"
