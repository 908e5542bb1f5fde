"""The repository checks its own shape: what grows too long, hides its purpose, or was left unfinished."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
#: Split, so that this file does not find itself.
UNFINISHED = ("TODO", "FIXME", "XXX", "HACK")


def _sources() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.split()  # fmt: skip
    found = [ROOT / name for name in listed] or [
        path for path in ROOT.rglob("*.py") if not {".venv", ".git"} & set(path.parts)
    ]
    return sorted(path for path in found if path.exists())


SOURCES = _sources()
SERVICE = [path for path in SOURCES if path.relative_to(ROOT).parts[0] != "tests"]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SERVICE, ids=_name)
def test_a_module_is_short_enough_to_be_read_whole(path):
    assert len(path.read_text().splitlines()) <= MODULE_LINES_MAX


@pytest.mark.parametrize("path", SERVICE, ids=_name)
def test_a_function_is_short_enough_to_be_seen_whole(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or node.lineno) - node.lineno < FUNCTION_LINES_MAX, node.name


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_module_says_what_it_is_for(path):
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "the module has no docstring"


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_nothing_is_left_for_later(path):
    words = path.read_text().split()
    assert [mark for mark in UNFINISHED if any(word.strip("#:(") == mark for word in words)] == []


def test_public_functions_of_the_core_say_what_they_do():
    silent = []
    for path in SERVICE:
        if path.relative_to(ROOT).parts[:2] != ("streams", "core") and path.relative_to(ROOT).parts[0] != "detectors":
            continue
        for node in ast.parse(path.read_text()).body:
            is_public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if is_public and not ast.get_docstring(node):
                silent.append(f"{_name(path)}:{node.name}")
    assert silent == []
