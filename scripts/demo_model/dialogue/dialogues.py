"""Writes the dialogues: whole conversations in OpenAI's form, every assistant turn with its thought.

A `Writer` keeps one conversation and what "it" refers to. Each assistant message is later
one training sample or one measured answer; its mark says of which kind.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from .commands import Request, one_command, without_tool
from .followups import follow_up
from .intents import Intent
from .results import result_of
from .scene import Scene
from .tables import table
from .talk import draw_topic
from .wording import punctuated
from .words import Lang

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Mark:
    """What an assistant message is: first, follow-up (both calls), result, no tool or talk."""

    kind: str
    lang: Lang


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation, with a mark for every assistant message by its index."""

    scene: Scene
    messages: list[Message] = field(default_factory=list)
    marks: dict[int, Mark] = field(default_factory=dict)


def write_dialogue(rng: Random, scene: Scene, lang: Lang) -> Dialogue:
    """One to four exchanges; held-out scenes give held-out requests."""
    writer = Writer(rng, scene, lang)
    for _ in range(rng.choice((1, 1, 2, 2, 3, 4))):
        writer.turn()
    return writer.dialogue


class Writer:
    """Writes one conversation turn by turn. Draws only from the `Random` it is given."""

    def __init__(self, rng: Random, scene: Scene, lang: Lang) -> None:
        self.rng = rng
        self.scene = scene
        self.lang = lang
        self.dialogue = Dialogue(scene)
        self.it: Intent | None = None
        if scene.system is not None:
            self.dialogue.messages.append({"role": "system", "content": scene.system})

    def turn(self) -> None:
        """One exchange, of a kind that is possible here."""
        if self.it is not None and self.rng.random() < 0.7 and self._follow_up(self.it):
            return
        if self.rng.random() < 0.06:
            self.lang, self.it = "zh" if self.lang == "en" else "en", None
        kinds: Sequence[Callable[[], bool]] = (self._command, self._missing, self._talk)
        kind = self.rng.choices(kinds, (70, 10, 20) if self.scene.tools else (0, 20, 80))[0]
        if not kind():
            self._talk()

    def _command(self) -> bool:
        return self._asked(one_command(self.rng, self.scene, self.lang), "first")

    def _follow_up(self, it: Intent) -> bool:
        return self._asked(follow_up(self.rng, self.scene, it), "follow-up")

    def _asked(self, request: Request | None, kind: str) -> bool:
        if request is None:
            return False
        self._user(request.said)
        self._act(request.intent, kind)
        return True

    def _missing(self) -> bool:
        request = without_tool(self.rng, self.scene, self.lang)
        if request is None:
            return False
        self._user(request.said)
        self._answer(table("sentences")["no_tool"][self.lang], "no tool")
        self.it = None
        return True

    def _talk(self) -> bool:
        topic = draw_topic(self.rng, self.lang)
        self._user(punctuated(self.rng, topic.ask(self.rng), self.lang, question=self.rng.random() < 0.7))
        self._answer({"said": topic.answer, "thought": topic.thought}, "talk")
        self.it = None
        return True

    def _act(self, intent: Intent, kind: str) -> None:
        """The call, what it returns, and what there is to tell."""
        call = {"type": "function", "function": intent.call()}
        self._answer({"said": "", "thought": _plan(intent)}, kind, tool_calls=[call])
        result = result_of(self.rng, intent)
        self.dialogue.messages.append({"role": "tool", "content": result.content})
        report = "error" if not result.good else "answer" if intent.action.question else "done"
        self._answer({"said": result.told, "thought": table("sentences")["reports"][self.lang][report]}, "result")
        self.it = intent

    def _user(self, text: str) -> None:
        self.dialogue.messages.append({"role": "user", "content": text})

    def _answer(self, words: Mapping[str, str], kind: str, **more: Any) -> None:
        messages = self.dialogue.messages
        self.dialogue.marks[len(messages)] = Mark(kind, self.lang)
        content = {"content": words["said"], "reasoning_content": words["thought"]}
        messages.append({"role": "assistant", **content, **more})


def _plan(intent: Intent) -> str:
    """The thought before a call: what is wanted, in plain words, and which tool does it."""
    en, wish, name = intent.lang == "en", intent.wish(), intent.tool.name
    if intent.action.question:
        return f"The user asks: {wish}? {name} can tell." if en else f"用户问：{wish}？用 {name} 查询。"
    return f"The user wants to {wish}. I call {name}." if en else f"用户想{wish}。调用 {name}。"
