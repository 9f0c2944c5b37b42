"""A Qwen tokenizer, read from its Hugging Face files into what GGUF stores.

Qwen's is a byte-level BPE with one fixed pre-tokenizer, which llama.cpp knows as `qwen2`. Other pre-tokenizers would
split text differently and quietly ruin the model, so they are refused by name.
Either tokenizer.json holds everything, or vocab.json and merges.txt do, with the added tokens in tokenizer_config.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from qwen_edge.convert.checkpoint import read_json, read_text
from qwen_edge.errors import ConversionError

# gguf.TokenType
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5

_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPECIAL_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


@dataclass(frozen=True)
class Tokenizer:
    """`texts[i]` and `kinds[i]` describe token i; `roles` are ids by role (eos, pad, ...), `added` by text."""

    texts: Sequence[str]
    kinds: Sequence[int]
    merges: Sequence[str]
    roles: Mapping[str, int]
    adds: Mapping[str, bool]
    chat_template: str | list[dict[str, str]] | None
    added: Mapping[str, int]


def read_tokenizer(folder: Path, config: Mapping[str, Any], vocabulary: int) -> Tokenizer:
    """The tokenizer of a checkpoint whose embedding has `vocabulary` rows. Raises ConversionError."""
    settings = read_json(folder / "tokenizer_config.json")
    whole = read_json(folder / "tokenizer.json")
    if whole:
        vocab, merges, added = _from_tokenizer_json(folder / "tokenizer.json", whole)
    else:
        vocab, merges, added = _from_vocab_and_merges(folder, settings)
    texts, kinds = _list_tokens(folder, vocab, added, vocabulary)
    ids = {token["content"]: token["id"] for token in added}
    return Tokenizer(
        texts=texts,
        kinds=kinds,
        merges=merges,
        roles=_roles(settings, config, ids, vocabulary),
        adds=_adds(settings, whole),
        chat_template=_chat_template(folder, settings),
        added=ids,
    )


def _from_tokenizer_json(file: Path, whole: dict[str, Any]) -> tuple[dict[str, int], list[str], list[dict[str, Any]]]:
    model = whole.get("model", {})
    splits = [
        step.get("pattern", {}).get("Regex")
        for step in (whole.get("pre_tokenizer") or {}).get("pretokenizers", [])
        if step.get("type") == "Split"
    ]
    if model.get("type") != "BPE" or splits != [_QWEN2_SPLIT]:
        raise ConversionError(
            f"{file}: this is not Qwen's tokenizer (its pre-tokenizer splits text another way). "
            "Only checkpoints with Qwen2's tokenizer can be converted."
        )
    # transformers 4.45 and later write merges as pairs
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model.get("merges", [])]
    if not merges or not model.get("vocab"):
        raise ConversionError(f"{file} is damaged: it has no vocabulary or no merges. Download it again.")
    return model["vocab"], merges, whole.get("added_tokens", [])


def _from_vocab_and_merges(
    folder: Path, settings: dict[str, Any]
) -> tuple[dict[str, int], list[str], list[dict[str, Any]]]:
    vocab_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    if not (vocab_file.is_file() and merges_file.is_file()):
        raise ConversionError(
            f"{folder} has no tokenizer (neither tokenizer.json nor vocab.json with merges.txt). Download it again."
        )
    if not str(settings.get("tokenizer_class", "")).startswith("Qwen2Tokenizer"):
        raise ConversionError(
            f"{folder / 'tokenizer_config.json'}: tokenizer_class is {settings.get('tokenizer_class')!r}; "
            "without a tokenizer.json only Qwen2Tokenizer can be converted."
        )
    try:
        vocab = msgspec.json.decode(vocab_file.read_bytes(), type=dict[str, int])
    except msgspec.DecodeError as error:
        raise ConversionError(f"{vocab_file} is damaged: {error}. Download it again.") from None
    lines = read_text(merges_file).splitlines()
    merges = [line for line in lines if line.strip() and not line.startswith("#version")]
    decoder = settings.get("added_tokens_decoder", {})
    return vocab, merges, [{"id": int(i), **token} for i, token in decoder.items()]


def _list_tokens(
    folder: Path, vocab: dict[str, int], added: list[dict[str, Any]], vocabulary: int
) -> tuple[list[str], list[int]]:
    """Texts and kinds by id; rows of the embedding that no token uses are filled as llama.cpp fills them."""
    texts = [f"[PAD{i}]" for i in range(vocabulary)]
    kinds = [UNUSED] * vocabulary
    tokens = [(token, i, NORMAL) for token, i in vocab.items()]
    tokens += [(token["content"], token["id"], _kind(token)) for token in added]
    for text, i, kind in tokens:
        if not 0 <= i < vocabulary:
            raise ConversionError(
                f"{folder}: token {text!r} has id {i}, the embedding has {vocabulary} rows. "
                "Tokenizer and weights are not from the same checkpoint."
            )
        texts[i], kinds[i] = text, kind
    return texts, kinds


def _kind(token: dict[str, Any]) -> int:
    """Tokens that steer generation are CONTROL, even where the checkpoint forgets to call them special."""
    text = token["content"]
    looks_special = text.startswith("<|") and text.endswith("|>")
    return CONTROL if token.get("special") or looks_special else USER_DEFINED


def _roles(settings: dict[str, Any], config: Mapping[str, Any], ids: dict[str, int], vocabulary: int) -> dict[str, int]:
    """Special token ids: tokenizer_config.json has the first word, config.json the second.

    An id that is no token's means none: -1 is a common way to write that."""
    roles: dict[str, int] = {}
    for role in _SPECIAL_ROLES:
        entry = settings.get(f"{role}_token")
        text = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(text, str) and text in ids:
            roles[role] = ids[text]
    for role in _SPECIAL_ROLES:
        token_id = config.get(f"{role}_token_id")
        if isinstance(token_id, int) and 0 <= token_id < vocabulary:
            roles.setdefault(role, token_id)
    return roles


def _adds(settings: dict[str, Any], whole: dict[str, Any]) -> dict[str, bool]:
    """Whether llama.cpp should put a token before or after a prompt by itself (Qwen: never)."""
    adds: dict[str, bool] = {}
    post = whole.get("post_processor") or {}
    if "ByteLevel" in [step.get("type") for step in post.get("processors", [post])]:
        adds = {"bos": False, "eos": False}
    for role in _SPECIAL_ROLES:
        value = settings.get(f"add_{role}_token")
        if isinstance(value, bool):
            adds.setdefault(role, value)
    return adds


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | list[dict[str, str]] | None:
    inside = settings.get("chat_template")
    if isinstance(inside, (str, list)):
        return inside
    file = folder / "chat_template.jinja"
    if file.is_file():
        return read_text(file)
    legacy = read_json(folder / "chat_template.json").get("chat_template")
    return legacy if isinstance(legacy, str) else None
