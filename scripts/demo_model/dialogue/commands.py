"""Complete requests: one command, or one whose tool is missing."""

from dataclasses import dataclass
from random import Random

from .actions import ACTIONS
from .intents import Intent, draw_intent, fits
from .scene import Scene
from .spelling import LAYOUTS, make_tools
from .wording import ask, polite
from .words import Lang

_TRIES = 20


@dataclass(frozen=True, slots=True)
class Request:
    """What the user says, and the intent that answers it."""

    said: str
    intent: Intent


def one_command(rng: Random, scene: Scene, lang: Lang) -> Request | None:
    """Something that one of the scene's tools can do, every tool as likely as the next."""
    for _ in range(_TRIES if scene.tools else 0):
        tool = rng.choice(scene.tools)
        action = rng.choice([action for action in ACTIONS if scene.tool_for(action) is tool])
        request = _request(rng, draw_intent(rng, tool, action, lang, scene.split), scene)
        if request:
            return request
    return None


def without_tool(rng: Random, scene: Scene, lang: Lang) -> Request | None:
    """A command that none of the scene's tools can do."""
    for _ in range(_TRIES):
        action = rng.choice(ACTIONS)
        if scene.tool_for(action):
            continue
        for tool in make_tools(rng, action.family, rng.choice(LAYOUTS[action.family]), scene.split):
            intent = draw_intent(rng, tool, action, lang, scene.split) if fits(tool, action) else None
            request = _request(rng, intent, scene)
            if request:
                return request
    return None


def _request(rng: Random, intent: Intent | None, scene: Scene) -> Request | None:
    sentence = ask(rng, intent, scene.split) if intent else None
    if intent is None or sentence is None:
        return None
    return Request(polite(rng, sentence, intent.lang, question=intent.action.question), intent)
