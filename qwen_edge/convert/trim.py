"""Cuts a byte-level BPE vocabulary to the tokens that texts in some languages need, and gives them new ids.

Kept are all single bytes, so that any text has tokens; all special and added tokens; and the tokens whose characters
the languages use (languages.py). A kept token keeps its parts and its merges, which stay in their order: a text whose
tokens are all kept is split as before, because each merge that made them is still there, and none was added.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from qwen_edge.convert.end_tokens import NORMAL, UNUSED
from qwen_edge.convert.languages import Alphabet
from qwen_edge.convert.tokenizer import Tokenizer
from qwen_edge.core.errors import ConversionError

MULTIPLE = 128  # rows of the embedding, which kernels take in groups


@dataclass(frozen=True)
class Trim:
    """A cut. `rows`: the old ids of the kept tokens, by new id. `tokens`: how many of them are in use; `of`: how many
    tokens the whole vocabulary has in use."""

    languages: Sequence[str]
    rows: Sequence[int]
    tokens: int
    of: int


def choose_rows(tokenizer: Tokenizer, languages: Sequence[str], most: int | None) -> Trim:
    """The rows to keep; a multiple of 128 of them, and not more than `most`. Raises ConversionError if `most` is less
    than what every vocabulary needs."""
    cut = _Cut(tokenizer)
    cut.keep(_always(tokenizer))
    needed = len(cut.kept)
    rows = len(tokenizer.texts) if most is None else most // MULTIPLE * MULTIPLE
    if rows < needed:
        raise ConversionError(
            f"--vocabulary {most}: single bytes and special tokens alone are {needed}, and the rows are a multiple of "
            f"{MULTIPLE}. Give at least {-(-needed // MULTIPLE) * MULTIPLE}."
        )
    cut.fill(_by_use(tokenizer, Alphabet(languages)), rows)
    rows = min(rows, -(-len(cut.kept) // MULTIPLE) * MULTIPLE, len(tokenizer.texts))
    cut.fill(range(len(tokenizer.texts)), rows)  # the most common of the others, up to the multiple
    used = sum(kind != UNUSED for kind in tokenizer.kinds)
    return Trim(languages, sorted(cut.kept), sum(tokenizer.kinds[token] != UNUSED for token in cut.kept), used)


def trim_tokenizer(tokenizer: Tokenizer, trim: Trim) -> Tokenizer:
    """The same tokenizer with the kept tokens only, under their new ids."""
    new = {old: i for i, old in enumerate(trim.rows)}
    kinds = [tokenizer.kinds[old] for old in trim.rows]
    texts = [
        f"[PAD{i}]" if kind == UNUSED else tokenizer.texts[old]
        for i, (old, kind) in enumerate(zip(trim.rows, kinds, strict=True))
    ]
    ordinary = {text for text, kind in zip(texts, kinds, strict=True) if kind != UNUSED}
    return dataclasses.replace(
        tokenizer,
        texts=texts,
        kinds=kinds,
        merges=[merge for merge in tokenizer.merges if merge.replace(" ", "") in ordinary],
        roles={role: new[token] for role, token in tokenizer.roles.items()},
        added={text: new[token] for text, token in tokenizer.added.items()},
        end_tokens=[new[token] for token in tokenizer.end_tokens],
    )


class _Cut:
    """A growing set of tokens that contains the parts of each of its tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.kept: set[int] = set()
        self._texts = tokenizer.texts
        self._ids = {text: i for i, text in enumerate(tokenizer.texts)}
        self._parts: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for merge in tokenizer.merges:
            left, _, right = merge.partition(" ")
            self._parts[left + right].append((left, right))

    def keep(self, tokens: Iterable[int]) -> None:
        """Add tokens and their parts."""
        for token in tokens:
            self.kept |= self._missing(token)

    def fill(self, tokens: Iterable[int], most: int) -> None:
        """Add tokens in this order, up to `most` in all. A token that does not fit with its parts is passed over."""
        for token in tokens:
            if len(self.kept) >= most:
                return
            missing = self._missing(token)
            if len(self.kept) + len(missing) <= most:
                self.kept |= missing

    def _missing(self, token: int) -> Set[int]:
        """The token and the tokens it is made of, as far as they are not there yet."""
        missing: set[int] = set()
        open_ends = [token]
        while open_ends:
            token = open_ends.pop()
            if token not in self.kept and token not in missing:
                missing.add(token)
                open_ends += (self._ids[part] for pair in self._parts.get(self._texts[token], ()) for part in pair)
        return missing


def _always(tokenizer: Tokenizer) -> Iterator[int]:
    """Tokens that no merge makes (single bytes), special and added tokens, and words that have a role."""
    made = {merge.replace(" ", "") for merge in tokenizer.merges}
    for token, (text, kind) in enumerate(zip(tokenizer.texts, tokenizer.kinds, strict=True)):
        if kind != UNUSED and (kind != NORMAL or text not in made):
            yield token
    yield from (*tokenizer.roles.values(), *tokenizer.end_tokens, *tokenizer.added.values())


def _by_use(tokenizer: Tokenizer, alphabet: Alphabet) -> Sequence[int]:
    """The tokens that the languages need, the most useful first.

    Merges are in the order of their use, but not across languages: Qwen's Chinese words are numbered above nearly all
    English ones, which were there first. So each script is ordered by itself, and scripts are cut by the same share."""
    scripts: dict[int, list[int]] = defaultdict(list)
    ids = {text: token for token, text in enumerate(tokenizer.texts)}
    for text in dict.fromkeys(merge.replace(" ", "") for merge in tokenizer.merges):
        if (group := alphabet.group(_bytes(text))) is not None:
            scripts[group].append(ids[text])
    shares = [(i / len(tokens), token) for tokens in scripts.values() for i, token in enumerate(tokens)]
    return [token for _, token in sorted(shares)]


def _byte_letters() -> Mapping[str, int]:
    """The bytes by the letters that byte-level BPE writes for them: printable ones stand for themselves."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_letters()


def _bytes(text: str) -> bytes:
    """The bytes of a token. A letter that stands for no byte, as in a word that only looks like a token, is written in
    UTF-8."""
    return b"".join(bytes([_BYTES[letter]]) if letter in _BYTES else letter.encode() for letter in text)
