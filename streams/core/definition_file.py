"""What publishing a budgets file changes: what the file changed, and nothing that somebody else did since."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from schemas.budgets import Definition
from schemas.keys import digest
from streams.ports import Standing

_encode = msgspec.json.Encoder(order="deterministic").encode
_SAYS = {"version": 1, "changed_by": "", "reason": "", "changed_at": 0}


class FileChange(NamedTuple):
    """One thing that a file changes; ``definition`` is None where it ends it."""

    key: str
    what: Literal["added", "changed", "withdrawn"]
    definition: Definition | None
    #: What the file says now, to be remembered with whatever is under the key from here on.
    file_digest: str


def content_digest(definition: Definition) -> str:
    """Names what a definition says, whoever said it and when."""
    said = {name: value for name, value in _SAYS.items() if name in definition.__struct_fields__}
    return digest("definition", _encode(msgspec.structs.replace(definition, **said)).decode())[:16]


def said_by(file_name: str) -> str:
    """Who a change is by that came from a file."""
    return f"file:{file_name}"


def changes_of(
    entries: Mapping[str, Definition], standing: Mapping[str, Standing], file_name: str
) -> tuple[FileChange, ...]:
    """What publishing a file would change.

    An entry whose content is what the file said last is left alone, whatever stands now: somebody changed or withdrew
    it by API or command line, and the file did not. An entry that is gone from the file is withdrawn if it is the
    file's still.
    """
    found = []
    for key, entry in sorted(entries.items()):
        mark, now = f"{file_name}={content_digest(entry)}", standing.get(key)
        if now is not None and now.file_digest == mark:
            continue
        stands = now is not None and now.definition is not None
        found.append(FileChange(key, "changed" if stands else "added", entry, mark))
    for key, now in sorted(standing.items()):
        if now.definition is not None and now.changed_by == said_by(file_name) and key not in entries:
            found.append(FileChange(key, "withdrawn", None, ""))
    return tuple(found)
