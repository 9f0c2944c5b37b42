"""How a request is put into a sentence: frame, noun, politeness, punctuation.

Which frame and noun may be used with which values is what the split holds out; politeness
and punctuation go around either and are never held out themselves.
"""

from collections.abc import Iterable, Iterator
from random import Random

from .actions import NOUNS
from .intents import Intent
from .numbers import NUMBERS
from .split import Split, held_out
from .tables import phrases, table
from .words import Lang

_NO_PRONOUN = (" on {it}", " off {it}", " up {it}")
_ASKS = ("can", "could", "would", "能不能", "可以")

Keyed = tuple[tuple[object, ...], str]


def ask(rng: Random, intent: Intent, split: Split) -> str | None:
    """A bare sentence for the intent from the split, or None when the split has none."""
    return _choose(rng, "say", _sentences(intent), split)


def ask_again(rng: Random, intent: Intent, split: Split) -> str | None:
    """The same with a pronoun for the thing, or in short: what a follow-up says."""
    wording, nouns = intent.action.wording[intent.lang], NOUNS.get(intent.action.family)
    pronoun = nouns[intent.lang].pronoun if nouns else ""
    frames = [frame for frame in wording.frames if _takes_pronoun(frame)]
    said = [(frame, intent.fill(frame, it=pronoun)) for frame in frames] + [(short, short) for short in wording.again]
    return _choose(rng, "again", (((*_identity(intent), frame), sentence) for frame, sentence in said), split)


def ask_too(rng: Random, intent: Intent, split: Split) -> str | None:
    """The same for another room or city, said in short."""
    frames = intent.action.wording[intent.lang].too
    return _choose(rng, "too", (((*_identity(intent), frame), intent.fill(frame)) for frame in frames), split)


def _choose(rng: Random, kind: str, sentences: Iterable[Keyed], split: Split) -> str | None:
    possible = [said for key, said in sentences if held_out(kind, *key) == (split is Split.HELD_OUT)]
    return rng.choice(possible) if possible else None


def _sentences(intent: Intent) -> Iterator[Keyed]:
    """Every way to say the intent, each with the key that the split goes by."""
    with_room = "room" in intent.values
    for frame in intent.action.wording[intent.lang].frames:
        if "{room}" in frame and not with_room:
            continue
        for form in range(len(intent.noun_forms()) if "{it}" in frame else 1):
            yield (*_identity(intent), frame, form), intent.fill(frame, it=intent.noun(form))


def _takes_pronoun(frame: str) -> bool:
    """Not at the beginning and not after "on": nobody says "it turn on" or "turn on it"."""
    return "{it}" in frame[1:] and "{room}" not in frame and not frame.endswith(_NO_PRONOUN)


def _identity(intent: Intent) -> tuple[object, ...]:
    """Language, action and every value but numbers, which are held out on their own."""
    values = sorted((s, value.key) for s, value in intent.values.items() if s not in NUMBERS)
    return intent.lang, intent.action.name, tuple(values)


def polite(rng: Random, sentence: str, lang: Lang, *, question: bool = False, after: bool = False) -> str:
    """Something around the sentence, as people do."""
    around = table("sentences")["question" if question else "after" if after else "order"][lang]
    wrap = rng.choice(phrases(around))
    return punctuated(rng, wrap.format(sentence), lang, question=question or wrap.startswith(_ASKS))


def punctuated(rng: Random, text: str, lang: Lang, *, question: bool) -> str:
    """A capital or not, an end mark or not."""
    if rng.random() < 0.6:
        text = text[0].upper() + text[1:]
    marks = {"en": (".", ".", "", "", "!"), "zh": ("。", "", "", "！")}[lang]
    if question:
        marks = ("？" if lang == "zh" else "?", "?", "")
    return text + rng.choice(marks)
