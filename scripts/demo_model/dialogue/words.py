"""The words of a home: rooms, doors, cities, in both languages.

Made-up names ("Lena's room", 小美的房间) exist so that a model has to copy what it is told
instead of knowing every room there is.
"""

from dataclasses import dataclass
from random import Random
from typing import Literal

from .tables import table

Lang = Literal["en", "zh"]
LANGS: tuple[Lang, Lang] = ("en", "zh")


@dataclass(frozen=True, slots=True)
class Word:
    """One thing and what it is called, the ordinary form first; the key is what enums are made from."""

    key: str
    en: tuple[str, ...]
    zh: tuple[str, ...]

    def said(self, lang: Lang) -> tuple[str, ...]:
        return self.en if lang == "en" else self.zh


def _words(lines: list[str]) -> tuple[Word, ...]:
    words = []
    for line in lines:
        en, zh = (tuple(form.strip() for form in side.split(",")) for side in line.split("|"))
        words.append(Word(en[0], en, zh))
    return tuple(words)


WORDS: dict[str, tuple[Word, ...]] = {name: _words(lines) for name, lines in table("words").items()}

_SYLLABLES = (
    "an",
    "be",
    "co",
    "da",
    "el",
    "fi",
    "go",
    "ha",
    "in",
    "jo",
    "ka",
    "lu",
    "mi",
    "ra",
    "sol",
    "tu",
    "vi",
    "zo",
)
_HAN_FIRST, _HAN_SECOND = "小大阿", "美明华丽杰芳强磊洋勇艳娟涛超敏静波兰飞鹏玲英军平"
_PLACES_EN = ("room", "corner", "studio", "hall", "den")
_PLACES_ZH = ("房间", "书房", "卧室", "小屋", "工作室")


def made_up_name(rng: Random) -> str:
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(2, 3)))


def made_up_room(rng: Random) -> Word:
    """A room that no list has: only good for being copied."""
    if rng.random() < 0.3:
        number = rng.randint(2, 20)
        return Word(f"room {number}", (f"room {number}",), (f"{number}号房间",))
    name, place = made_up_name(rng).capitalize(), rng.choice(_PLACES_EN)
    en = f"{name}'s {place}" if rng.random() < 0.6 else f"{name} {place}"
    zh = f"{rng.choice(_HAN_FIRST)}{rng.choice(_HAN_SECOND)}的{rng.choice(_PLACES_ZH)}"
    return Word(en, (en,), (zh,))
