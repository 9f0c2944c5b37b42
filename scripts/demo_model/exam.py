"""The questions for measuring: held-out dialogues, each command asked with thinking on and off.

A question knows the calls that are right and what in them training never saw, beside the
wording, which is new in every command.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from .dialogue.dialogues import Dialogue, write_dialogue
from .dialogue.scene import Scene, draw_scene
from .dialogue.split import Split
from .dialogue.words import LANGS, WORDS, Lang
from .samples import sample_at

_SHARES = {"first": 0.7, "follow-up": 0.3, "result": 0.2, "no tool": 0.1, "talk": 0.1}
_UNSEEN_ROOMS = {form for word in WORDS["unseen room"] for form in (*word.en, *word.zh)}


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt and the right answer: `calls`, or `text` where no call is right."""

    prompt: str
    calls: Sequence[Mapping[str, Any]]
    text: str
    lang: Lang
    thinking: bool
    kind: str
    unseen: frozenset[str]


def exam(commands: int, seed: int = 7) -> list[Question]:
    """Questions from held-out dialogues: so many device commands, and fewer of the other kinds.

    Each is asked twice, with thinking on and off, so there are twice as many questions.
    """
    rng = Random(seed)
    wanted = {kind: round(share * commands) for kind, share in _SHARES.items()}
    questions: list[Question] = []
    while any(wanted.values()):
        dialogue = write_dialogue(rng, draw_scene(rng, Split.HELD_OUT), rng.choice(LANGS))
        for index, mark in dialogue.marks.items():
            if wanted[mark.kind]:
                wanted[mark.kind] -= 1
                questions += [_question(dialogue, index, thinking=thinking) for thinking in (True, False)]
    return questions


def _question(dialogue: Dialogue, index: int, *, thinking: bool) -> Question:
    answer, mark = dialogue.messages[index], dialogue.marks[index]
    calls = [call["function"] for call in answer.get("tool_calls", ())]
    prompt = sample_at(dialogue, index, thinking=thinking).prompt
    return Question(prompt, calls, answer["content"], mark.lang, thinking, mark.kind, _unseen(dialogue.scene, calls))


def _unseen(scene: Scene, calls: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """What is new in the right calls."""
    tools = {tool.name: tool for tool in scene.tools}
    names = [call["name"] for call in calls]
    values = [value for call in calls for value in call["arguments"].values()]
    new = set()
    if any(tools[name].unseen for name in names):
        new.add("tool spelling")
    if any(isinstance(value, str) and value in _UNSEEN_ROOMS for value in values):
        new.add("room")
    return frozenset(new)
