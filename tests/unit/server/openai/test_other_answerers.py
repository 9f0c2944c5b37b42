"""OpenAI's paths speak of the model that answers, which need not be in this machine's engine."""

import pytest
from aiohttp.test_utils import TestClient, TestServer

from qwen_edge.chat.messages import ChatRequest, Content, Finish, Usage
from qwen_edge.config.load import parse_config
from qwen_edge.core.errors import unavailable
from qwen_edge.protocol.messages import Load, Sampling
from qwen_edge.server.app import make_app
from qwen_edge.server.state import State
from qwen_edge.service.pipeline import ChatService, ModelInfo
from qwen_edge.service.thermal import ThermalControl
from qwen_edge.supervisor.limits import SupervisorLimits
from qwen_edge.supervisor.supervisor import Supervisor

HI = {"messages": [{"role": "user", "content": "hi"}]}


class Elsewhere:
    """An Answerer without an engine. `model` None: it is not known yet."""

    most_pending = 3

    def __init__(self) -> None:
        self.known: ModelInfo | None = ModelInfo(Sampling(temperature=0.25, top_k=7), 123)
        self.asked: list[ChatRequest] = []

    @property
    def model(self) -> ModelInfo:
        if self.known is None:
            raise unavailable("The other server is being looked for.", retry_after=9)
        return self.known

    def refuse_if_busy(self) -> None:
        pass

    async def answer(self, request, *, first=True):
        self.asked.append(request)
        yield Content("Hello from elsewhere.")
        yield Finish("stop", Usage(prompt_tokens=3, completion_tokens=2))


@pytest.fixture
def elsewhere():
    return Elsewhere()


@pytest.fixture
async def client(elsewhere):
    """A server whose own engine was never started."""
    engine = Supervisor(Load("none.gguf", 64, 16, 1, 0, "f16", "off", 0.2), SupervisorLimits(30, 30))
    config = parse_config("chat: {top_k: 5}", "test")
    state = State(config, engine, ThermalControl(engine, config.device), "other")
    state.service = ChatService(elsewhere, state.thermal)
    async with TestClient(TestServer(make_app(state))) as client:
        yield client


async def test_the_context_in_the_list_of_models_is_that_of_the_model_that_answers(client):
    response = await client.get("/v1/models")
    assert (await response.json())["data"][0]["context_length"] == 123


async def test_a_question_is_answered_with_the_defaults_of_the_model_that_answers(client, elsewhere):
    response = await client.post("/v1/chat/completions", json=HI)
    assert (await response.json())["choices"][0]["message"]["content"] == "Hello from elsewhere."
    (request,) = elsewhere.asked
    assert (request.sampling.temperature, request.sampling.top_k) == (0.25, 5), "the settings win over the model"


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/models"), ("POST", "/v1/chat/completions")])
async def test_a_model_that_is_not_known_yet_is_told_in_the_answerers_words(client, elsewhere, method, path):
    elsewhere.known = None
    response = await client.request(method, path, json=HI)
    assert (response.status, response.headers["Retry-After"]) == (503, "9")
    assert (await response.json())["error"]["message"] == "The other server is being looked for."
