"""Where a long text may be cut so that the parts have the same tokens as the whole; and a lower bound of its tokens.

In byte-level BPE a text is split by a regular expression before pieces are merged. No expression in llama.cpp joins a
letter with a following space, or the end of a line with a following letter, so a text may be cut there. Vocabularies
that join whole sentences exist: they have tokens with a space between two letters, and for them no text is cut.
"""

from __future__ import annotations

import ctypes
import re
from functools import cached_property
from itertools import repeat
from typing import Any

from qwen_edge.llama.bindings import C

_SLICE = 1 << 14  # characters: tokenized in a few milliseconds
_PLACE = re.compile(r"(?<=[a-z])(?= [a-z])|(?<=[a-z]\n)(?=[a-z])")
_ACROSS = re.compile("[a-z](?:[ \u0120\u2581]|\n|\u010a)[a-z]")  # with spaces and line ends as vocabularies write them


class Cuts:
    """The cuts for one vocabulary of `size` tokens, which are read at the first use (0.1 s). Any thread may use it."""

    def __init__(self, vocab: Any, size: int) -> None:
        self._vocab, self._size = vocab, size

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest token: a text of n bytes has at least n / longest tokens. 0 if a token may stand for a
        text of any length."""
        if C.llama_vocab_type(self._vocab) not in (C.LLAMA_VOCAB_TYPE_BPE, C.LLAMA_VOCAB_TYPE_SPM):
            return 0
        address = ctypes.cast(C.llama_token_to_piece, ctypes.c_void_p).value or 0
        numbers = (ctypes.c_int32, ctypes.c_int32, ctypes.c_bool)
        measure = ctypes.PYFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, *numbers)(address)
        # a piece that does not fit gives a negative length
        return max(abs(int(measure(self._handle, token, None, 0, 0, True))) for token in range(self._size))

    def end_of_slice(self, text: str, begin: int) -> int:
        """The end of the slice that begins at `begin`; the end of the text if there is no earlier place to cut."""
        if len(text) - begin <= _SLICE or not self._possible:
            return len(text)
        place = _PLACE.search(text, begin + _SLICE)
        return place.start() if place else len(text)

    @cached_property
    def _possible(self) -> bool:
        """Whether no token contains such a place."""
        if C.llama_vocab_type(self._vocab) != C.LLAMA_VOCAB_TYPE_BPE:
            return False  # other types merge across the whole text, and may add a space at its beginning
        address = ctypes.cast(C.llama_vocab_get_text, ctypes.c_void_p).value or 0
        text = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int32)(address)
        texts = map(text, repeat(self._handle), range(self._size))
        return not any(_ACROSS.search((one or b"").decode("utf-8", "replace")) for one in texts)

    @property
    def _handle(self) -> ctypes.c_void_p:
        return ctypes.cast(self._vocab, ctypes.c_void_p)
