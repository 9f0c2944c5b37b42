"""A Qwen tokenizer, read from its Hugging Face files into what GGUF stores.

Qwen's is a byte-level BPE with one fixed pre-tokenizer, which llama.cpp knows as `qwen2`. Other pre-tokenizers would
split text differently and quietly ruin the model, so they are refused by name (vocabulary.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_edge.convert.checkpoint import Checkpoint, read_json, shown
from qwen_edge.convert.end_tokens import CONTROL, NORMAL, UNUSED, USER_DEFINED, find_ends, ordinary
from qwen_edge.convert.templates import read_templates
from qwen_edge.convert.vocabulary import ROLES, AddedToken, Vocabulary, named_token, read_vocabulary
from qwen_edge.core.errors import ConversionError


@dataclass(frozen=True)
class Tokenizer:
    """`texts[i]` and `kinds[i]` describe token i; `roles` are ids by role (eos, pad, ...), `added` by text. `ends` are
    all tokens that end a turn, that of the role eos the first. `notes` are for the person who converts."""

    texts: Sequence[str]
    kinds: Sequence[int]
    merges: Sequence[str]
    roles: Mapping[str, int]
    adds: Mapping[str, bool]
    chat_templates: Mapping[str, str]
    added: Mapping[str, int]
    ends: Sequence[int]
    notes: Sequence[str] = ()


def read_tokenizer(checkpoint: Checkpoint, vocabulary: int) -> Tokenizer:
    """The tokenizer of a checkpoint whose embedding has `vocabulary` rows. Raises ConversionError."""
    folder = checkpoint.folder
    settings = read_json(folder / "tokenizer_config.json")
    words = read_vocabulary(folder, settings)
    texts, kinds = _list_tokens(folder, words, vocabulary)
    ids = {token.content: token.id for token in words.added}
    roles = _roles(settings, checkpoint.config, ids, vocabulary)
    named = ids.get(named_token(settings, "eos_token") or "")
    ends = find_ends(folder, checkpoint.config, checkpoint.generation, named, texts, kinds)
    templates, notes = read_templates(folder, settings)
    return Tokenizer(
        texts=texts,
        kinds=kinds,
        merges=words.merges,
        roles={**roles, "eos": ends[0]},  # in its place, if it is there already
        adds=_adds(settings, words.steps),
        chat_templates=templates,
        added=ids,
        ends=ends,
        notes=[*notes, *ordinary(ends, texts, kinds)],
    )


def _list_tokens(folder: Path, words: Vocabulary, vocabulary: int) -> tuple[list[str], list[int]]:
    """Texts and kinds by id; rows of the embedding that no token uses are filled as llama.cpp fills them."""
    texts = [f"[PAD{i}]" for i in range(vocabulary)]
    kinds = [UNUSED] * vocabulary
    tokens = [(text, i, NORMAL) for text, i in words.vocab.items()]
    tokens += [(token.content, token.id, _kind(token)) for token in words.added]
    for text, i, kind in tokens:
        if i >= vocabulary:
            raise ConversionError(
                f"{folder}: token {shown(text)} has id {i}, the embedding has {vocabulary} rows. "
                "Tokenizer and weights are not from the same checkpoint."
            )
        texts[i], kinds[i] = text, kind
    return texts, kinds


def _kind(token: AddedToken) -> int:
    """Tokens that steer generation are CONTROL, even where the checkpoint forgets to call them special."""
    looks_special = token.content.startswith("<|") and token.content.endswith("|>")
    return CONTROL if token.special or looks_special else USER_DEFINED


def _roles(
    settings: Mapping[str, Any], config: Mapping[str, Any], ids: Mapping[str, int], vocabulary: int
) -> dict[str, int]:
    """Special token ids: tokenizer_config.json has the first word, config.json the second.

    An id that is no token's means none: -1 is a common way to write that."""
    roles: dict[str, int] = {}
    for role in ROLES:
        text = named_token(settings, f"{role}_token")
        if text is not None and text in ids:
            roles[role] = ids[text]
    for role in ROLES:
        token = config.get(f"{role}_token_id")
        if isinstance(token, int) and not isinstance(token, bool) and 0 <= token < vocabulary:
            roles.setdefault(role, token)
    return roles


def _adds(settings: Mapping[str, Any], steps: Sequence[str]) -> dict[str, bool]:
    """Whether llama.cpp should put a token before or after a prompt by itself (Qwen: never)."""
    adds: dict[str, bool] = {}
    if "ByteLevel" in steps:
        adds = {"bos": False, "eos": False}
    for role in ROLES:
        value = settings.get(f"add_{role}_token")
        if isinstance(value, bool):
            adds.setdefault(role, value)
    return adds
