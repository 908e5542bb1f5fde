"""What the LiteLLM plugin tells of a call, and what it does to one; the proxy itself is in ``make e2e-gateway``."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway import litellm_plugin as plugin
from gateway.commands import CommandBook
from schemas.commands import Measure, Target, ThrottleCommand
from schemas.instants import HOUR, format_instant

NOON = 1_800_000_000_000_000
SAMPLE = json.loads((Path(__file__).parent / "samples" / "litellm_standard_logging_payload.json").read_text())


def payload(**changes):
    """The recorded payload with changes; ``metadata__name`` reaches inside."""
    found = copy.deepcopy(SAMPLE)
    for name, value in changes.items():
        place = found
        *path, last = name.split("__")
        for step in path:
            place = place[step]
        place[last] = value
    return found


class TestEvent:
    def test_a_recorded_call(self):
        found = plugin.usage_event(payload())
        assert (found.provider, found.request_model, found.response_model) == ("openai", "big", "gpt-4o")
        assert (found.input_tokens, found.cache_read_input_tokens, found.output_tokens) == (7, 3, 12)
        assert (found.team_id, found.user_id, found.end_user_id) == ("team-alpha", "u1", "enduser1")
        assert (found.feature, found.reported_cost, found.status) == ("search", "0.000133750000", "success")
        assert found.key_id == SAMPLE["metadata"]["user_api_key_hash"]
        assert found.duration_ms == 8

    def test_neither_prompt_nor_answer_nor_address_leaves_the_proxy(self):
        told = repr(plugin.usage_event(payload()))
        assert [word for word in ("one two three", "lorem", "127.0.0.1", "curl") if word in told] == []

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            pytest.param({"metadata__team_id": "team-beta"}, {"team_id": "team-alpha"}, id="a team can't be forged"),
            pytest.param(
                {"metadata__user_api_key_team_id": None, "metadata__requester_metadata__team_id": "team-beta"},
                {"team_id": ""},
                id="a key without a team has none, whatever the caller says",
            ),
            pytest.param(
                {"request_tags": ["feature:chat", "run:r1", "environment:prod", "team:x", "cost_center:c"]},
                {"feature": "search", "run_id": "r1", "environment": "", "cost_center": ""},
                id="a caller's tag says only what its key leaves open and callers may say",
            ),
            pytest.param(
                {"metadata__user_api_key_auth_metadata": {"environment": "prod", "tags": ["project:p", "run:k"]},
                 "request_tags": ["run:r1", "request_type:batch"]},
                {"environment": "prod", "project_id": "p", "run_id": "k", "request_type": "batch"},
                id="a key's metadata and tags come first",
            ),
            pytest.param({"request_tags": ["request_type:now"]}, {"request_type": "interactive"}, id="an unknown kind of request is interactive"),
            pytest.param({"status": "failure", "error_information__error_class": "Timeout"}, {"status": "failure", "error_type": "Timeout"}, id="a failure"),
            pytest.param({"error_str": "Client disconnected"}, {"status": "success", "error_type": "ClientDisconnected"}, id="a client that hung up"),
            pytest.param({"cache_hit": True, "response_cost": 0.0}, {"cache_hit": True, "reported_cost": "0.000000000000"}, id="a cache hit"),
            pytest.param({"stream": True}, {"stream": True}, id="a stream"),
            pytest.param({"session_id": "s1"}, {"session_id": "s1"}, id="a session"),
            pytest.param(
                {"metadata__user_api_key_team_id": None, "metadata__user_api_key_hash": None, "metadata__usage_object": None,
                 "status": "failure", "prompt_tokens": 0, "completion_tokens": 0, "response_cost": None, "custom_llm_provider": None},
                {"team_id": "", "key_id": "", "reported_cost": None, "provider": "unknown"},
                id="a call that was refused for its key has no team and costs nothing",
            ),
            pytest.param({"metadata__user_api_key_hash": "my-secret"}, {"key_id": plugin.hashlib.sha256(b"my-secret").hexdigest()}, id="a key itself is never told"),
        ],
    )  # fmt: skip
    def test_what_it_says(self, changes, expected):
        found = plugin.usage_event(payload(**changes))
        assert {name: getattr(found, name) for name in expected} == expected

    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            pytest.param({}, {}, True, id="the same call told again"),
            pytest.param({"id": "r1"}, {"id": "r1_cache_hit1795226877.31"}, True, id="a suffix of the cache is no part of it"),
            pytest.param({"status": "failure"}, {}, False, id="a fallback's failure and its success"),
            pytest.param({"id": "r1"}, {"id": "r2"}, False, id="two answers under one call id"),
            pytest.param({"litellm_call_id": "c1"}, {"litellm_call_id": "c2"}, False, id="two calls with one cached answer"),
            pytest.param({"id": "x" * 900 + "1"}, {"id": "x" * 900 + "2"}, False, id="two long ids"),
        ],
    )  # fmt: skip
    def test_its_identity(self, one, other, same):
        ids = {plugin.event_id(payload(**one)), plugin.event_id(payload(**other))}
        assert (len(ids) == 1) is same
        assert max(map(len, ids)) < 400


@pytest.mark.parametrize(
    ("data", "call_type", "found"),
    [
        ({}, "completion", {"max_tokens": 100}),
        ({"max_tokens": 500}, "completion", {"max_tokens": 100}),
        ({"max_tokens": 50}, "completion", {"max_tokens": 50}),
        (
            {"max_tokens": 50, "max_completion_tokens": 900},
            "completion",
            {"max_tokens": 50, "max_completion_tokens": 100},
        ),
        ({"max_tokens": "900"}, "completion", {"max_tokens": 100}),
        ({"max_tokens": None}, "completion", {"max_tokens": 100}),
        ({"max_tokens": 90, "n": 4}, "completion", {"max_tokens": 25, "n": 4}),
        ({}, "aresponses", {"max_output_tokens": 100}),
        ({"max_output_tokens": 7_000}, "aresponses", {"max_output_tokens": 100}),
        (
            {"max_tokens": 9, "extra_body": {"max_completion_tokens": 999}},
            "completion",
            {"max_tokens": 9, "extra_body": {"max_completion_tokens": 100}},
        ),
        (
            {"generationConfig": {"maxOutputTokens": 999}},
            "completion",
            {"max_tokens": 100, "generationConfig": {"maxOutputTokens": 100}},
        ),
        ({"max_tokens": 9_000, "thinking": {"budget_tokens": 8_000}}, "anthropic_messages", {"max_tokens": 100}),
        ({"input": "x"}, "embeddings", {"input": "x"}),
    ],
    ids=[
        "a call that names no number gets one",
        "a larger one is lowered",
        "a smaller one stays",
        "each synonym is lowered",
        "a number in a string is none",
        "nothing is no number",
        "several choices share it",
        "the responses route has its own name",
        "the responses route's own name is lowered",
        "a synonym hidden in extra_body",
        "a synonym of Gemini's",
        "a thinking budget above the cap goes",
        "an embedding writes nothing",
    ],
)
def test_a_cap_holds_under_every_name(data, call_type, found):
    plugin.capped(data, 100, call_type)
    assert data == found


class FakeGate:
    """A gate that is ready and knows these commands."""

    def __init__(self, *commands):
        book = CommandBook(clock=lambda: NOON)
        for one in commands:
            book.apply(one.key(), one)
        self.check = book.check


def command(*measures, scope=("team", "alpha"), **fields):
    return ThrottleCommand(
        command_id="c1", budget_id="b1", target=Target(*scope), action=measures[0].action, revision=1, reason="Spent.",
        issued_at=format_instant(NOON), effective_at=format_instant(NOON), expires_at=format_instant(NOON + HOUR),
        measures=measures, **fields,
    )  # fmt: skip


def callback(*commands, environment=None):
    found = plugin.SluiceCallback(environment or {})

    async def started():
        return FakeGate(*commands)

    found.started = started
    return found


KEY = SimpleNamespace(team_id="alpha", org_id=None, api_key="sk-1", user_id="u1", metadata={"environment": "prod"})


class TestHook:
    @pytest.mark.parametrize("spoof", [{"metadata": {"team_id": "beta"}}, {"team_id": "beta"}, {"user": "beta"}])
    async def test_a_refusal_says_why_when_and_which_budget_whatever_team_a_caller_claims(self, spoof):
        hook = callback(command(Measure("block"), retry_after_s=90))
        with pytest.raises(Exception, match="Spent") as refused:
            await hook.async_pre_call_hook(KEY, None, {"model": "gpt-4o", **spoof}, "completion")
        error = refused.value
        assert (error.code, error.message) == (429, "Spent.")
        assert error.headers == {
            "Retry-After": "90", "x-sluice-action": "block", "x-sluice-budget": "b1", "x-sluice-command": "c1",
        }  # fmt: skip

    async def test_a_downgrade_swaps_the_model_and_strips_what_would_lead_back(self):
        hook = callback(command(Measure("downgrade", models={"gpt-4o": "gpt-4o-mini"})))
        data = {
            "model": "gpt-4o", "fallbacks": ["gpt-4o"], "context_window_fallbacks": [{"x": ["gpt-4o"]}],
            "extra_body": {"fallbacks": ["gpt-4o"]}, "metadata": {},
        }  # fmt: skip
        found = await hook.async_pre_call_hook(KEY, None, data, "completion")
        assert (found["model"], found["disable_fallbacks"], found["extra_body"]) == ("gpt-4o-mini", True, {})
        assert [name for name in found if name.endswith("fallbacks")] == ["disable_fallbacks"]
        assert await hook.async_post_call_response_headers_hook(found, KEY, None) == {
            "x-sluice-action": "downgrade", "x-sluice-model": "gpt-4o-mini", "x-sluice-budget": "b1",
        }  # fmt: skip

    async def test_environment_and_request_type_come_from_key_and_tags(self):
        hook = callback(command(Measure("block", environments=("prod",), request_types=("batch",))))
        interactive = {"model": "m", "metadata": {"tags": ["environment:dev"]}}
        assert await hook.async_pre_call_hook(KEY, None, interactive, "completion") is interactive
        with pytest.raises(Exception, match="Spent"):
            await hook.async_pre_call_hook(
                KEY, None, {"model": "m", "metadata": {"tags": ["request_type:batch"]}}, "completion"
            )

    async def test_a_call_that_nothing_applies_to_is_not_touched(self):
        data = {"model": "gpt-4o", "fallbacks": ["other"], "max_tokens": 5}
        found = await callback().async_pre_call_hook(KEY, None, dict(data), "completion")
        assert found == data

    @pytest.mark.parametrize(("fail", "goes"), [("open", True), ("closed", False)])
    async def test_where_the_plugin_cannot_start_calls_go_on_as_was_decided(self, fail, goes):
        hook = plugin.SluiceCallback({"SLUICEGATE_FAIL": fail, "SLUICEGATE_KAFKA_OPTIONS": "not json"})
        if goes:
            assert await hook.async_pre_call_hook(KEY, None, {"model": "m"}, "completion") == {"model": "m"}
        else:
            with pytest.raises(Exception, match="503"):
                await hook.async_pre_call_hook(KEY, None, {"model": "m"}, "completion")

    def test_a_setting_that_means_nothing_is_refused(self):
        with pytest.raises(ValueError, match="say open or closed"):
            plugin.SluiceCallback({"SLUICEGATE_FAIL": "maybe"})

    async def test_a_log_that_cannot_be_told_disturbs_nobody_and_is_counted(self):
        hook = callback()
        hook._publisher = SimpleNamespace()
        # As LiteLLM calls it: by name.
        payload = {"standard_logging_object": {"endTime": "never"}}
        await hook.async_log_success_event(kwargs=payload, response_obj=None, start_time=0, end_time=0)
        assert hook.lost == 1


@pytest.mark.parametrize(
    ("times", "began_s", "expected_ms"),
    [
        ({"startTime": 10.0, "endTime": 12.5, "response_time": 0.2}, 9.5, 3_000),
        ({"startTime": 10.0, "endTime": 12.5, "response_time": 0.2}, None, 2_500),
        ({"response_time": 0.2}, None, 200),
        ({"startTime": 10.0, "endTime": 9.0, "response_time": 0.2}, None, 200),
    ],
    ids=[
        "from the gate on",
        "from LiteLLM's start on",
        "as LiteLLM says, where it says nothing else",
        "a clock went back",
    ],
)
def test_a_call_takes_from_the_gate_to_the_end_of_its_answer_streamed_or_not(times, began_s, expected_ms):
    assert plugin.usage_event({"custom_llm_provider": "openai", **times}, began_s=began_s).duration_ms == expected_ms
