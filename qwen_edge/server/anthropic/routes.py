"""The paths of Anthropic's dialect."""

from __future__ import annotations

from qwen_edge.server.anthropic import messages, models
from qwen_edge.server.anthropic.body import MessageBody, PromptBody
from qwen_edge.server.routes import Route, v1
from qwen_edge.server.sse import EVENTS

PATHS = ("/v1/messages", "/messages")
"""The beginnings of all paths that are Anthropic's alone."""

VERSION = "anthropic-version"
"""The header that tells which API a client speaks, on paths that other APIs have, too."""

SHARED = {"/v1/models": models.list_models, "/v1/models/{name:.+}": models.show_model}
"""The handlers of such paths."""

_ERRORS = (400, 401, 403, 404, 408, 413, 415, 429, 500, 529)

ROUTES = (
    Route(
        "POST",
        "/v1/messages",
        messages.create_message,
        "Answer messages.",
        body=MessageBody,
        stream=EVENTS,
        also=v1("/v1/messages"),
        errors=_ERRORS,
    ),
    Route(
        "POST",
        "/v1/messages/count_tokens",
        messages.count_tokens,
        "Count the tokens of the prompt.",
        body=PromptBody,
        also=v1("/v1/messages/count_tokens"),
        errors=_ERRORS,
    ),
)
