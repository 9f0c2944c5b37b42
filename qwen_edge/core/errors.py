"""Every error that a person may see: what happened, where, and what to do about it.

A `UserError` is caused outside this program (a wrong path, a full disk, a bad option): the command line prints its one
sentence and exits with its code, never with a traceback. The code tells a service manager whether to restart:

    2   a mistake in the settings, the options or the API keys file. A restart does not help.
    75  something is missing that may appear later (EX_TEMPFAIL in sysexits.h). A restart may help.
    78  this model or this installation cannot be served as it is (EX_CONFIG). A restart does not help.

systemd/qwen-edge.service names 2 and 78 in RestartPreventExitStatus. A `RequestError` is an error of one request,
independent of the API dialect: each dialect turns it into a status and a body of its own (server/openai/errors.py). Any
other exception is a bug in qwen-edge, and is logged with its traceback.
Plain values: any thread, any process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

ErrorKind = Literal[
    "invalid_request",  # the client must send something else
    "authentication",  # no key, or a wrong one
    "permission",  # not allowed from this address or web page
    "not_found",
    "timeout",  # the client was too slow
    "too_large",
    "unsupported_encoding",
    "rate_limited",  # only this client must wait
    "unavailable",  # all clients must wait
    "internal",  # a bug in qwen-edge
]


class UserError(Exception):
    """An error caused outside this program, in one sentence that names the remedy."""

    exit_code = 2


class ConfigError(UserError):
    """An invalid setting. The message names the file, the line and the key."""


class ConversionError(UserError):
    """A checkpoint that cannot be converted (no partial output is left), or a damaged model file."""


class NotNowError(UserError):
    """Something that the daemon needs is missing: a port, an address, the model. The model may be on a disk that is not
    mounted yet, or still in conversion; a restart to look again costs only the start of a Python program."""

    exit_code = 75


class EngineError(UserError):
    """The engine cannot run this model now, or has failed: memory is short, or a driver is not loaded."""

    exit_code = 75


class CrashedError(EngineError):
    """The engine process crashed, for example in a failed assertion, without an error message. The cause may be a
    damaged model file, or this machine."""


class UnservableError(EngineError):
    """The engine can never run this model in this installation: the file is damaged or its kind is not supported, its
    chat template is unusable, or llama.cpp is built without the GPU that the settings require. Only a change of the
    file, the build or the settings helps; loading the model again would only wear the device."""

    exit_code = 78


class PromptTooLongError(Exception):
    """A prompt of at least `tokens` tokens, which is more than there is room for. The rest was not tokenized."""

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens)
        self.tokens = tokens


@dataclass(eq=False)  # not frozen: Python writes the traceback into an exception
class RequestError(Exception):
    """One request that cannot be answered. Independent of the dialect and of HTTP.

    `parameter`: the name of the invalid part of the request. `code`: a word for programs, more exact than `kind`.
    `retry_after`: seconds after which the client may try again. `details`: numbers for programs. Raised anywhere
    between the parser of a request and the engine; turned into a response in one place (server/middleware.py)."""

    message: str
    kind: ErrorKind = "invalid_request"
    code: str | None = None
    parameter: str | None = None
    retry_after: int | None = None
    details: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message


class WaitedTooLongError(RequestError):
    """The request did not start within its waiting limit."""

    def __init__(self) -> None:
        message = (
            "The server is busy: the request has waited for as long as wait_seconds (its own, or the server's) allows. "
            "Try again later."
        )
        super().__init__(message, "unavailable", code="unavailable", retry_after=10)


def unusable_request(why: str) -> RequestError:
    """The engine cannot use the request."""
    return RequestError(f"The request cannot be used: {why}.")


class UnusableShapeError(RequestError):
    """The answer, or with `of_call` a tool call, cannot be held to the shape (schema, pattern, grammar) that the
    request asks for."""

    def __init__(self, why: str, *, of_call: bool = False) -> None:
        what = "A tool call" if of_call else "The answer"
        super().__init__(f"{what} cannot be held to what the request asks for: {why}.", code="unsupported_value")
        self.of_call = of_call


def context_too_long(prompt_tokens: int, context: int, *, at_least: bool = False) -> RequestError:
    """The prompt leaves no room for even one answer token in the context. Both counts are tokens; with `at_least`,
    `prompt_tokens` is a lower bound."""
    return RequestError(
        f"The prompt is {'at least ' if at_least else ''}{prompt_tokens} tokens long and this server's context holds "
        f"{context} tokens, answer included. Shorten it, or raise engine.context in the configuration.",
        code="context_length_exceeded",
        parameter="messages",
        details={"n_prompt_tokens": prompt_tokens, "n_ctx": context},
    )


def too_many_messages(count: int, most: int) -> RequestError:
    """The request has more than `most` messages. `most` is at most the context length: a message takes at least one
    token."""
    return RequestError(
        f"There are {count} messages, and this server takes {most} at most, because each message takes room in the "
        "context. Leave out the oldest messages.",
        code="context_length_exceeded",
        parameter="messages",
    )


def internal_error() -> RequestError:
    """A bug in qwen-edge. Whoever catches the exception logs its traceback."""
    message = "Internal error: this is a bug in qwen-edge. The server's log has the details."
    return RequestError(message, "internal", code="internal_error")


def stopping() -> RequestError:
    """The daemon is stopping or restarting."""
    return unavailable("The server is stopping. Try again in a moment.", retry_after=5)


def engine_failed(detail: str) -> RequestError:
    """The engine failed during this request. It is being restarted, so the client may retry."""
    return RequestError(
        f"The engine failed while answering ({detail}). It is being restarted: try again.",
        "unavailable",
        code="engine_failed",
        retry_after=3,
    )


def unavailable(message: str, retry_after: int) -> RequestError:
    """The server takes no requests now (loading, stopping, queue full). The client may retry after `retry_after`
    seconds."""
    return RequestError(message, "unavailable", code="unavailable", retry_after=retry_after)


def device_limited(who: str, device: str, retry_after: int) -> RequestError:
    """The device must cool down, or save its battery, before it takes these requests. `who`: the requests that are
    refused; `device`: its state."""
    return unavailable(f"The device takes no {who} now ({device}). Try again in {retry_after} s.", retry_after)


def over_budget(client: str, retry_after: int) -> RequestError:
    """The client has used more joules than its hourly budget."""
    return RequestError(
        f"{client or 'This client'} has spent more energy than device.joules_per_hour allows. "
        f"It may ask again in {retry_after} s.",
        "rate_limited",
        code="energy_budget_exceeded",
        retry_after=retry_after,
    )


def no_such_model(asked: str, served: str) -> RequestError:
    """The request names a model that this server does not have."""
    return RequestError(
        f"There is no model {asked!r} here; this server has {served!r}. "
        "To let it answer to other names, list them in server.model_aliases, or set server.model_names: any.",
        "not_found",
        code="model_not_found",
        parameter="model",
    )
