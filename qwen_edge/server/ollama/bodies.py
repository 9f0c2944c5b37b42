"""The bodies of Ollama's requests: every parameter that is accepted, with its type and its limits. Pure.

Reference: https://docs.ollama.com/api, and the types of Ollama's client libraries.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from qwen_edge.server.parameters import HINT, Group, about, hint, mapped, only
from qwen_edge.server.sampling import Count, FromZero, SamplingParameters, StopTexts
from qwen_edge.server.thinking import Effort

_NO_MIROSTAT = hint("Accepted; mirostat can only be 0.")
_MACHINE = hint("Accepted; the server's settings say how the model is run.")
_TOO_LONG = "A conversation that is longer than the context is an error: shorten it."


class OllamaOptions(SamplingParameters, kw_only=True):
    """Ollama's options, and the further parameters of sampling that this server has."""

    num_predict: Annotated[int, msgspec.Meta(ge=-2, le=2**31 - 1)] | None = None
    stop: StopTexts | None = None
    num_ctx: Annotated[FromZero | None, hint("Accepted up to the server's context; more is an error.")] = None
    num_keep: Annotated[int | None, hint("Accepted; no part of a conversation is cut off.")] = None
    mirostat: Annotated[int | None, only(0)] = None
    mirostat_tau: Annotated[float | None, _NO_MIROSTAT] = None
    mirostat_eta: Annotated[float | None, _NO_MIROSTAT] = None
    tfs_z: Annotated[float | None, only(1)] = None
    penalize_newline: Annotated[bool | None, only(True, instead="A penalty of repetitions counts line breaks.")] = None
    numa: Annotated[bool | None, _MACHINE] = None
    num_batch: Annotated[int | None, _MACHINE] = None
    num_gpu: Annotated[int | None, _MACHINE] = None
    main_gpu: Annotated[int | None, _MACHINE] = None
    low_vram: Annotated[bool | None, _MACHINE] = None
    f16_kv: Annotated[bool | None, _MACHINE] = None
    use_mmap: Annotated[bool | None, _MACHINE] = None
    use_mlock: Annotated[bool | None, _MACHINE] = None
    num_thread: Annotated[int | None, _MACHINE] = None
    logits_all: Annotated[bool | None, HINT] = None
    new_topic_penalty: Annotated[float | None, hint("Accepted; Open WebUI sends it, and Ollama does not know it.")] = (
        None
    )
    vocab_only: Annotated[bool | None, only(False)] = None
    embedding_only: Annotated[bool | None, only(False)] = None


class OllamaFunction(msgspec.Struct):
    name: str
    arguments: dict[str, Any] | str | None = None


class OllamaCall(msgspec.Struct):
    function: OllamaFunction
    id: str | None = None


class OllamaMessage(msgspec.Struct):
    """A message. Fields that a template cannot render are ignored, except `images`, which are refused."""

    role: Literal["system", "user", "assistant", "tool", "developer"]
    content: str | None = None
    thinking: str | None = None
    images: list[Any] | None = None
    tool_calls: list[OllamaCall | None] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class OllamaToolFunction(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class OllamaTool(msgspec.Struct):
    function: OllamaToolFunction
    type: Literal["function"] | None = None


class Tools(Group):
    """Checks tools, which reach the model as the client wrote them, with fields that nobody here knows."""

    tools: list[OllamaTool | None]


class OllamaQuestion(Group, kw_only=True):
    """What /api/chat and /api/generate share."""

    model: str | None = None
    stream: bool | None = None
    format: Literal["", "json"] | dict[str, Any] | None = None
    options: OllamaOptions | None = None
    think: bool | Effort | None = None
    keep_alive: float | str | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    truncate: Annotated[bool | None, only(False, instead=_TOO_LONG)] = None
    shift: Annotated[bool | None, only(False, instead=_TOO_LONG)] = None


class OllamaChatBody(OllamaQuestion, kw_only=True):
    """The body of /api/chat. Without messages it loads the model, or unloads it."""

    messages: list[OllamaMessage] | None = None
    tools: list[dict[str, Any] | None] | None = None


class OllamaGenerateBody(OllamaQuestion, kw_only=True):
    """The body of /api/generate. Without a prompt it loads the model, or unloads it."""

    prompt: str | None = None
    system: str | None = None
    suffix: Annotated[str | None, only("", instead="This server does not fill gaps.")] = None
    template: Annotated[str | None, only("", instead="The model's own chat template is used.")] = None
    context: Annotated[
        list[int] | None, only([], instead="This server hands out no context: send the conversation to /api/chat.")
    ] = None
    raw: bool | None = None
    images: Annotated[list[Any] | None, only([], instead="The model reads text only.")] = None
    width: Annotated[int | None, only(0)] = None
    height: Annotated[int | None, only(0)] = None
    steps: Annotated[int | None, only(0)] = None


class OllamaEmbedBody(Group, kw_only=True):
    """The body of /api/embed."""

    input: str | Annotated[list[str], msgspec.Meta(max_length=256)]
    model: str | None = None
    dimensions: Count | None = None
    truncate: Annotated[
        bool | None,
        about(
            "Whether only the beginning of a text that is too long counts (`true`, as without it), or it is an error."
        ),
    ] = None
    options: Annotated[OllamaOptions | None, HINT] = None
    keep_alive: float | str | None = None


class OllamaEmbeddingsBody(Group, kw_only=True):
    """The body of /api/embeddings, which is older."""

    prompt: str
    model: str | None = None
    options: Annotated[OllamaOptions | None, HINT] = None
    keep_alive: float | str | None = None


class ModelBody(Group, kw_only=True):
    """A request about a model. `name` is what Ollama called `model` once."""

    model: str | None = None
    name: Annotated[str | None, mapped("model")] = None


class OllamaShowBody(ModelBody, kw_only=True):
    """The body of /api/show."""

    verbose: Annotated[bool | None, hint("Accepted; tensors and vocabulary are not listed.")] = None
    system: Annotated[str | None, HINT] = None
    template: Annotated[str | None, HINT] = None
    options: Annotated[Any, HINT] = None


class OllamaPullBody(ModelBody, kw_only=True):
    """The body of /api/pull."""

    stream: bool | None = None
    insecure: Annotated[bool | None, hint("Accepted; nothing is downloaded.")] = None
    username: Annotated[str | None, HINT] = None
    password: Annotated[str | None, HINT] = None
