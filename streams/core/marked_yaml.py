"""YAML that people write, read so that no digit is lost and every error names its line. Text in, no files."""

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

_NULL = "tag:yaml.org,2002:null"
_DEPTH_MAX = 40
_NODES_MAX = 1_000_000

Path = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class DocumentError(ValueError):
    """A document that cannot be used; ``problems`` has one line for every error, in the order of the text."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Problem(NamedTuple):
    """What is wrong, and where in the document's tree."""

    path: Path
    message: str


class Document:
    """A YAML document as mappings, lists and texts. Scalars are the text as written, so 0.1 stays 0.1."""

    def __init__(self, text: str) -> None:
        """Read the text.

        Raises:
            DocumentError: not YAML, a repeated key, or nested beyond reason.
        """
        self._lines: dict[Path, int] = {(): 1}
        self._nodes = 0
        self.problems: list[Problem] = []
        #: Keys without a value.
        self.blanks: list[Path] = []
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise DocumentError([f"line {line}: not YAML: {error.problem}"]) from error
        except RecursionError as error:
            raise DocumentError(["line 1: nested beyond reason"]) from error
        except yaml.YAMLError as error:
            raise DocumentError([f"line 1: not YAML: {error}"]) from error
        self.data: Any = {} if root is None else self._value(root, ())
        if self.data is None:
            self.data = {}

    def _value(self, node: yaml.Node, path: Path) -> Any:
        self._nodes += 1
        if len(path) > _DEPTH_MAX or self._nodes > _NODES_MAX:
            raise DocumentError([f"line {node.start_mark.line + 1}: nested or repeated beyond reason"])
        self._lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(child, (*path, place)) for place, child in enumerate(node.value)]
        return None if node.tag == _NULL else str(node.value)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            where = (*path, key)
            if key in found:
                self.problems.append(Problem(where, "is given twice"))
            value = self._value(value_node, where)
            self._lines[where] = key_node.start_mark.line + 1
            # A key without a value is as if it were not there: its default holds, or it is missed.
            if value is None:
                self.blanks.append(where)
            else:
                found[key] = value
        return found

    def items(self, section: str) -> list[tuple[Path, dict[str, Any]]]:
        """The mappings in a top-level list, with their paths; anything else is left to the schema."""
        entries = self.data.get(section) if isinstance(self.data, dict) else None
        if not isinstance(entries, list):
            return []
        return [((section, place), entry) for place, entry in enumerate(entries) if isinstance(entry, dict)]

    def validate(self, model: type[Model], more: Iterable[Problem] = ()) -> Model:
        """The document as a model.

        Args:
            more: problems that the caller found in the same document, reported together with the model's own.

        Raises:
            DocumentError: with every error, each with its line.
        """
        problems = [*self.problems, *more]
        validated = None
        try:
            validated = model.model_validate(self.data)
        except ValidationError as error:
            problems += [Problem(tuple(each["loc"]), _words(each["type"], each["msg"])) for each in error.errors()]
        if problems or validated is None:
            located = sorted((self.line(problem.path), _where(problem.path), problem.message) for problem in problems)
            raise DocumentError([f"line {line}: {where}: {message}" for line, where, message in located])
        return validated

    def line(self, path: Path) -> int:
        """The line where something is written, or the closest thing around it."""
        while path not in self._lines:
            path = path[:-1]
        return self._lines[path]


def _where(path: Path) -> str:
    return ".".join(str(part) for part in path if part != "[key]") or "document"


def _words(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown key; check its spelling"
    if kind == "missing":
        return "is missing"
    return message.removeprefix("Value error, ")
