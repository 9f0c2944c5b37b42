"""The questions that models are asked: ours, or those of a file, whose mistakes are told with their lines.

A file is YAML or JSON (a list of texts, or of mappings with the fields of `Question`), CSV (the first line names the
fields), or any other text file with one question a line.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import yaml

from qwen_edge.core.errors import UserError
from qwen_edge.core.given_file import read_bytes
from qwen_edge.core.printable import printable

_MOST_QUESTIONS = 10_000
_FIELDS = ("question", "id", "language", "kind", "reference")
_LONGEST_NAME = 100  # characters of an id, a language or a kind

Numbered = Iterator[tuple[int, Any]]  # a question as written, with its line


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question. `language`: a tag such as zh, or "". `kind`: a word for a group of questions, or "". `reference`:
    what a right answer says, shown to those who rate, or ""."""

    id: str
    question: str
    language: str = ""
    kind: str = ""
    reference: str = ""


def our_questions() -> list[Question]:
    """The questions of this package, in Chinese and English."""
    return _parse(resources.files("qwen_edge.rate").joinpath("questions.yaml").read_text("utf-8"), "ours.yaml", ".yaml")


def read_questions(file: Path) -> list[Question]:
    """The questions of a file. Raises UserError with the file and the line."""
    content = read_bytes(file)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}, line {line}: this is not UTF-8 text. Save the file as UTF-8.") from None
    return _parse(text, str(file), file.suffix.lower())


def _parse(text: str, where: str, suffix: str) -> list[Question]:
    forms = {".yaml": _of_yaml, ".yml": _of_yaml, ".json": _of_json, ".csv": _of_csv}
    questions, lines = list[Question](), dict[str, int]()
    line = 1
    try:
        for line, written in forms.get(suffix, _of_lines)(text):
            question = _question(written, len(questions) + 1)
            if question.id in lines:
                raise _MistakeError(
                    line, f"the id {printable(question.id)!r} is that of line {lines[question.id]}, too"
                )
            if len(questions) == _MOST_QUESTIONS:
                raise _MistakeError(line, f"there are more than {_MOST_QUESTIONS} questions")
            lines[question.id] = line
            questions.append(question)
    except _MistakeError as mistake:
        raise UserError(f"{where}, line {mistake.line or line}: {mistake}.") from None
    except RecursionError:
        raise UserError(f"{where}: a value contains itself, or has too many levels.") from None
    if not questions:
        raise UserError(f"{where} has no question. Write one question a line, or see docs/rate.md for other forms.")
    return questions


def _question(written: Any, number: int) -> Question:
    """Raises _MistakeError without a line."""
    fields = {"question": written} if isinstance(written, str) else written
    if not isinstance(fields, dict):
        raise _MistakeError(0, "a question is a text, or a mapping with the field question")
    fields = {name: value for name, value in fields.items() if value is not None}
    for name, value in fields.items():
        if name not in _FIELDS:
            raise _MistakeError(0, f"unknown field {printable(name)!r}: a question has {', '.join(_FIELDS)}")
        if isinstance(value, bool | list | dict):
            raise _MistakeError(0, f"{name} must be a text")
    texts = {name: unicodedata.normalize("NFC", str(value)).strip() for name, value in fields.items()}
    if not texts.get("question"):
        raise _MistakeError(0, "the question is missing")
    for name in ("id", "language", "kind"):
        if len(texts.get(name, "")) > _LONGEST_NAME:
            raise _MistakeError(0, f"{name} is longer than {_LONGEST_NAME} characters")
    return Question(**{**texts, "id": texts.get("id") or str(number)})


def _of_lines(text: str) -> Numbered:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def _of_yaml(text: str) -> Numbered:
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise _MistakeError(line, f"not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-13-45
        raise _MistakeError(1, f"not valid YAML: {printable(error)}") from None
    if tree is None:
        return
    if not isinstance(tree, yaml.SequenceNode):
        raise _MistakeError(tree.start_mark.line + 1, "the file must be a list of questions")
    for node, value in zip(tree.value, values, strict=True):
        yield node.start_mark.line + 1, value


def _of_json(text: str) -> Numbered:
    try:
        values = json.loads(text)
    except ValueError as error:
        if not isinstance(error, json.JSONDecodeError):
            raise _MistakeError(1, f"not valid JSON: {printable(error)}") from None
        raise _MistakeError(error.lineno, f"not valid JSON: {error.msg}") from None
    if not isinstance(values, list):
        raise _MistakeError(1, "the file must be a list of questions")
    decoder, at = json.JSONDecoder(), text.index("[") + 1
    for value in values:
        while text[at] in " \t\r\n,":
            at += 1
        yield text.count("\n", 0, at) + 1, value
        at = decoder.raw_decode(text, at)[1]


def _of_csv(text: str) -> Numbered:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        names = [name.strip() for name in next(rows, [])]
        if "question" not in names:
            raise _MistakeError(1, 'the first line must name the fields, one of which is "question"')
        line = rows.line_num + 1  # a row may have several lines
        for row in rows:
            if len(row) > len(names):
                raise _MistakeError(line, f"{len(row)} values, but the first line names {len(names)} fields")
            if any(value.strip() for value in row):
                yield line, dict(zip(names, row, strict=False))
            line = rows.line_num + 1
    except csv.Error as error:
        raise _MistakeError(rows.line_num, f"not valid CSV: {error}") from None


class _MistakeError(Exception):
    """`line`: 0 for the line of the question that is being read."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line
