"""Where a long text may be cut so that the tokens of the parts are those of the whole, and how few it may have.

A text is split by the vocabulary's pattern before pieces are merged (byte-level BPE), and no pattern that llama.cpp
knows joins a letter to the space behind it, or the end of a line to a letter behind it. Patterns that join whole
sentences exist: they show in tokens that hold a space between two letters, and then a text is cut nowhere.
"""

from __future__ import annotations

import ctypes
import re
from functools import cached_property
from itertools import repeat
from typing import Any

from qwen_edge.llama.bindings import C

_SLICE = 1 << 14  # characters: some milliseconds
_PLACE = re.compile(r"(?<=[a-z])(?= [a-z])|(?<=[a-z]\n)(?=[a-z])")
_ACROSS = re.compile("[a-z](?:[ \u0120\u2581]|\n|\u010a)[a-z]")  # spaces and line ends, as vocabularies write them


class Cuts:
    """Of one vocabulary, of which `size` tokens are read at the first use: a tenth of a second. Any thread may use
    it."""

    def __init__(self, vocab: Any, size: int) -> None:
        self._vocab, self._size = vocab, size

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest token: a text of n bytes has n divided by it tokens at least. 0 if a token may stand for
        a text of any length."""
        if C.llama_vocab_type(self._vocab) not in (C.LLAMA_VOCAB_TYPE_BPE, C.LLAMA_VOCAB_TYPE_SPM):
            return 0
        address = ctypes.cast(C.llama_token_to_piece, ctypes.c_void_p).value or 0
        numbers = (ctypes.c_int32, ctypes.c_int32, ctypes.c_bool)
        measure = ctypes.PYFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, *numbers)(address)
        # what does not fit is told as a length below zero
        return max(abs(int(measure(self._handle, token, None, 0, 0, True))) for token in range(self._size))

    def end_of_slice(self, text: str, begin: int) -> int:
        """Where the part of the text that begins there may end; the end of the text if there is no nearer place."""
        if len(text) - begin <= _SLICE or not self._possible:
            return len(text)
        place = _PLACE.search(text, begin + _SLICE)
        return place.start() if place else len(text)

    @cached_property
    def _possible(self) -> bool:
        """Whether no token reaches across such a place."""
        if C.llama_vocab_type(self._vocab) != C.LLAMA_VOCAB_TYPE_BPE:
            return False  # the others merge all over a text, and may add a space at the beginning of each
        address = ctypes.cast(C.llama_vocab_get_text, ctypes.c_void_p).value or 0
        text = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int32)(address)
        texts = map(text, repeat(self._handle), range(self._size))
        return not any(_ACROSS.search((one or b"").decode("utf-8", "replace")) for one in texts)

    @property
    def _handle(self) -> ctypes.c_void_p:
        return ctypes.cast(self._vocab, ctypes.c_void_p)
