"""Made-up names: only good for being copied, so that a model must copy what it is told.

Held-out dialogues have rooms that no training ever named. They come out right only if
training made copying necessary, with names of every shape and almost every letter.
"""

from random import Random

from .tables import phrases, table
from .words import WORDS, Word

_PARTS = table("names")
_ONSETS, _VOWELS = phrases(_PARTS["onsets"]), phrases(_PARTS["vowels"])
_CODAS = ("",) * 9 + phrases(_PARTS["codas"])
_PLACES_EN, _PLACES_ZH = phrases(_PARTS["places_en"]), phrases(_PARTS["places_zh"])
_WIDER = table("wider")
_RARE_EN, _RARE_ZH = phrases(_WIDER["rooms_en"]), phrases(_WIDER["rooms_zh"])
_NEVER = {form for word in WORDS["unseen room"] for form in (*word.en, *word.zh)}


def made_up_name(rng: Random) -> str:
    """Two or three syllables, in lower case."""
    count = rng.choice((2, 2, 2, 3))
    return "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(count))


def made_up_room(rng: Random) -> Word:
    """A room that no list has: a number, somebody's, or a word for a room that does not exist."""
    if rng.random() < 0.2:
        number = rng.randint(2, 20)
        return Word(f"room {number}", (f"room {number}",), (f"{number}号房间",))
    han = "".join(rng.choice(_PARTS["han"]) for _ in range(rng.choice((1, 2, 2))))
    name, place = made_up_name(rng), rng.choice(_PLACES_EN)
    en = rng.choice((name, name, f"{name.capitalize()} {place}", f"{name.capitalize()}'s {place}"))
    zh = han + rng.choice(("", "", "的")) + rng.choice(_PLACES_ZH)
    return made_up_room(rng) if {en, zh} & _NEVER else Word(en, (en,), (zh,))


def rare_room(rng: Random) -> Word:
    """A room of a longer list; in Chinese every second time some characters out of thousands."""
    en, zh = rng.choice(_RARE_EN), rng.choice(_RARE_ZH)
    if rng.random() < 0.5:
        zh = "".join(_any_han(rng) for _ in range(rng.randint(1, 4))) + rng.choice(_PLACES_ZH)
    return rare_room(rng) if {en, zh} & _NEVER else Word(en, (en,), (zh,))


def _any_han(rng: Random) -> str:
    """One of the 3,755 common characters: the first level of GB 2312."""
    while True:
        try:
            return bytes((rng.randint(0xB0, 0xD7), rng.randint(0xA1, 0xFE))).decode("gb2312")
        except UnicodeDecodeError:  # the last row is not full
            continue
