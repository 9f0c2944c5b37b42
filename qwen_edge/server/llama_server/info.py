"""GET /props and /slots: the model, its settings, and how many requests run."""

from __future__ import annotations

from aiohttp import web

from qwen_edge.server.answering import asked_by
from qwen_edge.server.llama_server.generation_settings import generation_settings
from qwen_edge.server.openai.framing import FINGERPRINT
from qwen_edge.server.replies import json_response
from qwen_edge.server.sampling import SamplingParameters, sampling
from qwen_edge.server.state import STATE


async def props(request: web.Request) -> web.Response:
    """Raises RequestError while the model is not loaded for the first time."""
    state, asked = request.app[STATE], asked_by(request, None)
    assert state.engine.model, "a model that is known to the service"
    chosen = sampling(SamplingParameters(seed=0), asked.model.sampling, asked.defaults)
    settings = generation_settings(chosen, asked.defaults.max_tokens)
    settings["seed"] = -1  # each request gets one of its own
    return json_response(
        {
            "default_generation_settings": {"n_ctx": asked.model.context, "params": settings},
            "total_slots": state.config.engine.parallel,
            "model_alias": state.model_name,
            "model_path": f"{state.model_name}.gguf",
            "modalities": {"vision": False, "audio": False},
            "chat_template": state.engine.model.chat_template or "",
            "bos_token": state.engine.model.bos_token,
            "eos_token": state.engine.model.eos_token,
            "build_info": FINGERPRINT,
            "is_sleeping": state.engine.status == "asleep",
        }
    )


async def slots(request: web.Request) -> web.Response:
    """A slot for each request that may run at once. Requests have no slot of their own here: as many slots as requests
    run are shown as busy, from the first on."""
    state, asked = request.app[STATE], asked_by(request, None)
    running = state.engine.running
    return json_response(
        [
            {"id": number, "n_ctx": asked.model.context, "is_processing": number < running}
            for number in range(state.config.engine.parallel)
        ]
    )
