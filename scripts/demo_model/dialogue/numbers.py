"""Numbers: their ranges, and the ways to say them in both languages."""

from collections.abc import Sequence
from random import Random

from .split import Split, held_out
from .tables import phrases, table
from .tools import Value
from .words import Lang

NUMBERS: dict[str, Sequence[int]] = {
    "brightness": range(5, 101, 5),
    "temperature": range(16, 31),
}
_WIDE = NUMBERS | {"brightness": range(1, 101)}


def draw_number(rng: Random, slot: str, lang: Lang, split: Split) -> Value:
    """A number of the slot. Training never has the held-out ones; held-out requests mostly do."""
    while True:
        number = rng.choice(_WIDE[slot] if split is Split.WIDE else NUMBERS[slot])
        unseen = held_out("number", slot, number)
        if unseen == (split is Split.HELD_OUT) or (split is Split.HELD_OUT and rng.random() < 0.1):
            return number_value(slot, number, lang, rng.random())


def number_value(slot: str, number: int, lang: Lang, form: float = 0.0) -> Value:
    """The number said in one of its forms, from the first (0) to the last (1)."""
    forms = phrases(table("sentences")["numbers"][slot][lang])
    said = forms[int(form * len(forms))].format(number)
    return Value(str(number), said, number)
