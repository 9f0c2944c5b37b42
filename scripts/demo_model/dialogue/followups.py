"""Requests that make sense only after another: "now turn it off", "the bedroom too"."""

from random import Random

from .commands import Request
from .intents import Intent, draw_intent, draw_value
from .scene import Scene
from .wording import ask_again, ask_too, polite, punctuated

_SUBJECT = ("room", "door", "city")
_TRIES = 8


def follow_up(rng: Random, scene: Scene, it: Intent) -> Request | None:
    """Something said about what was asked for last."""
    if rng.random() < 0.6:
        return _change(rng, scene, it) or _elsewhere(rng, scene, it)
    return _elsewhere(rng, scene, it) or _change(rng, scene, it)


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
            return Request(polite(rng, sentence, it.lang, after=True), intent)
    return None


def _elsewhere(rng: Random, scene: Scene, it: Intent) -> Request | None:
    """The same for another room or city."""
    slot = next((slot for slot in ("room", "city") if slot in it.values), None)
    if slot is None or it.tool.parameter(slot) is None:
        return None
    other = draw_value(rng, slot, it.lang, scene.split)
    if other.key == it.values[slot].key:
        return None
    intent = it.with_values(**{slot: other})
    sentence = ask_too(rng, intent, scene.split)
    return Request(punctuated(rng, sentence, it.lang, question=it.action.question), intent) if sentence else None
