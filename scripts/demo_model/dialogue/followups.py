"""Requests that make sense only after another: "now turn it off", "a bit brighter", "the bedroom too"."""

from random import Random

from .commands import Request
from .intents import Intent, draw_intent, draw_value
from .numbers import NUMBERS, number_value
from .scene import Scene
from .split import Split, held_out
from .tables import phrases, table
from .wording import ask_again, ask_too, polite, punctuated

_SUBJECT = ("room", "door", "city")
_TRIES = 8


def follow_up(rng: Random, scene: Scene, it: Intent) -> Request | None:
    """Something said about what was asked for last."""
    kinds = [_change, _change, _elsewhere, _more_or_less]
    rng.shuffle(kinds)
    for kind in kinds:
        request = kind(rng, scene, it)
        if request:
            return request
    return None


def _change(rng: Random, scene: Scene, it: Intent) -> Request | None:
    """Another action on the same thing, which is now "it"."""
    kept = {slot: value for slot, value in it.values.items() if slot in _SUBJECT}
    possible = [(action, tool) for action, tool in scene.possible(it.action.family) if not action.question]
    for _ in range(_TRIES if possible else 0):
        action, tool = rng.choice(possible)
        intent = draw_intent(rng, tool, action, it.lang, scene.split, kept)
        if intent is None or intent.call() == it.call():
            continue
        sentence = ask_again(rng, intent, scene.split)
        if sentence:
            return Request(polite(rng, sentence, it.lang, after=True), (intent,))
    return None


def _elsewhere(rng: Random, scene: Scene, it: Intent) -> Request | None:
    """The same for another room or city."""
    slot = next((slot for slot in ("room", "city") if slot in it.values), None)
    if slot is None or it.tool.parameter(slot) is None:
        return None
    other = draw_value(rng, slot, it.tool, it.lang, scene.split)
    if other is None or other.key == it.values[slot].key:
        return None
    intent = it.with_values(**{slot: other})
    sentence = ask_too(rng, intent, scene.split)
    return Request(punctuated(rng, sentence, it.lang, question=it.action.question), (intent,)) if sentence else None


def _more_or_less(rng: Random, scene: Scene, it: Intent) -> Request | None:
    """A step up or down from the number that was set last."""
    steps = table("sentences")["steps"]
    slot = next((slot for slot in steps if slot in it.values), None)
    if slot is None:
        return None
    up = rng.random() < 0.5
    number = int(it.values[slot].key) + (steps[slot]["size"] if up else -steps[slot]["size"])
    sentences = [
        sentence
        for sentence in phrases(steps[slot][it.lang]["more" if up else "less"])
        if held_out("step", slot, number, sentence) == (scene.split is Split.HELD_OUT)
    ]
    if number not in NUMBERS[slot] or not sentences:
        return None
    intent = it.with_values(**{slot: number_value(slot, number, it.lang)})
    return Request(punctuated(rng, rng.choice(sentences), it.lang, question=False), (intent,))


def unknown_step(rng: Random, scene: Scene, it: Intent) -> Request | None:
    """ "A bit brighter" with no number known, and the intent that a number will complete."""
    if it.action.name != "light on":
        return None
    goal = next(((action, tool) for action, tool in scene.possible("light") if "brightness" in action.slots), None)
    if goal is None:
        return None
    kept = {slot: value for slot, value in it.values.items() if slot == "room"}
    intent = draw_intent(rng, goal[1], goal[0], it.lang, scene.split, kept)
    said = phrases(table("sentences")["steps"]["brightness"][it.lang][rng.choice(("more", "less"))])
    return Request(punctuated(rng, rng.choice(said), it.lang, question=False), (intent,)) if intent else None
