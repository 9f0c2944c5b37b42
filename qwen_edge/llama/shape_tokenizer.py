"""llguidance's view of a model's vocabulary: the bytes of every token, and llama.cpp's own tokenizer."""

from __future__ import annotations

import ctypes
from collections.abc import Collection
from typing import Any

from llguidance import LLTokenizer

from qwen_edge.llama.bindings import C
from qwen_edge.llama.vocab import Vocab

_SPECIAL = b"\xff"  # before the text of a special token: no byte of an answer may be a part of one


def shape_tokenizer(vocab: Vocab) -> Any:
    """For `structured.compiler.Compiler`. Takes half a second, most of it with the interpreter lock, and 55 MB for
    150,000 tokens. The model must stay open as long as the tokenizer is used."""
    special = {*vocab.specials.values(), *vocab.ends}
    return LLTokenizer.from_llamacpp(  # type: ignore[attr-defined]
        tokens=[_bytes(vocab, token, special) for token in range(vocab.size)],
        vocab_ptr=vocab.handle,
        tokenize_fptr=ctypes.cast(C.llama_tokenize, ctypes.c_void_p).value,
        eos_token=vocab.ends,
        slices=LLTokenizer.json_slices(),
    )


def _bytes(vocab: Vocab, token: int, special: Collection[int]) -> bytes:
    """The bytes that a token adds to an answer. User-defined tokens such as <think> count as special: in an answer they
    are markers, and no part of its text."""
    piece = b"" if token in special else vocab.piece(token)
    return piece or _SPECIAL + vocab.text(token).encode()
