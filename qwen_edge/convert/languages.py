"""The languages to which a vocabulary can be cut: the characters that texts in them are written with.

A language is known by its script, and among those in Latin letters by its letters with accents: nothing else of a token
tells the language of its word. Characters that occur in texts of every language are kept for all of them.
Ranges are those of Unicode's blocks (https://www.unicode.org/Public/UNIDATA/Blocks.txt).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from qwen_edge.core.errors import ConversionError

_Ranges = Sequence[tuple[int, int]]  # first and last code point

_ASCII: _Ranges = [(0x00, 0x7F)]
_SYMBOLS: _Ranges = [
    (0x80, 0xBF),  # signs of Latin-1
    (0xD7, 0xD7), (0xF7, 0xF7), (0x300, 0x36F),  # times, divided by, accents that stand alone
    (0x370, 0x3FF),  # Greek, for formulas
    (0x2000, 0x2BFF),  # punctuation, currencies, arrows, mathematics, boxes, dingbats
    (0x2E00, 0x2E7F), (0xFE00, 0xFE0F), (0xFFF0, 0xFFFD),  # more punctuation, variation selectors, replacement
    (0x1F000, 0x1FAFF),  # emoji
]  # fmt: skip
_CJK_MARKS: _Ranges = [(0x3000, 0x303F), (0xFE10, 0xFE1F), (0xFE30, 0xFE4F), (0xFF00, 0xFFEF)]
_HAN: _Ranges = [
    (0x2E80, 0x2FDF), (0x3100, 0x312F), (0x31C0, 0x31EF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF)
]  # fmt: skip
_KANA: _Ranges = [(0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3200, 0x33FF)]
_HANGUL: _Ranges = [(0x1100, 0x11FF), (0x3130, 0x318F), (0xA960, 0xA97F), (0xAC00, 0xD7A3)]
_ARABIC: _Ranges = [(0x600, 0x6FF), (0x750, 0x77F), (0x8A0, 0x8FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFF)]
_CYRILLIC: _Ranges = [(0x400, 0x52F)]
_DEVANAGARI: _Ranges = [(0x900, 0x97F), (0xA8E0, 0xA8FF)]
_VIETNAMESE: _Ranges = [(0x1EA0, 0x1EF9)]


def _letters(lower: str) -> _Ranges:
    """Letters beyond ASCII, and their capitals."""
    return [(ord(letter), ord(letter)) for letter in sorted({*lower, *lower.upper()}) if letter > "\x7f"]


LANGUAGES: Mapping[str, Sequence[_Ranges]] = {
    "ar": [_ARABIC],
    "cs": [_letters("áčďéěíňóřšťúůýž")],
    "da": [_letters("åæéø")],
    "de": [_letters("äéöüß")],
    "el": [[(0x1F00, 0x1FFF)]],
    "en": [_letters("çèéêëïñöü")],  # words such as café and naïve, and names
    "es": [_letters("áéíñóúü")],
    "fi": [_letters("äåöšž")],
    "fr": [_letters("àâæçèéêëîïôùûüÿœ")],
    "he": [[(0x590, 0x5FF), (0xFB1D, 0xFB4F)]],
    "hi": [_DEVANAGARI],
    "hu": [_letters("áéíóöőúüű")],
    "id": [_letters("é")],
    "it": [_letters("àèéìíîòóùú")],
    "ja": [_KANA, _HAN, _CJK_MARKS],
    "ko": [_HANGUL, _CJK_MARKS],
    "nl": [_letters("áèéêëíïóöúüĳ")],
    "no": [_letters("åæéòôø")],
    "pl": [_letters("ąćęłńóśźż")],
    "pt": [_letters("àáâãçéêíóôõúü")],
    "ro": [_letters("âîășşțţ")],
    "ru": [_CYRILLIC],
    "sv": [_letters("äåéö")],
    "th": [[(0xE00, 0xE7F)]],
    "tr": [_letters("âçğîıöşûüİ")],
    "uk": [_CYRILLIC],
    "vi": [_VIETNAMESE, _letters("àáâãèéêìíòóôõùúýăđĩũơư")],
    "zh": [_HAN, _CJK_MARKS],
}
_PIECES = re.compile(rb"[\x00-\x7f]|[\xc0-\xff][\x80-\xbf]*|[\x80-\xbf]+")  # characters, and what is left of cut ones


def check_languages(given: str | None, most: int | None = None) -> tuple[str, ...]:
    """The languages of a list such as "zh,en", each once and sorted, as the order means nothing: the same languages
    give the same file, of the same name. No languages for None. Raises ConversionError for one that is
    not in the table, for an empty list, and if there is a bound `most` of the vocabulary but no list."""
    if given is None and most is not None:
        raise ConversionError("--vocabulary needs --languages, which decide what is kept: add, for example, zh,en.")
    if given is None:
        return ()
    found = tuple(sorted({name.lower() for name in re.split(r"[,\s]+", given) if name}))
    unknown = [name for name in found if name not in LANGUAGES]
    if unknown or not found:
        what = f"{unknown[0]!r} is not a language of this option" if unknown else "no language is given"
        raise ConversionError(
            f"--languages: {what}. Give codes with commas between them, such as zh,en, out of {', '.join(LANGUAGES)}."
        )
    return found


class Alphabet:
    """What texts in some languages are written with: tells which tokens they may need."""

    def __init__(self, languages: Iterable[str]) -> None:
        scripts = [_ASCII, _SYMBOLS, *(ranges for name in languages for ranges in LANGUAGES[name])]
        self._groups: dict[bytes, int] = {}  # by characters and by parts of their UTF-8 bytes
        for group, ranges in enumerate(scripts):
            for first, last in ranges:
                for character in map(chr, range(first, last + 1)):
                    for part in _parts(character.encode()):
                        self._groups.setdefault(part, group)

    def group(self, token: bytes) -> int | None:
        """The number of the token's script, the same for all tokens in that script; None if a character of the token
        is in none of the languages. Parts of a character count as this character."""
        groups = [self._groups.get(piece) for piece in _PIECES.findall(token)]
        known = [group for group in groups if group is not None]
        return max(known) if len(known) == len(groups) else None


def _parts(data: bytes) -> Iterable[bytes]:
    """The bytes of one character, and every stretch of them: a token may begin or end within a character."""
    return (data[start:end] for start in range(len(data)) for end in range(start + 1, len(data) + 1))
