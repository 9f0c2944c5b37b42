"""The paths of OpenAI's dialect."""

from __future__ import annotations

from qwen_edge.server.openai import chat, completions, models
from qwen_edge.server.openai.chat_body import ChatBody
from qwen_edge.server.openai.completions_body import CompletionBody
from qwen_edge.server.routes import GENERATES, Route, v1
from qwen_edge.server.sse import EVENTS

ROUTES = (
    Route(
        "POST",
        "/v1/chat/completions",
        chat.chat_completions,
        "Answer a chat.",
        body=ChatBody,
        stream=EVENTS,
        also=v1("/v1/chat/completions"),
        errors=GENERATES,
    ),
    Route(
        "POST",
        "/v1/chat/completions/input_tokens",
        chat.count_input_tokens,
        "How many tokens the prompt of a chat has.",
        body=ChatBody,
        also=v1("/v1/chat/completions/input_tokens"),
        errors=GENERATES,
    ),
    Route(
        "POST",
        "/v1/completions",
        completions.completions,
        "Continue a text.",
        body=CompletionBody,
        stream=EVENTS,
        also=("/v1/completions/",),  # /completions is llama-server's own form
        errors=GENERATES,
    ),
    Route("GET", "/v1/models", models.list_models, "The model that is served.", also=v1("/v1/models")),
    Route(
        "GET",
        "/v1/models/{name:.+}",
        models.show_model,
        "A model.",
        also=("/models/{name:.+}",),
        errors=(401, 403, 404),
    ),
)
