"""The load of one seed: who sends what, when, how often and in which order. Pure; ``sender`` carries it out.

Times are seconds relative to the load's start, so the same seed has the same load at any hour of the day.
"""

import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple

from loadtest.crash.plan import TEAMS, Plan
from loadtest.oracle import BILL, GPU, USAGE

EVENTS, SAMPLES, BILLS = "usage.events.v1", "usage.gpu.v1", "usage.billing.v1"
SOURCE = "//crash-rig/gateway"
#: Its bill lines and credits belong to no budget that could fall below a rung again while the load runs.
FINANCE = "finance"
FEATURES = ("chat", "search", "summary", "agent", "extract")
#: (provider, model, weight); the last two have no price, and one of them a figure of the gateway's own.
MODELS = (
    ("openai", "gpt-4o", 30),
    ("openai", "gpt-4o-mini", 25),
    ("openai", "gpt-4.1", 12),
    ("anthropic", "claude-sonnet-4-0", 15),
    ("anthropic", "claude-opus-4-1", 4),
    ("google", "gemini-2.5-flash", 10),
    ("nobody", "no-such-model-9000", 3),
    ("nobody", "estimated-model-9000", 1),
)
CACHE_WRITERS = {"claude-sonnet-4-0", "claude-opus-4-1"}
DUPLICATED, REORDERED, LATE, GARBAGE = 0.04, 0.10, 0.02, 0.003
LATE_S = (120, 600, 3_000, 7_500, 14_400)


class Send(NamedTuple):
    """One record to publish. ``value`` holds fields, to which ``times`` are added at sending, or bytes as they are."""

    at_s: float
    topic: str
    key: str
    id: str
    type: str
    #: When it happened, or a text to send in place of an instant.
    time: float | str
    value: dict[str, Any] | bytes
    #: Fields that hold an instant, and which.
    times: dict[str, float]
    #: Why it must be refused; empty where it counts.
    refused: str = ""
    #: An envelope, unless that is what is wrong with it.
    enveloped: bool = True


def team_name(number: int) -> str:
    """The name of a team of the load."""
    return f"team-{number:02d}"


def load_of(plan: Plan) -> list[Send]:
    """All records of a plan in the order of their sending."""
    chance = Random(f"load {plan.seed}")
    sends: list[Send] = []
    for number in range(plan.events):
        at = plan.duration_s * number / plan.events
        sends += _call(plan, chance, number, at)
        if chance.random() < GARBAGE:
            sends.append(_garbage(chance, number, at))
    sends += _samples(plan, chance)
    sends += _bills(plan, chance)
    # One value above the size limit: it is dear, so it comes once.
    big = b'{"provider": "' + b"x" * 1_050_000 + b'"}'
    sends.append(Send(plan.duration_s / 2, EVENTS, "big", "big", USAGE, 0.0, big, {}, "too_large"))
    sends.sort(key=lambda send: send.at_s)
    return sends


def _call(plan: Plan, chance: Random, number: int, at: float) -> list[Send]:
    # The busiest team has a third, the quietest about a hundredth.
    team = min(int(TEAMS * chance.random() ** 2.2), TEAMS - 1)
    happened = at
    for jump in plan.jumps:
        if jump.team == team and jump.from_s <= at < jump.to_s:
            happened += jump.skew_s
    refused = "in_the_future" if happened > at + 1_000 else ""
    if chance.random() < LATE:
        happened = at - chance.choice(LATE_S)
        refused = ""
    sent_at = at + (chance.uniform(0.05, 3.0) if chance.random() < REORDERED else 0.0)
    name = team_name(team)
    send = Send(sent_at, EVENTS, name, f"call-{number}", USAGE, happened, _usage(chance, name), {}, refused)
    if chance.random() >= DUPLICATED:
        return [send]
    # At once (mostly the same batch), or after whatever has happened meanwhile.
    again = sent_at if chance.random() < 0.5 else sent_at + chance.uniform(0.0, plan.duration_s - at)
    return [send, send._replace(at_s=again)]


def _usage(chance: Random, team: str) -> dict[str, Any]:
    provider, model, _ = chance.choices(MODELS, [weight for *_, weight in MODELS])[0]
    data: dict[str, Any] = {
        "provider": provider,
        "request_model": model,
        "team_id": team,
        "feature": chance.choice(FEATURES),
        "environment": "prod" if chance.random() < 0.8 else "dev",
        "duration_ms": chance.randrange(40, 9_000),
    }
    # Whoever calls is made of what is there, so that a seed's run stays what it was.
    data |= {"key_id": f"key-{data['duration_ms'] % 7}", "user_id": f"user-{data['duration_ms'] % 211}"}
    if chance.random() < 0.2:
        data["request_type"] = "batch"
    if chance.random() < 0.1:
        data["user_tier"] = "gold"
    fate = chance.random()
    if fate < 0.02:
        return data | {"status": "failure", "error_type": "rate_limit"}
    tokens = chance.randrange(1, 6_000)
    data |= {"input_tokens": tokens, "output_tokens": chance.randrange(0, 1_500)}
    if fate < 0.05:
        data["cache_hit"] = True
    if chance.random() < 0.3:
        data["cache_read_input_tokens"] = tokens // 3
        if model in CACHE_WRITERS:
            data["cache_creation_input_tokens"] = tokens // 7
    if chance.random() < 0.1:
        data["reasoning_output_tokens"] = data["output_tokens"] // 2
    if model == "estimated-model-9000" or chance.random() < 0.05:
        data["reported_cost"] = f"0.{chance.randrange(1, 10**7):010d}"
    return data


def _garbage(chance: Random, number: int, at: float) -> Send:
    good = {"provider": "openai", "request_model": "gpt-4o", "team_id": "garbage", "input_tokens": 10}
    key = f"garbage-{chance.randrange(9)}"
    plain = Send(at, EVENTS, key, f"bad-{number}", USAGE, at, good, {})
    return chance.choice(
        (
            plain._replace(value=b"<html>502</html>", refused="not_json"),
            plain._replace(value=b"", refused="empty_value"),
            plain._replace(value=good | {"input_tokens": "many"}, refused="wrong_shape"),
            plain._replace(value=good | {"input_tokens": -5}, refused="negative_usage"),
            plain._replace(value=good | {"output_tokens": 10**15}, refused="absurd_number"),
            plain._replace(value=good | {"cache_read_input_tokens": 11}, refused="impossible_usage"),
            plain._replace(value=good | {"feature": "f" * 300}, refused="too_long"),
            plain._replace(time="yesterday", refused="bad_time"),
            plain._replace(time="3000-01-01T00:00:00Z", refused="in_the_future"),
            plain._replace(time=at - 50 * 86_400, refused="too_late"),
            plain._replace(type="some.other.v1", refused="unknown_type"),
            plain._replace(enveloped=False, refused="not_a_cloudevent"),
        )
    )


def _samples(plan: Plan, chance: Random) -> list[Send]:
    """GPU windows of a minute each; an L40S has a price, the other model none."""
    found = []
    for number in range(240):
        at = plan.duration_s * number / 240
        model = "NVIDIA L40S" if chance.random() < 0.8 else "NVIDIA Unpriced"
        gpu = f"GPU-{chance.randrange(6)}"
        data = {
            "gpu_uuid": gpu, "model": model, "allocated_seconds": chance.choice((60, 30, 12.5)), "util_ratio": 0.9,
            "shared_by": chance.choice((1, 1, 3)), "team_id": team_name(chance.randrange(TEAMS)), "feature": "training",
        }  # fmt: skip
        times = {"window_start": at - 60, "window_end": at}
        found.append(Send(at, SAMPLES, gpu, f"gpu-{number}", GPU, at, data, times))
    return found


def _bills(plan: Plan, chance: Random) -> list[Send]:
    """Bill lines: some add, some take away, some bill what is metered here, some are in a currency without a rate."""
    found = []
    for number in range(90):
        at = plan.duration_s * number / 90
        line = bill(f"bill-{number}", at, FINANCE, f"{chance.randrange(-400, 2_000)}.{chance.randrange(10**9):09d}")
        fate = chance.random()
        if fate < 0.2:
            line.value.update(service_provider_name="OpenAI", service_name="API", service_subcategory="Generative AI")
        elif fate < 0.3:
            line.value.update(billing_currency="ZZZ")
            line = line._replace(refused="unknown_currency")
        found.append(line)
        if chance.random() < 0.2:
            found.append(line._replace(at_s=chance.uniform(at, plan.duration_s)))
    return found


def bill(id: str, at: float, team: str, amount: str) -> Send:
    """One line of Pinecone's bill; a negative amount is a credit."""
    data = {
        "billing_account_id": "acc", "billed_cost": amount, "billing_currency": "USD", "team_id": team,
        "service_provider_name": "Pinecone", "service_name": "Pinecone Serverless",
        "charge_category": "Credit" if amount.startswith("-") else "Usage",
    }  # fmt: skip
    times = {"charge_period_start": at - 3_600, "charge_period_end": at}
    return Send(at, BILLS, "acc", id, BILL, at, data, times)


def instant_at(anchor: datetime, seconds: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    moment = anchor.astimezone(UTC) + timedelta(milliseconds=round(seconds * 1000))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encode(send: Send, anchor: datetime) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Value and headers (CloudEvents, binary mode) of a record of a load that starts at ``anchor``."""
    if isinstance(send.value, bytes):
        value = send.value
    else:
        value = json.dumps(send.value | {name: instant_at(anchor, at) for name, at in send.times.items()}).encode()
    if not send.enveloped:
        return value, []
    time = send.time if isinstance(send.time, str) else instant_at(anchor, send.time)
    return value, [
        ("content-type", b"application/json"), ("ce_specversion", b"1.0"), ("ce_id", send.id.encode()),
        ("ce_source", SOURCE.encode()), ("ce_type", send.type.encode()), ("ce_time", time.encode()),
    ]  # fmt: skip
