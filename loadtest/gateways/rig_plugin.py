"""What the LiteLLM proxies of the rig load: the plugin as customers have it, and keys.

Authentication is LiteLLM's own kind for proxies without a database: a function that says whose key it is.
"""

from typing import Any

from gateway.litellm_plugin import sluice

__all__ = ["authenticate", "sluice"]

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
