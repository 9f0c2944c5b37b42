"""POST /completion, llama-server's own form of completions; and /completions, which is either that or OpenAI's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiohttp import web

from qwen_edge.chat.messages import ChatRequest
from qwen_edge.core.errors import RequestError
from qwen_edge.server.answering import asked_by, ignores_unknown, respond
from qwen_edge.server.body import read_whole
from qwen_edge.server.llama_server.body import CompletionBody, plain, to_requests
from qwen_edge.server.llama_server.encode import CompletionEncoder, Described
from qwen_edge.server.llama_server.generation_settings import generation_settings
from qwen_edge.server.openai.completions import complete
from qwen_edge.server.parameters import read_group, read_json
from qwen_edge.server.prompts import prompt_text
from qwen_edge.server.replies import Json
from qwen_edge.server.state import STATE
from qwen_edge.service.pipeline import ChatService

_MOST_TEXTS = 256  # in logit_bias: each is a question to the engine


async def completion(request: web.Request) -> web.StreamResponse:
    """Continue the prompts."""
    return await _complete(request, read_json(await read_whole(request)))


async def completions(request: web.Request) -> web.StreamResponse:
    """Both servers have this path. Clients of OpenAI must name a model, and those of llama-server do not."""
    values = read_json(await read_whole(request))
    return await (complete if values.get("model") is not None else _complete)(request, values)


async def _complete(request: web.Request, values: Json) -> web.StreamResponse:
    state = request.app[STATE]
    asked = asked_by(request, None)
    values = plain(values)
    if values.get("logit_bias") is not None:
        values["logit_bias"] = await _biases(values["logit_bias"], state.service)
    body = read_group(CompletionBody, values, ignore_unknown=ignores_unknown(request))
    chats = to_requests(body, asked)
    ends = await _end_tokens(state.service, state.engine.model.eos_token if state.engine.model else "", chats[0])
    described = list[Described]()
    for chat in chats:
        settings = generation_settings(
            chat.sampling,
            chat.max_tokens,
            stop=chat.stop,
            ends=ends,
            stream=bool(body.stream),
            grammar=body.grammar or "",
        )
        described += [Described(await prompt_text(state.service, chat.raw), settings)] * chat.choices
    encoder = CompletionEncoder(
        state.model_name,
        asked.model.context,
        described,
        fields=body.response_fields or (),
        tokens=bool(body.return_tokens),
        probabilities=bool(chats[0].sampling.logprobs),
    )
    return await respond(request, chats, encoder, stream=bool(body.stream))


async def _end_tokens(service: ChatService, text: str, chat: ChatRequest) -> tuple[int, ...]:
    """The token that ends a turn, if it is banned."""
    return await service.tokenize(text, special=True) if text and chat.sampling.ignore_eos else ()


async def _biases(value: Any, service: ChatService) -> dict[str, Any]:
    """logit_bias as an object by token. llama-server also takes a list of pairs, texts instead of tokens, for all of
    their tokens, and false for a token that never comes. Raises RequestError."""
    biases: dict[str, Any] = {}
    pairs = list(_pairs(value))
    if sum(isinstance(key, str) and not key.isdecimal() for key, _ in pairs) > _MOST_TEXTS:
        raise RequestError(f"logit_bias has more than {_MOST_TEXTS} texts.", parameter="logit_bias")
    for key, bias in pairs:
        if isinstance(key, str) and not key.isdecimal():
            keys = [str(token) for token in await service.tokenize(key, special=True)]
        else:
            keys = [str(key)]
        biases |= dict.fromkeys(keys, -100 if bias is False else bias)
    return biases


def _pairs(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        yield from value.items()
        return
    for pair in value if isinstance(value, list) else [value]:
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], int | str):
            raise RequestError(
                "logit_bias must be an object, or a list of pairs of a token, or a text, and a number.",
                parameter="logit_bias",
            )
        yield pair[0], pair[1]
