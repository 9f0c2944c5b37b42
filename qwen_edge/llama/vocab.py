"""Text to tokens and back, by llama.cpp's tokenizer."""

from __future__ import annotations

import ctypes
from typing import Any

from qwen_edge.llama.bindings import C

_STEERING = C.LLAMA_TOKEN_ATTR_CONTROL | C.LLAMA_TOKEN_ATTR_USER_DEFINED


class Vocab:
    """The vocabulary of one model; valid as long as the model is open. Reading is thread-safe in llama.cpp."""

    def __init__(self, handle: Any) -> None:
        self._vocab = handle
        self._pieces: dict[int, bytes] = {}
        self.size = int(C.llama_vocab_n_tokens(handle))

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of `text`. Only with `special` are texts like <|im_end|> taken for the tokens they name."""
        data = text.encode("utf-8")
        room = len(data) + 2
        ids = (C.llama_token * room)()
        count = C.llama_tokenize(self._vocab, data, len(data), ids, room, False, special)
        assert count >= 0, "a byte-level tokenizer never makes more tokens than bytes"
        return list(ids[:count])

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for, which may be part of a character; b"" for control tokens."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._read_piece(token, special=False)
        return known

    def text(self, token: int) -> str:
        """The text of a special token, e.g. <|im_end|>."""
        return self._read_piece(token, special=True).decode("utf-8", "replace")

    def decode(self, tokens: list[int], *, special: bool = False) -> bytes:
        return b"".join(self._read_piece(token, special=special) for token in tokens)

    def is_end(self, token: int) -> bool:
        """Whether the model ends its turn with this token."""
        return bool(C.llama_vocab_is_eog(self._vocab, token))

    def special_tokens(self) -> dict[str, int]:
        """Every token that template text may name (control and user-defined ones), by text."""
        attr = C.llama_vocab_get_attr
        ids = [token for token in range(self.size) if attr(self._vocab, token) & _STEERING]
        return {self.text(token): token for token in ids}

    def _read_piece(self, token: int, *, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(256)
        length = C.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, special)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = C.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, special)
        return buffer.raw[:length]
