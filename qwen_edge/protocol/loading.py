"""The start of an engine: what it is to load, and, once it takes requests, what the model turned out to be.

To the engine: Load. From the engine: Loading, Ready.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from qwen_edge.protocol.sampling import Sampling

LEAST_CONTEXT = 64  # tokens: fewer hold no question and its answer
SMALL_CELLS = 512  # of the largest context with flash attention `small`, unless another size was measured
KvType = Literal["auto", "f16", "q8_0_keys", "q8_0", "q4_0"]  # q8_0_keys: keys as q8_0, values as f16
FLASH_ONLY: frozenset[KvType] = frozenset({"q8_0", "q4_0"})  # llama.cpp quantizes values with flash attention only
Attention = Literal["auto", "on", "off", "small"]  # flash attention; small: while there are few tokens in the cache


_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 24)]


class Tuning(msgspec.Struct, frozen=True):
    """The quickest settings that were measured: threads, flash attention, and tokens in one batch; with flash attention
    `small`, the most cells of a context that has it; the tokens of the smallest batch for which weights as the file has
    them are faster than repacked ones (0: none is); with flash attention `off` or `small`, how many requests must run
    at once for it to be faster nevertheless (0: as many as were tried are too few). 0, auto or None stands for a
    setting that was not measured."""

    threads: _Count = 0
    flash_attention: Attention = "auto"
    batch: _Count = 0
    flash_cells: _Count = 0
    plain_from: _Count | None = None
    flash_streams: _Count | None = None


class Files(msgspec.Struct, frozen=True):
    """Where the engine keeps conversations beyond its own life: at most `bytes` in all, of which at most
    `bytes_per_day` are written in a day."""

    folder: str
    bytes: int
    bytes_per_day: int


SILENT_BEATS = 4  # beats that the daemon misses, at least, before it takes a loaded engine for dead


class Load(msgspec.Struct, frozen=True, tag=True):
    """To the engine, the first message: what to load and how. At most `parallel` requests run at once. `speculate` lets
    the engine guess tokens; `stash_bytes` limits the copies of what leaves the KV cache; `ahead_per_hour` limits the
    tokens that are computed before anybody asks for them. Without `files` nothing outlives the engine. `awaited` is
    greater than 0 if a request is already waiting: its conversation has about that many tokens, so the KV cache begins
    large enough for them, and nothing is warmed up.

    Settings left open (batch or threads 0, an `auto`) are taken from `tuning`, or from what was `measured` at the site
    of the engine (llama/site.py); else, with `calibrate`, they are measured before the engine is ready, which takes
    seconds. kv_type auto is the most exact type that fits into memory. `flash_cells`, `plain_from` and
    `flash_streams` are as in `Tuning`, and are set from there, by the engine."""

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
    flash_cells: int = SMALL_CELLS
    plain_from: int = 0
    flash_streams: int = 0


Doing = Literal["load", "measure", "remember"]
"""What an engine does until it is ready: it loads the model, measures settings, opens the folder of conversations."""


class Loading(msgspec.Struct, frozen=True, tag=True):
    """From the engine, while it loads: what it is doing, and the `fraction` of that, 0 to 1, that is done."""

    fraction: float
    doing: Doing = "load"


class ModelFacts(msgspec.Struct, frozen=True):
    """What the model's file says of the model, for clients that list models. `quantization`: llama.cpp's name of the
    file type, e.g. Q4_K_M, or empty; `parameters`: their number; `trained_context`: in tokens; `bytes`: the size of the
    file; `modified`: when it was written, in seconds since 1970."""

    architecture: str = ""
    quantization: str = ""
    parameters: int = 0
    trained_context: int = 0
    embedding_length: int = 0
    bytes: int = 0
    modified: float = 0.0


class Ready(msgspec.Struct, frozen=True, tag=True):
    """From the engine: the model is loaded and has decoded one token. `context` is in tokens.

    `defaults` is what the model's generation_config asks for; `specials` are the texts of its special tokens, of which
    `bos_token` and `eos_token` are two or empty; `tool_template` is for conversations with tools; `gpu_layers` counts
    layers that run on a GPU; `gpu_build`: llama.cpp was built for a GPU; `bytes_to_come` is how much the engine's
    memory will grow until context and stash are full; `tuning` was measured in this start, if anything was, at `site`;
    `ordinary_ends` are words that would end an answer."""

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
    facts: ModelFacts = ModelFacts()
