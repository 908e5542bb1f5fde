"""What is defined: what a file changes of it, and how workers take it in."""

from types import SimpleNamespace

import msgspec
import pytest

from schemas.budgets import Budget, Period, Rung
from schemas.commands import Target
from streams.agents.definitions import KnownDefinitions, WatchedNow
from streams.core.definition_file import changes_of, content_digest, said_by
from streams.core.definitions import Definitions
from streams.ports import Standing

FILE = "budgets.yaml"


def budget(name="b", dollars=10, team="search", **changes):
    return Budget(
        id=name, match=(("team", team),), target=Target("team", team), amount_nanos=dollars * 10**9,
        period=Period("day"), thresholds=(Rung(100, "emergency"),), **changes,
    )  # fmt: skip


def mark(definition):
    return f"{FILE}={content_digest(definition)}"


def stands(definition, by="file:budgets.yaml", said=None):
    return {"budget|b": Standing(definition, 3, by, mark(said) if said else "")}


@pytest.mark.parametrize(
    ("entry", "standing", "expected"),
    [
        pytest.param(budget(), {}, "added", id="nothing stands: it is added"),
        pytest.param(budget(), stands(budget(), said=budget()), None, id="the file says what it said: nothing"),
        pytest.param(budget(dollars=20), stands(budget(), said=budget()), "changed", id="the file changed: so does it"),
        pytest.param(
            budget(), stands(budget(dollars=50), by="api:ann", said=budget()), None,
            id="somebody raised it and the file did not change: it stays raised",
        ),
        pytest.param(
            budget(dollars=20), stands(budget(dollars=50), by="api:ann", said=budget()), "changed",
            id="somebody raised it, and then the file changed: the file's counts",
        ),
        pytest.param(
            budget(), stands(None, by="api:ann", said=budget()), None,
            id="somebody withdrew it and the file did not change: it stays withdrawn",
        ),
        pytest.param(
            budget(dollars=20), stands(None, by="api:ann", said=budget()), "added",
            id="somebody withdrew it, and then the file changed: it is back",
        ),
        pytest.param(budget(), stands(budget(), by="api:ann"), "changed", id="it came by API first: the file takes it"),
        pytest.param(None, stands(budget(), said=budget()), "withdrawn", id="gone from the file: withdrawn"),
        pytest.param(
            None, stands(budget(dollars=50), by="api:ann", said=budget()), None,
            id="gone from the file, but changed by somebody: it is theirs now",
        ),
        pytest.param(None, stands(budget(), by=said_by("other.yaml")), None, id="of another file: left alone"),
        pytest.param(None, stands(None, said=budget()), None, id="withdrawn already: nothing"),
    ],
)  # fmt: skip
def test_a_file_publishes_what_it_changed(entry, standing, expected):
    found = changes_of({} if entry is None else {"budget|b": entry}, standing, FILE)
    assert [change.what for change in found] == ([expected] if expected else [])
    assert all(change.definition == entry for change in found)


def test_the_digest_names_what_is_said_and_not_who_said_it():
    assert content_digest(budget(version=7, changed_by="ann", reason="x", changed_at=9)) == content_digest(budget())
    assert content_digest(budget(owner="ann")) != content_digest(budget())


def record(definition, key=None):
    value = definition if isinstance(definition, bytes) else definition and msgspec.json.encode(definition)
    return SimpleNamespace(key=(key or "budget|b").encode(), value=value)


@pytest.mark.parametrize(
    "value",
    [b"{", b'{"type":"budget"}', msgspec.json.encode(budget(v=2)), msgspec.json.encode(budget("other"))],
    ids=["no JSON", "no budget", "of a newer release", "under another's key"],
)
def test_what_cannot_be_read_changes_nothing(value, caplog):
    known = KnownDefinitions(Definitions().changed({"budget|b": budget()}))
    before = known()
    known.take([record(value)])
    assert known() is before
    assert "changes nothing" in caplog.text
    known.take([record(None)])
    assert known().budgets == {}


def test_the_watchlist_stays_the_same_object_until_what_is_counted_changes():
    known = KnownDefinitions()
    watched = WatchedNow(known)
    known.take([record(budget())])
    first = watched()
    known.take([record(budget(dollars=99, owner="ann"))])
    assert watched() is first
    known.take([record(budget(team="ads"))])
    assert watched() is not first
    assert [each.match for each in watched().budgets] == [(("team", "ads"),)]
