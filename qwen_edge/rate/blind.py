"""What a rater sees: answers without names, in an order that is random and always the same for this rater.

An answer is known to the rater by a code, and answers to one question stand in the order of their codes. A code is an
HMAC of rater, question and model under the file's seed, so it tells nothing of the model, and two raters see different
orders. Questions stand in the order of the file: if raters stop early, they have rated the same questions.
"""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass

from qwen_edge.core.errors import UserError
from qwen_edge.rate.answers import Answers
from qwen_edge.rate.questions import Question
from qwen_edge.rate.ratings import Rater, Rating, Scores


@dataclass(frozen=True)
class Item:
    """One answer to rate. `place` of `places`: where it stands among the answers to its question, from 1. `model` is
    for the program only."""

    code: str
    question: Question
    text: str
    cut: bool
    place: int
    places: int
    model: str


@dataclass(frozen=True)
class Standing:
    """How far a rater is. `next`: the number of the first item, from 0, that is neither rated nor skipped, at or after
    the one asked for, or else the first of all; None if there is none."""

    of: int
    rated: int
    skipped: int
    next: int | None


class Session:
    """One rater's way through the answers. Another session of the same rater may write at the same time."""

    def __init__(self, answers: Answers, rater: Rater) -> None:
        self._rater = rater
        self.items = _items(answers, rater.name)
        if not self.items:
            raise UserError(f"{answers.path} holds no answer yet. Collect answers with qwen-edge rate collect.")
        self._number_of = {item.code: number for number, item in enumerate(self.items)}

    def rating(self, item: Item) -> Rating | None:
        """What the rater has said of the item, if anything."""
        return self._rater.ratings().get((item.question.id, item.model))

    def standing(self, after: int = 0) -> Standing:
        """`after`: the number of the item from which to look for the next."""
        ratings = self._rater.ratings()
        found = [ratings.get((item.question.id, item.model)) for item in self.items]
        order = [*range(after, len(found)), *range(min(after, len(found)))]
        return Standing(
            of=len(found),
            rated=sum(rating is not None and rating.scores is not None for rating in found),
            skipped=sum(rating is not None and rating.scores is None for rating in found),
            next=next((number for number in order if found[number] is None), None),
        )

    def rate(self, code: str, scores: Scores | None, remark: str = "") -> Standing:
        """Write the rating of the item with this code; None skips it. Returns the standing after it. Raises
        UserError."""
        number = self._number_of.get(code)
        if number is None:
            raise UserError("There is no such answer. The file of answers may have changed: open it again.")
        item = self.items[number]
        self._rater.add(Rating(item.question.id, item.model, scores, remark.strip(), round(time.time(), 1)))
        return self.standing(number + 1)


def code_of(seed: str, rater: str, question: str, model: str) -> str:
    """The code under which a rater sees an answer."""
    text = "\0".join((rater, question, model))
    return hmac.digest(seed.encode(errors="replace"), text.encode(errors="replace"), "sha256").hex()[:24]


def _items(answers: Answers, rater: str) -> list[Item]:
    items = list[Item]()
    for question in answers.questions:
        found = [(name, answer) for name in answers.models if (answer := answers.find(question.id, name))]
        seed = answers.header.seed
        coded = sorted((code_of(seed, rater, question.id, name), name, answer) for name, answer in found)
        items += [
            Item(code, question, answer.text, answer.cut, place, len(coded), name)
            for place, (code, name, answer) in enumerate(coded, 1)
        ]
    return items
