"""Fields of answers that several dialects share. Pure."""

from __future__ import annotations

from qwen_edge.chat.messages import Finish, Usage
from qwen_edge.protocol.messages import Alternative, Logprob
from qwen_edge.server.replies import Json


def token(one: Alternative) -> Json:
    """A token with its logprob. Its text may be a part of a character, which `bytes` hold exactly."""
    return {"token": one.piece.decode("utf-8", "replace"), "logprob": one.logprob, "bytes": list(one.piece)}


def logprob(one: Logprob) -> Json:
    """A token of the answer, and those that might have stood in its place."""
    return {**token(one.chosen), "top_logprobs": [token(other) for other in one.top]}


def energy(usage: Usage) -> Json:
    """What the answer has cost in joules; nothing where power is not measured."""
    if not usage.joules:
        return {}
    return {"energy_joules": usage.joules, "tokens_per_joule": usage.completion_tokens / usage.joules}


def stopped(finish: Finish) -> Json:
    """What has ended the answer, if neither the model nor a limit did."""
    return {"x_stopped": finish.stopped_by} if finish.stopped_by else {}
