"""Measures a GGUF of the demo model on held-out dialogues, through llama.cpp.

    python -m scripts.demo_model.evaluate build/demo.gguf [--commands 1000] [--sampled]

Prints a table and writes JSON beside it if asked. Greedy unless `--sampled`, which uses the
settings of generation_config.json. Needs llama-cpp-python, not torch.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from .answers import is_right, read
from .exam import Question, exam
from .speaker import Sampling, Speaker, sampling_of


def groups(question: Question) -> Iterator[str]:
    """The lines of the table that a question counts in."""
    if question.kind not in ("first", "follow-up"):
        yield {"result": "told the tool's result", "no tool": "said that no tool fits", "talk": "small talk and facts"}[
            question.kind
        ]
        return
    mode = "thinking" if question.thinking else "no thinking"
    yield "device commands"
    yield f"commands, {question.kind} turn"
    yield f"commands, {question.lang}, {mode}"
    for new in sorted(question.unseen):
        yield f"commands, unseen {new}"
    if any(
        isinstance(value, int) and not isinstance(value, bool)
        for call in question.calls
        for value in call["arguments"].values()
    ):
        yield "commands, with a number"


def measure(speaker: Speaker, questions: list[Question], sampling: Sampling, wrong: list[str]) -> dict[str, list[bool]]:
    """Right or wrong, by line of the table; what went wrong is appended to `wrong`."""
    scores: dict[str, list[bool]] = defaultdict(list)
    for number, question in enumerate(questions):
        said = speaker.answer(question.prompt, sampling, seed=number)
        right = is_right(read(said), question.calls, question.text)
        for group in groups(question):
            scores[group].append(right)
        if not right:
            wrong.append(
                f"[{question.kind}] {question.prompt[-300:]}\n--> {said}\nnot {question.calls or question.text}"
            )
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--commands", type=int, default=1000)
    parser.add_argument("--sampled", action="store_true", help="draw as generation_config.json says")
    parser.add_argument("--json", type=Path, help="write the rates here")
    parser.add_argument("--wrong", type=Path, help="write wrong answers here")
    options = parser.parse_args()
    sampling = sampling_of() if options.sampled else Sampling()
    started, wrong = time.monotonic(), list[str]()
    scores = measure(Speaker(options.gguf), exam(options.commands), sampling, wrong)
    rates = {group: {"right": sum(right), "of": len(right)} for group, right in sorted(scores.items())}
    for group, rate in rates.items():
        print(f"{group:40s} {rate['right']:5d} / {rate['of']:5d}  {rate['right'] / rate['of']:7.2%}")
    print(f"{time.monotonic() - started:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(rates, indent=1), encoding="utf-8")
    if options.wrong:
        options.wrong.write_text("\n\n".join(wrong), encoding="utf-8")


if __name__ == "__main__":
    main()
