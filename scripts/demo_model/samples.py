"""From dialogues to texts: a prompt exactly as the daemon renders it, and the answer to learn.

Both come out of the chat template, so what is trained is what is served. Each answer is
written for one thinking mode; whether the history of the same question still carries its
thoughts is up to the client, so both occur.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from .dialogue.dialogues import Dialogue, Message
from .render import render

SOFT_SWITCH = " /no_think"


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer in its context; `message` is the answer's index in the dialogue."""

    prompt: str
    target: str
    thinking: bool
    message: int


def samples_of(rng: Random, dialogue: Dialogue) -> Iterator[Sample]:
    """One sample for every assistant message, in a thinking mode drawn for each."""
    for index in dialogue.marks:
        if rng.random() < 0.03:
            yield switched_off_by_user(dialogue, index)
        else:
            yield sample_at(dialogue, index, thinking=rng.random() < 0.5, thoughts_kept=rng.random() < 0.5)


def sample_at(dialogue: Dialogue, index: int, *, thinking: bool, thoughts_kept: bool = False) -> Sample:
    """The answer at the index, with thinking on or off."""
    history = [_shown(message, thoughts_kept and thinking) for message in dialogue.messages[:index]]
    return _sample(dialogue, history, index, thinking=thinking, thought=thinking)


def switched_off_by_user(dialogue: Dialogue, index: int) -> Sample:
    """Thinking is on, but the question ends in Qwen3's soft switch: the think block stays empty."""
    history = [_shown(message, False) for message in dialogue.messages[:index]]
    question = max(i for i, message in enumerate(history) if message["role"] == "user")
    history[question] = {"role": "user", "content": history[question]["content"] + SOFT_SWITCH}
    return _sample(dialogue, history, index, thinking=True, thought=False)


def _sample(dialogue: Dialogue, history: list[Message], index: int, *, thinking: bool, thought: bool) -> Sample:
    tools = [tool.schema() for tool in dialogue.scene.tools]
    prompt = render(history, tools, thinking=thinking, prompt=True)
    whole = render([*history, _shown(dialogue.messages[index], thought)], tools)
    assert whole.startswith(prompt), "the template renders an answer as it announces it"
    return Sample(prompt, whole[len(prompt) :].removesuffix("\n"), thinking, index)


def _shown(message: Message, thought: bool) -> Message:
    if thought or message["role"] != "assistant":
        return message
    return {key: value for key, value in message.items() if key != "reasoning_content"}
