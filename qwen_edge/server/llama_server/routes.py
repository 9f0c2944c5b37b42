"""The paths that llama-server has beside OpenAI's."""

from __future__ import annotations

from qwen_edge.server.llama_server import completion, info, tokens
from qwen_edge.server.llama_server.body import CompletionBody
from qwen_edge.server.llama_server.tokens import DetokenizeBody, TokenizeBody
from qwen_edge.server.openai.chat_body import ChatBody
from qwen_edge.server.openai.completions_body import CompletionBody as OpenAICompletionBody
from qwen_edge.server.routes import GENERATES, Route
from qwen_edge.server.sse import EVENTS

ROUTES = (
    Route(
        "POST",
        "/completion",
        completion.completion,
        "Continue a text, in llama-server's form.",
        body=CompletionBody,
        stream=EVENTS,
        also=("/completion/",),
        errors=GENERATES,
    ),
    Route(
        "POST",
        "/completions",
        completion.completions,
        "Continue a text: in OpenAI's form if the body names a model, else in llama-server's.",
        body=OpenAICompletionBody,
        stream=EVENTS,
        also=("/completions/",),
        errors=GENERATES,
    ),
    Route("POST", "/tokenize", tokens.tokenize, "The tokens of a text.", body=TokenizeBody, errors=GENERATES),
    Route("POST", "/detokenize", tokens.detokenize, "The text of tokens.", body=DetokenizeBody, errors=GENERATES),
    Route("POST", "/apply-template", tokens.apply_template, "The prompt of a chat.", body=ChatBody, errors=GENERATES),
    Route("GET", "/props", info.props, "The model and its settings.", errors=(401, 403, 503)),
    Route("GET", "/slots", info.slots, "How many requests run.", errors=(401, 403, 503)),
)
