"""The usage events of a scenario, as records that a gateway, GPU exporters and a biller would publish. Pure.

An hour's money is fixed first (rhythm, noise of 5 %, incidents) and then split into calls, so that history,
which has fewer and longer calls, and the live day, which has many, cost alike hour by hour.
"""

import random
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from schemas import topics
from schemas.cloudevents import binary_headers
from schemas.events import USAGE_TYPE, BillingRecord, GpuSample, UsageEvent
from schemas.instants import HOUR, MINUTE, SECOND, format_instant
from streams.demo import company
from streams.demo.company import Feature, Gpu
from streams.demo.scenario import RETRIES, Scenario
from streams.sources.intake import billing_record, gpu_record, usage_record
from streams.sources.publisher import Record

SOURCE = f"/gateways/{company.GATEWAY}"
#: Calls of history are this many times fewer, and no call has more tokens on average than this.
HISTORY_THINNING = 5
MEAN_TOKENS_MAX = 20_000
LIVE_GPU_WINDOW = MINUTE
HISTORY_GPU_WINDOW = 30 * MINUTE
#: Of the live calls: sent twice, and sent late, in thousandths.
DUPLICATED = 30
DELAYED = 15
#: Of the leak's money, in percent: what is tried again in the background.
BACKGROUND_PERCENT = 60


class Moment(NamedTuple):
    """One record and when it is published; a call of a team passes the gate first."""

    at: int
    record: Record
    team: str = ""
    feature: str = ""
    model: str = ""
    tokens: int = 0
    request_type: str = "interactive"

    @property
    def is_call(self) -> bool:
        """Whether the gate is asked."""
        return bool(self.team)


def history(scenario: Scenario) -> list[Moment]:
    """Seven days of the same rhythm, in the order of publishing."""
    calendar, chance = scenario.calendar, scenario.chance("history")
    moments = [
        moment
        for hour in range(calendar.history, calendar.day, HOUR)
        for feature in company.FEATURES
        for moment in _ordinary(feature, hour, _local_hour(scenario, hour), True, chance)
    ]
    for gpu in company.GPUS:
        moments += _gpu(scenario, gpu, calendar.history, calendar.day, HISTORY_GPU_WINDOW, chance)
    return sorted(moments, key=_when)


def live(scenario: Scenario) -> list[Moment]:
    """The day with its incidents, duplicates, late and broken records, in the order of publishing."""
    calendar, chance = scenario.calendar, scenario.chance("live")
    calls = [
        moment
        for hour in range(calendar.day, calendar.end, HOUR)
        for feature in company.FEATURES
        for moment in _ordinary(feature, hour, _local_hour(scenario, hour), False, chance)
    ]
    calls += [*_spike(scenario, chance), *_overrun(scenario, chance)]
    calls = list(_disturbed(calls, calendar.end, chance))
    calls.append(_runaway(scenario))
    for gpu in company.GPUS:
        calls += _gpu(scenario, gpu, calendar.day, calendar.end, LIVE_GPU_WINDOW, chance)
    return sorted([*calls, *_bills(scenario), *_broken(scenario)], key=_when)


def _when(moment: Moment) -> tuple[int, str]:
    return moment.at, moment.record.headers[2][1].decode()


def _local_hour(scenario: Scenario, hour: int) -> int:
    return (hour - scenario.calendar.history) // HOUR % 24


def _unit(feature: Feature) -> int:
    """Picodollars per input token, with the answer that it brings."""
    model, cached = feature.model, feature.cached_percent
    return (model.input * (100 - cached) + model.cached * cached + model.output * feature.output_percent) // 100


def _ordinary(
    feature: Feature, hour: int, local_hour: int, is_history: bool, chance: random.Random
) -> Iterator[Moment]:
    percent = company.RHYTHM[local_hour]
    nanos = feature.nanos_per_hour * percent * chance.randint(95, 105) // 10_000
    calls = feature.calls_per_hour * percent // 100
    if is_history:
        calls = max(calls // HISTORY_THINNING, nanos * 1_000 // _unit(feature) // MEAN_TOKENS_MAX + 1)
    return _calls(feature, hour, hour + HOUR, nanos, max(3, calls), chance)


def _calls(
    feature: Feature, begins: int, ends: int, nanos: int, calls: int, chance: random.Random, **more: str
) -> Iterator[Moment]:
    """Calls at random instants of an interval that cost ``nanos`` together."""
    weights = [chance.randint(70, 130) for _ in range(calls)]
    whole, unit = sum(weights), _unit(feature)
    for weight in weights:
        tokens = max(1, nanos * weight * 1_000 // whole // unit)
        at = chance.randrange(begins, ends, 1_000)
        yield _call(feature, at, tokens, f"{chance.getrandbits(64):016x}", **more)


def _call(feature: Feature, at: int, tokens: int, id: str, **more: str) -> Moment:
    output = max(1, tokens * feature.output_percent // 100)
    model = feature.model
    event = UsageEvent(
        provider=model.provider,
        request_model=model.name,
        response_model=model.name,
        input_tokens=tokens,
        cache_read_input_tokens=tokens * feature.cached_percent // 100,
        output_tokens=output,
        duration_ms=200 + output * 12,
        team_id=feature.team,
        feature=feature.name,
        environment=company.ENVIRONMENT,
        **more,  # type: ignore[arg-type]
    )
    record = usage_record(event, id=id, source=SOURCE, time=format_instant(at))
    return Moment(at, record, feature.team, feature.name, model.name, tokens + output, event.request_type)


def _feature(name: str) -> Feature:
    return next(feature for feature in company.FEATURES if feature.name == name)


def _spike(scenario: Scenario, chance: random.Random) -> Iterator[Moment]:
    spike = scenario.spike
    feature = _feature(spike.feature)
    for begins, ends in _by_hour(spike.begins, spike.ends):
        percent = company.RHYTHM[_local_hour(scenario, begins)] * (spike.size - 100)
        share = feature.nanos_per_hour * percent // 10_000
        calls = feature.calls_per_hour * percent // 10_000
        part = ends - begins
        yield from _calls(
            feature,
            begins,
            ends,
            share * part // HOUR,
            max(3, calls * part // HOUR),
            chance,
            agent="bulk-export",
        )


def _overrun(scenario: Scenario, chance: random.Random) -> Iterator[Moment]:
    overrun = scenario.overrun
    feature = _feature(overrun.feature)
    for begins, ends in _by_hour(overrun.begins, overrun.ends):
        nanos = overrun.size * (ends - begins) // HOUR
        for request_type, percent in (("background", BACKGROUND_PERCENT), ("interactive", 100 - BACKGROUND_PERCENT)):
            share = nanos * percent // 100
            calls = max(3, share * 1_000 // _unit(feature) // 8_000)
            yield from _calls(
                feature, begins, ends, share, calls, chance,
                status="failure", error_type="tool_timeout", session_id=RETRIES, request_type=request_type,
            )  # fmt: skip


def _by_hour(begins: int, ends: int) -> Iterator[tuple[int, int]]:
    while begins < ends:
        next_hour = begins - begins % HOUR + HOUR
        yield begins, min(ends, next_hour)
        begins = next_hour


def _runaway(scenario: Scenario) -> Moment:
    runaway = scenario.runaway
    feature = _feature(runaway.feature)._replace(output_percent=1, cached_percent=0)
    return _call(feature, runaway.begins, runaway.size * 100 // 101, "runaway", session_id="agent-session-7")


def _disturbed(calls: list[Moment], end: int, chance: random.Random) -> Iterator[Moment]:
    """Networks repeat and delay: some records come twice, some after others that are younger."""
    for call in calls:
        fate = chance.randrange(1_000)
        if fate < DELAYED:
            call = call._replace(at=min(end - 1, call.at + chance.randrange(5 * MINUTE, 40 * MINUTE)))
        yield call
        if DELAYED <= fate < DELAYED + DUPLICATED:
            yield call._replace(at=min(end - 1, call.at + chance.randrange(MINUTE, 10 * MINUTE)))


def _gpu(scenario: Scenario, gpu: Gpu, begins: int, ends: int, window: int, chance: random.Random) -> Iterator[Moment]:
    idle = scenario.idle
    for start in range(begins, ends, window):
        is_idle = gpu.uuid == idle.subject and idle.begins <= start < idle.ends
        util = chance.randint(1, 6) if is_idle else chance.randint(60, 95)
        sample = GpuSample(
            gpu_uuid=gpu.uuid,
            window_start=format_instant(start),
            window_end=format_instant(start + window),
            allocated_seconds=Decimal(window // SECOND),
            node=gpu.node,
            gpu_index=gpu.index,
            model=company.GPU_MODEL,
            util_ratio=util / 100,
            team_id=gpu.team,
            feature=gpu.feature,
            environment=company.ENVIRONMENT,
        )
        identity = f"{gpu.uuid}/{start // SECOND}"
        yield Moment(min(ends - 1, start + window), gpu_record(sample, id=identity, source=f"/dcgm/{gpu.node}"))


def _bills(scenario: Scenario) -> Iterator[Moment]:
    """A vector database by invoice, with a credit; and a line for tokens that are metered already."""
    day = scenario.calendar.day
    lines = [
        ("vector-1", 5 * HOUR, "18.437500001", "Usage", "Pinecone", "Pinecone Serverless", "Databases", "", "search"),
        ("vector-2", 11 * HOUR, "-2.50", "Credit", "Pinecone", "Pinecone Serverless", "Databases", "", "search"),
        ("tokens-1", 17 * HOUR, "12.34", "Usage", "OpenAI", "API Platform", "AI and Machine Learning",
         "Generative AI", "growth"),
    ]  # fmt: skip
    for identity, after, cost, charge, provider, service, category, subcategory, team in lines:
        start = day + after
        bill = BillingRecord(
            billing_account_id=f"acct-{provider.lower()}",
            charge_period_start=format_instant(start),
            charge_period_end=format_instant(start + HOUR),
            billed_cost=Decimal(cost),
            billing_currency="USD",
            service_provider_name=provider,
            charge_category=charge,  # type: ignore[arg-type]
            service_name=service,
            service_category=category,
            service_subcategory=subcategory,
            team_id=team,
            environment=company.ENVIRONMENT,
        )
        # A bill comes after its period.
        time = format_instant(start + HOUR)
        yield Moment(start + HOUR, billing_record(bill, id=identity, source=f"/bills/{provider.lower()}", time=time))


def _broken(scenario: Scenario) -> Iterator[Moment]:
    """What real producers also send: no JSON, wrong types, impossible counts, unknown models, no owner."""
    chance, day = scenario.chance("broken"), scenario.calendar.day
    good = b'{"provider":"openai","response_model":"gpt-4o","team_id":"growth","feature":"seo-audit",'
    values = [
        b"<html>502 Bad Gateway</html>",
        good + b'"input_tokens":"many"}',
        good + b'"input_tokens":-5}',
        good + b'"input_tokens":10,"cache_read_input_tokens":20}',
        good + b'"input_tokens":1',
        *[b'{"provider":"acme","response_model":"acme-mystery-1","team_id":"growth","feature":"seo-audit",'
          b'"input_tokens":1200,"output_tokens":80}'] * 4,
        *[b'{"provider":"openai","response_model":"gpt-4o-mini","input_tokens":811,"output_tokens":13}'] * 3,
    ]  # fmt: skip
    for number, value in enumerate(values):
        at = day + chance.randrange(HOUR, 22 * HOUR, 1_000)
        headers = binary_headers(id=f"broken-{number}", source=SOURCE, type=USAGE_TYPE, time=format_instant(at))
        yield Moment(at, Record(topics.USAGE_EVENTS, b"growth", value, headers))
