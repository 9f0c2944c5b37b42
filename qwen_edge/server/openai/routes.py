"""The paths of OpenAI's dialect."""

from __future__ import annotations

from qwen_edge.server.openai import chat, completions, embeddings, models
from qwen_edge.server.openai.chat_answer import ChatChunk, ChatCompletion, PreparedChat
from qwen_edge.server.openai.chat_body import ChatBody
from qwen_edge.server.openai.completions_body import CompletionBody
from qwen_edge.server.openai.responses.routes import ROUTES as RESPONSES
from qwen_edge.server.routes import ALWAYS, GENERATES, Route, v1
from qwen_edge.server.sse import EVENTS

ROUTES = (
    Route(
        "POST",
        "/v1/chat/completions",
        chat.chat_completions,
        "Answer a chat.",
        body=ChatBody,
        answer=ChatCompletion | PreparedChat,
        stream=EVENTS,
        event=ChatChunk,
        also=v1("/v1/chat/completions"),
        errors=GENERATES,
    ),
    Route(
        "POST",
        "/v1/chat/completions/prepare",
        chat.prepare,
        "Compute the prompt of a chat that will be asked for soon.",
        body=ChatBody,
        answer=PreparedChat,
        also=v1("/v1/chat/completions/prepare"),
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
    Route(
        "POST",
        "/v1/embeddings",
        embeddings.embeddings,
        "Turn texts into vectors.",
        body=embeddings.EmbeddingsBody,
        also=v1("/v1/embeddings"),
        errors=GENERATES,
    ),
    Route(
        "GET",
        "/v1/models",
        models.list_models,
        "The model that is served.",
        answer=models.ModelList,
        also=v1("/v1/models"),
        errors=(*ALWAYS, 503),
    ),
    Route(
        "GET",
        "/v1/models/{name:.+}",
        models.show_model,
        "A model.",
        answer=models.ModelCard,
        also=("/models/{name:.+}",),
        errors=(*ALWAYS, 404, 503),
    ),
    *RESPONSES,
)
