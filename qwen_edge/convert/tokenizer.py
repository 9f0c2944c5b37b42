"""Reads a Qwen tokenizer from its Hugging Face files, in the form that GGUF stores.

Qwen's tokenizer is a byte-level BPE with one fixed pre-tokenizer, which llama.cpp calls `qwen2`. With another
pre-tokenizer, text would be split differently and the model would silently answer worse, so others are refused
(vocabulary.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_edge.convert.checkpoint import Checkpoint, read_json, short_repr
from qwen_edge.convert.end_tokens import CONTROL, NORMAL, UNUSED, USER_DEFINED, find_end_tokens, ordinary_word_notes
from qwen_edge.convert.templates import read_templates
from qwen_edge.convert.vocabulary import ROLES, AddedToken, Vocabulary, named_token, read_vocabulary
from qwen_edge.core.errors import ConversionError


@dataclass(frozen=True)
class Tokenizer:
    """`texts[i]` and `kinds[i]` describe token i. `roles`: ids by role (eos, pad, ...). `added`: ids of added tokens by
    text. `end_tokens`: all tokens that end a turn, the eos token first. `notes`: sentences for the user."""

    texts: Sequence[str]
    kinds: Sequence[int]
    merges: Sequence[str]
    roles: Mapping[str, int]
    adds: Mapping[str, bool]
    chat_templates: Mapping[str, str]
    added: Mapping[str, int]
    end_tokens: Sequence[int]
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
    end_tokens = find_end_tokens(folder, checkpoint.config, checkpoint.generation, named, texts, kinds)
    templates, notes = read_templates(folder, settings)
    return Tokenizer(
        texts=texts,
        kinds=kinds,
        merges=words.merges,
        roles={**roles, "eos": end_tokens[0]},  # replaces the eos token of the settings, if any
        adds=_adds(settings, words.steps),
        chat_templates=templates,
        added=ids,
        end_tokens=end_tokens,
        notes=[*notes, *ordinary_word_notes(end_tokens, texts, kinds)],
    )


def _list_tokens(folder: Path, words: Vocabulary, vocabulary: int) -> tuple[list[str], list[int]]:
    """Texts and kinds by id; rows of the embedding without a token are filled as in llama.cpp's converter."""
    texts = [f"[PAD{i}]" for i in range(vocabulary)]
    kinds = [UNUSED] * vocabulary
    tokens = [(text, i, NORMAL) for text, i in words.vocab.items()]
    tokens += [(token.content, token.id, _kind(token)) for token in words.added]
    for text, i, kind in tokens:
        if i >= vocabulary:
            raise ConversionError(
                f"{folder}: token {short_repr(text)} has id {i}, the embedding has {vocabulary} rows. "
                "Tokenizer and weights are not from the same checkpoint."
            )
        texts[i], kinds[i] = text, kind
    return texts, kinds


def _kind(token: AddedToken) -> int:
    """Tokens such as <|im_end|> are CONTROL, even if the checkpoint does not mark them as special."""
    looks_special = token.content.startswith("<|") and token.content.endswith("|>")
    return CONTROL if token.special or looks_special else USER_DEFINED


def _roles(
    settings: Mapping[str, Any], config: Mapping[str, Any], ids: Mapping[str, int], vocabulary: int
) -> dict[str, int]:
    """Special token ids from tokenizer_config.json and, for roles missing there, from config.json.

    An id outside the vocabulary means none; -1 is a common way to write that."""
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
    """By role, whether llama.cpp should add the token to a prompt by itself (Qwen: never)."""
    adds: dict[str, bool] = {}
    if "ByteLevel" in steps:
        adds = {"bos": False, "eos": False}
    for role in ROLES:
        value = settings.get(f"add_{role}_token")
        if isinstance(value, bool):
            adds.setdefault(role, value)
    return adds
