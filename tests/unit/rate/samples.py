"""A small file of answers, and raters who rate by a rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qwen_edge.rate.answers import Answer, Answers, Model, Sampling, create
from qwen_edge.rate.blind import Session
from qwen_edge.rate.questions import Question
from qwen_edge.rate.ratings import Rater, Scores

MODELS = ("alpha-model", "beta-model", "gamma-model")


def answers_in(folder: Path, questions: int = 4, models: tuple[str, ...] = MODELS, seed: str = "a seed") -> Answers:
    """Each model answers each question, with a text that says which."""
    asked = [Question(id=f"q{number}", question=f"Question {number}?", kind="fact") for number in range(questions)]
    answers = create(folder / "answers.jsonl", asked, Sampling(), seed)
    for model in models:
        answers.add(Model(model, f"http://{model}.example", f"served-{model}"))
        for question in asked:
            answers.add(Answer(question.id, model, f"text {question.id} {models.index(model)}", 5, 1.0))
    return answers


def rate_all(answers: Answers, name: str, rule: Callable[[str, str], int | None], *, judge: bool = False) -> None:
    """`rule`: the score of a model's answer to a question, or None to skip it."""
    session = Session(answers, Rater(answers.path, name, judge=judge))
    for item in session.items:
        score = rule(item.question.id, item.model)
        session.rate(item.code, None if score is None else Scores(score, score, score, score), f"by {name}")
