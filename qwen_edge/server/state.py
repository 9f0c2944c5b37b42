"""The state that the handlers of one application share."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import msgspec
from aiohttp import web

from qwen_edge.auth.keys import Keys
from qwen_edge.config.schema import Config
from qwen_edge.core.errors import no_such_model
from qwen_edge.core.logs import ToldBefore
from qwen_edge.core.printable import printable
from qwen_edge.protocol.messages import EVERYBODY, Caller
from qwen_edge.renderer.handle import Renderer
from qwen_edge.server.admin.device_metrics import DeviceMetrics
from qwen_edge.server.admin.metrics import Metrics
from qwen_edge.service.local_engine import LocalEngine
from qwen_edge.service.pipeline import ChatService
from qwen_edge.service.thermal import ThermalControl
from qwen_edge.supervisor.supervisor import Supervisor


@dataclass
class State:
    """The shared state. `model_name`: the model's id in the API. `in_flight`: the number of requests being handled;
    `idle` is set while it is 0. `stopping`: whether new requests are refused. `told_unenforced`: the schemas of which
    the log has told what is not enforced. Used on the event loop only."""

    config: Config
    engine: Supervisor
    thermal: ThermalControl
    model_name: str
    api_keys: Keys = field(default_factory=Keys)
    renderer: Renderer = field(default_factory=Renderer)
    created: int = field(default_factory=lambda: int(time.time()))
    stopping: bool = False
    in_flight: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    told_unenforced: ToldBefore = field(default_factory=ToldBefore)

    def __post_init__(self) -> None:
        limits = self.config.server
        answerer = LocalEngine(
            self.engine,
            self.renderer,
            self.thermal.joules,
            most_pending=limits.max_waiting + self.config.engine.parallel,
            wait_seconds=limits.wait_seconds,
            answer_seconds=limits.answer_seconds,
        )
        self.service = ChatService(answerer, self.thermal)
        self.metrics = Metrics(self.engine, DeviceMetrics(self.thermal))
        self.idle.set()

    def names_model(self, name: str) -> bool:
        """Whether a request for the model `name` is answered: always, unless `server.model_names` is `listed`. The
        model's own name may end in `.gguf`, or in `:latest` as in Ollama."""
        server = self.config.server
        bare = name.removesuffix(":latest").removesuffix(".gguf")
        return server.model_names == "any" or not {name, bare}.isdisjoint({self.model_name, *server.model_aliases})

    def refuse_other_model(self, name: str) -> None:
        """Raises RequestError if a request for the model `name` is not answered."""
        if not self.names_model(name):
            raise no_such_model(printable(name), self.model_name)


STATE = web.AppKey("state", State)
CALLER = web.RequestKey("caller", Caller)  # the owner of the request's key; missing if the server has no keys


def caller_of(request: web.Request) -> Caller:
    """The owner of the request's key, with its rights and the owners whose cached prompts it may use."""
    shares = request.app[STATE].config.server.share_cache == "all"
    caller: Caller = request.get(CALLER, EVERYBODY)
    return msgspec.structs.replace(caller, shares=shares)
