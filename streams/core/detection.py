"""DETECT's rules in one place: the policies built from plain settings, and what to say again after a restart."""

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.alerts import Alert
from schemas.instants import SECOND
from schemas.money import parse_nanos
from streams.core.detect_gpu import GpuPolicy, GpuState
from streams.core.detect_idle_state import IdlePolicy, IdleState
from streams.core.detect_loop_state import LoopPolicy, LoopState
from streams.core.detect_multivariate import UnusualPolicy, UnusualState
from streams.core.detect_regime import RegimePolicy, RegimeState
from streams.core.detect_runaway import RunawayPolicy, RunawayState
from streams.core.detect_spike_policy import SpikePolicy
from streams.core.detect_spike_state import SpikeState


@dataclass(frozen=True, slots=True)
class Policy:
    """What each rule is judged by."""

    spike: SpikePolicy
    regime: RegimePolicy
    unusual: UnusualPolicy
    runaway: RunawayPolicy
    loop: LoopPolicy
    gpu: GpuPolicy
    idle: IdlePolicy


def detection_policy(
    *,
    live_within_s: int = 3 * 3600,
    spike_ratio_percent: int = 150,
    spike_floor_usd: str = "5",
    spike_quiet_hours: int = 3,
    spike_monthly_nanos: Mapping[str, int] | None = None,
    morning_timezone: str = "UTC",
    runaway_tokens: int = 50_000,
    loop_floor_usd: str = "1",
    loop_page_usd: str = "10",
    gpu_idle_percent: int = 20,
    gpu_idle_exit_percent: int = 30,
    gpu_idle_s: int = 3600,
    gpu_gap_s: int = 180,
    gpu_page_usd: str = "500",
    gpu_ticket_usd_per_day: str = "1",
    gpu_quiet_s: int = 3600,
    gpu_nanos_per_hour: Mapping[str, int] | None = None,
    runbooks: Mapping[str, str] | None = None,
) -> Policy:
    """The policies from plain values, named as the settings are; ``runbooks`` is by rule.

    >>> detection_policy(spike_floor_usd="2.50").spike.floor_nanos
    2500000000

    Raises:
        MoneyError: what is named ``_usd`` is not an amount.
        ValueError: values that do not go together; the message says which.
    """
    live_within_us = live_within_s * SECOND
    books = runbooks or {}
    return Policy(
        spike=SpikePolicy(
            ratio_percent=spike_ratio_percent,
            floor_nanos=parse_nanos(spike_floor_usd),
            live_within_us=live_within_us,
            quiet_hours=spike_quiet_hours,
            monthly_nanos={} if spike_monthly_nanos is None else spike_monthly_nanos,
            timezone=morning_timezone,
            runbook=books.get("spend_spike", ""),
        ),
        regime=RegimePolicy(live_within_us=live_within_us, runbook=books.get("regime_change", "")),
        unusual=UnusualPolicy(live_within_us=live_within_us, runbook=books.get("unusual_hour", "")),
        runaway=RunawayPolicy(
            limit=runaway_tokens, live_within_us=live_within_us, runbook=books.get("runaway_request", "")
        ),
        loop=_loop_policy(loop_floor_usd, loop_page_usd, live_within_us, books),
        gpu=GpuPolicy(
            enter_percent=gpu_idle_percent,
            exit_percent=gpu_idle_exit_percent,
            idle_us=gpu_idle_s * SECOND,
            gap_us=gpu_gap_s * SECOND,
            live_within_us=live_within_us,
            nanos_per_hour=dict(gpu_nanos_per_hour or {}),
            runbook=books.get("gpu_idle", ""),
        ),
        idle=IdlePolicy(
            page_nanos=parse_nanos(gpu_page_usd),
            ticket_nanos_per_day=parse_nanos(gpu_ticket_usd_per_day),
            quiet_us=gpu_quiet_s * SECOND,
            live_within_us=live_within_us,
            enter_percent=gpu_idle_percent,
            idle_us=gpu_idle_s * SECOND,
            runbook=books.get("gpu_idle", ""),
        ),
    )


def _loop_policy(floor_usd: str, page_usd: str, live_within_us: int, books: Mapping[str, str]) -> LoopPolicy:
    return LoopPolicy(
        floor_nanos=parse_nanos(floor_usd),
        page_nanos=parse_nanos(page_usd),
        live_within_us=live_within_us,
        runbook=books.get("runaway_loop", ""),
        storm_runbook=books.get("retry_storm", ""),
    )


def standing_alerts(
    state: SpikeState | RegimeState | UnusualState | RunawayState | LoopState | GpuState | IdleState,
) -> list[Alert]:
    """What was said last, byte for byte: to be said again after a restart, in case it was not delivered (rule
    2).

    Whoever hears it twice hears the same ids, so saying it once too often changes nothing.

    >>> standing_alerts(SpikeState(scope="team:search"))
    []
    """
    if isinstance(state, RunawayState):
        standing = [incident.last for _, incident in sorted(state.incidents.items())]
        return [*state.resolved, *(alert for alert in standing if alert is not None)]
    if isinstance(state, RegimeState):
        told = [incident.last for _, incident in sorted(state.incidents.items())]
        return [*state.resolved, *(alert for alert in told if alert is not None)]
    if isinstance(state, UnusualState):
        ended = [] if state.resolved is None else [state.resolved]
        return ended if state.incident is None or state.incident.last is None else [*ended, state.incident.last]
    if isinstance(state, LoopState):
        open_ = [caller.incident for _, caller in sorted(state.callers.items()) if caller.incident is not None]
        return [*state.resolved, *(incident.last for incident in open_ if incident.last is not None)]
    if isinstance(state, IdleState):
        return [alert for _, alert in sorted(state.last.items())]
    return [state.last] if state.last is not None else []
