"""The plugin for a LiteLLM proxy: tells Sluice of every call, and does to calls what Sluice commands.

In the proxy's config: ``litellm_settings: {callbacks: gateway.litellm_plugin.sluice}``. Settings are environment
variables (docs/gateways.md). LiteLLM need not be there to import this; of its log only named fields are taken, never
prompts or answers. A team is what the key says: what a caller writes into its request is no team.
"""

import asyncio
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gateway.call_tokens import capped, count, expected
from gateway.clock import now_micros
from gateway.gate import NOT_READY, ThrottleGate
from gateway.measures import Decision
from gateway.publisher import BufferFullError, UsagePublisher
from schemas.events import UsageEvent

try:  # In the proxy its class is what makes a callback; anywhere else this module stands alone.
    from litellm.integrations.custom_logger import CustomLogger
except ImportError:

    class CustomLogger:  # type: ignore[no-redef]
        """Stands in where LiteLLM is not installed."""


log = logging.getLogger(__name__)

#: Apart from the service's own SLUICE_ variables, of which each must be known to it.
PREFIX = "SLUICEGATE_"
#: Attribute of a key's metadata or of a ``name:value`` tag -> field of ``UsageEvent``.
ATTRIBUTES = {
    "org": "org_id", "cost_center": "cost_center", "project": "project_id", "feature": "feature",
    "environment": "environment", "request_type": "request_type", "experiment": "experiment_id", "run": "run_id",
    "task": "task_id", "session": "session_id", "user_tier": "user_tier", "agent": "agent",
}  # fmt: skip
#: What a caller may say of a call by its own tags, where its key does not say it.
OF_CALLERS = ("feature", "request_type", "experiment", "run", "task", "session", "agent")
REQUEST_TYPES = ("interactive", "batch", "background")
#: How a caller asks for other models than the one it names.
FALLBACKS = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "default_fallbacks", "models")
_CACHE_HIT = re.compile(r"_cache_hit[\d.]+$")
_HASHED = re.compile(r"[0-9a-f]{64}")
_TEXT_MAX = 128


class RefusedError(Exception):
    """A refusal where LiteLLM's proxy is not installed; in the proxy it is its own exception."""

    def __init__(self, code: int, message: str, headers: dict[str, str]) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.headers = headers


def call_attributes(
    key_metadata: Mapping[str, Any], tags: Iterable[str], of_callers: Iterable[str] = OF_CALLERS
) -> dict[str, str]:
    """What is known of a call: from its key's metadata, its key's tags, and only then from its own tags.

    >>> call_attributes({"feature": "search"}, ["feature:chat", "run:7", "environment:prod"])
    {'feature': 'search', 'run': '7'}
    """
    allowed = frozenset(of_callers)
    key_tags = key_metadata.get("tags") or ()
    found = {name: str(key_metadata[name]) for name in ATTRIBUTES if isinstance(key_metadata.get(name), str | int)}
    for trusted, some in ((True, key_tags), (False, tags)):
        for tag in some:
            name, sign, value = str(tag).partition(":")
            if sign and value and name in ATTRIBUTES and (trusted or name in allowed):
                found.setdefault(name, value.strip())
    if found.get("request_type", "interactive") not in REQUEST_TYPES:
        del found["request_type"]
    return {name: value[:_TEXT_MAX] for name, value in found.items()}


def event_id(payload: Mapping[str, Any]) -> str:
    """The same for the same call, another for a fallback, which shares its call id: with status and response id."""
    answer = _CACHE_HIT.sub("", str(payload.get("id") or ""))
    if len(answer) > _TEXT_MAX:
        answer = hashlib.sha256(answer.encode()).hexdigest()
    return f"{str(payload.get('litellm_call_id') or '')[:_TEXT_MAX]}:{payload.get('status') or ''}:{answer}"


def usage_event(
    payload: Mapping[str, Any], of_callers: Iterable[str] = OF_CALLERS, began_s: float | None = None
) -> UsageEvent:
    """What Sluice is told of a ``standard_logging_object``; ``began_s`` is when the gate let the call go, in seconds
    since 1970.
    """
    metadata = payload.get("metadata") or {}
    usage = metadata.get("usage_object") or {}
    told, wrote = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    error = payload.get("error_information") or {}
    provider = str(payload.get("custom_llm_provider") or "")
    known = call_attributes(
        metadata.get("user_api_key_auth_metadata") or {}, payload.get("request_tags") or (), of_callers
    )
    if payload.get("session_id"):
        known.setdefault("session", str(payload["session_id"])[:_TEXT_MAX])
    known.setdefault("org", str(metadata.get("user_api_key_org_id") or ""))
    known.setdefault("project", str(metadata.get("user_api_key_project_id") or ""))
    error_type = str(error.get("error_class") or "")
    if not error_type and payload.get("error_str"):
        # A client that hung up: LiteLLM calls it a success, with prompt tokens that it estimates.
        error_type = "ClientDisconnected" if "disconnect" in str(payload["error_str"]).lower() else "Unknown"
    cost = payload.get("response_cost")
    return UsageEvent(
        provider=provider or "unknown",
        request_model=str(payload.get("model_group") or payload.get("model") or ""),
        response_model=_without_provider(str(payload.get("model") or ""), provider),
        operation=str(payload.get("call_type") or "chat"),
        input_tokens=count(payload.get("prompt_tokens")),
        output_tokens=count(payload.get("completion_tokens")),
        cache_read_input_tokens=count(told.get("cached_tokens") or usage.get("cache_read_input_tokens")),
        cache_creation_input_tokens=count(usage.get("cache_creation_input_tokens")),
        reasoning_output_tokens=count(wrote.get("reasoning_tokens")),
        audio_input_tokens=count(told.get("audio_tokens")),
        audio_output_tokens=count(wrote.get("audio_tokens")),
        service_tier=str((payload.get("model_parameters") or {}).get("service_tier") or ""),
        reported_cost=None if cost is None else format(float(cost), ".12f"),
        status="failure" if payload.get("status") == "failure" else "success",
        error_type=error_type,
        cache_hit=bool(payload.get("cache_hit")),
        stream=bool(payload.get("stream")),
        duration_ms=_duration_ms(payload, began_s),
        team_id=str(metadata.get("user_api_key_team_id") or ""),
        key_id=_key_id(metadata.get("user_api_key_hash")),
        user_id=str(metadata.get("user_api_key_user_id") or ""),
        end_user_id=str(payload.get("end_user") or "")[:_TEXT_MAX],
        trace_id=str(payload.get("trace_id") or "")[:_TEXT_MAX],
        **{ATTRIBUTES[name]: value for name, value in known.items() if value},  # type: ignore[arg-type]
    )


class SluiceCallback(CustomLogger):
    """What LiteLLM calls before and after each request. Settings come from ``environment``."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        super().__init__()
        self._settings = {n.removeprefix(PREFIX).lower(): v for n, v in environment.items() if n.startswith(PREFIX)}
        self._fail = self._settings.get("fail", "open")
        if self._fail not in ("open", "closed"):
            raise ValueError(f"SLUICEGATE_FAIL is {self._fail!r}: say open or closed")
        self._of_callers = tuple(
            name.strip() for name in self._settings.get("caller_tags", ",".join(OF_CALLERS)).split(",") if name.strip()
        )
        self._starting: asyncio.Task[None] | None = None
        self._publisher: UsagePublisher | None = None
        self._gate: ThrottleGate | None = None
        self.lost = 0

    async def started(self) -> ThrottleGate | None:
        """The gate, once started; first calls wait ``SLUICEGATE_READY_WITHIN_S`` at most. None: it cannot start."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(), name="sluice-plugin")
        await asyncio.shield(self._starting)
        return self._gate

    async def stop(self) -> None:
        """End both parts; what was not acknowledged stays on disk. The proxy itself never calls this."""
        for part in (self._gate, self._publisher):
            if part is not None:
                await part.stop()

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> Any:
        """Let a call go, change it, or refuse it (429 with Retry-After)."""
        gate = await self.started()
        asked = str(data.get("model") or "")
        if gate is None:
            decision, provider = Decision(True) if self._fail == "open" else NOT_READY, ""
        else:
            metadata = data.get("metadata") or data.get("litellm_metadata") or {}
            known = call_attributes(
                getattr(user_api_key_dict, "metadata", None) or {}, metadata.get("tags") or (), self._of_callers
            )
            known.setdefault("project", str(getattr(user_api_key_dict, "project_id", None) or ""))
            known.setdefault("session", str(data.get("litellm_session_id") or metadata.get("session_id") or ""))
            model, provider = deployed(asked)
            decision = gate.check(
                str(getattr(user_api_key_dict, "team_id", None) or ""),
                known.get("feature", ""),
                model,
                known.get("org") or str(getattr(user_api_key_dict, "org_id", None) or ""),
                _key_id(getattr(user_api_key_dict, "api_key", None)),
                str(getattr(user_api_key_dict, "user_id", None) or ""),
                provider=provider,
                tokens=expected(data),
                **{name: value for name, value in known.items() if name not in _POSITIONAL},
            )
        if not decision.allowed:
            raise refusal(decision)
        if decision.command is not None:
            change(data, decision, call_type)
        for name in ("litellm_metadata", "metadata"):
            if isinstance(data.get(name), dict):
                data[name][_BEGAN] = now_micros() / 1e6
        return data

    async def async_post_call_response_headers_hook(self, data: dict[str, Any], *_: Any, **__: Any) -> Any:
        """Tell a caller what was done to its call."""
        return (data.get("metadata") or {}).get("sluice") or (data.get("litellm_metadata") or {}).get("sluice")

    async def async_log_success_event(self, kwargs: dict[str, Any], *_: Any, **__: Any) -> None:
        """Tell of a call that was answered: whole, streamed, from the cache, or to a client that hung up."""
        await self._tell(kwargs)

    async def async_log_failure_event(self, kwargs: dict[str, Any], *_: Any, **__: Any) -> None:
        """Tell of a call that failed or was refused."""
        await self._tell(kwargs)

    async def _start(self) -> None:
        try:
            await self._open()
        except Exception:
            log.exception(
                "the plugin cannot start: check the SLUICEGATE_ variables; calls go on as SLUICEGATE_FAIL says"
            )

    async def _open(self) -> None:
        instance = self._settings.get("instance", "litellm")
        servers = self._settings.get("kafka", "127.0.0.1:9092")
        connection = {"bootstrap_servers": servers, **json.loads(self._settings.get("kafka_options", "{}"))}
        folder = self._settings.get("spill_dir") or Path(tempfile.gettempdir()) / f"sluice-{instance}"
        idempotent = self._settings.get("kafka_idempotence", "true") != "false"
        self._publisher = UsagePublisher(
            {**connection, "enable_idempotence": idempotent},
            source=f"//gateway/litellm/{instance}",
            spill_dir=folder,
            spill_bytes_max=int(self._settings.get("spill_bytes_max", 1 << 30)),
        )
        try:
            await self._publisher.start()
        except Exception:
            log.exception("usage events cannot be kept on disk (SLUICEGATE_SPILL_DIR) and wait in memory alone")
            self._publisher = UsagePublisher(connection, source=f"//gateway/litellm/{instance}")
            await self._publisher.start()
        # One name for each worker process, and the same after a restart: Sluice waits for those that it knows.
        name = f"litellm-{instance}-{self._publisher.slot}"
        gate = ThrottleGate(connection, gateway=name, fail=self._fail, idempotence=idempotent)  # type: ignore[arg-type]
        self._gate = gate
        await gate.start(ready_within_s=float(self._settings.get("ready_within_s", "5")))

    async def _tell(self, kwargs: Mapping[str, Any]) -> None:
        """Never raises: a log that cannot be told must not disturb an answer."""
        try:
            await self.started()
            payload = kwargs.get("standard_logging_object")
            if payload is None or self._publisher is None:
                return
            ended = float(payload.get("endTime") or 0)
            at = round(ended * 1_000_000) if ended > 0 else None
            told = usage_event(payload, self._of_callers, _began_s(kwargs))
            self._publisher.publish(told, id=event_id(payload), time=at)
        except BufferFullError as error:
            self._count_lost(error)
        except Exception as error:
            self._count_lost(error)
            log.debug("a usage event could not be made", exc_info=True)

    def _count_lost(self, error: Exception) -> None:
        self.lost += 1
        if self.lost & (self.lost - 1) == 0:  # 1, 2, 4, 8 …: loud, and not a flood.
            log.error("%d usage events lost; the last because: %s", self.lost, error)


def _began_s(kwargs: Mapping[str, Any]) -> float | None:
    """When the gate let the call go."""
    known = kwargs.get("litellm_params") or {}
    for name in ("litellm_metadata", "metadata"):
        found = (known.get(name) or {}).get(_BEGAN)
        if isinstance(found, float):
            return found
    return None


def _duration_ms(payload: Mapping[str, Any], began_s: float | None) -> int:
    """From the gate to the answer's end: LiteLLM's own ``response_time`` of a stream ends with its first token."""
    began, ended = began_s or float(payload.get("startTime") or 0), float(payload.get("endTime") or 0)
    took_s = ended - began if 0 < began <= ended else float(payload.get("response_time") or 0)
    return max(0, round(took_s * 1_000))


#: Where a call's metadata says when the gate let it go.
_BEGAN = "sluice_began"
#: Given to ``check`` by place.
_POSITIONAL = ("feature", "org", "user_tier", "agent")


def refusal(decision: Decision) -> Exception:
    """The error that the proxy answers with."""
    headers = {"Retry-After": str(decision.retry_after_s), "x-sluice-action": decision.action}
    if decision.command is not None:
        headers |= {"x-sluice-budget": decision.command.budget_id, "x-sluice-command": decision.command.command_id}
    safe = _header_safe(headers)
    try:
        from litellm.proxy._types import ProxyException
    except ImportError:
        return RefusedError(decision.http_status, decision.reason, safe)
    # Of all exceptions the one whose headers reach the caller on every route of the proxy.
    return ProxyException(
        message=decision.reason, type=f"sluice_{decision.action}", param=None, code=decision.http_status, headers=safe
    )


def change(data: dict[str, Any], decision: Decision, call_type: str) -> None:
    """Swap the model, cap the tokens, and note it for the answer's headers."""
    headers = {"x-sluice-action": decision.action}
    if decision.model_fallback is not None:
        headers["x-sluice-model"] = data["model"] = group_of(decision.model_fallback)
        for place in (data, data.get("extra_body")):
            for name in FALLBACKS:
                if isinstance(place, dict):
                    place.pop(name, None)
        data["disable_fallbacks"] = True  # Those of the router too: a failure must not lead back to the dear model.
    if decision.max_tokens is not None:
        capped(data, decision.max_tokens, call_type)
        headers["x-sluice-max-tokens"] = str(decision.max_tokens)
    if decision.command is not None:
        headers["x-sluice-budget"] = decision.command.budget_id
    for name in ("litellm_metadata", "metadata"):
        if isinstance(data.get(name), dict):
            data[name]["sluice"] = _header_safe(headers)
            return


def deployed(group: str) -> tuple[str, str]:
    """The model behind a name of the proxy, as events and budgets call it, and its provider."""
    for entry in _deployments():
        if entry.get("model_name") == group:
            whole = str((entry.get("litellm_params") or {}).get("model") or group)
            provider, sign, model = whole.partition("/")
            return (model, provider) if sign else (whole, "")
    return group, ""


def group_of(model: str) -> str:
    """The proxy's name for a model: its own where it is one, else of the first deployment that is this model."""
    entries = list(_deployments())
    if any(entry.get("model_name") == model for entry in entries):
        return model
    for entry in entries:
        if str((entry.get("litellm_params") or {}).get("model") or "").partition("/")[2] == model:
            return str(entry["model_name"])
    return model


def _deployments() -> Iterable[Mapping[str, Any]]:
    try:
        from litellm.proxy.proxy_server import llm_router
    except ImportError:
        return ()
    return getattr(llm_router, "model_list", None) or ()


def _key_id(key: Any) -> str:
    """The hash of a key; never the key itself, whatever custom authentication hands on."""
    text = str(key or "")
    return text if not text or _HASHED.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()


def _without_provider(model: str, provider: str) -> str:
    return model.removeprefix(f"{provider}/") if provider else model


def _header_safe(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value.encode("latin-1", "replace").decode("latin-1") for name, value in headers.items()}


sluice = SluiceCallback()
