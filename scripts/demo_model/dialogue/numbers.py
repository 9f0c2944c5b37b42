"""Numbers and times of day: their ranges, and the ways to say them in both languages."""

from collections.abc import Sequence
from random import Random

from .split import Split, held_out
from .tables import phrases, table
from .tools import Value
from .words import Lang

NUMBERS: dict[str, Sequence[int]] = {
    "brightness": (*range(1, 101), *range(5, 101, 5), *range(10, 101, 10), *range(10, 101, 10)),
    "position": (*range(1, 101), *range(5, 101, 5), *range(10, 101, 10), *range(10, 101, 10)),
    "volume": (*range(1, 101), *range(5, 101, 5)),
    "temperature": range(16, 31),
    "channel": (*range(1, 20), *range(1, 100)),
    "minutes": (*range(1, 61), *range(5, 125, 5), *range(1, 21)),
}
_ONES, _TENS = (phrases(table("sentences")["number_words"][name]) for name in ("ones", "tens"))
_HAN = "零一二三四五六七八九"
_DAY_PARTS = {"早上": range(5, 11), "下午": range(13, 18), "晚上": range(18, 24)}


def draw_number(rng: Random, slot: str, lang: Lang, split: Split) -> Value:
    """A number of the slot. Training never has the held-out ones; held-out requests mostly do."""
    while True:
        number = rng.choice(NUMBERS[slot])
        unseen = held_out("number", slot, number)
        if unseen == (split is Split.HELD_OUT) or (split is Split.HELD_OUT and rng.random() < 0.1):
            return number_value(slot, number, lang, rng.random())


def number_value(slot: str, number: int, lang: Lang, form: float = 0.0) -> Value:
    """The number said in one of its forms, from the first (0) to the last (1)."""
    forms = phrases(table("sentences")["numbers"][slot][lang])
    said = forms[int(form * len(forms))].format(number, word=in_words(number, lang))
    return Value(str(number), said.replace("minutes", "minute") if number == 1 else said, number)


def in_words(number: int, lang: Lang) -> str:
    """0 to 199, written out."""
    if lang == "zh":
        return _in_han(number)
    if number >= 100:
        return "one hundred" + (f" {in_words(number % 100, lang)}" if number % 100 else "")
    if number < 20:
        return _ONES[number]
    ten = _TENS[number // 10 - 2]
    return f"{ten}-{_ONES[number % 10]}" if number % 10 else ten


def _in_han(number: int) -> str:
    hundred, rest = divmod(number, 100)
    ten, one = divmod(rest, 10)
    ones = _HAN[one] if one else ""
    if hundred:
        return "一百" + (f"{_HAN[ten]}十{ones}" if ten else "零" + ones if one else "")
    if ten:
        return ("" if ten == 1 else _HAN[ten]) + "十" + ones
    return _HAN[one]


def draw_time(rng: Random, lang: Lang) -> Value:
    """A time of day, said in a 12-hour or a 24-hour way, sent as HH:MM."""
    hour, minute = rng.randrange(24), rng.choice((0, 0, 0, 15, 30, 30, 45, rng.randrange(60)))
    plain = f"{hour:02d}:{minute:02d}"
    forms = _times_en(hour, minute) if lang == "en" else _times_zh(hour, minute)
    return Value(plain, rng.choice(forms), plain)


def _times_en(hour: int, minute: int) -> list[str]:
    half, short = ("am" if hour < 12 else "pm"), hour % 12 or 12
    forms = [f"{hour}:{minute:02d}", f"{short}:{minute:02d} {half}"]
    return forms if minute else [*forms, f"{short} {half}", f"{short}{half}"]


def _times_zh(hour: int, minute: int) -> list[str]:
    part = next((name for name, hours in _DAY_PARTS.items() if hour in hours), "")
    short = hour - 12 if part in ("下午", "晚上") else hour
    tail = {0: "点", 30: "点半"}.get(minute, f"点{minute}分")
    return [f"{hour}:{minute:02d}", f"{hour}{tail}", f"{part}{short}{tail}"]
