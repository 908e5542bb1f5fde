"""The oracle against sums made by hand. It must stay independent: standard library only."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtest import oracle

ORACLE = Path(oracle.__file__)


def _raw(kind: str, data: dict[str, Any] | str, id: str = "1", time: str = "2026-11-20T10:59:59Z") -> dict[str, Any]:
    value = data if isinstance(data, str) else json.dumps(data)
    return {"topic": "t", "id": id, "source": "/g", "type": kind, "time": time, "subject": "", "value": value}


def _call(model: str, **more: Any) -> dict[str, Any]:
    return {"provider": "p", "response_model": model, "team_id": "search", "feature": "answers", **more}


def _gpu(seconds: str, **more: Any) -> dict[str, Any]:
    window = {"window_start": "2026-11-20T10:59:00Z", "window_end": "2026-11-20T11:00:00Z"}
    return {"model": "NVIDIA L40S", "allocated_seconds": seconds, "team_id": "ml", **window, **more}


def _bill(cost: str, **more: Any) -> dict[str, Any]:
    return {
        "billed_cost": cost, "billing_currency": "USD", "charge_period_start": "2026-11-20T10:00:00Z",
        "service_provider_name": "Pinecone", "service_name": "Pinecone Serverless", **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "data", "nanos"),
    [
        pytest.param(oracle.USAGE, _call("gpt-4o", input_tokens=1000, output_tokens=100), 3_500_000, id="in and out"),
        pytest.param(
            oracle.USAGE,
            _call(
                "claude-opus-4-1",
                input_tokens=1000,
                cache_read_input_tokens=400,
                cache_creation_input_tokens=100,
            ),
            9_975_000,
            id="cached input is a part of input: 500 fresh, 400 read, 100 written",
        ),
        pytest.param(oracle.USAGE, _call("gpt-4o-mini", input_tokens=1), 128, id="127.5 rounds half to even: up"),
        pytest.param(oracle.USAGE, _call("gpt-4o-mini", input_tokens=3), 382, id="382.5 rounds half to even: down"),
        pytest.param(oracle.USAGE, _call("nobody-knows", input_tokens=9), 0, id="an unknown model costs nothing"),
        pytest.param(oracle.GPU, _gpu("60"), 18_166_667, id="1.09 an hour for a minute"),
        pytest.param(oracle.GPU, _gpu("30", shared_by=3), 3_027_778, id="a third of half a minute"),
        pytest.param(oracle.BILL, _bill("18.437500001"), 18_437_500_001, id="a bill line adds"),
        pytest.param(oracle.BILL, _bill("-2.50"), -2_500_000_000, id="a credit takes away"),
        pytest.param(
            oracle.BILL,
            _bill("12", service_provider_name="OpenAI", service_subcategory="Generative AI"),
            0,
            id="a bill for metered tokens adds nothing",
        ),
    ],
)
def test_one_record_costs(kind: str, data: dict[str, Any], nanos: int) -> None:
    book = oracle.Oracle()
    book.add(_raw(kind, data))
    assert (book.total_nanos, book.counted, book.refused) == (nanos, 1, 0)


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(_raw(oracle.USAGE, "<html>"), id="no JSON"),
        pytest.param(_raw(oracle.USAGE, "[1]"), id="no object"),
        pytest.param(_raw(oracle.USAGE, _call("gpt-4o", input_tokens="many")), id="a count in words"),
        pytest.param(_raw(oracle.USAGE, _call("gpt-4o", input_tokens=-1)), id="a negative count"),
        pytest.param(_raw(oracle.USAGE, _call("gpt-4o", input_tokens=1, cache_read_input_tokens=2)), id="more cached"),
        pytest.param(_raw(oracle.USAGE, _call("gpt-4o"), id=""), id="no identity"),
        pytest.param(_raw(oracle.USAGE, _call("gpt-4o"), time="yesterday"), id="no instant"),
        pytest.param(_raw("other", _call("gpt-4o")), id="another type"),
        pytest.param(_raw(oracle.GPU, _gpu("61")), id="more seconds than the window"),
        pytest.param(_raw(oracle.BILL, _bill("1", billing_currency="XXX")), id="another currency"),
    ],
)
def test_what_cannot_be_read_is_refused_and_adds_nothing(record: dict[str, Any]) -> None:
    book = oracle.Oracle()
    book.add(record)
    assert (book.refused, book.counted, book.nanos) == (1, 0, {})


def test_a_pair_of_source_and_id_counts_once_and_groups_are_kept_apart() -> None:
    book = oracle.Oracle()
    call = _call("gpt-4o", input_tokens=1000)
    for record in (
        _raw(oracle.USAGE, call, "a"),
        _raw(oracle.USAGE, call, "a"),
        _raw(oracle.USAGE, call, "b"),
        _raw(oracle.USAGE, call, "c", time="2026-11-20T12:00:00+01:00"),
        _raw(oracle.USAGE, {"response_model": "gpt-4o"}, "d"),
        _raw(oracle.GPU, _gpu("60"), "e"),
    ):
        book.add(record)
    assert (book.counted, book.duplicates) == (5, 1)
    assert book.nanos == {
        ("2026-11-20T10:00:00Z", "search", "answers", "gpt-4o", "llm"): 5_000_000,
        ("2026-11-20T11:00:00Z", "search", "answers", "gpt-4o", "llm"): 2_500_000,
        ("2026-11-20T10:00:00Z", "__unattributed__", "__unattributed__", "gpt-4o", "llm"): 0,
        ("2026-11-20T10:00:00Z", "ml", "__unattributed__", "NVIDIA L40S", "gpu"): 18_166_667,
    }


def test_the_command_line_prints_the_sums_with_other_prices_too(tmp_path: Path) -> None:
    raw, prices = tmp_path / "raw.jsonl", tmp_path / "prices.json"
    raw.write_text(json.dumps(_raw(oracle.USAGE, _call("mine", input_tokens=2_000_000))) + "\n\n")
    prices.write_text(json.dumps({"llm": {"mine": ["0.25", None, None, "1"]}}))
    ran = subprocess.run(
        [sys.executable, "-I", ORACLE, raw, "--prices", prices], capture_output=True, text=True, check=True
    )
    found = json.loads(ran.stdout)
    assert (found["total_usd"], found["total_nanos"], found["counted"]) == ("0.5", 500_000_000, 1)


def test_it_imports_nothing_of_sluice_nor_any_package() -> None:
    found = ast.walk(ast.parse(ORACLE.read_text()))
    names = {alias.name for node in found if isinstance(node, ast.Import) for alias in node.names} | {
        node.module or "" for node in ast.walk(ast.parse(ORACLE.read_text())) if isinstance(node, ast.ImportFrom)
    }
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names
