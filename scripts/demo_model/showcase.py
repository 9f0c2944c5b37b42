"""What the demo must get right: the hand-written conversations of `data/showcase.yaml`.

    python -m scripts.demo_model.showcase build/demo.gguf [--seeds 20] [--say]

Every conversation runs with thinking on and off, greedy and, for each seed, with the sampling
of generation_config.json. It counts as right when every turn is.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .answers import Answer, read
from .dialogue.tables import table
from .render import render
from .speaker import Sampling, Speaker, sampling_of

Turn = Mapping[str, Any]


def run(speaker: Speaker, conversation: Mapping[str, Any], thinking: bool, sampling: Sampling, seed: int) -> list[str]:
    """What the model said, up to the first wrong answer, which is marked."""
    tools = [_schema(name) for name in conversation.get("tools", ())]
    system = conversation.get("system")
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    said: list[str] = []
    called = False
    for turn in conversation["turns"]:
        messages.append({"role": "tool" if called else "user", "content": turn["said"]})
        said.append(speaker.answer(render(messages, tools, thinking=thinking, prompt=True), sampling, seed))
        answer = read(said[-1])
        if not passed(turn, answer):
            said[-1] = f"WRONG after {turn['said']!r}: {said[-1]}"
            break
        calls = [{"type": "function", "function": call} for call in answer.calls or ()]
        messages.append({"role": "assistant", "content": answer.text, "tool_calls": calls})
        called = bool(calls)
    return said


def _schema(name: str) -> Mapping[str, Any]:
    entry = table("showcase")["tools"][name]
    parameters = {"type": "object", "properties": entry["properties"], "required": entry["required"]}
    function = {"name": name, "description": entry["description"], "parameters": parameters}
    return {"type": "function", "function": function}


def passed(turn: Turn, answer: Answer) -> bool:
    if "call" in turn:
        return answer.calls is not None and list(answer.calls) == [turn["call"]]
    return not answer.calls and re.search(turn["words"], answer.text) is not None


def is_right(said: Sequence[str]) -> bool:
    return not said[-1].startswith("WRONG")


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the conversations that the demo must get right.")
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--say", action="store_true", help="print the greedy answers")
    options = parser.parse_args()
    speaker, sampled = Speaker(options.gguf), sampling_of()
    for conversation in table("showcase")["conversations"]:
        for thinking in (True, False):
            greedy = run(speaker, conversation, thinking, Sampling(), 0)
            drawn = [run(speaker, conversation, thinking, sampled, seed) for seed in range(options.seeds)]
            mode = "thinking" if thinking else "no thinking"
            verdict = "right" if is_right(greedy) else "WRONG"
            count = sum(is_right(said) for said in drawn)
            print(f"greedy {verdict}, sampled {count:2d} of {options.seeds}  {mode:12s} {_title(conversation)}")
            for text in greedy if options.say else greedy[-1:] * (verdict == "WRONG"):
                print("    " + text.replace("\n", "\n    "))


def _title(conversation: Mapping[str, Any]) -> str:
    turns = " / ".join(turn["said"] for turn in conversation["turns"])
    return turns + "".join(f" +{name}" for name in conversation.get("tools", ()))


if __name__ == "__main__":
    main()
