"""The words of a home: rooms, doors, cities, in both languages."""

from dataclasses import dataclass
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
