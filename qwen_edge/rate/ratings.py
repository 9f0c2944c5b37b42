"""The files of ratings: one for each rater, in a folder beside the answers.

JSON lines (rate/journal.py): a `RaterLine`, then a `Rating` for each thing the rater has done. The last line about an
answer counts. Nothing is kept in memory: two sessions of one rater, in a terminal and on the page, go on with what
either has rated.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path
from typing import Annotated

import msgspec

from qwen_edge.core.errors import UserError
from qwen_edge.core.printable import is_hidden, printable
from qwen_edge.rate import journal

CRITERIA = ("relevance", "fluency", "accuracy", "coherence")
JUDGE = "judge: "  # with this begins the name of a model that rates, and of no person
LONGEST_NAME, LONGEST_REMARK = 60, 2000  # characters

Score = Annotated[int, msgspec.Meta(ge=1, le=5)]
Time = Annotated[float, msgspec.Meta(ge=0, lt=1e11)]  # of a year that a date can have


class Scores(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """1 (bad) to 5 (good) on each criterion."""

    relevance: Score
    fluency: Score
    accuracy: Score
    coherence: Score

    @property
    def mean(self) -> float:
        return (self.relevance + self.fluency + self.accuracy + self.coherence) / 4

    def of(self, criterion: str) -> float:
        """The score on a criterion, or the mean of all for "mean"."""
        return float(getattr(self, criterion))


class RaterLine(msgspec.Struct, frozen=True, tag_field="line", tag="rater"):
    """The first line of a file. `judge`: a model rates, not a person."""

    name: str
    judge: bool = False


class Rating(msgspec.Struct, frozen=True, tag_field="line", tag="rating"):
    """What a rater says of a model's answer to a question. `scores`: None if the rater has skipped the answer. `at`:
    seconds since 1970."""

    question: str
    model: str
    scores: Scores | None
    remark: str = ""
    at: Time = 0.0


class Rater:
    """One who rates the answers of a file, and the ratings so far."""

    def __init__(self, answers: Path, name: str, *, judge: bool = False) -> None:
        """`name`: as `checked_name` gives it."""
        self.name = name
        self.judge = judge
        self.path = folder_of(answers) / _file_name(name)

    def ratings(self) -> dict[tuple[str, str], Rating]:
        """By question and model. Raises UserError."""
        return _read(self.path)[1]

    def add(self, rating: Rating) -> None:
        """Write a rating, and return when it is on the disk. Raises UserError."""
        line = RaterLine(self.name, self.judge)
        journal.append(self.path, msgspec.to_builtins(rating), first=msgspec.to_builtins(line))


def raters_of(answers: Path) -> list[tuple[RaterLine, dict[tuple[str, str], Rating]]]:
    """Everyone who has rated the answers, people first, with the ratings. Raises UserError."""
    files = sorted(folder_of(answers).glob("*.jsonl"))
    found = [(rater, ratings) for rater, ratings in map(_read, files) if rater]
    return sorted(found, key=lambda one: (one[0].judge, one[0].name))


def folder_of(answers: Path) -> Path:
    """The folder with the ratings of a file of answers."""
    return answers.with_name(answers.name + ".ratings")


def checked_name(name: str) -> str:
    """The name of a person who rates, in one spelling. Raises UserError."""
    name = " ".join(unicodedata.normalize("NFC", name).split())
    if not name or len(name) > LONGEST_NAME:
        raise UserError(f"A rater needs a name of 1 to {LONGEST_NAME} characters.")
    if any(is_hidden(one) for one in name):
        raise UserError(f"The name {printable(name)} contains characters that cannot be seen. Choose another.")
    if unicodedata.normalize("NFKC", name).casefold().startswith(JUDGE.strip()):
        raise UserError(f'A name that begins with "{JUDGE.strip()}" is that of a model. Choose another.')
    return name


def _file_name(name: str) -> str:
    """Readable, and different for each name, also where file names ignore case."""
    words = re.sub(r"[^0-9A-Za-z]+", "-", name).strip("-").lower()[:40]
    return f"{words or 'rater'}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:12]}.jsonl"


def _read(path: Path) -> tuple[RaterLine | None, dict[tuple[str, str], Rating]]:
    records = journal.read(path)
    rater, ratings = None, dict[tuple[str, str], Rating]()
    for number, record in enumerate(records, 1):
        try:
            if number == 1:
                rater = msgspec.convert(record, RaterLine)
            else:
                rating = msgspec.convert(record, Rating)
                ratings[rating.question, rating.model] = rating
        except msgspec.ValidationError as error:
            raise UserError(f"{path}, line {number}: {printable(error)}. Mend the line, or remove the file.") from None
    return rater, ratings
