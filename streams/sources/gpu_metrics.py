"""Text of a GPU exporter (dcgm-exporter of any version, nvidia_gpu_exporter) to GPU samples. Pure.

A value that is blank is missing, and never zero: an unknown GPU is not an idle one. Names and units of both
generations of dcgm-exporter are known (``docs/formats.md``).
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from schemas.events import GpuSample
from schemas.instants import SECOND, format_instant

#: DCGM writes blanks as the largest 64-bit integers (an int here: the parser keeps integers exact), as ones
#: just below 2^31, or as 2^47 where the field is a float.
BLANK_MIN = 2**63 - 16
_NARROW_BLANKS = frozenset(float(start + n) for start in (2**31 - 16, 2**47) for n in range(4))
#: Counters of busy time may overshoot their interval by a little; what is far above one is no ratio.
RATIO_MAX = 1.05
_MIB = 2.0**20

#: Metric name -> reading field and the factor to its unit (ratio, bytes, watts, joules).
METRICS: dict[str, tuple[str, float]] = {
    "DCGM_FI_DEV_GPU_UTIL": ("util", 0.01),
    "DCGM_FI_DEV_GPU_UTIL_RATIO": ("util", 1.0),
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": ("engine", 1.0),
    "DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO": ("engine", 1.0),
    "DCGM_FI_DEV_FB_USED": ("memory", _MIB),
    "DCGM_FI_DEV_FB_USED_BYTES": ("memory", 1.0),
    "DCGM_FI_DEV_POWER_USAGE": ("power", 1.0),
    "DCGM_FI_DEV_BOARD_POWER_WATTS": ("power", 1.0),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": ("energy", 0.001),
    "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL": ("energy", 1.0),
    "nvidia_smi_utilization_gpu_ratio": ("util", 1.0),
    "nvidia_smi_memory_used_bytes": ("memory", 1.0),
    "nvidia_smi_power_draw_watts": ("power", 1.0),
    # The parser takes `_total` off the name of what is declared a counter.
    "nvidia_smi_energy_joules": ("energy", 1.0),
    "nvidia_smi_energy_joules_total": ("energy", 1.0),
}
_EXPORTERS = {"DCGM_": "dcgm", "nvidia_smi_": "nvidia_smi"}
#: Reading field -> labels, the one to prefer first. Behind Prometheus the pod's own labels are `exported_*`.
LABELS: dict[str, tuple[str, ...]] = {
    "gpu_uuid": ("UUID", "uuid", "gpu_uuid"),
    "node": ("Hostname", "hostname", "node", "instance"),
    "gpu_index": ("gpu", "index"),
    "model": ("modelName", "model_name", "name"),
    "mig_profile": ("GPU_I_PROFILE",),
    "mig_id": ("GPU_I_ID",),
    "namespace": ("exported_namespace", "namespace", "pod_namespace"),
    "pod": ("exported_pod", "pod", "pod_name"),
    "container": ("exported_container", "container", "container_name"),
    "hpc_job": ("hpc_job",),
    "deployment": ("exported_deployment", "deployment"),
    "pool": ("node_pool", "nodepool", "pool"),
}


class ScrapeError(ValueError):
    """The text is not what a GPU exporter writes; the message says why."""


class Holder(NamedTuple):
    """Who holds a GPU: a pod, or nobody (all empty), which is the idle pool."""

    namespace: str
    pod: str


class Device(NamedTuple):
    """A GPU, or one MIG instance of it."""

    gpu_uuid: str
    mig_id: str


class Reading(msgspec.Struct):
    """What one scrape says of one device as one pod holds it. None is missing."""

    labels: dict[str, str]
    util: float | None = None
    engine: float | None = None
    memory: float | None = None
    power: float | None = None
    energy: float | None = None

    @property
    def util_ratio(self) -> float | None:
        """Utilisation 0..1. On MIG only the engine's activity is true; elsewhere it stands in."""
        ratio = self.engine if self.labels.get("mig_id") or self.util is None else self.util
        return None if ratio is None else min(1.0, max(0.0, ratio))


class Scrape(NamedTuple):
    """One reading of one exporter. ``at`` is the instant it is for, microseconds since 1970."""

    source: str
    at: int
    exporter: str
    devices: Mapping[Device, Mapping[Holder, Reading]]


class NamedSample(NamedTuple):
    """A GPU sample and its CloudEvents id, the same whoever scrapes the window."""

    id: str
    sample: GpuSample


def parse(text: str, *, source: str, at: int) -> Scrape:
    """Read the text of one scrape.

    Raises:
        ScrapeError: not the Prometheus text format, or no GPU in it.
    """
    devices: dict[Device, dict[Holder, Reading]] = {}
    exporter = ""
    try:
        for family in text_string_to_metric_families(text):
            prefix = next((prefix for prefix in _EXPORTERS if family.name.startswith(prefix)), None)
            if prefix is None:
                continue
            for sample in family.samples:
                reading = _reading(devices, sample.labels)
                if reading is not None:
                    exporter = exporter or _EXPORTERS[prefix]
                    _take(reading, family.name, sample.value)
    except (ValueError, KeyError, IndexError) as error:
        raise ScrapeError(f"{source} does not speak the Prometheus text format: {error}") from error
    if not devices:
        raise ScrapeError(f"{source} tells of no GPU: is it the /metrics of dcgm-exporter or nvidia_gpu_exporter?")
    _drop_parents_of_mig(devices)
    return Scrape(source, at, exporter, devices)


def _reading(devices: dict[Device, dict[Holder, Reading]], labels: Mapping[str, str]) -> Reading | None:
    named = {}
    for field, aliases in LABELS.items():
        for alias in aliases:
            if labels.get(alias):
                named[field] = labels[alias]
                break
    if "gpu_uuid" not in named:
        return None
    device = Device(named["gpu_uuid"], named.get("mig_id", ""))
    holder = Holder(named.get("namespace", ""), named.get("pod", ""))
    if not holder.pod:
        holder = Holder("", "")
    holders = devices.setdefault(device, {})
    reading = holders.get(holder)
    if reading is None:
        reading = holders[holder] = Reading(named)
    else:
        # An info metric may carry the model that the others leave out.
        reading.labels = named | reading.labels
    return reading


def _take(reading: Reading, name: str, value: float) -> None:
    known = METRICS.get(name)
    if known is None or not math.isfinite(value) or not 0 <= value < BLANK_MIN or value in _NARROW_BLANKS:
        return
    field, factor = known
    if field in ("util", "engine") and value * factor > RATIO_MAX:
        return
    setattr(reading, field, value * factor)


def _drop_parents_of_mig(devices: dict[Device, dict[Holder, Reading]]) -> None:
    """A GPU that is cut into MIG instances is counted by its instances alone."""
    cut = {device.gpu_uuid for device in devices if device.mig_id}
    for device in [device for device in devices if not device.mig_id and device.gpu_uuid in cut]:
        del devices[device]


def window(
    previous: Scrape, current: Scrape, interval_s: float, team_by_namespace: Mapping[str, str] | None = None
) -> list[NamedSample]:
    """What each GPU did between two scrapes of one exporter; empty where time did not move.

    Whoever holds a device now is charged for the window, if the device was there before too. At most twice
    the interval is stated: what lies further back was not seen, and a gap is unknown, neither used nor idle.
    Energy and seconds are those of the whole device; ``shared_by`` says into how many parts they go.
    """
    stretch = current.at - previous.at
    if stretch <= 0:
        return []
    length = min(stretch, round(2 * interval_s * SECOND))
    start = current.at - length
    teams = team_by_namespace or {}
    found = []
    for device, holders in current.devices.items():
        before = previous.devices.get(device)
        if before is None:
            continue
        # Time-slicing shows one GPU once for each pod; a row without a pod beside them is the device itself.
        sharing = [holder for holder in holders if holder.pod] or list(holders)
        for holder in sharing:
            reading, earlier = holders[holder], before.get(holder) or _any(before.values())
            sample = _sample(reading, earlier, holder, len(sharing), start, current.at)
            if length < stretch:
                sample = msgspec.structs.replace(sample, energy_joules=None)
            sample = msgspec.structs.replace(sample, exporter=current.exporter, team_id=teams.get(holder.namespace, ""))
            found.append(NamedSample(_id(current.source, device, holder, sample.window_start), sample))
    return found


def _sample(reading: Reading, earlier: Reading, holder: Holder, shared_by: int, start: int, end: int) -> GpuSample:
    labels = reading.labels
    energy = None
    if reading.energy is not None and earlier.energy is not None and reading.energy >= earlier.energy:
        # A counter that fell was reset (driver reload): what it had reached before is unknown.
        energy = reading.energy - earlier.energy
    return GpuSample(
        gpu_uuid=labels["gpu_uuid"],
        window_start=format_instant(start),
        window_end=format_instant(end),
        allocated_seconds=Decimal(end - start) / SECOND,
        node=labels.get("node", ""),
        gpu_index=labels.get("gpu_index", ""),
        model=labels.get("model", ""),
        mig_profile=labels.get("mig_profile", ""),
        mig_id=labels.get("mig_id", ""),
        namespace=holder.namespace,
        pod=holder.pod,
        container=labels.get("container", "") if holder.pod else "",
        hpc_job=labels.get("hpc_job", ""),
        deployment=labels.get("deployment", "") if holder.pod else "",
        pool=labels.get("pool", ""),
        shared_by=shared_by,
        util_ratio=_mean(earlier.util_ratio, reading.util_ratio),
        memory_used_bytes=None if reading.memory is None else round(reading.memory),
        energy_joules=energy,
        power_watts=reading.power,
    )


def _mean(earlier: float | None, later: float | None) -> float | None:
    """Over the window; missing at its end is missing, missing only at its start leaves the end."""
    if later is None or earlier is None:
        return later
    return (earlier + later) / 2


def _any(readings: Iterable[Reading]) -> Reading:
    return next(iter(readings))


def _id(source: str, device: Device, holder: Holder, window_start: str) -> str:
    parts = "|".join((source, device.gpu_uuid, device.mig_id, holder.namespace, holder.pod, window_start))
    return hashlib.sha256(parts.encode()).hexdigest()
