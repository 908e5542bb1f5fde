"""Usage events as gateways publish them, made fast: Zipf cells, sizes and rhythm of real traces, some duplicates. Pure.

An event is what ``gateway.publisher.UsagePublisher`` sends: CloudEvents binary mode, JSON of ``UsageEvent``, the
team as key. Everything follows from the seed.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

import msgspec
from aiokafka.partitioner import DefaultPartitioner

from loadtest.bench.distributions import (
    AZURE_CONTEXT_TOKENS,
    AZURE_GAPS,
    AZURE_GENERATED_TOKENS,
    MOONCAKE_INPUT_TOKENS,
    MOONCAKE_OUTPUT_TOKENS,
    Zipf,
)
from schemas.cloudevents import binary_headers
from schemas.events import USAGE_TYPE, UsageEvent
from schemas.instants import SECOND, format_instant

#: Provider and model of a call, all sold by the catalogue, with how common each is.
MODELS = (
    ("openai", "gpt-4o-mini"),
    ("openai", "gpt-4o"),
    ("anthropic", "claude-sonnet-4-0"),
    ("google", "gemini-2.5-flash"),
    ("openai", "gpt-4.1"),
    ("anthropic", "claude-opus-4-1"),
)
ENVIRONMENTS = ("production", "production", "production", "staging", "development")
REQUEST_TYPES = ("interactive", "interactive", "batch", "background")
GATEWAYS = tuple(f"//gateway/litellm/{region}-{number}" for region in ("eu", "us", "ap") for number in range(1, 9))
FEATURES = 60
#: One cell in so many is of a long-context feature, with Mooncake's sizes; all others have Azure's.
LONG_CONTEXT_EVERY = 40
#: Calls whose tokens, keys and users are made once and drawn from; ids and times are of each event alone.
CALLS = 20_000
KEYS_OF_TEAM = 16
CHUNK = 4_096
#: A repeat follows its original within this many events of its partition.
REPEATED_WITHIN = 2_000

Headers = list[tuple[str, bytes]]


class Shape(NamedTuple):
    """What the events are like."""

    #: Cells (combinations of dimensions in one hour) that events fall into.
    cells: int = 10_000
    teams: int = 200
    #: Of the cells' sizes. Clients of real platforms are more uneven still: over ServeGen's 100 largest it is 1.8.
    exponent: float = 1.0
    #: Share of events that a gateway sends a second time, under the same id.
    duplicates: float = 0.02
    #: Events a second of event time.
    rate: float = 5_000.0
    seed: int = 1


class Made(NamedTuple):
    """One event, ready for its partition."""

    partition: int
    key: bytes
    value: bytes
    headers: Headers
    #: Event time, microseconds since 1970.
    time: int


class _Cell(NamedTuple):
    partition: int
    key: bytes
    #: The event's JSON without its last brace, up to the fields of the call.
    head: bytes
    long_context: bool


def team_name(number: int) -> str:
    """The id of a team, 0 being in the most cells."""
    return f"team-{number:05d}"


def _cells(shape: Shape, partitions: int) -> list[_Cell]:
    random = Random(shape.seed)
    place, everywhere = DefaultPartitioner(), list(range(partitions))
    found: dict[bytes, _Cell] = {}
    while len(found) < shape.cells:
        number = len(found)
        # One cell of each team first, so that every team exists; then they share the rest by chance.
        team = number if number < shape.teams else random.randrange(shape.teams)
        provider, model = random.choice(MODELS)
        event = UsageEvent(
            provider=provider,
            request_model=model,
            response_model=model,
            stream=random.random() < 0.5,
            team_id=team_name(team),
            feature=f"feature-{random.randrange(FEATURES):02d}",
            environment=random.choice(ENVIRONMENTS),
            request_type=random.choice(REQUEST_TYPES),
            # A key is its team's, one of a few.
            key_id=f"key-{team:04x}{random.randrange(KEYS_OF_TEAM):02x}",
        )
        head = msgspec.json.encode(event)[:-1]
        key = event.team_id.encode()
        found[head] = _Cell(place(key, everywhere, everywhere), key, head, number % LONG_CONTEXT_EVERY == 7)
    return list(found.values())


def _calls(random: Random, long_context: bool) -> list[bytes]:
    sizes = (MOONCAKE_INPUT_TOKENS, MOONCAKE_OUTPUT_TOKENS) if long_context else (
        AZURE_CONTEXT_TOKENS, AZURE_GENERATED_TOKENS
    )  # fmt: skip
    calls = []
    for _ in range(CALLS):
        context = max(1, round(sizes[0].at(random.random())))
        generated = max(1, round(sizes[1].at(random.random())))
        fields: dict[str, object] = {"input_tokens": context, "output_tokens": generated}
        if random.random() < 0.3:
            fields["cache_read_input_tokens"] = context // 2
        if random.random() < 0.01:
            fields |= {"status": "failure", "error_type": "timeout"}
        fields |= {
            "duration_ms": 200 + 12 * generated + random.randrange(400),
            "user_id": f"user-{random.randrange(5_000):04d}",
        }
        calls.append(b"," + msgspec.json.encode(fields)[1:])
    return calls


class Stream:
    """An endless, time-ordered stream of events from ``start`` (microseconds since 1970)."""

    def __init__(self, shape: Shape, partitions: int, start: int, part: int = 0, parts: int = 1) -> None:
        """``part`` of ``parts`` streams that together have the shape's rate; ids never meet."""
        self._shape = shape
        self._cells = _cells(shape, partitions)
        self._random = Random(f"{shape.seed}/{part}")
        self._calls = (_calls(self._random, False), _calls(self._random, True))
        self._zipf = Zipf(shape.cells, shape.exponent)
        self._time = float(start)
        self._mean_gap = parts * SECOND / shape.rate / AZURE_GAPS.mean()
        self._recent: list[deque[Made]] = [deque(maxlen=REPEATED_WITHIN) for _ in range(partitions)]
        self._second, self._second_text = -1, b""
        self._heads = [
            binary_headers(id="-", source=source, type=USAGE_TYPE, time="-", subject="-") for source in GATEWAYS
        ]

    def __iter__(self) -> Iterator[Made]:
        while True:
            yield from self.chunk()

    def chunk(self) -> list[Made]:
        """The next ``CHUNK`` events, and the repeats among them."""
        random, cells, recent = self._random, self._cells, self._recent
        ids = random.randbytes(16 * CHUNK).hex()
        made = []
        for number, rank in enumerate(self._zipf.draw(random, CHUNK)):
            cell = cells[rank]
            self._time += AZURE_GAPS.at(random.random()) * self._mean_gap
            calls = self._calls[cell.long_context]
            at = 32 * number
            event = Made(
                cell.partition,
                cell.key,
                cell.head + calls[int(random.random() * CALLS)],
                self._headers(ids[at : at + 32], cell.key, number),
                int(self._time),
            )
            made.append(event)
            known = recent[cell.partition]
            known.append(event)
            if random.random() < self._shape.duplicates:
                made.append(known[int(random.random() * len(known))])
        return made

    def _headers(self, digits: str, subject: bytes, number: int) -> Headers:
        kind, version, _, source, type_, _, _, _ = self._heads[number % len(self._heads)]
        text = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}".encode()
        return [
            kind,
            version,
            ("ce_id", text),
            source,
            type_,
            ("ce_time", self._instant(int(self._time))),
            ("ce_subject", subject),
            ("ce_partitionkey", subject),
        ]

    def _instant(self, micros: int) -> bytes:
        second, rest = divmod(micros, SECOND)
        if second != self._second:
            self._second = second
            self._second_text = format_instant(second * SECOND)[:19].encode()
        return b"%s.%06dZ" % (self._second_text, rest)


def size_on_wire(made: Made) -> int:
    """Bytes of key, value and headers, without the few that frame them."""
    return len(made.key) + len(made.value) + sum(len(name) + len(value) for name, value in made.headers)


def budgets_yaml(count: int, teams: int, amount_usd: str = "1000000000", mode: str = "observe") -> str:
    """A budgets file: monthly budgets of the first teams, in turn, that nothing here can exhaust."""
    lines: list[str] = ["budgets:"]
    for number in range(count):
        lines += budget_lines(f"bench-{number:05d}", team_name(number % teams), amount_usd, mode)
    return "\n".join(lines) + "\n" if count else "budgets: []\n"


def budget_lines(name: str, team: str, amount_usd: str, mode: str, period: str = "month") -> Sequence[str]:
    """One budget of a team, as lines of the budgets file."""
    return (
        f"  - id: {name}",
        f"    scope: {{team: {team}}}",
        f'    amount_usd: "{amount_usd}"',
        f"    period: {period}",
        f"    mode: {mode}",
    )
