"""The paths of Ollama's dialect."""

from __future__ import annotations

from qwen_edge.server.ollama import chat, embed, models
from qwen_edge.server.ollama.bodies import (
    OllamaChatBody,
    OllamaEmbedBody,
    OllamaEmbeddingsBody,
    OllamaGenerateBody,
    OllamaPullBody,
    OllamaShowBody,
)
from qwen_edge.server.routes import ALWAYS, GENERATES, READS_BODY, Route
from qwen_edge.server.sse import LINES

_ABOUT_A_MODEL = (*READS_BODY, 404, 503)

ROUTES = (
    Route(
        "GET",
        "/",
        models.running,
        "Whether the server is there. A browser gets the page.",
        answer=str,
        content_type="text/plain",
        other_types=("text/html",),
    ),
    Route(
        "POST",
        "/api/chat",
        chat.chat,
        "Answer a chat.",
        body=OllamaChatBody,
        stream=LINES,
        also=("/api/chat/",),
        errors=GENERATES,
    ),
    Route(
        "POST",
        "/api/generate",
        chat.generate,
        "Answer a prompt.",
        body=OllamaGenerateBody,
        stream=LINES,
        also=("/api/generate/",),
        errors=GENERATES,
    ),
    Route(
        "POST",
        "/api/embed",
        embed.embed,
        "Turn texts into vectors.",
        body=OllamaEmbedBody,
        also=("/api/embed/",),
        errors=GENERATES,
    ),
    Route(
        "POST",
        "/api/embeddings",
        embed.embeddings,
        "Turn a text into a vector.",
        body=OllamaEmbeddingsBody,
        also=("/api/embeddings/",),
        errors=GENERATES,
    ),
    Route("GET", "/api/tags", models.tags, "The list of models.", also=("/api/tags/",), errors=(*ALWAYS, 503)),
    Route("GET", "/api/ps", models.running_models, "The models in memory.", also=("/api/ps/",)),
    Route("GET", "/api/version", models.version, "The release of Ollama whose API this is.", also=("/api/version/",)),
    Route(
        "POST",
        "/api/show",
        models.show,
        "What is known of a model.",
        body=OllamaShowBody,
        also=("/api/show/",),
        errors=_ABOUT_A_MODEL,
    ),
    Route(
        "POST",
        "/api/pull",
        models.pull,
        "Say that a model is there.",
        body=OllamaPullBody,
        stream=LINES,
        also=("/api/pull/",),
        errors=_ABOUT_A_MODEL,
    ),
    *(
        Route(method, path, models.refuse, "Refused: models are made with qwen-edge convert.", answer_at=())
        for method, path in (
            ("POST", "/api/create"),
            ("POST", "/api/copy"),
            ("POST", "/api/push"),
            ("DELETE", "/api/delete"),
            ("POST", "/api/blobs/{digest}"),
        )
    ),
    Route("HEAD", "/api/blobs/{digest}", models.no_blob, "No blob is there.", answer_at=(), errors=(*ALWAYS, 404)),
)
