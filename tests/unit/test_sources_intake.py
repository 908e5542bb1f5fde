"""What ingest accepts, what it turns it into, and every reason it gives when it does not."""

import json
from typing import NamedTuple

import pytest
from fastapi import HTTPException

from schemas.instants import parse_instant
from streams.core.reading import Limits
from streams.core.reading import read as meter_reads
from streams.sources.ingest import Unreadable, records_of
from streams.sources.intake import Rules

NOW = parse_instant("2026-11-21T12:00:00Z")
RULES = Rules(tokens_max=1_000_000, openmeter_types=frozenset({"litellm_tokens"}))
SINGLE = {"content-type": "application/cloudevents+json; charset=UTF-8"}
BATCH = {"content-type": "application/cloudevents-batch+json"}
USAGE = {"provider": "openai", "response_model": "gpt-4o", "input_tokens": 10, "team_id": "search"}
GPU = {
    "gpu_uuid": "GPU-1",
    "window_start": "2026-11-21T11:59:30Z",
    "window_end": "2026-11-21T12:00:00Z",
    "allocated_seconds": 30,
    "util_ratio": 0.5,
}
BILL = {
    "billing_account_id": "acc-1",
    "charge_period_start": "2026-11-01T00:00:00Z",
    "charge_period_end": "2026-12-01T00:00:00Z",
    "billed_cost": "-12.30",
    "billing_currency": "USD",
    "service_provider_name": "AWS",
}
#: Exactly what litellm/integrations/openmeter.py posts.
OPENMETER = {
    "specversion": "1.0",
    "type": "litellm_tokens",
    "id": "chatcmpl-abc",
    "time": "2026-11-21T11:59:59.123456+00:00",
    "subject": "user-7",
    "source": "litellm-proxy",
    "data": {
        "model": "gpt-4o",
        "cost": 6.25e-05,
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "total_tokens": 30,
    },
}


class Arrived(NamedTuple):
    """A record as METER gets it from the transport."""

    offset: int
    timestamp: int
    key: bytes
    value: bytes
    headers: list


def event(kind="ai.usage.recorded.v1", data=None, **attributes):
    return {
        "specversion": "1.0",
        "id": "e1",
        "source": "//gateway/a",
        "type": kind,
        "time": "2026-11-21T11:59:59Z",
        "data": USAGE if data is None else data,
    } | attributes


def usage(**changes):
    return event(data=USAGE | changes)


def read(body, headers=SINGLE, rules=RULES, batch_max=100):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return records_of(headers, raw, rules, batch_max, NOW)


def reasons(body, headers=SINGLE, **options):
    with pytest.raises(Unreadable) as refused:
        read(body, headers, **options)
    return refused.value.problems


@pytest.mark.parametrize(
    ("sent", "topic", "key"),
    [
        pytest.param(event(), "usage.events.v1", b"search", id="a call, keyed by its team"),
        pytest.param(
            event(data={"provider": "openai"}, subject="ads"),
            "usage.events.v1",
            b"ads",
            id="a call whose subject names the team",
        ),
        pytest.param(
            event(data={"provider": "openai"}),
            "usage.events.v1",
            b"__unattributed__",
            id="a call without a team",
        ),
        pytest.param(event("ai.gpu.sampled.v1", GPU), "usage.gpu.v1", b"GPU-1", id="a GPU window"),
        pytest.param(event("ai.billing.recorded.v1", BILL), "usage.billing.v1", b"acc-1", id="a credit"),
        pytest.param(OPENMETER, "usage.events.v1", b"__unattributed__", id="LiteLLM's OpenMeter event"),
    ],
)
def test_each_type_goes_to_its_topic_under_its_key(sent, topic, key):
    (record,) = read(sent)
    assert (record.topic, record.key) == (topic, key)


def test_the_envelope_becomes_headers_and_the_data_the_value():
    (record,) = read(event())
    headers = dict(record.headers)
    assert headers["content-type"] == b"application/json"
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_id"] == b"e1"
    assert headers["ce_source"] == b"//gateway/a"
    assert headers["ce_type"] == b"ai.usage.recorded.v1"
    assert headers["ce_time"] == b"2026-11-21T11:59:59Z"
    assert headers["ce_subject"] == b"search"
    assert json.loads(record.value) == USAGE


def test_prompts_and_other_fields_without_a_name_here_never_reach_the_topic():
    (record,) = read(usage(messages=[{"content": "secret"}], user_email="a@b"))
    assert json.loads(record.value) == USAGE


def test_an_event_without_a_time_happened_now():
    (record,) = read(event(time=""))
    assert dict(record.headers)["ce_time"] == b"2026-11-21T12:00:00Z"


def test_binary_mode_takes_attributes_from_percent_encoded_headers():
    headers = {
        "content-type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": "e1",
        "ce-source": "//gateway/caf%C3%A9",
        "ce-type": "ai.usage.recorded.v1",
        "ce-time": "2026-11-21T11:59:59Z",
    }
    (record,) = read(USAGE, headers)
    assert dict(record.headers)["ce_source"] == "//gateway/café".encode()


def test_litellms_openmeter_event_becomes_a_call_of_its_key_s_team():
    (record,) = read(OPENMETER, rules=RULES._replace(bound_team="search"))
    assert json.loads(record.value) == {
        "provider": "",
        "response_model": "gpt-4o",
        "input_tokens": 10,
        "output_tokens": 20,
        "reported_cost": "0.0000625",
        "team_id": "search",
        "end_user_id": "user-7",
    }
    assert dict(record.headers)["ce_type"] == b"ai.usage.recorded.v1"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"model": "azure/gpt-4o"}, ("azure", "gpt-4o"), id="the provider before the slash"),
        pytest.param(
            {"model": "openrouter/meta/llama-3"},
            ("openrouter", "meta/llama-3"),
            id="only the first slash parts",
        ),
    ],
)
def test_litellms_model_may_name_its_provider(change, expected):
    (record,) = read(OPENMETER | {"data": OPENMETER["data"] | change})
    value = json.loads(record.value)
    assert (value["provider"], value["response_model"]) == expected


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({"model": "dall-e-3", "cost": 0.04}, id="without token counts"),
        pytest.param({"model": "m", "cost": None, "prompt_tokens": "7"}, id="a numeric string, no cost"),
    ],
)
def test_litellms_event_may_lack_usage_and_cost(data):
    assert len(read(OPENMETER | {"data": data, "time": "2026-11-21T11:59:59.123456"})) == 1


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(usage(team_id="victim"), id="a call that names another team"),
        pytest.param(event(data={"provider": "openai"}, subject="victim"), id="a subject that names another team"),
        pytest.param(event("ai.gpu.sampled.v1", GPU | {"team_id": "victim"}), id="a GPU of another team"),
        pytest.param(event("ai.billing.recorded.v1", BILL | {"team_id": "victim"}), id="a bill of another team"),
    ],
)
def test_a_key_that_is_bound_to_a_team_can_not_spend_for_another(sent):
    (record,) = read(sent, rules=RULES._replace(bound_team="search"))
    assert json.loads(record.value)["team_id"] == "search"
    assert b"victim" not in record.key + record.value + b"".join(value for _, value in record.headers)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        pytest.param(b"not json", "not a structured CloudEvent", id="not JSON"),
        pytest.param(b"\xff\xfe", "not a structured CloudEvent", id="not UTF-8"),
        pytest.param([event()], "not a structured CloudEvent", id="an array where one event was announced"),
        pytest.param(event(id=""), "attribute id is empty", id="an empty id"),
        pytest.param(event(specversion="0.3"), "specversion is '0.3'", id="another version of CloudEvents"),
        pytest.param(event("ai.usage.recorded.v9"), "is not known; types are", id="an unknown type"),
        pytest.param(event(id="x" * 600), "exceed 512 characters", id="an absurdly long id"),
        pytest.param(event(time="yesterday"), "not an RFC 3339 instant", id="a time that is none"),
        pytest.param(event(time="2026-11-21T11:59:59"), "needs an offset", id="a time without an offset"),
        pytest.param(event(data={}), "missing required field `provider`", id="data without a provider"),
        pytest.param(usage(input_tokens="ten"), "Expected `int`", id="a count that is a word"),
        pytest.param(usage(input_tokens=-1), "input_tokens is -1", id="negative usage"),
        pytest.param(usage(output_tokens=10**9), "output_tokens is 1000000000", id="absurd usage"),
        pytest.param(usage(cache_read_input_tokens=11), "includes cached tokens", id="more cached than read"),
        pytest.param(usage(reported_cost="free"), "reported_cost", id="a cost that is a word"),
        pytest.param(event("ai.gpu.sampled.v1", GPU | {"util_ratio": 87}), "lies in 0..1", id="GPU percent"),
        pytest.param(
            event("ai.gpu.sampled.v1", GPU | {"allocated_seconds": 31}),
            "longer than the window",
            id="GPU time",
        ),
        pytest.param(
            event("ai.gpu.sampled.v1", GPU | {"window_end": GPU["window_start"]}), "not after", id="no window"
        ),
        pytest.param(
            event("ai.billing.recorded.v1", BILL | {"billed_cost": "NaN"}),
            "billed_cost",
            id="a cost that is NaN",
        ),
        pytest.param(
            event("ai.billing.recorded.v1", BILL | {"charge_period_start": "2026-11"}),
            "charge_period_start",
            id="a charge period that is none",
        ),
        pytest.param(
            OPENMETER | {"data": {"cost": 1}},
            "missing required field `model`",
            id="OpenMeter without a model",
        ),
    ],
)
def test_what_can_not_be_taken_says_why(sent, said):
    (problem,) = reasons(sent)
    assert problem.place == 0
    assert said in problem.reason


def test_one_event_tells_all_its_problems():
    found = reasons(event("ai.gpu.sampled.v1", GPU | {"gpu_uuid": "", "shared_by": 0, "util_ratio": 2}, time="x"))
    assert len(found) == 4


def test_a_batch_with_bad_events_names_each_by_its_place_and_publishes_none():
    batch = [event(), {"id": "no envelope"}, usage(input_tokens=-1), event(), "text", event("other")]
    assert [problem.place for problem in reasons(batch, BATCH)] == [1, 2, 4, 5]


def test_a_batch_of_good_events_keeps_its_order():
    records = read([event(id=f"e{n}") for n in range(5)], BATCH)
    assert [dict(record.headers)["ce_id"] for record in records] == [b"e0", b"e1", b"e2", b"e3", b"e4"]


def test_an_empty_batch_publishes_nothing():
    assert read([], BATCH) == []


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        pytest.param([event()] * 101, BATCH, 413, id="more events than one batch may have"),
        pytest.param(event(), {"content-type": "text/plain"}, 415, id="another content type"),
        pytest.param(event(), {}, 415, id="no content type"),
        pytest.param(USAGE, {"content-type": "application/json"}, 415, id="JSON without ce- headers"),
    ],
)
def test_a_request_that_holds_no_events_is_refused_as_http_says(body, headers, status):
    with pytest.raises(HTTPException) as refused:
        read(body, headers)
    assert refused.value.status_code == status


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        pytest.param("ce-id", "ce-id is missing", id="no id"),
        pytest.param("ce-specversion", "ce-specversion is ''", id="no version"),
    ],
)
def test_binary_mode_names_the_header_that_is_missing(missing, said):
    headers = {
        "content-type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": "e1",
        "ce-source": "//gateway/a",
        "ce-type": "ai.usage.recorded.v1",
    }
    del headers[missing]
    assert said in reasons(USAGE, headers)[0].reason


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(event(), id="a call"),
        pytest.param(event(data={"provider": "openai"}), id="a call without a team"),
        pytest.param(event("ai.gpu.sampled.v1", GPU), id="a GPU window"),
        pytest.param(event("ai.billing.recorded.v1", BILL), id="a credit"),
        pytest.param(OPENMETER, id="LiteLLM's OpenMeter event"),
    ],
)
def test_meter_reads_what_ingest_writes(sent):
    (record,) = read(sent)
    arrived = Arrived(0, NOW // 1_000, record.key, record.value, record.headers)
    reading = meter_reads(arrived, Limits())
    assert (reading.envelope.id, reading.envelope.source) == (sent["id"], sent["source"])
