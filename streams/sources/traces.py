"""Readers of recorded traces: from the rows of a file to usage events under ids that name file and row. Pure.

A trace says when and how many tokens; whose they were comes from a team map. Every unreadable row is an error
that names its line, so that a replay either has every row or says which one it lacks.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import msgspec
import yaml

from schemas.cloudevents import EnvelopeError, read_structured
from schemas.events import USAGE_TYPE, UsageEvent
from schemas.instants import SECOND, InstantError, parse_instant, to_micros

Format = Literal["azure-llm", "burstgpt", "cloudevents"]
FORMATS: tuple[Format, ...] = ("azure-llm", "burstgpt", "cloudevents")

_AZURE_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)?")
_decode_usage = msgspec.json.Decoder(UsageEvent).decode


class TraceError(ValueError):
    """A trace or a team map that can't be read; the message names the line or the key."""


class Owner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose calls the rows are, and what was called; None leaves what the trace or the default says."""

    team: str | None = None
    feature: str | None = None
    model: str | None = None
    provider: str | None = None
    environment: str | None = None


class TeamMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``column`` is looked up in ``values``; what is not there belongs to ``default``."""

    column: str = ""
    values: dict[str, Owner] = {}
    default: Owner = Owner()

    def owner(self, row: Mapping[str, str]) -> Owner:
        """The owner of a row, gaps filled from the default."""
        found = self.values.get((row.get(self.column) or "").strip()) if self.column else None
        if found is None:
            return self.default
        given = {name: value for name, value in msgspec.structs.asdict(found).items() if value is not None}
        return msgspec.structs.replace(self.default, **given)


class Row(NamedTuple):
    """One call of a trace. ``time``: microseconds since 1970, or since the beginning of the trace."""

    id: str
    source: str
    time: int
    event: UsageEvent


def read_team_map(text: str) -> TeamMap:
    """A team map from YAML: ``column``, ``values`` and ``default``.

    Raises:
        TraceError: not YAML, or a key or value that has no meaning here.
    """
    try:
        return msgspec.convert(yaml.safe_load(text) or {}, TeamMap)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise TraceError(f"team map: {error}") from error


def read_trace(kind: Format, lines: Iterable[str], name: str, team_map: TeamMap | None = None) -> Iterator[Row]:
    """The calls of a trace in its order. ``name`` stands for the file in ids: the same content, the same ids.

    Raises:
        TraceError: a column is missing or a row can't be read; raised when the reader gets there.
    """
    return _READERS[kind](lines, name, team_map or TeamMap())


def is_relative(kind: Format) -> bool:
    """Whether the trace counts time from its own beginning."""
    return kind == "burstgpt"


def _azure_llm(lines: Iterable[str], name: str, team_map: TeamMap) -> Iterator[Row]:
    """Azure's LLM inference traces of 2023 and 2024: TIMESTAMP, ContextTokens, GeneratedTokens."""
    standard = Owner(team="azure-trace", feature="azure-llm", model="gpt-4o", provider="openai")
    for place, row in _csv_rows(lines, ("TIMESTAMP", "ContextTokens", "GeneratedTokens")):
        event = _event(
            _fill(team_map.owner(row), standard),
            input_tokens=_count(row, "ContextTokens", place),
            output_tokens=_count(row, "GeneratedTokens", place),
        )
        yield Row(f"{name}:{place}", "//replay/azure-llm", _azure_time(row["TIMESTAMP"], place), event)


#: What BurstGPT's ``Model`` column stands for.
BURSTGPT_MODELS = {"ChatGPT": "gpt-3.5-turbo", "GPT-4": "gpt-4"}


def _burstgpt(lines: Iterable[str], name: str, team_map: TeamMap) -> Iterator[Row]:
    """BurstGPT: seconds since its beginning; a response without tokens is a failed call."""
    columns = ("Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type")
    for place, row in _csv_rows(lines, columns):
        model, log_type = row["Model"].strip(), row["Log Type"].strip()
        standard = Owner(
            team="burstgpt",
            feature=log_type.lower().removesuffix(" log").replace(" ", "-") or "burstgpt",
            model=BURSTGPT_MODELS.get(model, model),
            provider="openai",
        )
        request, response = _count(row, "Request tokens", place), _count(row, "Response tokens", place)
        if request + response != _count(row, "Total tokens", place):
            raise TraceError(f"line {place + 1}: Total tokens is not the sum of request and response tokens")
        owner = _fill(team_map.owner(row), standard)
        event = _event(owner, input_tokens=request, output_tokens=response)
        if response == 0:
            event = msgspec.structs.replace(event, status="failure", error_type="no_response")
        try:
            time = round(float(row["Timestamp"]) * SECOND)
        except (ValueError, OverflowError) as error:
            raise TraceError(f"line {place + 1}: Timestamp is no number of seconds") from error
        yield Row(f"{name}:{place}", "//replay/burstgpt", time, event)


def _cloudevents(lines: Iterable[str], name: str, team_map: TeamMap) -> Iterator[Row]:
    """One structured CloudEvent a line, with its own id and source; the team map fills what is empty."""
    for place, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            envelope = read_structured(line.encode())
            if envelope.type != USAGE_TYPE:
                raise TraceError(f"line {place}: type is {envelope.type[:64]!r}; a replay takes {USAGE_TYPE}")
            event = _decode_usage(envelope.data)
            time = parse_instant(envelope.time)
        except (EnvelopeError, msgspec.DecodeError, InstantError, OverflowError) as error:
            raise TraceError(f"line {place}: {error}") from error
        owner = team_map.owner({"team": event.team_id, "feature": event.feature, "model": event.model})
        event = msgspec.structs.replace(
            event,
            team_id=event.team_id or envelope.subject or owner.team or "",
            feature=event.feature or owner.feature or "",
            environment=event.environment or owner.environment or "",
        )
        yield Row(envelope.id, envelope.source, time, event)


_READERS: dict[str, Callable[[Iterable[str], str, TeamMap], Iterator[Row]]] = {
    "azure-llm": _azure_llm,
    "burstgpt": _burstgpt,
    "cloudevents": _cloudevents,
}


def _csv_rows(lines: Iterable[str], columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows numbered from 1; the header is line 1 of the file."""
    reader = csv.DictReader(lines)
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise TraceError(f"line 1: no column {', '.join(missing)}; found {', '.join(reader.fieldnames or ())}")
    for place, row in enumerate(reader, 1):
        if None in row.values() or None in row:
            raise TraceError(f"line {place + 1}: the row has another number of columns than the header")
        yield place, row


def _count(row: Mapping[str, str], column: str, place: int) -> int:
    text = row[column].strip()
    # Some releases write whole numbers with a decimal point.
    if not re.fullmatch(r"\d{1,12}(\.0+)?", text):
        raise TraceError(f"line {place + 1}: {column} is no count: {text[:32]!r}")
    return int(text.partition(".")[0])


def _azure_time(text: str, place: int) -> int:
    """Seven decimals, the last of which is below a microsecond, and UTC without saying so."""
    found = _AZURE_TIME.fullmatch(text.strip())
    if found is None:
        raise TraceError(f"line {place + 1}: TIMESTAMP is no instant: {text[:40]!r}")
    day, clock, fraction, offset = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{offset or '+00:00'}")
    except ValueError as error:
        raise TraceError(f"line {place + 1}: TIMESTAMP is no instant: {text[:40]!r}") from error
    return to_micros(moment.astimezone(UTC)) + int(((fraction or "") + "000000")[:6])


def _fill(owner: Owner, standard: Owner) -> Owner:
    given = {name: value for name, value in msgspec.structs.asdict(owner).items() if value is not None}
    return msgspec.structs.replace(standard, **given)


def _event(owner: Owner, *, input_tokens: int, output_tokens: int) -> UsageEvent:
    return UsageEvent(
        provider=owner.provider or "",
        response_model=owner.model or "",
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        team_id=owner.team or "",
        feature=owner.feature or "",
        environment=owner.environment or "",
    )
