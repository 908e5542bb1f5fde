"""Finding the service that ``sluice up`` runs on this machine: where its broker and its database are."""

from pathlib import Path

import msgspec
from pydantic import SecretStr

from streams.settings import Settings, SettingsError

FILE = "running.json"


class Running(msgspec.Struct):
    """What ``sluice up`` leaves in the state folder while it runs."""

    kafka_url: str
    database_url: str
    api_url: str
    kafka_idempotence: bool = True


def note(state_dir: Path, running: Running) -> Path:
    """Write the note; it holds the database's password, so only its owner may read it."""
    path = state_dir / FILE
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(running))
    return path


def complete(settings: Settings, *needed: str) -> Settings:
    """The settings, completed from the service that runs here where a URL is missing.

    Raises:
        SettingsError: nothing runs here and nothing is given.
    """
    missing = [name for name in needed if getattr(settings, name) is None]
    if not missing:
        return settings
    path = settings.state_dir / FILE
    if not path.exists():
        raise SettingsError(
            [f"{name} is not set, and no `sluice up` runs with state_dir {settings.state_dir}" for name in missing]
        )
    running = msgspec.json.decode(path.read_bytes(), type=Running)
    known = {"kafka_url": running.kafka_url, "database_url": SecretStr(running.database_url)}
    found = {name: known[name] for name in missing}
    if "kafka_url" in missing:
        found["kafka_idempotence"] = running.kafka_idempotence
    return settings.model_copy(update=found)
