"""docker-compose.yml, Dockerfile and lock files say what the code understands; needs no Docker."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.topics import ALL
from streams.embedded.kafka import server_properties
from streams.embedded.kafka_jars import KAFKA_VERSION
from streams.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ("requirements.lock", "requirements-dev.lock")


def test_the_whole_service_is_there() -> None:
    assert set(SERVICES) == {"kafka", "postgres", "topics", "worker", "api"}
    assert set(OURS) == {"topics", "worker", "api"}


@pytest.mark.parametrize("name", SERVICES)
def test_image_is_pinned(name: str) -> None:
    assert re.fullmatch(r"[a-z/]+:\d+\.\d+(\.\d+)?", SERVICES[name]["image"])


def test_images_are_of_the_versions_that_tests_run_on() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    assert {SERVICES[name]["image"] for name in OURS} == {f"sluice:{PROJECT['project']['version']}"}


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"topics"}))
def test_what_keeps_running_has_a_health_check_and_restarts(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "ports" in service])
def test_ports_are_open_to_this_machine_alone(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"])


@pytest.mark.parametrize("name", ["worker", "api"])
def test_waits_for_topics_and_database(name: str) -> None:
    assert SERVICES[name]["depends_on"] == {
        "topics": {"condition": "service_completed_successfully"},
        "postgres": {"condition": "service_healthy"},
    }


@pytest.mark.parametrize("name", OURS)
def test_environment_is_accepted_as_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = SERVICES[name]["environment"]
    assert {key.removeprefix("SLUICE_").lower() for key in environment} <= set(Settings.model_fields)
    for key, value in environment.items():
        monkeypatch.setenv(key, re.sub(r"\$\{\w+:\?[^}]*\}", "s3cret", value))
    settings = load_settings()
    assert settings.kafka_url == "kafka:9092"
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://sluice:s3cret@postgres:5432/sluice"


def test_addresses_name_services_and_ports_that_listen() -> None:
    listeners = SERVICES["kafka"]["environment"]["KAFKA_LISTENERS"]
    assert "PLAINTEXT://:9092" in listeners
    assert "PLAINTEXT://kafka:9092" in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    api = SERVICES["api"]
    assert api["ports"] == [f"127.0.0.1:8686:{api['environment']['SLUICE_API_PORT']}"]
    assert f":{api['environment']['SLUICE_API_PORT']}/readyz" in api["healthcheck"]["test"][-1]
    assert SERVICES["worker"]["environment"]["SLUICE_READY_FILE"] == SERVICES["worker"]["healthcheck"]["test"][-1]


def test_both_brokers_take_the_largest_message_a_topic_allows() -> None:
    largest = max(topic.max_message_bytes for topic in ALL)
    assert int(SERVICES["kafka"]["environment"]["KAFKA_MESSAGE_MAX_BYTES"]) >= largest
    assert int(server_properties(Path("data"), 1, 2)["message.max.bytes"]) >= largest


@pytest.mark.parametrize("name", OURS)
def test_command_exists(name: str) -> None:
    command = [sys.executable, "-m", "streams.cli", *SERVICES[name]["command"], "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_volumes_are_declared_and_keep_the_data() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert used == set(COMPOSE["volumes"]) == {"kafka", "postgres"}


def test_dockerfile_installs_only_what_is_locked_and_drops_root() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert {line.split()[1] for line in lines if line.startswith("FROM")} == {"python:3.11-slim-bookworm"}
    assert all("--require-hashes" in line or "--no-deps" in line for line in lines if "pip install" in line)
    assert [line.split()[1] for line in lines if line.startswith("USER")] == ["10001"]
    assert lines.index("USER 10001") > max(i for i, line in enumerate(lines) if line.startswith("RUN"))


def locked(name: str) -> dict[str, set[str]]:
    """Package to its locked versions (several where they differ by Python version)."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", (ROOT / name).read_text(), re.M):
        found.setdefault(package, set()).add(version)
    return found


def wanted(requirements: list[Any]) -> set[str]:
    names = (re.match(r"[A-Za-z0-9._-]+", entry) for entry in requirements if isinstance(entry, str))
    return {match.group().lower().replace("_", "-") for match in names if match}


@pytest.mark.parametrize("name", LOCKS)
def test_lock_pins_every_package_by_hash_and_names_no_registry(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert "index-url" not in text
    entries = re.split(r"\n(?=[a-z0-9])", text.strip())
    assert all("--hash=sha256:" in entry and "==" in entry for entry in entries)


def test_locks_cover_the_project_and_agree() -> None:
    service, development = (locked(name) for name in LOCKS)
    project, groups = PROJECT["project"], PROJECT["dependency-groups"]
    assert wanted(project["dependencies"]) | wanted(groups["build"]) <= set(service)
    extras = project["optional-dependencies"]["embedded"]
    assert wanted(extras) | wanted(groups["dev"]) <= set(development)
    assert {package: development.get(package) for package in service} == service
