"""llama-server's `timings`: how many tokens an answer took, and how long. Pure."""

from __future__ import annotations

from typing import Any

from qwen_edge.chat.messages import Usage


def timings(usage: Usage) -> dict[str, Any]:
    """Times in milliseconds. `prompt_n` is what had to be computed of the prompt, `cache_n` the rest of it."""
    computed = usage.prompt_tokens - usage.cached_tokens
    return {
        "cache_n": usage.cached_tokens,
        **_rate("prompt", computed, usage.prefill_seconds),
        **_rate("predicted", usage.completion_tokens, usage.decode_seconds),
    }


def _rate(name: str, tokens: int, seconds: float) -> dict[str, Any]:
    return {
        f"{name}_n": tokens,
        f"{name}_ms": 1000 * seconds,
        f"{name}_per_token_ms": 1000 * seconds / tokens if tokens else 0.0,
        f"{name}_per_second": tokens / seconds if seconds > 0 else 0.0,
    }
