"""Everything that crosses between the daemon and the engine process (how it crosses: frames.py).

In:  Load | Submit | Abort | Warm | InspectCache | Limits | Stop
Out: Loading | Ready | Started | StepStats | Tokens | Done | Failed | CacheReport | Beat
Frames are lists of messages; the engine sends one a step. Values are frozen; ids are the daemon's and never used again.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec


class Sampling(msgspec.Struct, frozen=True):
    """How to choose tokens. temperature 0 is greedy; top_k 0, top_p 1, typical_p 1 and min_p 0 cut nothing; seed is 32
    bits. Penalties look back `penalty_window` tokens of the answer; repetition 1 and frequency or presence 0 penalise
    nothing, nor does DRY with multiplier 0 (its window of -1 is all of the answer).

    The model cannot end its turn within the first `min_tokens`, or with `ignore_eos` at all. `logit_bias` is added to
    the logits of these tokens. `logprobs` None asks for none, else for that of each token and of so many likely ones.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_window: int = 64
    seed: int = 0
    typical_p: float = 1.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    min_tokens: int = 0
    ignore_eos: bool = False
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of prompt. With `special`, `text` is exactly one special token; else it is never read as one."""

    text: str
    special: bool = False


class Markers(msgspec.Struct, frozen=True):
    """The texts around a model's reasoning, e.g. <think> and </think>."""

    open: str
    close: str


Priority = Literal["interactive", "background", "idle"]
LEAST_CONTEXT = 64  # tokens: fewer hold no question and its answer
KvType = Literal["auto", "f16", "q8_0", "q4_0"]
Attention = Literal["auto", "on", "off", "small"]  # flash attention; small: while there are few tokens in the cache
MissReason = Literal["new", "changed", "evicted"]  # see engine/misses.py
PRIORITIES: tuple[Priority, ...] = ("interactive", "background", "idle")


class Caller(msgspec.Struct, frozen=True, array_like=True):
    """Who asks: `owner` is the name of the key. An `admin` sees, pins and deletes everybody's conversations, and what
    an admin pins is shared with everybody. One that `shares` also uses what was computed for others."""

    owner: str = ""
    admin: bool = False
    shares: bool = False

    @property
    def scope(self) -> str | None:
        """Whose prompts are used to answer; None: everybody's."""
        return None if self.shares else self.owner


EVERYBODY = Caller(admin=True)  # where there are no keys


class Tuning(msgspec.Struct, frozen=True):
    """What was measured to be quickest: threads, attention, and how many tokens to compute at once. 0 or auto for what
    was not measured."""

    threads: int = 0
    flash_attention: Attention = "auto"
    batch: int = 0


class Files(msgspec.Struct, frozen=True):
    """Where conversations are kept beyond the engine's life: up to so many bytes, and no more written in a day."""

    folder: str
    bytes: int
    bytes_per_day: int


# daemon -> engine


class Load(msgspec.Struct, frozen=True, tag=True):
    """The first message: what to load and how. At most `parallel` requests run at once. `speculate` lets the engine
    guess tokens; `stash_bytes` limits the copies of what leaves the KV cache, `ahead_per_hour` the tokens computed
    before anybody asks. Without `files` nothing outlives the engine. With `awaited` a request waits, whose conversation
    has about as many tokens: the KV cache begins large enough for them, and nothing is warmed up.

    Settings left open (batch or threads 0, an `auto`) are taken from `tuning`, or from what was `measured` at the site
    of the engine (llama/site.py); else, with `calibrate`, they are measured before the engine is ready, which takes
    seconds. kv_type auto is the most exact type that fits into memory."""

    model: str
    context: int
    batch: int
    threads: int
    gpu_layers: int
    kv_type: KvType
    flash_attention: Attention
    beat_seconds: float
    parallel: int = 1
    speculate: bool = True
    tuning: Tuning | None = None
    measured: dict[str, Tuning] = {}
    calibrate: bool = False
    stash_bytes: int = 0
    ahead_per_hour: float = 0.0
    files: Files | None = None
    awaited: int = 0


class Submit(msgspec.Struct, frozen=True, tag=True):
    """Answer a prompt with at most `max_tokens` tokens, in at most `max_seconds` from the start of its prefill, which
    must begin within `wait_seconds`; or in at most `work_seconds`, if what the engine rests for the device's sake is
    not counted. `client` is whose energy budget it uses, `caller` whose key it came with.

    A text of `stop` ends the answer and is not part of it. Where `reasoning` is given, stop texts count only after
    it: they are meant for the answer. `reasons` tells that the prompt itself has opened the reasoning. Where `calls`
    are given, the markers of a tool call, stop texts do not count between them.

    `conversation` is the client's name for the conversation, if it has one. The prompt was `asked` for so often:
    from twice on it is written to disk while the engine is idle. For `pin_seconds` it is the last to leave the KV
    cache."""

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


class Abort(msgspec.Struct, frozen=True, tag=True):
    """Nobody waits for this request any more. No answer; unknown ids are ignored (it may just have finished)."""

    id: int


class Warm(msgspec.Struct, frozen=True, tag=True):
    """The caller's next prompt will begin like this: compute it while the engine is idle. No answer."""

    prompt: tuple[Segment, ...]
    caller: Caller = EVERYBODY


class InspectCache(msgspec.Struct, frozen=True, tag=True):
    """Forget the conversation that has this key, or pin it for `pin_seconds` (0 ends the pin); then list the
    conversations that the caller may see. The answer is a CacheReport, with the same id."""

    id: int
    key: str = ""
    forget: bool = False
    pin_seconds: float | None = None
    caller: Caller = EVERYBODY


class Limits(msgspec.Struct, frozen=True, tag=True):
    """From now on: compute for no more than `duty` of the time, 0 being not at all; let no step beside streams take
    longer than `step_seconds`, and none of prompts alone longer than `prompt_seconds`; use so much of the threads (1 is
    all of them); and guess, or do what can wait, only if told so. No answer."""

    duty: float = 1.0
    step_seconds: float = 0.32
    prompt_seconds: float = math.inf
    threads: float = 1.0
    speculate: bool = True
    idle_work: bool = True


class Stop(msgspec.Struct, frozen=True, tag=True):
    """End the process, after at most `seconds` of writing conversations to disk. Sent when no request is running."""

    seconds: float = 0.0


# engine -> daemon


class Loading(msgspec.Struct, frozen=True, tag=True):
    """Still loading the model: 0..1 of it is there."""

    fraction: float


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The model is loaded and has decoded one token. `context` in tokens.

    `defaults` is what the model's generation_config asks for; `specials` are the texts of its special tokens, of which
    `bos_token` and `eos_token` are two or empty; `tool_template` is for conversations with tools; `gpu_layers` counts
    layers that run on a GPU; `gpu_build`: llama.cpp could use one; `bytes_to_come` is what memory will have grown by
    when context and stash are full; `tuning` was measured just now, if anything was, at `site`; `ordinary_ends` are
    words that would end an answer."""

    name: str
    context: int
    bytes_to_come: int
    specials: tuple[str, ...]
    chat_template: str | None
    defaults: Sampling
    gpu_layers: int
    layers: int
    threads: int
    kv_type: KvType = "f16"
    tuning: Tuning | None = None
    tool_template: str | None = None
    bos_token: str = ""
    eos_token: str = ""
    ordinary_ends: tuple[str, ...] = ()
    site: str = ""
    gpu_build: bool = False


class Started(msgspec.Struct, frozen=True, tag=True):
    """The request has got its place: if the engine dies now, this may be why, and it is not begun again."""

    id: int


class Conversation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is remembered of a prompt: so many of its `tokens` in the KV cache, in copies in memory, and in files,
    which take so many bytes, shared with others or not. `ends` are its last words, `pinned_until` a time of the wall
    clock. `owner` is told to an admin only."""

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
    """All conversations that the caller may see. `found`: the key was among them. `warning`: what could not be done."""

    id: int
    found: bool
    conversations: tuple[Conversation, ...]
    warning: str = ""


class Alternative(msgspec.Struct, frozen=True, array_like=True):
    """A token, as the bytes it stands for, and the logarithm of its probability."""

    piece: bytes
    logprob: float


class Logprob(msgspec.Struct, frozen=True, array_like=True):
    """The token that was chosen, and those that were likely."""

    chosen: Alternative
    top: tuple[Alternative, ...]


class Tokens(msgspec.Struct, frozen=True, tag=True):
    """New text of one request. `logprobs` are of all tokens sampled since the last message."""

    id: int
    text: str
    logprobs: tuple[Logprob, ...] = ()


class Done(msgspec.Struct, frozen=True, tag=True):
    """The last message of a request. `cached` of the prompt's tokens were in the KV cache; times in seconds. Where more
    might have been, `missed` says why they were not, and `missed_at` how many were there when the prompt began."""

    id: int
    reason: Literal["stop", "length"]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    prefill_seconds: float
    decode_seconds: float
    missed: MissReason | Literal[""] = ""
    missed_at: int = 0


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The last message of a request that cannot be (further) answered, or, with `id` None, of an engine that ends
    (`unservable`: no other engine will do better, see errors.UnservableError).

    context_too_long: `tokens` is the prompt's length, or, with the detail "at least", what is known of it. no_memory:
    the KV cache cannot grow as large as the request needs."""

    id: int | None
    code: Literal["context_too_long", "bad_request", "waited", "no_memory", "engine", "unservable", "stopping"]
    detail: str
    tokens: int = 0


class Share(msgspec.Struct, frozen=True, array_like=True):
    """What a request had of a step, in tokens of prompt and of answer (with guesses). Id 0 is idle prefill."""

    id: int
    prompt: int
    decoded: int


class StepStats(msgspec.Struct, frozen=True, tag=True):
    """A step has been computed: it `began` at a time of the monotonic clock, which all processes share, after the
    engine `rested` for the device's sake, and gave `chosen` tokens of answers."""

    began: float
    seconds: float
    rested: float
    chosen: int
    shares: tuple[Share, ...]


class Beat(msgspec.Struct, frozen=True, tag=True):
    """A sign of life when there is nothing else to say."""


Inbound = Load | Submit | Abort | Warm | InspectCache | Limits | Stop
Outbound = Loading | Ready | Started | CacheReport | StepStats | Tokens | Done | Failed | Beat
