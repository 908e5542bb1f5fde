"""What a result was measured on: machine, versions, commit, date."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "loadtest" / "results"


def describe(kafka: str, postgres: str = "") -> dict[str, Any]:
    """The machine and the versions of what matters."""
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_gib": round(int(memory.split()[1]) / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "kafka": kafka,
        "postgres": postgres,
    }


def _cpu_model() -> str:
    found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return found[0].partition(":")[2].strip() if found else platform.machine()


def commit() -> str:
    """The short commit of the tree, with ``-dirty`` where tracked files differ from it."""
    short = _git("rev-parse", "--short=10", "HEAD")
    return short + ("-dirty" if _git("status", "--porcelain", "--untracked-files=no") else "") if short else "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


#: What the running program was read from: later commits are not what is measured.
COMMIT = commit()


def busy_s() -> tuple[float, float]:
    """Seconds that this machine's cores were busy since it started, all together, and that the host kept from it."""
    line = Path("/proc/stat").read_text().splitlines()[0]
    fields = [int(each) / os.sysconf("SC_CLK_TCK") for each in line.split()[1:]]
    user, nice, system, _, _, irq, softirq, stolen = fields[:8]
    return user + nice + system + irq + softirq, stolen


def today() -> str:
    """The UTC date and time, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def store(kind: str, result: dict[str, Any]) -> Path:
    """Write a result as ``<kind>-<date>-<commit>.json``; a second one of the same day and commit gets the time too."""
    RESULTS.mkdir(exist_ok=True)
    moment = today()
    whole = {"kind": kind, "date": moment, "commit": COMMIT, **result}
    path = RESULTS / f"{kind}-{moment[:10]}-{whole['commit']}.json"
    if path.exists():
        path = RESULTS / f"{kind}-{moment.replace(':', '')}-{whole['commit']}.json"
    path.write_text(json.dumps(whole, indent=1) + "\n")
    return path


def load_average() -> list[float]:
    """Of the last 1, 5 and 15 minutes: what else went on."""
    return [round(value, 2) for value in os.getloadavg()]
