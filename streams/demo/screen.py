"""Draws the demo: a whole picture in a terminal, plain lines without one. Decides nothing."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from schemas.events import UNATTRIBUTED
from schemas.instants import HOUR
from schemas.money import NANOS, display_usd
from streams.demo import company
from streams.demo.ladder import Ladder, in_words
from streams.demo.news import Line, local_time
from streams.demo.scenario import Calendar
from streams.demo.verdict import Order, Page, Story
from streams.demo.watch import Budget, View

#: Below this many rows features are folded into their teams.
ROWS_FOR_FEATURES = 36
#: And below this many, news make room for a throttle's steps.
ROWS_FOR_STEPS = 42
COLUMNS_FOR_TWO = 110
PLAIN_EVERY = 3 * HOUR
_BAR = 8
#: What is said of each step of a throttle, besides what it asks for.
COURSE = ("since", "obeyed by", "after")
STATES = {"rate_limit": "LIMITED", "cap_tokens": "CAPPED", "downgrade": "CHEAPER", "block": "BLOCKED"}
MARKS = {
    "alert": ("▲", "yellow"),
    "page": ("☎", "bold red"),
    "resolved": ("✓", "green"),
    "throttle": ("■", "bold red"),
    "release": ("▶", "bold green"),
}


@dataclass
class Scene:
    """Everything that can be seen at one instant."""

    seed: int
    calendar: Calendar
    dashboard: str = ""
    phase: str = "starting"
    at: int = 0
    published: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    view: View = field(default_factory=View)
    pages: list[Page] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    ladder: Ladder | None = None
    messages: int = 0
    mails: int = 0
    lines: list[Line] = field(default_factory=list)


class TerminalScreen:
    """A live picture of the scene."""

    def __init__(self, console: Console, scene: Callable[[], Scene]) -> None:
        self._console = console
        self._scene = scene
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=8, vertical_overflow="crop")

    def __enter__(self) -> "TerminalScreen":
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.refresh()
        self._live.__exit__(None, None, None)

    def say(self, text: str) -> None:
        """One line above the picture."""
        self._console.print(text, markup=False, highlight=False)

    def update(self, fresh: list[Line]) -> None:
        """The picture refreshes itself."""

    def _draw(self) -> RenderableType:
        return draw(self._scene(), self._console.width, self._console.height)


class PlainScreen:
    """Lines of text: every few hours of the day, and whenever something happens."""

    def __init__(self, console: Console, scene: Callable[[], Scene]) -> None:
        self._console = console
        self._scene = scene
        self._next = 0

    def __enter__(self) -> "PlainScreen":
        return self

    def __exit__(self, *_: object) -> None: ...

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def update(self, fresh: list[Line]) -> None:
        """Print what is new."""
        scene = self._scene()
        for line in fresh:
            self.say(f"  {local_time(scene.calendar, line.at):>9}  {MARKS[line.kind][0]} {line.kind:<8} {line.text}")
        if scene.at >= max(self._next, scene.calendar.day):
            self._next = scene.at - scene.at % PLAIN_EVERY + PLAIN_EVERY
            spent = display_usd(sum(spend.day_nanos for spend in scene.view.spend.values()))
            self.say(
                f"  {local_time(scene.calendar, scene.at):>9}  {scene.published:,} events, {spent} today, "
                f"{len(scene.pages)} pages, {sum(scene.refused.values()):,} calls refused"
            )


def draw(scene: Scene, width: int, height: int) -> RenderableType:
    """The picture of a scene."""
    spend = _spend(scene, with_features=height >= ROWS_FOR_FEATURES and width >= COLUMNS_FOR_TWO)
    if width < COLUMNS_FOR_TWO:
        # A small terminal has about 24 rows: the money by team, the budgets that matter, the latest news.
        graded = _steps_in_brief(scene.ladder)
        news = max(4 - len(graded), height - 21 - len(graded))
        small = _budgets(scene, 3), _throttles(scene), *graded, _news(scene, news, compact=True)
        return Group(_header(scene), spend, *small)
    is_high = height >= ROWS_FOR_FEATURES
    graded = _steps(scene) if is_high else _steps_in_brief(scene.ladder)
    rows = 6 - len(graded) if not is_high else 6 if graded and height < ROWS_FOR_STEPS else 12
    side = Group(_budgets(scene), _throttles(scene), *graded, _news(scene, rows))
    body = Table.grid(expand=True, padding=(0, 1))
    body.add_column(ratio=5)
    body.add_column(ratio=7)
    body.add_row(spend, side)
    return Group(_header(scene), body)


def outcome(calendar: Calendar, told: list[Story]) -> RenderableType:
    """What was injected and what came of it, in the played day's own time."""
    table = Table(box=box.SIMPLE_HEAD, title="What went wrong, and what came of it", title_style="bold")
    steps = ("detected", "paged", "throttled", "released", "resolved")
    for name in ("began", "incident", *steps):
        table.add_column(name, no_wrap=name != "incident")
    for story in told:
        times = [getattr(story, step) for step in steps]
        missing = [step in story.missing for step in steps]
        table.add_row(
            local_time(calendar, story.incident.begins),
            f"{story.incident.team}: {story.incident.story}",
            *(
                Text("never" if lacks else "" if at is None else local_time(calendar, at), "red" if lacks else "green")
                for at, lacks in zip(times, missing, strict=True)
            ),
        )
    return table


def course(calendar: Calendar, ladder: Ladder) -> RenderableType:
    """The steps of a throttle: what each asked for, since when, who obeyed and how soon; and the overshoot."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in (f"throttle of {ladder.budget_id}", *COURSE):
        table.add_column(name, no_wrap=True, justify="right" if name == "after" else "left")
    for step in ladder.steps:
        table.add_row(
            Text("; ".join(map(in_words, step.measures)), style="bold red" if step.action == "block" else "yellow"),
            local_time(calendar, step.at),
            Text(", ".join(step.gateways) or "nobody yet", style="green" if step.gateways else "red"),
            _delay(step.ack_delay_ms),
        )
    if ladder.released is not None:
        table.add_row(Text("released", style="bold green"), local_time(calendar, ladder.released), "", "")
    over = Text.assemble(("overshoot ", "bold"), _overshoot(ladder))
    return Group(table, over, "") if ladder.steps else Text("no throttle was needed")


def _steps(scene: Scene) -> list[RenderableType]:
    return [course(scene.calendar, scene.ladder)] if scene.ladder and scene.ladder.steps else []


def _steps_in_brief(ladder: Ladder | None) -> list[RenderableType]:
    """Two lines for terminals of few rows; none while nothing is throttled."""
    if ladder is None or not ladder.steps:
        return []
    states = " ▸ ".join(STATES.get(step.action, step.action).lower() for step in ladder.steps)
    gateways = ", ".join(dict.fromkeys(name for step in ladder.steps for name in step.gateways))
    delays = " ▸ ".join(_delay(step.ack_delay_ms) for step in ladder.steps)
    mark = MARKS["throttle" if ladder.released is None else "release"]
    return [
        Text.assemble(mark, (f" {ladder.budget_id} ", "bold"), f"{states} by {gateways or 'nobody yet'}"),
        Text(f"  after {delays}, overshoot {_overshoot(ladder)}"),
    ]


def _delay(delay_ms: int | None) -> str:
    return "" if delay_ms is None else f"{delay_ms:,} ms"


def _overshoot(ladder: Ladder) -> str:
    return f"{_cents(ladder.overshoot_nanos)} ({ladder.overshoot_permille / 10} %)"


def _header(scene: Scene) -> RenderableType:
    calendar = scene.calendar
    grid = Table.grid(expand=True, padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    clock = Text(local_time(calendar, scene.at) if scene.at else "--:--", style="bold cyan")
    done = max(0, min(scene.at, calendar.end) - calendar.day)
    bar = ProgressBar(total=calendar.end - calendar.day, completed=done, complete_style="cyan")
    total = display_usd(sum(spend.day_nanos for spend in scene.view.spend.values()))
    right = Text.assemble((total, "bold"), f" today   {scene.published:,} events")
    grid.add_row(clock, bar, right)
    title = f"[bold]Sluice[/]  a day of six teams, seed {scene.seed}"
    where = f"{scene.phase}   dashboard {scene.dashboard}" if scene.dashboard else scene.phase
    return Panel(grid, title=title, subtitle=where, box=box.ROUNDED, border_style="cyan")


def _spend(scene: Scene, with_features: bool) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False)
    table.add_column("spend of team, feature", no_wrap=True, min_width=16, ratio=1)
    table.add_column("this hour", justify="right", no_wrap=True)
    table.add_column("today", justify="right", no_wrap=True)
    table.add_column("", width=_BAR, no_wrap=True)
    spend = scene.view.spend
    largest = max((found.hour_nanos for found in spend.values()), default=0) or 1
    open_scopes = {f.scope_id for f in scene.view.findings if f.status != "resolved" and f.tier != "note"}
    for team in (*company.TEAMS, UNATTRIBUTED):
        own = {feature: found for (owner, feature), found in spend.items() if owner == team}
        if not own and team not in company.TEAMS:
            continue
        hour, day = sum(f.hour_nanos for f in own.values()), sum(f.day_nanos for f in own.values())
        style = "bold red" if team in open_scopes else "bold"
        table.add_row(Text(_name(team), style=style), _cents(hour), _cents(day), "", style="bold")
        for feature in sorted(own, key=lambda name: -own[name].day_nanos) if with_features else ():
            found = own[feature]
            hot = feature in open_scopes
            blocks = "█" * (found.hour_nanos * _BAR // largest) or "▏"
            table.add_row(
                Text(f"  {_name(feature)}", style="red" if hot else ""),
                _cents(found.hour_nanos), _cents(found.day_nanos),
                Text(blocks, style="red" if hot else "cyan"),
            )  # fmt: skip
    return table


def _budgets(scene: Scene, most: int | None = None) -> RenderableType:
    """All budgets, or only the fullest, without a head."""
    table = Table(box=None if most else box.SIMPLE_HEAD, expand=True, pad_edge=False, show_header=not most)
    table.add_column("budget", no_wrap=True)
    table.add_column("spent of amount", justify="right", no_wrap=True)
    table.add_column("", ratio=1)
    table.add_column("", justify="right", no_wrap=True)
    for budget in sorted(scene.view.budgets, key=lambda found: -_percent(found))[:most]:
        percent = _percent(budget)
        color = "red" if percent >= 100 else "yellow" if percent >= 75 else "cyan" if percent >= 50 else "green"
        shown = STATES.get(budget.commanded)
        state = Text(shown, style="bold red") if shown else Text(f"{percent} %", style=color)
        amounts = f"{display_usd(budget.spent_nanos)} of {display_usd(budget.amount_nanos)}"
        table.add_row(
            budget.budget_id,
            amounts,
            ProgressBar(total=100, completed=min(100, percent), complete_style=color),
            state,
        )
    return table


def _name(name: str) -> str:
    """What nobody owns, in words."""
    return "(nobody's)" if name == UNATTRIBUTED else name


def _cents(nanos: int) -> str:
    """Dollars with two decimals, so that columns stay where they are."""
    cents = nanos * 100 // NANOS
    return f"${cents // 100:,}.{cents % 100:02d}"


def _percent(budget: Budget) -> int:
    return budget.spent_nanos * 100 // budget.amount_nanos if budget.amount_nanos > 0 else 0


def _throttles(scene: Scene) -> RenderableType:
    refused = ", ".join(f"{team} {count:,}" for team, count in scene.refused.most_common()) or "none"
    resolved = sum(page.resolved_at is not None for page in scene.pages)
    grid = Table.grid(padding=(0, 3))
    grid.add_row(
        Text.assemble(("☎ pages ", "bold"), f"{len(scene.pages)} ({resolved} resolved)"),
        Text.assemble(("Slack ", "bold"), str(scene.messages)),
        Text.assemble(("mail ", "bold"), str(scene.mails)),
        Text.assemble(("calls refused ", "bold"), (refused, "red" if scene.refused else "")),
    )
    return grid


def _news(scene: Scene, count: int, compact: bool = False) -> RenderableType:
    table = Table(box=None if compact else box.SIMPLE_HEAD, expand=True, pad_edge=False, show_header=not compact)
    table.add_column("time", no_wrap=True)
    table.add_column("", width=1)
    table.add_column("what", ratio=1, overflow="ellipsis", no_wrap=True)
    for line in list(reversed(scene.lines))[:count]:
        mark, style = MARKS[line.kind]
        table.add_row(local_time(scene.calendar, line.at), Text(mark, style=style), Text(line.text, style=style))
    for _ in range(count - len(scene.lines)):
        table.add_row("", "", "")
    return table
