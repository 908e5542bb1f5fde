"""Where settings come from besides flags and variables: the YAML file, secret files, names nobody knows.

A source never raises. What it could not read it reports under ``PROBLEMS``, so that the operator sees every
error of every source in one go; ``streams.settings`` turns them into error lines.
"""

import difflib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

PREFIX = "SLUICE_"
CONFIG_FILE = PREFIX + "CONFIG_FILE"
#: Key under which a source reports what is wrong: ``{line: None}``, for sources are merged deeply.
PROBLEMS = "__problems__"
SECRETS = (
    "database_url",
    "kafka_sasl_password",
    "pagerduty_routing_key",
    "slack_webhook_url",
    "slack_bot_token",
    "smtp_password",
    "billing_webhook_secret",
    "approval_secret",
    "pagerduty_webhook_secret",
    "heartbeat_url",
)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean X?`` where a known name is close to ``name``, else an empty string.

    >>> did_you_mean("partitons", ["partitions", "state_dir"]), did_you_mean("zzz", ["partitions"])
    ('; did you mean partitions?', '')
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def referred(text: str) -> str:
    """What ``env:NAME`` or ``file:PATH`` refers to, a file without its final newline; any other text is itself.

    Raises:
        ValueError: there is no such variable or file, or it is empty.
    """
    kind, _, name = text.partition(":")
    if kind == "env":
        if found := os.environ.get(name, ""):
            return found
        raise ValueError(f"the variable {name} is not set, or empty (from {text})")
    if kind != "file":
        return text
    try:
        found = Path(name).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {name} (from {text}): {getattr(error, 'strerror', None) or error}") from None
    if not found:
        raise ValueError(f"{name} is empty (from {text}); put the secret into it")
    return found


class _Source(PydanticBaseSettingsSource):
    """A source that gives all its values at once."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    @property
    def names(self) -> list[str]:
        return list(self.settings_cls.model_fields)


class YamlFile(_Source):
    """The settings file; where it is comes from ``--config`` or ``SLUICE_CONFIG_FILE``."""

    def __call__(self) -> dict[str, Any]:
        path = self.current_state.get("config_file")
        if not path:
            return {}
        values, problem = read_yaml(Path(path))
        if problem:
            return {PROBLEMS: {problem: None}}
        unknown = [name for name in values if name not in self.names]
        problems = {f"{path}: no setting is called {n!r}{did_you_mean(str(n), self.names)}": None for n in unknown}
        known: dict[str, Any] = {name: value for name, value in values.items() if name not in unknown}
        return known | ({PROBLEMS: problems} if problems else {})


def read_yaml(path: Path) -> tuple[dict[str, Any], str]:
    """The settings file's content, and what is wrong with it (empty where nothing is)."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        return (
            {},
            f"config_file: cannot read {path}: {error.strerror}; it is a YAML file of settings",
        )
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return {}, f"{path}: not YAML: " + " ".join(str(error).split())
    if loaded is None:
        return {}, ""
    if not isinstance(loaded, dict):
        return {}, f"{path}: expected `name: value` lines, found a {type(loaded).__name__}"
    return loaded, ""


class SecretFiles(_Source):
    """``SLUICE_<SECRET>_FILE``: the secret is the file's content without its final newline."""

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        problems: dict[str, None] = {}
        for name in SECRETS:
            variable = f"{PREFIX}{name.upper()}_FILE"
            path = os.environ.get(variable)
            if not path:
                continue
            try:
                secret = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
            except OSError as error:
                problems[f"{name}: cannot read {path} (from {variable}): {error.strerror}"] = None
            except UnicodeDecodeError:
                problems[f"{name}: {path} (from {variable}) is not UTF-8 text"] = None
            else:
                if secret:
                    found[name] = secret
                else:
                    problems[f"{name}: {path} (from {variable}) is empty; put the secret into it"] = None
        return found | ({PROBLEMS: problems} if problems else {})


class UnknownVariables(_Source):
    """Gives no value: reports ``SLUICE_…`` variables that no setting reads: a typo is a silent default."""

    def __call__(self) -> dict[str, Any]:
        known = {PREFIX + name.upper() for name in self.names}
        known |= {f"{PREFIX}{name.upper()}_FILE" for name in SECRETS}
        problems = {
            f"{name}: no setting has this variable{did_you_mean(name.upper(), known)}": None
            for name in sorted(os.environ)
            if name.upper().startswith(PREFIX) and name.upper() not in known
        }
        return {PROBLEMS: problems} if problems else {}


def given_value(name: str, flags: Mapping[str, Any]) -> Any:
    """What was given for a setting, unchecked, by precedence; None where nothing was."""

    def outside(setting: str) -> Any:
        return flags.get(setting) or os.environ.get(PREFIX + setting.upper())

    path = outside("config_file")
    return outside(name) or (read_yaml(Path(path))[0].get(name) if path else None)


def origins(names: Iterable[str], flags: Mapping[str, Any], config_file: Path | None) -> dict[str, str]:
    """Where each setting's value comes from: ``flag``, a variable, the file's path, or ``default``."""
    in_file = read_yaml(config_file)[0] if config_file else {}
    environment = {name.upper() for name, value in os.environ.items() if value}

    def origin(name: str) -> str:
        variable = PREFIX + name.upper()
        if name in flags:
            return "flag"
        if variable in environment:
            return variable
        if name in SECRETS and f"{variable}_FILE" in environment:
            return f"{variable}_FILE"
        return str(config_file) if name in in_file else "default"

    return {name: origin(name) for name in names}


def split_list(value: Any) -> Any:
    """A list setting given as text: JSON, or words with commas between them.

    >>> split_list("a, b"), split_list('["a"]'), split_list(["a"])
    (['a', 'b'], ['a'], ['a'])
    """
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return _from_json(value, "a list")
    return [part.strip() for part in value.split(",") if part.strip()]


def split_mapping(value: Any) -> Any:
    """A mapping setting given as text: JSON, or ``name=value`` pairs with commas between them.

    >>> split_mapping("a=1,b=2"), split_mapping('{"a": "1"}')
    ({'a': '1', 'b': '2'}, {'a': '1'})
    """
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        return _from_json(value, "a mapping")
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    if any(not sign for _, sign, _ in pairs):
        raise ValueError("write name=value pairs with commas between them, or a JSON object")
    return {name.strip(): text.strip() for name, _, text in pairs}


def _from_json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"looks like {what} in JSON, but is not: {error}") from error


def as_variables(settings: BaseSettings) -> dict[str, str]:
    """The settings that differ from their defaults, as ``SLUICE_…`` variables for a child process.

    Secrets are in it in clear: give it to a child's environment, never to a log or a command line.
    """
    found = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if value is None or name == "config_file" or value == field.get_default(call_default_factory=True):
            continue
        if hasattr(value, "get_secret_value"):
            value = value.get_secret_value()
        text = json.dumps(value) if isinstance(value, list | dict | bool) else str(value)
        found[PREFIX + name.upper()] = text
    return found
