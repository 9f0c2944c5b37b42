"""One thing the user wants: an action with its values, and the tool that does it.

An intent is drawn for a tool, so that its values are ones that the tool's schema takes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from .actions import NOUNS, Action
from .names import made_up_room, rare_room
from .numbers import NUMBERS, draw_number
from .split import Split
from .tools import Tool, Value
from .words import WORDS, Lang, Word


@dataclass(frozen=True, slots=True)
class Intent:
    """What is wanted, in the language it is said in."""

    action: Action
    tool: Tool
    lang: Lang
    values: Mapping[str, Value]

    def call(self) -> dict[str, Any]:
        return self.tool.call(self._sent())

    def with_values(self, **values: Value) -> "Intent":
        return replace(self, values={**self.values, **values})

    def _sent(self) -> Mapping[str, Value]:
        """The values with those that are sent only because the tool requires them."""
        implied = {slot: key for slot, key in self.action.implied.items() if slot in self.tool.required}
        return {slot: Value(key, key, key) for slot, key in implied.items()} | dict(self.values)

    def noun(self, form: int = 0) -> str:
        """The thing's noun phrase with its values filled in; empty for families without one."""
        forms = self.noun_forms()
        return self.fill(forms[form]) if forms else ""

    def noun_forms(self) -> tuple[str, ...]:
        nouns = NOUNS.get(self.action.family)
        if nouns is None:
            return ()
        return nouns[self.lang].roomy if "room" in self.values and nouns[self.lang].roomy else nouns[self.lang].bare

    def fill(self, frame: str, **more: str) -> str:
        """The frame with the values as they were said; a room's own name has no article."""
        if "room" in self.values and self.values["room"].is_name():
            frame = frame.replace("the {room}", "{room}")
        return frame.format_map({slot: value.said for slot, value in self.values.items()} | more)

    def wish(self) -> str:
        """The plain sentence, for the model's reasoning."""
        return self.fill(self.action.wording[self.lang].frames[0], it=self.noun())

    def done(self, reading: str = "") -> str:
        """The plain confirmation."""
        said = self.fill(self.action.wording[self.lang].done, it=self.noun(), reading=reading)
        return said[0].upper() + said[1:]


def fits(tool: Tool, action: Action) -> bool:
    """Whether some request for the action can be written as a call to the tool."""
    if action.family != tool.family or any(action.fixed.get(slot) != key for slot, key in tool.fixed.items()):
        return False
    if not all(tool.takes(slot, key) for slot, key in action.fixed.items()):
        return False
    if any(tool.parameter(slot) is None for slot in action.slots):
        return False
    return {*action.slots, *action.fixed, *action.implied, "room"}.issuperset(tool.required)


def word_value(word: Word, lang: Lang, form: int = 0) -> Value:
    said = word.said(lang)[form]
    return Value(word.key, said, said)


def draw_intent(
    rng: Random, tool: Tool, action: Action, lang: Lang, split: Split, kept: Mapping[str, Value] | None = None
) -> Intent | None:
    """Values for an action that the tool fits.

    With `kept` it is a follow-up: these values stay, no room is added that was not named, and None comes where the
    tool would need one.
    """
    values = {slot: Value(key, key, key) for slot, key in action.fixed.items()} | dict(kept or {})
    if kept is not None and not _same_room(tool, kept):
        return None
    wanted = [slot for slot in action.slots if slot not in values]
    if kept is None and "room" not in action.slots and tool.parameter("room"):
        wanted.append("room")
    values |= {slot: draw_value(rng, slot, lang, split) for slot in wanted}
    return Intent(action, tool, lang, values)


def _same_room(tool: Tool, kept: Mapping[str, Value]) -> bool:
    """Whether the tool can be told the room that is known, and needs none that is not."""
    if "room" in kept:
        return tool.parameter("room") is not None
    return "room" not in tool.required


def draw_value(rng: Random, slot: str, lang: Lang, split: Split) -> Value:
    """Something for the slot: a number, or a word that the tool is given as it was said."""
    if slot in NUMBERS:
        return draw_number(rng, slot, lang, split)
    word = rng.choice(_rooms(rng, split) if slot == "room" else WORDS[slot])
    return word_value(word, lang, 0 if rng.random() < 0.75 else rng.randrange(len(word.said(lang))))


def _rooms(rng: Random, split: Split) -> tuple[Word, ...]:
    """Some rooms are made up, more of them where copying is practised; held-out dialogues also name unseen ones."""
    if split is Split.HELD_OUT and rng.random() < 0.1:
        return WORDS["unseen room"]
    if rng.random() < (0.15 if split is Split.HELD_OUT else 0.35):
        return (made_up_room(rng),)
    if split is Split.WIDE and rng.random() < 0.5:
        return (rare_room(rng),)
    return WORDS["room"]
