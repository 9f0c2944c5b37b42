"""The file of answers: the questions, how they were asked, the models, and what each has answered.

JSON lines (rate/journal.py). The first is a `Header`; then a line for each model, and one for each answer or error. The
last line about a model's answer to a question counts.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from qwen_edge.core.errors import UserError
from qwen_edge.core.printable import printable
from qwen_edge.rate import journal
from qwen_edge.rate.questions import Question

_Line = TypeVar("_Line", bound=msgspec.Struct)


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How all models are asked. `max_tokens` includes the thinking."""

    temperature: float = 0.0
    max_tokens: int = 512
    thinking: bool = False


class Header(msgspec.Struct, frozen=True, tag_field="line", tag="answers"):
    """`seed`: decides the order in which a rater sees the answers. Nobody who rates may know it."""

    version: Literal[1]
    seed: str
    sampling: Sampling
    questions: tuple[Question, ...]


class Model(msgspec.Struct, frozen=True, tag_field="line", tag="model"):
    """`target`: the URL or file that was given. `served`: what its server calls the model."""

    name: str
    target: str
    served: str = ""


class Answer(msgspec.Struct, frozen=True, tag_field="line", tag="answer"):
    """What a model has answered to a question; or `error`, the reason why there is no answer. `seconds`: from the
    question to the end of the answer. `cut`: the answer reached the largest number of tokens."""

    question: str
    model: str
    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    cut: bool = False
    error: str = ""


@dataclass
class Answers:
    """What the file holds."""

    path: Path
    header: Header
    models: dict[str, Model] = field(default_factory=dict)  # by their names
    lines: dict[tuple[str, str], Answer] = field(default_factory=dict)  # by question and model, errors included

    @property
    def questions(self) -> Sequence[Question]:
        return self.header.questions

    def find(self, question: str, model: str) -> Answer | None:
        """The answer, if there is one."""
        line = self.lines.get((question, model))
        return None if line is None or line.error else line

    def add(self, line: Model | Answer) -> None:
        """Write a model or an answer to the file. Raises UserError."""
        journal.append(self.path, msgspec.to_builtins(line))
        self._take(line)

    def _take(self, line: Model | Answer) -> None:
        if isinstance(line, Model):
            self.models[line.name] = line
        else:
            self.lines[line.question, line.model] = line


def create(path: Path, questions: Sequence[Question], sampling: Sampling, seed: str | None = None) -> Answers:
    """Begin a file, without answers. Raises UserError."""
    header = Header(1, seed or secrets.token_hex(16), sampling, tuple(questions))
    journal.append(path, msgspec.to_builtins(header))
    return Answers(path, header)


def has_begun(path: Path) -> bool:
    """Whether there is such a file with more than a torn first line. Raises UserError."""
    return bool(journal.read(path))


def load(path: Path) -> Answers:
    """Read a file. Raises UserError."""
    records = journal.read(path)
    if not records:
        what = "has no answers" if path.exists() else "does not exist"
        raise UserError(f"{path} {what}. Collect answers first: qwen-edge rate collect {path} URL...")
    answers = Answers(path, _convert(records[0], Header, path, 1))
    for number, record in enumerate(records[1:], 2):
        is_model = record.get("line") == "model"
        answers._take(_convert(record, Model, path, number) if is_model else _convert(record, Answer, path, number))
    known = {question.id for question in answers.questions}
    for question, model in answers.lines:
        if question not in known or model not in answers.models:
            raise UserError(
                f"{path} holds an answer of {printable(model)!r} to {printable(question)!r}, unknown in it."
            )
    return answers


def _convert(record: Mapping[str, Any], kind: type[_Line], path: Path, number: int) -> _Line:
    try:
        return msgspec.convert(record, kind)
    except msgspec.ValidationError as error:
        raise UserError(
            f"{path}, line {number}: {printable(error)}. Is this a file of answers from qwen-edge rate collect?"
        ) from None
