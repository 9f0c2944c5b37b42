"""The tokens with which a model ends its turn: every one that any file of the checkpoint names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qwen_edge.convert.checkpoint import shown
from qwen_edge.core.errors import ConversionError

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # gguf.TokenType


def find_ends(
    folder: Path,
    config: Mapping[str, Any],
    generation: Mapping[str, Any],
    named: int | None,
    texts: Sequence[str],
    kinds: Sequence[int],
) -> list[int]:
    """Ids, the first one llama.cpp's end of sequence. `named` is that of tokenizer_config.json's eos_token. Raises
    ConversionError for an id that is no token's, and if nothing but ordinary words would end an answer."""
    found = [] if named is None else [named]
    for file, values in (("config.json", config), ("generation_config.json", generation)):
        for token in _ids(values.get("eos_token_id"), folder / file):
            if token >= len(texts) or kinds[token] == UNUSED:
                raise ConversionError(
                    f"{folder / file}: eos_token_id names token {shown(token)}, which the tokenizer has not. Correct "
                    "the file: the tokenizer, or the number, is another model's."
                )
            found.append(token)
    ends = list(dict.fromkeys(found))
    if all(kinds[token] == NORMAL for token in ends):
        words = ", ".join(shown(texts[token]) for token in ends[:3])
        what = f"only the ordinary {words}" if ends else "no token"
        raise ConversionError(
            f"{folder}: {what} would end an answer: neither config.json nor generation_config.json (eos_token_id) nor "
            "tokenizer_config.json (eos_token) names a special token for it. Add the one the chat template ends a turn "
            "with, e.g. <|im_end|>."
        )
    return ends


def ordinary(ends: Sequence[int], texts: Sequence[str], kinds: Sequence[int]) -> list[str]:
    """Sentences about words that end an answer, which is seldom meant."""
    return [
        f"token {token}, the ordinary word {shown(texts[token])}, ends every answer: eos_token_id names it"
        for token in ends
        if kinds[token] == NORMAL
    ]


def _ids(value: object, file: Path) -> Iterator[int]:
    """One id or a list of them; -1 is a common way to write none."""
    for token in value if isinstance(value, list) else [value]:
        if token is None or (token == -1 and isinstance(token, int)):
            continue
        if not isinstance(token, int) or isinstance(token, bool) or token < 0:
            raise ConversionError(f"{file}: eos_token_id is {shown(value)}, a token's number or a list was expected.")
        yield token
