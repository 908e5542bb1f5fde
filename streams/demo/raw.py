"""The raw input as it was published, one JSON object a line: what the oracle reads."""

import json
from typing import IO

from streams.sources.publisher import Record

_ATTRIBUTES = ("id", "source", "type", "time", "subject")


def raw_line(record: Record) -> str:
    """One published record: its topic, its CloudEvents attributes, and its value as text."""
    headers = dict(record.headers)
    line = {"topic": record.topic}
    line |= {name: headers.get(f"ce_{name}", b"").decode() for name in _ATTRIBUTES}
    return json.dumps(line | {"value": record.value.decode("utf-8", "replace")}, ensure_ascii=False)


class RawFile:
    """Appends what is published."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self.lines = 0

    def append(self, record: Record) -> None:
        """Write one record's line."""
        self._file.write(raw_line(record) + "\n")
        self.lines += 1

    def flush(self) -> None:
        """Let other processes see all of it."""
        self._file.flush()
