"""How many tokens a call may use, under every name that providers and their proxies have for it."""

from collections.abc import Mapping
from typing import Any

#: Every name under which the most output tokens of a call can be asked for.
CAPS = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens_to_sample",
    "maxOutputTokens",
    "max_new_tokens",
)
NESTED = ("extra_body", "generationConfig", "generation_config", "config", "inferenceConfig", "optional_params")
#: Calls that write no tokens.
UNCAPPED = ("embedding", "rerank", "image", "moderation", "transcription", "speech")


def capped(data: dict[str, Any], most: int, call_type: str) -> None:
    """Let a call write at most so many tokens, under whatever name it asks for more, over all its choices."""
    if any(word in call_type for word in UNCAPPED):
        return
    choices = max([count(data.get(name)) for name in ("n", "best_of")] + [1])
    most, is_said = max(1, most // choices), False
    nested = [data[name] for name in NESTED if isinstance(data.get(name), dict)]
    for place in (data, *nested):
        for name in CAPS:
            if name in place:
                asked, is_said = place[name], is_said or place is data
                is_more = not isinstance(asked, int | float) or isinstance(asked, bool) or asked > most
                place[name] = most if is_more else asked
    if not is_said:
        data["max_output_tokens" if "response" in call_type else "max_tokens"] = most
    thinking = data.get("thinking")
    if isinstance(thinking, dict) and count(thinking.get("budget_tokens")) >= most:
        del data["thinking"]  # Its budget must lie below the cap, and a provider refuses it otherwise.


def expected(data: Mapping[str, Any]) -> int:
    """Tokens that a call will use, roughly: four characters each, and what it may write."""
    text = data.get("messages") or data.get("input") or data.get("prompt") or ""
    said = sum(len(str(one.get("content", "")) if isinstance(one, dict) else str(one)) for one in text) // 4 \
        if isinstance(text, list) else len(str(text)) // 4  # fmt: skip
    return said + max([count(data.get(name)) for name in CAPS])


def count(value: Any) -> int:
    """A number of tokens; 0 for whatever is none."""
    return max(0, int(value)) if isinstance(value, int | float) and not isinstance(value, bool) else 0
