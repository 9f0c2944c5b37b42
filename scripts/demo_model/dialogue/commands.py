"""Complete requests: one command, two in a breath, one whose tool is missing, one that lacks its room."""

from dataclasses import dataclass
from random import Random

from .actions import ACTIONS
from .intents import Intent, draw_intent, draw_value, fits
from .scene import Scene
from .spelling import LAYOUTS, make_tools
from .split import Split
from .tools import Value
from .wording import ask, joined, polite
from .words import Lang

_TRIES = 20


@dataclass(frozen=True, slots=True)
class Request:
    """What the user says, and the intents that answer it."""

    said: str
    intents: tuple[Intent, ...]


def one_command(rng: Random, scene: Scene, lang: Lang) -> Request | None:
    for _ in range(_TRIES):
        intent = _draw(rng, scene, lang)
        sentence = ask(rng, intent, scene.split) if intent else None
        if intent and sentence:
            return Request(polite(rng, sentence, lang, question=intent.action.question), (intent,))
    return None


def two_commands(rng: Random, scene: Scene, lang: Lang) -> Request | None:
    """Two things at once, or the same in two rooms."""
    for _ in range(_TRIES):
        first, second = _draw(rng, scene, lang), _draw(rng, scene, lang)
        if not first or not second or first.action.question or second.action.question:
            continue
        if "room" in first.values and rng.random() < 0.4:
            request = _two_rooms(rng, first, scene.split)
        else:
            request = _two_things(rng, first, second, scene.split)
        if request:
            return request
    return None


def _two_things(rng: Random, first: Intent, second: Intent, split: Split) -> Request | None:
    sentences = [sentence for intent in (first, second) if (sentence := ask(rng, intent, split))]
    if len(sentences) < 2 or first.call() == second.call():
        return None
    return Request(joined(rng, sentences, first.lang), (first, second))


def _two_rooms(rng: Random, first: Intent, split: Split) -> Request | None:
    here, there = first.values["room"], draw_value(rng, "room", first.tool, first.lang, split)
    if there is None or there.key == here.key:
        return None
    said = (" and " if first.lang == "en" else "和").join((here.said, there.said))
    sentence = ask(rng, first.with_values(room=Value(f"{here.key} and {there.key}", said, said)), split)
    if sentence is None:
        return None
    return Request(polite(rng, sentence, first.lang), (first, first.with_values(room=there)))


def without_room(rng: Random, scene: Scene, lang: Lang) -> Request | None:
    """A command for a tool that requires a room, said without one."""
    for _ in range(_TRIES):
        intent = _draw(rng, scene, lang)
        if intent is None or "room" not in intent.values or "room" not in intent.tool.required:
            continue
        sentence = ask(rng, intent.without("room"), scene.split)
        if sentence:
            return Request(polite(rng, sentence, lang), (intent,))
    return None


def without_tool(rng: Random, scene: Scene, lang: Lang) -> Request | None:
    """A command that none of the scene's tools can do."""
    for _ in range(_TRIES):
        action = rng.choice(ACTIONS)
        if scene.tool_for(action):
            continue
        for tool in make_tools(rng, action.family, rng.choice(LAYOUTS[action.family]), scene.split):
            intent = draw_intent(rng, tool, action, lang, scene.split) if fits(tool, action) else None
            sentence = ask(rng, intent, scene.split) if intent else None
            if intent and sentence:
                return Request(polite(rng, sentence, lang, question=action.question), (intent,))
    return None


def _draw(rng: Random, scene: Scene, lang: Lang) -> Intent | None:
    """An intent for one of the scene's tools, every tool as likely as the next."""
    if not scene.tools:
        return None
    tool = rng.choice(scene.tools)
    actions = [action for action in ACTIONS if scene.tool_for(action) is tool]
    return draw_intent(rng, tool, rng.choice(actions), lang, scene.split) if actions else None
