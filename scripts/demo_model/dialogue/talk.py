"""Talk without tools: who the model is, greetings, a few facts, and polite ignorance."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from .tables import phrases, table
from .words import LANGS, Lang


@dataclass(frozen=True, slots=True)
class Topic:
    """Something to talk about in one language; `{}` in a question takes one of the names."""

    asked: tuple[str, ...]
    names: tuple[str, ...]
    answer: str
    thought: str

    def ask(self, rng: Random) -> str:
        return rng.choice(self.asked).format(rng.choice(self.names) if self.names else "")


def _topic(entry: Mapping[str, str]) -> Topic:
    return Topic(phrases(entry["asked"]), phrases(entry.get("names")), entry["answer"], entry["thought"])


def _fact(name: str, lang: Lang, entry: Mapping[str, str]) -> Topic:
    asked = phrases(entry["asked"])
    thought = {
        "en": f"A simple question ({name}). I answer in one sentence.",
        "zh": f"用户问：{asked[0]}。一句话回答。",
    }[lang]
    return Topic(asked, (), entry["answer"], thought)


def _by_language(entries: Mapping[str, Any]) -> dict[Lang, list[Topic]]:
    return {lang: [_topic(entry[lang]) for entry in entries.values()] for lang in LANGS}


_SMALL_TALK = _by_language(table("talk"))
_RELATIVITY = {lang: _topic(table("facts")["relativity"][lang]) for lang in LANGS}
_FACTS = {lang: [_fact(name, lang, entry[lang]) for name, entry in table("facts")["facts"].items()] for lang in LANGS}


def draw_topic(rng: Random, lang: Lang) -> Topic:
    """Identity and ignorance are the first and the last entry of the small talk."""
    small = _SMALL_TALK[lang]
    choices = (small[0], rng.choice(small), _RELATIVITY[lang], rng.choice(_FACTS[lang]), small[-1])
    return rng.choices(choices, (3, 4, 2, 4, 3))[0]
