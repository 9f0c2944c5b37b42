"""The paths about models: the one that is served is listed, shown and "pulled"; there is no other to be had."""

from __future__ import annotations

import hashlib
import time
from typing import TypeVar

from aiohttp import web

from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable
from qwen_edge.protocol.messages import ModelFacts, Ready
from qwen_edge.server.answering import read_request
from qwen_edge.server.ollama.bodies import ModelBody, OllamaPullBody, OllamaShowBody
from qwen_edge.server.ollama.framing import line, timestamp, timestamp_after
from qwen_edge.server.replies import Json, json_response
from qwen_edge.server.sse import LINES
from qwen_edge.server.state import STATE, State
from qwen_edge.supervisor.state import EngineState

_Body = TypeVar("_Body", bound=ModelBody)

# the release of Ollama whose API this is: clients compare it with the release that brought what they need
_VERSION = "0.12.11"
_PREFIXES = ((1e9, "B"), (1e6, "M"), (1e3, "K"))


def listed_name(state: State) -> str:
    """The model's name as Ollama writes names, with a tag: clients add `:latest` to a name without one, and look for
    the result in the list."""
    return state.model_name if ":" in state.model_name else f"{state.model_name}:latest"


async def running(_: web.Request) -> web.Response:
    """What Ollama says of itself to a browser, and to clients that look whether it is there."""
    return web.Response(text="Ollama is running")


async def version(_: web.Request) -> web.Response:
    return json_response({"version": _VERSION})


async def tags(request: web.Request) -> web.Response:
    """The list of models, which has one. While nothing is known of it yet, a client is told to ask again."""
    state = request.app[STATE]
    _ = state.service.model  # raises RequestError
    entry = _entry(state)
    return json_response({"models": [{**entry, "modified_at": timestamp(_facts(state).modified)}]})


async def running_models(request: web.Request) -> web.Response:
    """The model, while it is in memory, and when it is unloaded if no request comes."""
    state = request.app[STATE]
    engine, model = state.engine, state.engine.model
    if engine.state is not EngineState.READY or model is None:
        return json_response({"models": []})
    entry = _entry(state)
    on_gpu = min(1.0, model.gpu_layers / model.layers) if model.layers else 0.0
    left = engine.idle.limit if engine.pending else engine.idle.left
    more = {
        "expires_at": timestamp_after(time.time(), left),
        "size_vram": round(on_gpu * entry["size"]),
        "context_length": model.context,
    }
    return json_response({"models": [{**entry, **more}]})


async def show(request: web.Request) -> web.Response:
    """What is known of a model."""
    state = request.app[STATE]
    await _read(request, OllamaShowBody)
    model, abilities = state.engine.model, state.service.model.abilities
    assert model, "the service has raised an error if the model is not known"
    able = {"completion": True, "tools": abilities.tools, "thinking": abilities.thinking != "never"}
    shown = {
        "modelfile": f"# Served by qwen-edge\nFROM {listed_name(state)}\n",
        "parameters": _parameters(model),
        "template": model.chat_template or model.tool_template or "",
        "details": _details(model.facts),
        "model_info": _model_info(model),
        "capabilities": [ability for ability, there in able.items() if there],
        "modified_at": timestamp(model.facts.modified),
    }
    return json_response(shown)


async def pull(request: web.Request) -> web.StreamResponse:
    """Say that the model is there, to clients that pull a model before they use it. Nothing is downloaded."""
    body = await _read(request, OllamaPullBody)
    statuses: list[Json] = [{"status": "pulling manifest"}, {"status": "success"}]
    if body.stream is False:
        return json_response(statuses[-1])
    return web.Response(body=b"".join(map(line, statuses)), content_type=LINES)


async def refuse(request: web.Request) -> web.Response:
    """Models are not made, copied, sent or deleted over HTTP."""
    raise RequestError(
        f"{printable(request.path)} is not supported: this server serves one model, which its settings name. "
        "Make another with qwen-edge convert, and choose it with the setting model.",
        code="unsupported_value",
    )


async def no_blob(request: web.Request) -> web.Response:
    """Say that a blob is not there, which is the truth about all of them."""
    raise RequestError("There are no blobs here.", "not_found")


async def _read(request: web.Request, kind: type[_Body]) -> _Body:
    """The body of a request about a model. Raises RequestError if this server has no model of that name."""
    state = request.app[STATE]
    body = await read_request(request, kind)
    name = body.model or body.name
    if not name:
        raise RequestError("model is required: send the name of a model.", parameter="model")
    state.refuse_other_model(name)
    return body


def _facts(state: State) -> ModelFacts:
    return state.engine.model.facts if state.engine.model else ModelFacts()


def _entry(state: State) -> Json:
    """The model in a list. The digest stands for the file's name, size and time: to hash its contents takes seconds."""
    name, facts = listed_name(state), _facts(state)
    identity = f"{name} {facts.bytes} {facts.modified}"
    return {
        "name": name,
        "model": name,
        "size": facts.bytes,
        "digest": hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest(),
        "details": _details(facts),
    }


def _details(facts: ModelFacts) -> Json:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": facts.architecture,
        "families": [facts.architecture] if facts.architecture else [],
        "parameter_size": _short(facts.parameters),
        "quantization_level": facts.quantization,
    }


def _model_info(model: Ready) -> Json:
    """The context length is the server's: clients ask for as much of it as there is."""
    facts = model.facts
    arch = facts.architecture or "model"
    return {
        "general.architecture": facts.architecture,
        "general.basename": model.name,
        "general.parameter_count": facts.parameters,
        f"{arch}.context_length": model.context,
        f"{arch}.trained_context_length": facts.trained_context,
        f"{arch}.embedding_length": facts.embedding_length,
        f"{arch}.block_count": model.layers,
    }


def _parameters(model: Ready) -> str:
    """The model's defaults as lines of a Modelfile."""
    defaults = model.defaults
    values = {
        "num_ctx": model.context,
        "temperature": defaults.temperature,
        "top_k": defaults.top_k,
        "top_p": defaults.top_p,
        "min_p": defaults.min_p,
        "repeat_penalty": defaults.repetition_penalty,
    }
    return "\n".join(f"{name:<30} {value:g}" for name, value in values.items())


def _short(number: int) -> str:
    """1.7B, 596.05M, as Ollama writes it."""
    for size, letter in _PREFIXES:
        if number >= size:
            return f"{number / size:.1f}{letter}" if letter == "B" else f"{number / size:.2f}{letter}"
    return str(number)
