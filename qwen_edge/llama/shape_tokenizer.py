"""llguidance's view of a model's vocabulary: the bytes of every token, and llama.cpp's own tokenizer."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

from qwen_edge.llama.bindings import C
from qwen_edge.llama.vocab import Vocab

_SPECIAL = b"\xff"  # before the text of a special token: no byte of an answer may be a part of one
_ROOM = 1 << 12  # bytes; no token of a text model is nearly as long

# Texts whose tokens llguidance keeps in a list of their own, since most masks allow or forbid them together: what may
# stand in a JSON string. Each list takes 7 to 11 MB and a tenth of a second, with the interpreter lock: the other two
# that llguidance proposes for JSON were measured to make no mask quicker.
_SLICES = [r'[^"\\\x00-\x1F\x7F]{1,10}', r'[^"\\\x00-\x1F\x7F]{1,30}']


def shape_tokenizer(vocab: Vocab) -> Any:
    """For `structured.compiler.Compiler`. Takes 0.5 s, two thirds of it in one piece with the interpreter lock,
    and 37 MB for 150,000 tokens. The model must stay open as long as the tokenizer is used."""
    from llguidance import LLTokenizer

    return LLTokenizer.from_llamacpp(  # type: ignore[attr-defined]
        tokens=[*_bytes_of_all(vocab)],
        vocab_ptr=vocab.handle,
        tokenize_fptr=ctypes.cast(vocab.tokenize_plain, ctypes.c_void_p).value,
        eos_token=vocab.ends,
        slices=_SLICES,
    )


def _bytes_of_all(vocab: Vocab) -> Iterator[bytes]:
    """The bytes that each token adds to an answer. User-defined tokens such as <think> count as special: in an answer
    they are markers, and no part of its text. Read past the cache of `Vocab.piece`, which would keep 17 MB."""
    special = {*vocab.specials.values(), *vocab.ends}
    address = ctypes.cast(C.llama_token_to_piece, ctypes.c_void_p).value or 0
    integer, pointer = ctypes.c_int32, ctypes.c_void_p
    # a call that keeps the interpreter lock: releasing it 150,000 times takes twice as long
    read = ctypes.PYFUNCTYPE(integer, pointer, integer, pointer, integer, integer, ctypes.c_bool)(address)
    buffer, handle = ctypes.create_string_buffer(_ROOM), ctypes.cast(vocab.handle, pointer)
    place = ctypes.addressof(buffer)
    for token in range(vocab.size):
        length = 0 if token in special else read(handle, token, place, _ROOM, 0, False)
        yield ctypes.string_at(place, length) if length > 0 else _SPECIAL + vocab.text(token).encode()
