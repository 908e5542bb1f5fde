"""``sluice dlq``: look at dead letters, and bring them back onto their topic once they can be counted."""

import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

from aiokafka.errors import KafkaConnectionError, KafkaError
from rich.console import Console

from schemas import topics
from schemas.instants import SECOND, format_instant
from streams.clock import WallClock
from streams.commands.printing import Cell, print_line, print_table
from streams.commands.running import complete
from streams.core.letters import REPLAY_OF, Letter, escaped, fits, readable, refusal
from streams.core.reading import Reason, Rejected
from streams.core.replay_progress import Pile, Progress, standing
from streams.dead_letters import DeadLetterError
from streams.dead_letters.log import LogReader
from streams.dead_letters.reading import ALL, letters, read_progress, survey
from streams.kafka_connection import connection
from streams.settings import Settings, SettingsError

#: Without ``--full`` a body is shown up to here.
BODY_BYTES = 4_096

Judge = Callable[[Letter], Rejected | None]


class Choice(NamedTuple):
    """Which letters a command is about; empty means all."""

    topics: Sequence[str] = ()
    reasons: Sequence[str] = ()

    def names(self) -> tuple[str, ...]:
        """The dead-letter topics, given by their own name or by the topic whose letters they hold.

        Raises:
            SettingsError: there is no such topic.
        """
        named = [name if name in ALL else topics.dead_letter(name) for name in self.topics]
        if strange := [name for name, found in zip(self.topics, named, strict=True) if found not in ALL]:
            raise SettingsError(
                [f"--topic {name}: no such dead-letter topic; there are {', '.join(ALL)}" for name in strange]
            )
        return tuple(dict.fromkeys(named)) or ALL

    def takes(self, letter: Letter) -> bool:
        """Whether the reason is one of those asked for."""
        return not self.reasons or letter.reason in self.reasons


async def show_piles(settings: Settings, choice: Choice, out: Console) -> int:
    """``list``: a row for each topic and reason."""
    settings = complete(settings, "kafka_url")
    names = choice.names()
    check_reasons(choice.reasons)
    async with _plainly(settings):
        counted = await survey(connection(settings), settings.app_id, names)
    piles = [pile for pile in counted.piles() if not choice.reasons or pile.reason in choice.reasons]
    if not piles:
        print_line(out, "no dead letters" + (" of this choice" if choice.topics or choice.reasons else ""))
        return 0
    columns = ("topic", "reason", "letters", "waiting", "replayed", "in doubt", "again", "oldest", "newest")
    print_table(out, columns, [_row(pile) for pile in piles], columns[2:7])
    if any(pile.refused_again for pile in piles):
        print_line(out, "again: of those that wait, so many were brought back before and refused again; times are UTC")
    if any(pile.in_doubt for pile in piles):
        print_line(out, "in doubt: a replay ended before it was done; the next `sluice dlq replay` finds out")
    return 0


def _row(pile: Pile) -> list[Cell]:
    again = f"{pile.refused_again} (≤{pile.replays_max}×)" if pile.refused_again else "0"
    waiting = (str(pile.waiting), "bold yellow" if pile.waiting else "")
    return [
        pile.topic, escaped(pile.reason), str(pile.count), waiting, str(pile.replayed), str(pile.in_doubt), again,
        _minute(pile.oldest), _minute(pile.newest),
    ]  # fmt: skip


def _when(instant: int) -> str:
    return format_instant(instant - instant % SECOND)


def _minute(instant: int) -> str:
    return _when(instant)[:16].replace("T", " ")


# -- show -----------------------------------------------------------------------------------------------------------


async def show_letters(
    settings: Settings, choice: Choice, place: tuple[int, int] | None, limit: int, full: bool, out: Console
) -> int:
    """``show``: the letter at ``place`` (partition, offset), or the newest ``limit``. 1 if there is none."""
    settings = complete(settings, "kafka_url")
    names = choice.names()
    check_reasons(choice.reasons)
    async with _plainly(settings):
        progress = await read_progress(connection(settings), settings.app_id)
        found = await _find(settings, choice, names, place, limit)
    for letter in found:
        _print_letter(letter, progress.get(letter.identity()), full, out)
    if not found:
        where = "" if place is None else f" at {'/'.join(choice.topics)}[{place[0]}]@{place[1]}"
        print_line(out, f"no such dead letter{where}")
        return 1
    return 0


async def _find(
    settings: Settings, choice: Choice, names: Sequence[str], place: tuple[int, int] | None, limit: int
) -> list[Letter]:
    newest: list[Letter] = []
    async with LogReader(connection(settings), committed=False) as log:
        async for letter in letters(log, names):
            if choice.takes(letter) and (place is None or place == (letter.partition, letter.offset)):
                newest.append(letter)
            if len(newest) > 2 * limit:
                newest = _newest(newest, limit)
    return _newest(newest, limit)


def _newest(found: list[Letter], limit: int) -> list[Letter]:
    return sorted(found, key=lambda letter: (letter.written_at, letter.topic, letter.partition, letter.offset))[-limit:]


def _print_letter(letter: Letter, known: Progress | None, full: bool, out: Console) -> None:
    """Everything that somebody else wrote is escaped: a terminal obeys what it is shown."""
    print_line(out, letter.place, "bold")
    state = standing(known)
    lines = [
        ("reason", escaped(letter.reason)),
        ("detail", escaped(letter.detail)),
        ("written", _when(letter.written_at)),
        ("was", f"{letter.source_topic}[{letter.source_partition}]@{letter.source_offset}"),
        ("state", state if known is None else f"{state} at {_when(known.at)}"),
    ]
    if letter.replays:
        lines.append(("refused again", f"after {letter.replays} {'replays' if letter.replays > 1 else 'replay'}"))
    lines.append(("key", "(none)" if letter.key is None else readable(letter.key, BODY_BYTES)[0]))
    lines += [
        (escaped(name), escaped((value or b"").decode("utf-8", "backslashreplace"))) for name, value in letter.headers
    ]
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        print_line(out, f"  {name.ljust(width)}  {text}")
    print_line(out, f"  body, {len(letter.value or b''):,} bytes:")
    for line in readable(letter.value, None if full else BODY_BYTES):
        print_line(out, f"    {line}", "dim")


# -- replay ---------------------------------------------------------------------------------------------------------


class Replay(NamedTuple):
    """What ``replay`` was asked to do."""

    choice: Choice
    limit: int | None
    dry_run: bool
    #: Also those that would be refused again.
    anyway: bool
    #: Also those of which nobody can tell whether they were brought back.
    in_doubt: bool


class _Selection:
    """Chooses letters one by one and remembers why others stay."""

    def __init__(self, asked: Replay, progress: dict[str, Progress], judge: Judge) -> None:
        self._asked = asked
        self._progress = progress
        self._judge = judge
        self._seen: set[str] = set()
        self.chosen = 0
        self.replayed_before = 0
        self.unknown = 0
        self.too_large = 0
        #: By topic, reason of the letter and reason of the coming refusal: how many, and one of them.
        self.refused: Counter[tuple[str, str, str]] = Counter()
        self.example: dict[tuple[str, str, str], str] = {}

    @property
    def is_full(self) -> bool:
        """Whether as many are chosen as were asked for."""
        return self._asked.limit is not None and self.chosen >= self._asked.limit

    def takes(self, letter: Letter) -> bool:
        """Whether this one is to come back; counts why if not."""
        identity = letter.identity()
        if identity in self._seen or not self._asked.choice.takes(letter):
            return False
        self._seen.add(identity)
        state = standing(self._progress.get(identity))
        if state == "replayed":
            self.replayed_before += 1
            return False
        if state == "in doubt" and not self._asked.in_doubt:
            self.unknown += 1
            return False
        if not fits(letter):
            self.too_large += 1
            return False
        refused = self._judge(letter)
        if refused is not None:
            group = (letter.topic, letter.reason, refused.reason.value)
            self.refused[group] += 1
            self.example.setdefault(group, refused.detail)
            if not self._asked.anyway:
                return False
        self.chosen += 1
        return True


async def replay(settings: Settings, asked: Replay, out: Console) -> int:
    """``replay``: bring back what would be counted now, and say what stays and why."""
    settings = complete(settings, "kafka_url")
    if not settings.kafka_idempotence:
        raise SettingsError(["this broker has no transactions (kafka_idempotence is false), and a replay needs them"])
    names = asked.choice.names()
    judge = judge_of(settings)
    check_reasons(asked.choice.reasons)
    async with _plainly(settings):
        if asked.dry_run:
            selection = _Selection(asked, await read_progress(connection(settings), settings.app_id), judge)
            async for _ in _chosen(settings, names, selection):
                pass
            count = selection.chosen
        else:
            selection, count = await _bring_back(settings, asked, names, judge, out)
    _report(selection, count, asked, out)
    return 0


async def _bring_back(
    settings: Settings, asked: Replay, names: Sequence[str], judge: Judge, out: Console
) -> tuple[_Selection, int]:
    from streams.dead_letters.replaying import Replayer

    async with Replayer(connection(settings), settings.app_id, settings.replication_factor, WallClock()) as replayer:
        if came := len(replayer.settled.arrived):
            print_line(
                out, f"an earlier replay ended early; {came} of its letters had come back and are not sent again"
            )
        selection = _Selection(asked, replayer.progress, judge)
        return selection, await replayer.replay(_chosen(settings, names, selection))


@contextlib.asynccontextmanager
async def _plainly(settings: Settings) -> AsyncIterator[None]:
    """What Kafka cannot do, in words; its client's own lines and forgotten futures say the same less plainly."""
    for name in ("aiokafka", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    except KafkaConnectionError as error:
        raise DeadLetterError(f"no Kafka broker answers at {settings.kafka_url}; see `sluice doctor`") from error
    except (KafkaError, TimeoutError) as error:
        raise DeadLetterError(
            f"Kafka at {settings.kafka_url} did not do as asked: {error!r}; see `sluice doctor`"
        ) from error


async def _chosen(settings: Settings, names: Sequence[str], selection: _Selection) -> AsyncIterator[Letter]:
    async with LogReader(connection(settings), committed=False) as log:
        async for letter in letters(log, names):
            if selection.takes(letter):
                yield letter
            if selection.is_full:
                return


def _report(selection: _Selection, count: int, asked: Replay, out: Console) -> None:
    done = "would be brought back" if asked.dry_run else "brought back"
    print_line(out, f"{count} {done}; {selection.replayed_before} had been before", "bold")
    for (topic, reason, again), number in sorted(selection.refused.items()):
        example = escaped(selection.example[(topic, reason, again)])
        outlook = "will be refused again" if asked.anyway and not asked.dry_run else "would be refused again"
        stays = "" if asked.anyway else " and stay"
        print_line(out, f"{number} of {topic} ({escaped(reason)}) {outlook}{stays}: {again}: {example}", "yellow")
    if selection.refused and not asked.anyway:
        print_line(out, "--anyway sends those too; the judgement is by the settings and the rate card given here")
    if selection.unknown and asked.dry_run:
        print_line(out, f"{selection.unknown} in doubt: a replay ended early; the next one finds out", "yellow")
    elif selection.unknown:
        print_line(
            out,
            f"{selection.unknown} in doubt stay: a replay ended early, and where they would lie is no longer kept;"
            f" look whether they were counted (header {REPLAY_OF}), then --in-doubt",
            "yellow",
        )
    if selection.too_large:
        print_line(out, f"{selection.too_large} stay: larger than their topic takes", "yellow")


def judge_of(settings: Settings) -> Judge:
    """Whether a letter that arrives now would be counted, by these settings and this rate card.

    Raises:
        SettingsError: the rate card cannot be used.
    """
    from streams.app import limits_of
    from streams.core.charging import Charging
    from streams.worker import read_prices

    limits = limits_of(settings)
    pricing = Charging(read_prices(settings), frozenset(settings.metered_providers))
    clock = WallClock()
    return lambda letter: refusal(letter, limits, pricing, clock.now())


def check_reasons(reasons: Sequence[str]) -> None:
    """Refuse a reason that no letter can have.

    Raises:
        SettingsError: with the reasons that there are.
    """
    known = [*Reason, "unknown"]
    if strange := [name for name in reasons if name not in known]:
        raise SettingsError([f"--reason {name}: there are {', '.join(known)}" for name in strange])
