"""Rates answers in a terminal: shows one answer at a time, and reads the scores line by line.

A score is asked for each criterion. Other words: `s` skips the answer, `b` goes back to the one before, `q` leaves.
"""

from __future__ import annotations

from collections.abc import Callable

from qwen_edge.core.printable import clean
from qwen_edge.rate.blind import Item, Session
from qwen_edge.rate.ratings import CRITERIA, LONGEST_REMARK, Rating, Scores

_MEANINGS = {
    "relevance": "does it answer the question, and nothing else?",
    "fluency": "is its language correct and natural?",
    "accuracy": "is what it says true?",
    "coherence": "do its parts fit together?",
}
HELP = (
    "Rate each answer from 1 (bad) to 5 (good). Enter keeps the score in brackets, from an earlier rating. s: skip the "
    "answer; b: back to the one before; q: leave. Each rating is saved at once; the same command goes on later."
)

Read = Callable[[str], str]  # shows a prompt and returns a line; raises EOFError at the end
Say = Callable[[str], None]


class _LeaveError(Exception):
    """The rater has asked for something else than the next criterion: `word` is s, b or q."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


def rate(session: Session, read: Read, say: Say, *, again: bool = False) -> None:
    """Ask for ratings until all answers are rated or skipped, or the rater leaves; with `again`, go through all answers
    from the first. Raises UserError if a rating cannot be written."""
    say(HELP)
    number = 0 if again else session.standing().next
    while number is not None:
        item = session.items[number]
        _show(session, number, item, say)
        try:
            scores, remark = _ask(session.rating(item), read, say)
        except (_LeaveError, EOFError) as leaving:
            word = leaving.word if isinstance(leaving, _LeaveError) else "q"
            if word == "q":
                break
            if word == "b":
                number = max(0, number - 1)
                continue
            scores, remark = None, ""
        standing = session.rate(item.code, scores, remark)
        number = _after(number, session) if again else standing.next
    _say_standing(session, say)


def _after(number: int, session: Session) -> int | None:
    return number + 1 if number + 1 < len(session.items) else None


def _show(session: Session, number: int, item: Item, say: Say) -> None:
    question = item.question
    of = f"answer {item.place} of {item.places} to this question"
    say(
        f"\n[{number + 1}/{len(session.items)}] {clean(question.kind)}, {of}"
        if question.kind
        else f"\n[{number + 1}] {of}"
    )
    say(f"Question:  {clean(question.question)}")
    if question.reference:
        say(f"Reference: {clean(question.reference)}")
    say(f"Answer:    {clean(item.text)}{' [cut off here]' if item.cut else ''}")


def _ask(earlier: Rating | None, read: Read, say: Say) -> tuple[Scores, str]:
    """Raises _LeaveError and EOFError."""
    known = earlier.scores if earlier else None
    scores = {name: _score(name, int(known.of(name)) if known else None, read, say) for name in CRITERIA}
    kept = earlier.remark if earlier else ""
    remark = read(f"  remark{f' [{clean(kept)}]' if kept else ''}: ").strip()[:LONGEST_REMARK]
    return Scores(**scores), remark or kept


def _score(criterion: str, known: int | None, read: Read, say: Say) -> int:
    while True:
        bracket = "" if known is None else f" [{known}]"
        typed = read(f"  {criterion} ({_MEANINGS[criterion]}){bracket}: ").strip().lower()
        if typed in ("s", "b", "q"):
            raise _LeaveError(typed)
        if typed in ("1", "2", "3", "4", "5"):
            return int(typed)
        if not typed and known is not None:
            return known
        say("  Type a number from 1 to 5, or s, b or q.")


def _say_standing(session: Session, say: Say) -> None:
    standing = session.standing()
    skipped = f", {standing.skipped} skipped" if standing.skipped else ""
    left = standing.of - standing.rated - standing.skipped
    say(
        f"\nRated {standing.rated} of {standing.of} answers{skipped}. "
        + (f"{left} are left." if left else "Thank you.")
    )
