"""The kinds of models: what a model stores for each token, and whether this engine can serve the model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_edge.core.errors import UnservableError
from qwen_edge.kv.memory_kind import FULL, STATE, WINDOW, MemoryKind
from qwen_edge.llama.bindings import C
from qwen_edge.llama.gguf_header import text_of
from qwen_edge.protocol.messages import LEAST_CONTEXT

_CANNOT = "qwen-edge cannot serve this model"
_REMEDY = "Choose a text model with plain attention, such as Qwen3"
_NO_NUMBER = re.compile(r"[-+]?(nan|inf)")
_NUMBER = re.compile(r"[-+0-9.e]+")
_LEAST = {"layer_norm_epsilon": 0.0, "layer_norm_rms_epsilon": 0.0, "rope.freq_base": 1e-6}  # key ending: least value


def memory_of(model: Any) -> MemoryKind:
    """What the memory of a model that llama.cpp has loaded can do."""
    if C.llama_model_is_recurrent(model) or C.llama_model_is_hybrid(model):
        return STATE
    return WINDOW if _window(model) else FULL


def _window(model: Any) -> int:
    """The length of the attention window in tokens, 0 for none. llama.cpp returns the file's unsigned number as a
    signed one."""
    return int(C.llama_model_n_swa(model)) & 0xFFFF_FFFF


def refuse_unservable(model: Any, memory: MemoryKind, name: str, meta: dict[str, str | None]) -> None:
    """Raises UnservableError, in one sentence, for a model that llama.cpp loads and this engine cannot use correctly.
    `memory` is that of the model. `meta` has the file's values for `architecture`, `causal` (attention) and `pooling`
    (of vectors)."""
    arch = meta["architecture"] or "unknown"
    if why := _not_a_generator(model, meta):
        raise UnservableError(f"{_CANNOT}: {name} ({arch}) {why}. {_REMEDY}.")
    if memory == STATE:
        raise UnservableError(
            f"{_CANNOT}: {name} ({arch}) is recurrent, or partly so: what it has read cannot be removed or shared "
            f"token by token. {_REMEDY}."
        )
    if memory == WINDOW:
        raise UnservableError(
            f"{_CANNOT}: the attention of {name} ({arch}) has a sliding window of {_window(model)} tokens. {_REMEDY}."
        )


def refuse_unusable_numbers(name: str, trained_context: int, said: Mapping[str, str]) -> None:
    """Raises UnservableError, in one sentence, for a number in the metadata that llama.cpp loads but cannot compute
    with: llama.cpp would abort the process later, or generate nonsense. `said`: the scalars of the model's
    architecture, by key."""
    wrong = next((f"{key} {value}" for key, value in said.items() if not _is_usable(key, value)), None)
    if trained_context < LEAST_CONTEXT:
        wrong = f"a context length of {trained_context}, and an answer takes {LEAST_CONTEXT} tokens at least"
    if wrong:
        raise UnservableError(
            f"{_CANNOT}: the metadata of {name} say {wrong}. The file is wrong or damaged: make it again "
            "(qwen-edge convert), or choose another."
        )


def _is_usable(key: str, value: str) -> bool:
    if _NO_NUMBER.fullmatch(value):
        return False
    least = next((least for end, least in _LEAST.items() if key.endswith(f".{end}")), -math.inf)
    return not _NUMBER.fullmatch(value) or float(value) >= least


def _not_a_generator(model: Any, meta: dict[str, str | None]) -> str | None:
    """Why the model does not generate text; None if it does."""
    if C.llama_vocab_type(C.llama_model_get_vocab(model)) == C.LLAMA_VOCAB_TYPE_NONE:
        return "has no vocabulary"
    if C.llama_model_has_encoder(model):
        return "has an encoder"
    if meta["causal"] == "false":
        return "reads texts and writes none"
    if (meta["pooling"] or "0") not in ("0", "-1"):
        return "makes vectors of texts (embeddings, rankings)"
    if C.llama_model_is_diffusion(model):
        return "writes all words at once (diffusion)"
    return None


def why_not_loaded(path: Path) -> str | None:
    """Why llama.cpp did not load the file, if the file is something other than a model's weights (an adapter, a
    projector, ...). None if the header does not say so, or cannot be read."""
    kind, arch = text_of(path, b"general.type"), text_of(path, b"general.architecture")
    if kind == "adapter":
        return "is a LoRA adapter: the model that it belongs to must be merged with it"
    if kind == "mmproj" or arch == "clip":
        return "is a vision projector, which belongs to a model in another file"
    if kind in ("imatrix", "vocab") or arch in ("imatrix", "vocab"):
        return f"is no model but {kind or arch} data"
    return None
