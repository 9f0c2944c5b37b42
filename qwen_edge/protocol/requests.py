"""What the daemon asks of an engine that is ready: requests with all that belongs to them, limits, the end.

To the engine: Submit, Abort, Warm, the inquiries (InspectCache, Tokenize, Pieces, Embed), Limits, Stop.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from qwen_edge.protocol.sampling import Sampling

Priority = Literal["interactive", "background", "idle"]
PRIORITIES: tuple[Priority, ...] = ("interactive", "background", "idle")


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of prompt. With `special`, `text` is exactly one special token; else no part of it is read as one. With
    `tokens`, the stretch is these tokens, and `text` is empty."""

    text: str = ""
    special: bool = False
    tokens: tuple[int, ...] = ()


class Markers(msgspec.Struct, frozen=True):
    """The texts around a model's reasoning, e.g. <think> and </think>."""

    open: str
    close: str


ShapeKind = Literal["json_schema", "regex", "choice", "lark", "gbnf", "calls"]


class Shape(msgspec.Struct, frozen=True, array_like=True):
    """What a text must look like. `text` is a JSON schema; a regular expression; a JSON list of texts to choose from;
    a grammar in llguidance's Lark, or in llama.cpp's GBNF; or, for `calls`, a JSON list of the tools that may be
    called, each a name and the schema of its arguments.

    JSON is compact, unless `whitespace` may stand between its values."""

    kind: ShapeKind
    text: str
    whitespace: bool = False


class Caller(msgspec.Struct, frozen=True, array_like=True):
    """Who asks: `owner` is the name of the key. An `admin` sees, pins and deletes the conversations of every owner, and
    what an admin pins is shared with every owner. One that `shares` also uses what was computed for other owners."""

    owner: str = ""
    admin: bool = False
    shares: bool = False

    @property
    def scope(self) -> str | None:
        """Whose prompts are used to answer; None: everybody's."""
        return None if self.shares else self.owner


EVERYBODY = Caller(admin=True)  # where there are no keys


class Submit(msgspec.Struct, frozen=True, tag=True):
    """To the engine: answer a prompt with at most `max_tokens` tokens. Its prefill must begin within `wait_seconds`;
    from then on the answer may take `max_seconds`, or `work_seconds` without the rests that the engine takes to keep
    the device cool. `client` is whose energy budget it uses, `caller` whose key it came with.

    `reasoning` and `calls` are the markers around reasoning and tool calls: the text comes back in parts that say which
    of these regions they are of. `reasons` says that the prompt itself has opened the reasoning. A text of `stop` ends
    the answer and is not part of it; it counts neither in the reasoning nor in a call.

    `conversation` is the client's name for the conversation, if it has one. `asked` is how many times this prompt was
    asked for: from 2 on it is written to disk while the engine is idle. For `pin_seconds` it is the last to leave the
    KV cache.

    The answer keeps `shape`, and each tool call `call_shape`. If the schema of a tool in `strict_calls` cannot be
    kept, the request is refused, as with `requires_call`. With that the answer is a call, or several; without
    `parallel_calls` it ends behind the first. The reasoning is closed after `thinking_budget` tokens. With
    `stops_loops` a text that repeats itself without end is ended."""

    id: int
    prompt: tuple[Segment, ...]
    sampling: Sampling
    max_tokens: int
    max_seconds: float
    stop: tuple[str, ...] = ()
    reasoning: Markers | None = None
    reasons: bool = False
    calls: Markers | None = None
    priority: Priority = "interactive"
    wait_seconds: float = 1e9
    work_seconds: float = 1e9
    client: str = ""
    caller: Caller = EVERYBODY
    conversation: str = ""
    asked: int = 1
    pin_seconds: float = 0.0
    shape: Shape | None = None
    call_shape: Shape | None = None
    requires_call: bool = False
    strict_calls: tuple[str, ...] = ()
    parallel_calls: bool = True
    thinking_budget: int | None = None
    stops_loops: bool = False


class Abort(msgspec.Struct, frozen=True, tag=True):
    """To the engine: nobody waits for this request any more. No answer; unknown ids are ignored (the request may just
    have finished)."""

    id: int


class Warm(msgspec.Struct, frozen=True, tag=True):
    """To the engine: the caller's next prompt will begin like this; compute it while the engine is idle. No answer."""

    prompt: tuple[Segment, ...]
    caller: Caller = EVERYBODY


class InspectCache(msgspec.Struct, frozen=True, tag=True):
    """To the engine: forget the conversation that has this key, or pin it for `pin_seconds` (0 ends the pin); then list
    the conversations that the caller may see. The answer is a CacheReport with the same id."""

    id: int
    key: str = ""
    forget: bool = False
    pin_seconds: float | None = None
    caller: Caller = EVERYBODY


class Tokenize(msgspec.Struct, frozen=True, tag=True):
    """To the engine: turn a prompt of any length into tokens; with `begin`, as for an answer, with the token that every
    prompt begins with. The answer is TokenIds with the same id."""

    id: int
    prompt: tuple[Segment, ...]
    begin: bool = True


class Pieces(msgspec.Struct, frozen=True, tag=True):
    """To the engine: turn tokens into text. The answer is TokenPieces with the same id."""

    id: int
    tokens: tuple[int, ...]


class Embed(msgspec.Struct, frozen=True, tag=True):
    """To the engine: the embedding of a text, of at least one token, charged to `client`. The answer is Embedded with
    the same id."""

    id: int
    tokens: tuple[int, ...]
    client: str = ""


class Limits(msgspec.Struct, frozen=True, tag=True):
    """To the engine, from now on: compute for at most the share `duty` of the time (0: not at all); let no step beside
    streams take longer than `step_seconds`, and no step of prompts alone longer than `prompt_seconds`; use the share
    `threads` of the threads (1: all of them); guess tokens only with `speculate`, and do work that can wait only with
    `idle_work`. No answer."""

    duty: float = 1.0
    step_seconds: float = 0.32
    prompt_seconds: float = math.inf
    threads: float = 1.0
    speculate: bool = True
    idle_work: bool = True


class Stop(msgspec.Struct, frozen=True, tag=True):
    """To the engine: end the process, after at most `seconds` of writing conversations to disk."""

    seconds: float = 0.0
