"""What an engine that is ready reports: the progress of each request, its steps, and that it lives.

From the engine: Started, Tokens, Done, Failed, the replies (CacheReport, TokenIds, TokenPieces, Embedded), StepStats,
Beat.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from qwen_edge.protocol.sampling import Logprob

MissReason = Literal["new", "changed", "evicted"]  # see engine/misses.py

Region = Literal["reasoning", "answer", "call", "thought_call"]
"""Where text stands: in the reasoning, in the answer, in a tool call of the answer, or in a tool call inside the
reasoning. The last one is a call only if the reasoning never ends."""

Mark = Literal["", "open", "close", "break"]
"""What text is: content of its region, the marker that opens or closes the region, or line breaks that belong to the
marker before."""


class Started(msgspec.Struct, frozen=True, tag=True):
    """From the engine: it begins to compute the request. If the engine dies now, the request may be the reason, and is
    not given to another engine."""

    id: int


class Part(msgspec.Struct, frozen=True, array_like=True):
    """A piece of text of one region (chat/regions.py). The joined parts of an answer are all that the model wrote, up
    to a stop text. A marker includes the line breaks before it."""

    region: Region
    text: str
    mark: Mark = ""


class Tokens(msgspec.Struct, frozen=True, tag=True):
    """From the engine: new text of one request. `logprobs` are of all tokens that came since the message before."""

    id: int
    parts: tuple[Part, ...]
    logprobs: tuple[Logprob, ...] = ()

    @property
    def text(self) -> str:
        """As the model wrote it."""
        return "".join(part.text for part in self.parts)


StoppedBy = Literal["loop", "shape"]
"""What ended an answer, if neither the model nor a limit did: it repeated itself without end, or its shape became too
complex."""


class Steered(msgspec.Struct, frozen=True, array_like=True):
    """What shapes and the like did in one answer: tokens that were forced, and so not sampled; masks over the
    vocabulary; seconds that both took."""

    forced: int = 0
    masks: int = 0
    seconds: float = 0.0


class Done(msgspec.Struct, frozen=True, tag=True):
    """From the engine, the last message of a request. `cached_tokens` of the prompt's tokens were in the KV cache;
    times in seconds. If more might have been cached, `missed` says why they were not, and `missed_at` how many tokens
    were still cached when the request began. `completion_tokens` include `reasoning_tokens`.
    `stop_text`: the stop text that ended the answer."""

    id: int
    reason: Literal["stop", "length"]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    prefill_seconds: float
    decode_seconds: float
    missed: MissReason | Literal[""] = ""
    missed_at: int = 0
    reasoning_tokens: int = 0
    stopped_by: StoppedBy | Literal[""] = ""
    stop_text: str = ""
    steered: Steered = Steered()


FailureCode = Literal[
    "context_too_long",
    "bad_request",
    "bad_shape",
    "bad_call_shape",
    "waited",
    "no_memory",
    "engine",
    "unservable",
    "stopping",
]


class Failed(msgspec.Struct, frozen=True, tag=True):
    """From the engine: the last message of a request that cannot be answered, or not to its end; or, with `id` None, of
    an engine that ends (`unservable`: no other engine will do better, see core/errors.py). The daemon also makes it
    itself when it gives a request up.

    context_too_long: `tokens` is the prompt's length, or, with the detail "at least", what is known of it. bad_shape,
    bad_call_shape: the shape of the answer, or of tool calls, cannot be kept, for the reason in `detail`. no_memory:
    the KV cache cannot grow as large as the request needs."""

    id: int | None
    code: FailureCode
    detail: str
    tokens: int = 0


class Conversation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One remembered prompt of `tokens` tokens: how many of them are `cached` in the KV cache, `copied` in memory and
    `written` to files, which take `file_bytes`, including what other conversations share. `ends` are its last words,
    `pinned_until` a time of the wall clock. Only an admin is told the `owner`."""

    key: str
    tokens: int
    cached: int
    copied: int
    written: int
    file_bytes: int
    pinned_until: float
    ends: str
    owner: str = ""


class CacheReport(msgspec.Struct, frozen=True, tag=True):
    """From the engine, the answer to InspectCache: all conversations that the caller may see. `found`: the key was
    among them. `warning`: what could not be done."""

    id: int
    found: bool
    conversations: tuple[Conversation, ...]
    warning: str = ""


class TokenIds(msgspec.Struct, frozen=True, tag=True):
    """From the engine, the answer to Tokenize."""

    id: int
    tokens: tuple[int, ...]


class TokenPieces(msgspec.Struct, frozen=True, tag=True):
    """From the engine, the answer to Pieces: the bytes of each token, which may be a part of a character. Special
    tokens show as their texts."""

    id: int
    pieces: tuple[bytes, ...]


class Embedded(msgspec.Struct, frozen=True, tag=True):
    """From the engine, the answer to Embed: a vector of length 1."""

    id: int
    vector: tuple[float, ...]


class Share(msgspec.Struct, frozen=True, array_like=True):
    """What one request had of a step: tokens of its prompt, and tokens of its answer with guesses. Id 0 is idle
    prefill."""

    id: int
    prompt: int
    decoded: int


class StepStats(msgspec.Struct, frozen=True, tag=True):
    """From the engine, after each step. The step `began` at a time of the monotonic clock, which all processes share,
    after the engine had `rested` to keep the device cool, and gave `chosen` tokens of answers; times in seconds."""

    began: float
    seconds: float
    rested: float
    chosen: int
    shares: tuple[Share, ...]


class Beat(msgspec.Struct, frozen=True, tag=True):
    """From the engine: a sign of life when there is nothing else to say."""
