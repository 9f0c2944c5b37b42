"""A vocabulary for tests of shapes: the 256 bytes, some longer tokens, and one that ends the turn."""

from __future__ import annotations

import re

from llguidance import LLTokenizer

from qwen_edge.structured.compiler import Compiler

WORDS = [b'{"', b'":', b'","', b'"}', b"true", b"null", b"on", b"off", b"lamp", b", ", b": ", b"name", b"  "]
WORDS += [b"}}\n"]
TOKENS = [*(bytes([one]) for one in range(256)), *WORDS]
MARKERS = {
    "<end>": len(TOKENS),
    "<think>": len(TOKENS) + 1,
    "</think>": len(TOKENS) + 2,
    "<tool_call>": len(TOKENS) + 3,
    "</tool_call>": len(TOKENS) + 4,
}
END = MARKERS["<end>"]
SIZE = len(TOKENS) + len(MARKERS)


class _Greedy:
    """The longest token that fits, from the left."""

    eos_token_id = END
    bos_token_id = None
    tokens = (*TOKENS, *(b"\xff" + name.encode() for name in MARKERS))
    special_token_ids = tuple(MARKERS.values())

    def __call__(self, text: bytes | str) -> list[int]:
        rest = text.encode() if isinstance(text, str) else bytes(text)
        ids = list[int]()
        while rest:
            token = max((one for one in range(END) if rest.startswith(TOKENS[one])), key=lambda one: len(TOKENS[one]))
            ids.append(token)
            rest = rest[len(TOKENS[token]) :]
        return ids


def tokenizer() -> LLTokenizer:
    from llguidance._tokenizer import TokenizerWrapper

    return LLTokenizer(TokenizerWrapper(_Greedy()))


def compiler() -> Compiler:
    return Compiler(tokenizer, SIZE, [END])


encode = _Greedy()


def encode_marked(text: str) -> list[int]:
    """The tokens of a text in which markers are recognised."""
    parts = re.split("(" + "|".join(map(re.escape, MARKERS)) + ")", text)
    return [token for part in parts for token in ([MARKERS[part]] if part in MARKERS else encode(part))]


def decode(tokens: list[int]) -> bytes:
    """The text, without the end of the turn."""
    names = {token: name.encode() for name, token in MARKERS.items()}
    return b"".join(names.get(one) or TOKENS[one] for one in tokens if one != END)


class Vocabulary:
    """As steering sees it (engine/steering.py)."""

    size = SIZE
    ends = (END,)

    def encode_marked(self, text: str) -> list[int]:
        return encode_marked(text)
