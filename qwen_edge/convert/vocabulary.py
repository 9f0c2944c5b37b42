"""Vocabulary, merges and added tokens of a Qwen tokenizer, from any of its Hugging Face files.

tokenizer.json holds vocabulary and merges; without it, vocab.json and merges.txt do. Added tokens are in
tokenizer.json, in tokenizer_config.json (added_tokens_decoder), or, written by older tools, in added_tokens.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from qwen_edge.convert.checkpoint import as_type, read_text, read_typed, short_repr
from qwen_edge.core.errors import ConversionError

QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")

_Id = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
_Text = Annotated[str, msgspec.Meta(min_length=1)]


class AddedToken(msgspec.Struct, frozen=True):
    """A token that is matched in text as a whole. `special`: a control token; others (<think>) are text, too."""

    id: _Id
    content: _Text
    special: bool = False


class _Flags(msgspec.Struct):
    """An entry of added_tokens_decoder; the id is its key."""

    content: _Text
    special: bool = False


class _Bpe(msgspec.Struct):
    type: str = ""
    vocab: dict[str, _Id] = {}
    merges: list[str | tuple[str, str]] = []


class _Step(msgspec.Struct):
    """A pre- or post-processor: a single step, or a group of steps."""

    type: str = ""
    pattern: dict[str, Any] = {}
    pretokenizers: list[_Step] = []
    processors: list[_Step] = []


class _TokenizerJson(msgspec.Struct):
    model: _Bpe
    added_tokens: list[AddedToken] = []
    pre_tokenizer: _Step | None = None
    post_processor: _Step | None = None


@dataclass(frozen=True)
class Vocabulary:
    """`added`: added tokens; some have the id of a word in `vocab`. `steps`: the types of the post-processors."""

    vocab: Mapping[str, int]
    merges: Sequence[str]
    added: Sequence[AddedToken]
    steps: Sequence[str]


def read_vocabulary(folder: Path, settings: Mapping[str, Any]) -> Vocabulary:
    """`settings` is tokenizer_config.json. Raises ConversionError."""
    file = folder / "tokenizer.json"
    whole = read_typed(file, _TokenizerJson)
    if whole is None:
        vocab, merges = _from_vocab_and_merges(folder, settings)
        file, listed, steps = folder / "vocab.json", [], []
    else:
        vocab, merges = _from_tokenizer_json(file, whole)
        post = whole.post_processor
        listed, steps = whole.added_tokens, [step.type for step in (post.processors or [post])] if post else []
    added = _added(folder, listed, settings, vocab)
    _check_ids(folder, vocab, added)
    _check_merges(file if whole else folder / "merges.txt", vocab, merges, {token.content for token in added})
    return Vocabulary(vocab, merges, added, steps)


def named_token(settings: Mapping[str, Any], key: str) -> str | None:
    """The text of the token under `key`, which is a string or an object with `content`."""
    entry = settings.get(key)
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) else None


def _from_tokenizer_json(file: Path, whole: _TokenizerJson) -> tuple[dict[str, int], list[str]]:
    steps = whole.pre_tokenizer.pretokenizers if whole.pre_tokenizer else []
    splits = [step.pattern.get("Regex") for step in steps if step.type == "Split"]
    if whole.model.type != "BPE" or splits != [QWEN2_SPLIT]:
        raise ConversionError(
            f"{file}: this is not Qwen's tokenizer (its pre-tokenizer splits text differently). "
            "Only checkpoints with Qwen2's tokenizer can be converted."
        )
    if not whole.model.merges or not whole.model.vocab:
        raise ConversionError(f"{file} is damaged: it has no vocabulary or no merges. Download it again.")
    # transformers 4.45 and later write merges as pairs
    return whole.model.vocab, [one if isinstance(one, str) else " ".join(one) for one in whole.model.merges]


def _from_vocab_and_merges(folder: Path, settings: Mapping[str, Any]) -> tuple[dict[str, int], list[str]]:
    vocab_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    if not (vocab_file.is_file() and merges_file.is_file()):
        raise ConversionError(
            f"{folder} has no tokenizer (neither tokenizer.json nor vocab.json with merges.txt). Download it again."
        )
    if not str(settings.get("tokenizer_class", "")).startswith("Qwen2Tokenizer"):
        raise ConversionError(
            f"{folder / 'tokenizer_config.json'}: tokenizer_class is {short_repr(settings.get('tokenizer_class'))}; "
            "without a tokenizer.json only Qwen2Tokenizer can be converted."
        )
    vocab = read_typed(vocab_file, dict[str, _Id])
    lines = read_text(merges_file).split("\n")
    merges = [line for line in lines if line.strip() and not line.startswith("#version")]
    for file, held in ((vocab_file, vocab), (merges_file, merges)):
        if not held:
            raise ConversionError(f"{file} is damaged: it is empty. Download it again.")
    assert vocab is not None
    return vocab, merges


def _added(
    folder: Path, listed: Sequence[AddedToken], settings: Mapping[str, Any], vocab: Mapping[str, int]
) -> list[AddedToken]:
    """All added tokens: those of tokenizer.json first, then further ones from the other files."""
    known = {token.content for token in listed}
    others = {token.content: token for token in _from_settings(folder, settings) if token.content not in known}
    for text in sorted(_named_specials(folder, settings) - known):
        if text in others:
            others[text] = msgspec.structs.replace(others[text], special=True)
        elif text in vocab and _markup(text):  # a word such as "!" may be named, too, but stays a word
            others[text] = AddedToken(vocab[text], text, True)
    return [*listed, *others.values()]


def _from_settings(folder: Path, settings: Mapping[str, Any]) -> list[AddedToken]:
    """The tokens of added_tokens_decoder or, if it is missing, of added_tokens.json, as older tools write it."""
    decoder = settings.get("added_tokens_decoder")
    if decoder is not None:
        where = f"{folder / 'tokenizer_config.json'}: added_tokens_decoder"
        entries = as_type(decoder, dict[str, _Flags], where)
        return [AddedToken(_id(number, where), flags.content, flags.special) for number, flags in entries.items()]
    older = read_typed(folder / "added_tokens.json", dict[str, _Id]) or {}
    return [AddedToken(number, text) for text, number in older.items()]


def _id(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ConversionError(f"{where} is damaged: {short_repr(text)} is not a token id. Download it again.")
    return int(text)


def _named_specials(folder: Path, settings: Mapping[str, Any]) -> set[str]:
    """The texts of the special tokens in the settings."""
    older = read_typed(folder / "special_tokens_map.json", dict[str, Any]) or {}
    texts: set[str] = set()
    for source in (settings, older):
        others = source.get("additional_special_tokens") or []
        group = {str(i): one for i, one in enumerate(others)} if isinstance(others, list) else {}
        named = [named_token(source, f"{role}_token") for role in ROLES] + [named_token(group, key) for key in group]
        texts.update(text for text in named if text)
    return texts


def _check_ids(folder: Path, vocab: Mapping[str, int], added: Sequence[AddedToken]) -> None:
    """Check that each text has one id and each id one text."""
    texts: dict[int, str] = {}
    for text, number in [*vocab.items(), *((token.content, token.id) for token in added)]:
        other = texts.setdefault(number, text)
        if other != text or vocab.get(text, number) != number:
            what = f"{short_repr(other)} and {short_repr(text)} have the id {number}"
            if other == text:
                what = f"{short_repr(text)} has the ids {vocab[text]} and {number}"
            raise ConversionError(
                f"{folder}: the tokenizer files are damaged or from two checkpoints: {what}. "
                "Download them again, from one revision."
            )


def _check_merges(file: Path, vocab: Mapping[str, int], merges: Sequence[str], added: set[str]) -> None:
    """Check that each merge makes a token out of two, and that a merge makes each longer token, which finds truncated
    files."""
    made = set()
    for merge in merges:
        left, space, right = merge.partition(" ")
        made.add(token := left + right)
        if not (left and space and right) or " " in right or not {left, right, token} <= vocab.keys():
            raise ConversionError(
                f"{file} is damaged: the merge {short_repr(merge)} does not make a token of the vocabulary out of two. "
                "Download it again."
            )
    lost = [text for text in vocab if len(text) > 1 and text not in made and text not in added and not _markup(text)]
    if lost:
        raise ConversionError(
            f"{file} is cut short: no merge makes {len(lost):,} tokens of the vocabulary, the first of them "
            f"{short_repr(lost[0])}. Download it again."
        )


def _markup(text: str) -> bool:
    """Whether the text looks like a control token, which is not the result of a merge."""
    return text[:1] + text[-1:] in ("<>", "[]")
