"""The output head of a model whose file has one tensor for the token embedding and the head: a tied head.

llama.cpp looks rows of the embedding up, and multiplies with the head. It uses one tensor for both if both may lie in
the same kind of memory. A repacked head may not (a type such as Q4_K, on x86-64), nor a head on a GPU: then it loads
the tensor twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qwen_edge.llama.ggml_tensor import address_of, count_of_tensors
from qwen_edge.llama.gguf_header import places_of_tensors

_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"


def second_head_bytes(model: Any, path: Path) -> int:
    """The bytes by which this model, loaded or simulated, is larger in memory than its tensors in the file `path`; 0 if
    llama.cpp holds no tensor twice, or does not tell."""
    places = places_of_tensors(path)
    if _HEAD in places or _EMBEDDING not in places:
        return 0
    different = sum(address_of(model, name) is not None for name in places)
    return places[_EMBEDDING].size if count_of_tensors(model) > different else 0
