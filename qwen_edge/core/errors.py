"""Every error a person may see: what happened, where, and what to do about it.

A `UserError` is somebody's mistake or the world's (a wrong path, a full disk, a bad option): the command line prints
its one sentence and exits with its code, never with a traceback. The code tells a service manager whether to try again:

    2   a mistake in what we were told: settings, options, an API keys file. No restart mends it.
    75  something is not there, and may be there later (EX_TEMPFAIL in sysexits.h). A restart may mend it.
    78  this model or this installation cannot be served as it is (EX_CONFIG). No restart mends it.

systemd/qwen-edge.service names 2 and 78 in RestartPreventExitStatus. A `RequestError` is the same for one request, in
terms of our own: the dialect in which the client asks writes it (server/openai/errors.py). Anything else that escapes
is a bug of ours, and is shown whole.
Plain values: any thread, any process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ErrorKind = Literal[
    "invalid_request",  # the client must send something else
    "authentication",  # no key, or a wrong one
    "permission",  # not for whoever asks from there
    "not_found",
    "timeout",  # the client was too slow
    "too_large",
    "unsupported_encoding",
    "rate_limited",  # this client must wait, others need not
    "unavailable",  # everybody must wait
    "internal",  # a fault on our side
]


class UserError(Exception):
    """A mistake outside this program, told in one sentence that names the remedy."""

    exit_code = 2


class ConfigError(UserError):
    """A setting that cannot be used; the message names the file, the line and the key."""


class ConversionError(UserError):
    """A checkpoint that cannot be converted, of which nothing is left behind; or a model file that is damaged."""


class NotNowError(UserError):
    """Something the daemon needs is not there: a port, an address, the model. A missing model may lie on a disk that is
    not mounted yet, or is being converted; to look for it again costs no more than the start of a Python program."""

    exit_code = 75


class EngineError(UserError):
    """The engine cannot run this model now, or has failed: memory is short, a driver is not up."""

    exit_code = 75


class CrashedError(EngineError):
    """The engine process ended over a fault in its code, such as a failed assertion, and had no words for it. A damaged
    model file may be the reason, and so may this machine."""


class UnservableError(EngineError):
    """The engine will never run this model in this installation: the file is damaged or of a kind that is not
    supported, its chat template is refused, llama.cpp is built without the GPU that the settings require. Somebody must
    change the file, the build or the settings; loading the model again would only wear the device."""

    exit_code = 78


class PromptTooLongError(Exception):
    """A prompt of `tokens` tokens at least, which is more than there is room for; the rest was not looked at."""

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens)
        self.tokens = tokens


@dataclass(eq=False)  # not frozen: Python writes the traceback into an exception
class RequestError(Exception):
    """One request that cannot be answered. It knows no dialect and no HTTP.

    `parameter` names the part of the request that is wrong, `code` is a word for programs that is finer than the
    `kind`, and after `retry_after` seconds it is worth trying again. Raised anywhere between the parser of a request
    and the engine; turned into a response in one place (server/middleware.py)."""

    message: str
    kind: ErrorKind = "invalid_request"
    code: str | None = None
    parameter: str | None = None
    retry_after: int | None = None

    def __str__(self) -> str:
        return self.message


class WaitedTooLongError(RequestError):
    """The request's place did not come in the time it was willing to wait."""

    def __init__(self) -> None:
        message = (
            "The request has waited as long as wait_seconds (its own, or the server's) allows: the server is busy."
        )
        super().__init__(message, "unavailable", code="unavailable", retry_after=10)


def context_too_long(prompt_tokens: int, context: int, *, at_least: bool = False) -> RequestError:
    """The prompt leaves no room for even one answer token in the context (both counts in tokens; `at_least` so many in
    a prompt that was not read to its end)."""
    return RequestError(
        f"The prompt is {'at least ' if at_least else ''}{prompt_tokens} tokens long and this server's context holds "
        f"{context} tokens, answer included. Shorten the messages, or raise engine.context in the configuration.",
        code="context_length_exceeded",
        parameter="messages",
    )


def too_many_messages(count: int, most: int) -> RequestError:
    """More messages than `most`, which is no more than the context holds tokens: each message takes one at least."""
    return RequestError(
        f"There are {count} messages, and this server takes {most} at most, as each takes room in its context. "
        "Leave out the oldest.",
        code="context_length_exceeded",
        parameter="messages",
    )


def internal_error() -> RequestError:
    """A bug of ours, logged whole where it was caught."""
    message = "Internal error: this is a bug in qwen-edge. The server's log has the details."
    return RequestError(message, "internal", code="internal_error")


def stopping() -> RequestError:
    """The daemon is being stopped, or restarted."""
    return unavailable("The server is stopping. Try again in a moment.", retry_after=5)


def engine_failed(detail: str) -> RequestError:
    """The engine lost this request; a retry will find it restarted."""
    return RequestError(
        f"The engine failed while answering ({detail}). It is being restarted: try again.",
        "unavailable",
        code="engine_failed",
        retry_after=3,
    )


def unavailable(message: str, retry_after: int) -> RequestError:
    """The server takes no work now (loading, stopping, queue full); it will after `retry_after` seconds."""
    return RequestError(message, "unavailable", code="unavailable", retry_after=retry_after)


def too_hot(who: str, device: str, retry_after: int) -> RequestError:
    """The device must cool down, or save its battery, before it takes more work of these."""
    return unavailable(f"The device takes no {who} now ({device}).", retry_after)


def over_budget(client: str, retry_after: int) -> RequestError:
    """The client has spent more joules than its hour has."""
    return RequestError(
        f"{client or 'This client'} has spent more energy than device.joules_per_hour allows. "
        f"It may ask again in {retry_after} s.",
        "rate_limited",
        code="energy_budget_exceeded",
        retry_after=retry_after,
    )


def no_such_model(asked: str, served: str) -> RequestError:
    """The client names a model that is not the one served here."""
    return RequestError(
        f"There is no model {asked!r} here; this server has {served!r}. "
        "To let it answer to other names, list them in server.model_aliases, or set server.model_names: any.",
        "not_found",
        code="model_not_found",
        parameter="model",
    )
