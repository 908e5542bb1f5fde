"""What GPU exporters of several kinds say, and which samples two scrapes make."""

from decimal import Decimal
from pathlib import Path

import pytest

from schemas.instants import format_instant
from streams.sources.gpu_metrics import ScrapeError, parse, window

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "dcgm" / "README_metrics_sample.txt"
SECOND = 1_000_000
T0 = 1_800_000_000 * SECOND
SOURCE = "//gpu/node-1:9400/metrics"


def line(name, value, **labels):
    given = {"gpu": "0", "UUID": "GPU-1", "modelName": "NVIDIA H100 80GB HBM3", "Hostname": "node-1"} | labels
    text = ",".join(f'{label}="{value}"' for label, value in given.items() if value is not None)
    return f"{name}{{{text}}} {value}\n"


def util(value, **labels):
    return line("DCGM_FI_DEV_GPU_UTIL", value, **labels)


def energy(millijoules, **labels):
    kind = "# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter\n"
    return kind + line("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", millijoules, **labels)


def only(text):
    scrape = parse(text, source=SOURCE, at=T0)
    (holders,) = scrape.devices.values()
    (reading,) = holders.values()
    return reading


def samples(before, after, *, seconds=30, interval=30, teams=None):
    first = parse(before, source=SOURCE, at=T0)
    second = parse(after, source=SOURCE, at=T0 + seconds * SECOND)
    return [named.sample for named in window(first, second, interval, teams)]


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        pytest.param(util(87), "util_ratio", 0.87, id="percent until 4.8"),
        pytest.param(line("DCGM_FI_DEV_GPU_UTIL_RATIO", 0.87), "util_ratio", 0.87, id="a ratio from 4.9"),
        pytest.param(line("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 0.5), "util_ratio", 0.5, id="engine activity alone"),
        pytest.param(
            util(87) + line("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 0.5),
            "util_ratio",
            0.87,
            id="utilisation goes first",
        ),
        pytest.param(
            util(87, GPU_I_ID="1") + line("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 0.5, GPU_I_ID="1"),
            "util_ratio",
            0.5,
            id="on MIG only the engine is true",
        ),
        pytest.param(util(87, GPU_I_ID="1"), "util_ratio", None, id="on MIG utilisation says nothing"),
        pytest.param(util(0), "util_ratio", 0.0, id="an idle GPU is idle"),
        pytest.param(util(9223372036854775794), "util_ratio", None, id="a blank is missing"),
        pytest.param(util(9223372036854775792), "util_ratio", None, id="the smallest blank is missing"),
        pytest.param(util(2147483632), "util_ratio", None, id="a 32-bit blank is missing"),
        pytest.param(energy(140737488355328.0), "energy", None, id="a floating blank is missing"),
        pytest.param(util(300), "util_ratio", None, id="three hundred percent is missing"),
        pytest.param(util(102), "util_ratio", 1.0, id="a little above a hundred percent is busy"),
        pytest.param(util("NaN"), "util_ratio", None, id="NaN is missing"),
        pytest.param(util(-1), "util_ratio", None, id="a negative value is missing"),
        pytest.param(line("DCGM_FI_DEV_FB_USED", 2), "memory", 2 * 2**20, id="memory in MiB"),
        pytest.param(line("DCGM_FI_DEV_FB_USED_BYTES", 2), "memory", 2, id="memory in bytes"),
        pytest.param(line("DCGM_FI_DEV_POWER_USAGE", 300), "power", 300, id="power"),
        pytest.param(line("DCGM_FI_DEV_BOARD_POWER_WATTS", 300), "power", 300, id="power by its new name"),
        pytest.param(energy(5_000), "energy", 5, id="energy in millijoules"),
        pytest.param(
            "# TYPE DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL counter\n" + line("DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", 5),
            "energy",
            5,
            id="energy in joules",
        ),
        pytest.param(
            '# TYPE nvidia_smi_energy_joules_total counter\nnvidia_smi_energy_joules_total{uuid="a"} 5\n',
            "energy",
            5,
            id="energy of nvidia_gpu_exporter",
        ),
        pytest.param(
            '# TYPE nvidia_smi_utilization_gpu_ratio gauge\nnvidia_smi_utilization_gpu_ratio{uuid="a"} 0.4\n',
            "util_ratio",
            0.4,
            id="utilisation of nvidia_gpu_exporter",
        ),
    ],
)
def test_every_exporter_s_names_and_units_are_known(text, field, value):
    assert getattr(only(text), field) == pytest.approx(value)


@pytest.mark.parametrize(
    ("labels", "field", "value"),
    [
        pytest.param({"UUID": None, "uuid": "GPU-9"}, "gpu_uuid", "GPU-9", id="uuid of the old namespace"),
        pytest.param({"UUID": None, "gpu_uuid": "GPU-9"}, "gpu_uuid", "GPU-9", id="gpu_uuid"),
        pytest.param({"Hostname": None, "hostname": "n9"}, "node", "n9", id="hostname from 4.6"),
        pytest.param({"modelName": None, "model_name": "L4"}, "model", "L4", id="model_name"),
        pytest.param({"pod": "exporter", "exported_pod": "vllm-0"}, "pod", "vllm-0", id="exported_pod goes first"),
        pytest.param({"pod": "p", "pod_namespace": "ml"}, "namespace", "ml", id="pod_namespace"),
        pytest.param({"hpc_job": "42"}, "hpc_job", "42", id="a Slurm job"),
        pytest.param({"GPU_I_PROFILE": "1g.10gb", "GPU_I_ID": "3"}, "mig_profile", "1g.10gb", id="a MIG profile"),
    ],
)
def test_labels_of_every_version_are_known(labels, field, value):
    assert only(util(1, **labels)).labels[field] == value


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("<html>not found</html>", id="a web page"),
        pytest.param("", id="nothing"),
        pytest.param("# TYPE up gauge\nup 1\n", id="another exporter"),
        pytest.param('DCGM_FI_DEV_GPU_UTIL{gpu="0"} 3\n', id="a GPU without its uuid"),
        pytest.param('DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-1"\n', id="half a line"),
    ],
)
def test_text_that_is_no_scrape_is_an_error(text):
    with pytest.raises(ScrapeError):
        parse(text, source=SOURCE, at=T0)


def test_two_scrapes_make_a_sample_of_what_lies_between():
    pod = {"namespace": "ml-search", "pod": "vllm-0", "container": "vllm"}
    (sample,) = samples(
        util(80, **pod) + energy(1_000, **pod),
        util(90, **pod) + energy(13_000, **pod),
        teams={"ml-search": "search"},
    )
    assert sample.gpu_uuid == "GPU-1"
    assert (sample.window_start, sample.window_end) == (format_instant(T0), format_instant(T0 + 30 * SECOND))
    assert sample.allocated_seconds == Decimal(30)
    assert sample.util_ratio == pytest.approx(0.85)
    assert sample.energy_joules == pytest.approx(12)
    assert (sample.team_id, sample.pod, sample.container) == ("search", "vllm-0", "vllm")
    assert (sample.model, sample.node, sample.exporter) == ("NVIDIA H100 80GB HBM3", "node-1", "dcgm")


@pytest.mark.parametrize(
    ("seconds", "stated"),
    [
        pytest.param(30, 30, id="one interval"),
        pytest.param(60, 60, id="one scrape missed"),
        pytest.param(600, 60, id="a long gap: at most two intervals were seen"),
    ],
)
def test_a_gap_is_unknown_and_not_allocated(seconds, stated):
    (sample,) = samples(util(1), util(1), seconds=seconds)
    assert sample.allocated_seconds == stated
    assert sample.window_start == format_instant(T0 + (seconds - stated) * SECOND)


def test_energy_over_a_gap_belongs_to_no_window():
    (sample,) = samples(energy(0), energy(9_000), seconds=600)
    assert sample.energy_joules is None


def test_a_counter_that_fell_was_reset_and_says_nothing():
    (sample,) = samples(energy(9_000), energy(1_000))
    assert sample.energy_joules is None


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param(util(50), util("NaN"), None, id="blank at the end: missing, not idle"),
        pytest.param(util("NaN"), util(50), 0.5, id="blank at the start: the end counts"),
    ],
)
def test_missing_utilisation_stays_missing(before, after, expected):
    (sample,) = samples(before, after)
    assert sample.util_ratio == expected


def test_time_that_did_not_move_makes_no_sample():
    assert samples(util(1), util(1), seconds=0) == []


def test_a_gpu_that_has_just_appeared_has_no_window_yet():
    assert [s.gpu_uuid for s in samples(util(1), util(1) + util(1, UUID="GPU-2"))] == ["GPU-1"]


def test_time_slicing_states_the_gpu_once_for_each_pod_and_into_how_many_parts_it_goes():
    shared = "".join(util(50, namespace="ml", pod=f"p{n}", vgpu=str(n)) for n in range(3)) + util(50)
    found = samples(shared, shared)
    assert [(s.pod, s.shared_by) for s in found] == [("p0", 3), ("p1", 3), ("p2", 3)]


def test_whoever_holds_the_gpu_at_the_end_has_the_window():
    (sample,) = samples(util(50, namespace="a", pod="old"), util(50, namespace="b", pod="new"))
    assert (sample.pod, sample.allocated_seconds) == ("new", 30)


def test_a_gpu_in_mig_instances_is_counted_by_them_alone():
    cut = util(1) + "".join(
        line("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 0.2, GPU_I_ID=str(n), GPU_I_PROFILE="1g.10gb") for n in (1, 2)
    )
    assert [(s.mig_id, s.util_ratio) for s in samples(cut, cut)] == [("1", 0.2), ("2", 0.2)]


def test_ids_are_the_same_whoever_scrapes_and_differ_by_all_that_matters():
    def ids(text, at=T0, source=SOURCE):
        first, second = (parse(text, source=source, at=instant) for instant in (at, at + 30 * SECOND))
        return [named.id for named in window(first, second, 30)]

    pods = util(1, namespace="a", pod="p") + util(1, namespace="b", pod="p") + util(1, UUID="GPU-2")
    assert ids(pods) == ids(pods)
    different = [*ids(pods), *ids(pods, at=T0 + SECOND), *ids(pods, source="//gpu/other")]
    assert len(set(different)) == 9


@pytest.mark.skipif(not SAMPLE.is_file(), reason="the dcgm-exporter sample is not at hand")
def test_the_sample_of_dcgm_exporter_s_own_readme_is_read():
    text = SAMPLE.read_text()
    metrics = [part for part in text.splitlines() if part.startswith(("# HELP", "# TYPE", "DCGM_"))]
    reading = only("\n".join(metrics) + "\n")
    assert reading.labels["gpu_uuid"] == "GPU-604ac76c-d9cf-fef3-62e9-d92044ab6e52"
    assert reading.util_ratio is None
