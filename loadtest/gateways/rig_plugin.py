"""What the LiteLLM proxies of the rig load: the plugin as customers have it, under a clock that may be ahead, and keys.

Authentication is LiteLLM's own kind for proxies without a database: a function that says whose key it is.
"""

import os
from collections.abc import Mapping
from typing import Any

from loadtest.gateways.shifted import shift

AHEAD_S = float(os.environ.get("RIG_AHEAD_S", "0"))
shift(AHEAD_S)

from gateway.litellm_plugin import SluiceCallback  # noqa: E402  (its clock is to be the shifted one)

#: What the proxy knows of each key; a key is sent as ``sk-<name>``.
KEYS = {
    "sk-search": {"team_id": "search", "user_id": "u1", "metadata": {"feature": "chat"}},
    "sk-batch": {"team_id": "search", "user_id": "u2", "metadata": {"tags": ["request_type:batch"]}},
    "sk-traps": {"team_id": "traps", "user_id": "u3", "metadata": {"feature": "traps", "environment": "test"}},
    "sk-lone": {"user_id": "u4", "metadata": {}},
}


async def authenticate(request: Any, api_key: str) -> Any:
    """LiteLLM's ``custom_auth``."""
    from litellm.proxy._types import ProxyException, UserAPIKeyAuth

    if api_key not in KEYS:
        raise ProxyException(message="no such key", type="auth_error", param="key", code=401)
    return UserAPIKeyAuth(api_key=api_key, **KEYS[api_key])


class RigCallback(SluiceCallback):
    """LiteLLM's times are of a clock that cannot be shifted; only they are changed here."""

    # LiteLLM asks the class itself, and not what it inherits from.
    async_pre_call_hook = SluiceCallback.async_pre_call_hook
    async_post_call_response_headers_hook = SluiceCallback.async_post_call_response_headers_hook

    async def _tell(self, kwargs: Mapping[str, Any]) -> None:
        payload = kwargs.get("standard_logging_object")
        if payload is not None:
            kwargs = {**kwargs, "standard_logging_object": {**payload, "endTime": payload["endTime"] + AHEAD_S}}
        await super()._tell(kwargs)


sluice = RigCallback()
