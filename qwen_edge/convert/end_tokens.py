"""The end tokens of a model: every token that a file of the checkpoint names as one that ends a turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qwen_edge.convert.checkpoint import short_repr
from qwen_edge.core.errors import ConversionError

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # gguf.TokenType


def find_end_tokens(
    folder: Path,
    config: Mapping[str, Any],
    generation: Mapping[str, Any],
    named: int | None,
    texts: Sequence[str],
    kinds: Sequence[int],
) -> list[int]:
    """Token ids; the first becomes llama.cpp's end-of-sequence token. `named`: the id of tokenizer_config.json's
    eos_token. Raises ConversionError for an id that is not in the vocabulary, and if only ordinary words would end an
    answer."""
    found = [] if named is None else [named]
    for file, values in (("config.json", config), ("generation_config.json", generation)):
        for token in _ids(values.get("eos_token_id"), folder / file):
            if token >= len(texts) or kinds[token] == UNUSED:
                raise ConversionError(
                    f"{folder / file}: eos_token_id names token {short_repr(token)}, which the "
                    "tokenizer does not have. Correct the file: tokenizer or number belong to another model."
                )
            found.append(token)
    ends = list(dict.fromkeys(found))
    if all(kinds[token] == NORMAL for token in ends):
        words = ", ".join(short_repr(texts[token]) for token in ends[:3])
        what = f"only the ordinary {words}" if ends else "no token"
        raise ConversionError(
            f"{folder}: {what} would end an answer: neither config.json nor generation_config.json (eos_token_id) nor "
            "tokenizer_config.json (eos_token) names a special token. Add the one with which the chat template ends a "
            "turn, e.g. <|im_end|>."
        )
    return ends


def ordinary_word_notes(end_tokens: Sequence[int], texts: Sequence[str], kinds: Sequence[int]) -> list[str]:
    """A sentence for each ordinary word among the end tokens, which is rarely intended."""
    return [
        f"token {token}, the ordinary word {short_repr(texts[token])}, ends every answer: eos_token_id names it"
        for token in end_tokens
        if kinds[token] == NORMAL
    ]


def _ids(value: object, file: Path) -> Iterator[int]:
    """The ids in a value that is an id or a list of ids; null and -1 mean none."""
    for token in value if isinstance(value, list) else [value]:
        if token is None or (token == -1 and isinstance(token, int)):
            continue
        if not isinstance(token, int) or isinstance(token, bool) or token < 0:
            raise ConversionError(
                f"{file}: eos_token_id is {short_repr(value)}, a token's number or a list was expected."
            )
        yield token
