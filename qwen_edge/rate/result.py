"""What the ratings say: the means of the models, of each rater, the raters' agreement, and how sure all that is.

A model's score on a question is the mean of its raters; its mean is that of its questions. Ratings of judge models are
in tables of their own, and in the means only if asked for.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from itertools import combinations
from typing import Any

from rich.table import Table

from qwen_edge.core.printable import printable
from qwen_edge.rate.answers import Answers
from qwen_edge.rate.ratings import CRITERIA, Rating, raters_of
from qwen_edge.rate.statistics import LEVEL, Estimate, alpha, difference, estimate, mean

_FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # what begins a formula, the wide characters in Chinese spreadsheets
FIGURES = (*CRITERIA, "mean")  # the columns of the article's table

Ratings = Mapping[tuple[str, str], Rating]  # by question and model


@dataclass(frozen=True)
class RaterRow:
    """The means that a rater has given to a model; `rated`: how many answers of it."""

    rater: str
    judge: bool
    model: str
    rated: int
    skipped: int
    means: Mapping[str, float | None]


@dataclass(frozen=True)
class Result:
    """`models`: the estimates of each model by figure. `differences`: of each two models, the first less the second.
    `agreement`: Krippendorff's alpha (ordinal) by figure, between those who count. `counted`: who is in the means."""

    models: Mapping[str, Mapping[str, Estimate | None]]
    questions: Mapping[str, int]  # how many questions each model has a score for
    differences: Mapping[tuple[str, str], Mapping[str, Estimate | None]]
    agreement: Mapping[str, float | None]
    raters: Sequence[RaterRow]
    counted: Sequence[str]
    total: int  # the number of questions

    @property
    def judges(self) -> list[str]:
        """The judge models that have rated."""
        return list(dict.fromkeys(row.rater for row in self.raters if row.judge))


def result(answers: Answers, *, with_judges: bool = False) -> Result:
    """Evaluate the ratings of a file of answers. Raises UserError if a file is damaged."""
    raters = raters_of(answers.path)
    counted = {rater.name: ratings for rater, ratings in raters if with_judges or not rater.judge}
    models, questions = list(answers.models), [question.id for question in answers.questions]
    scores = {
        (model, figure): [
            mean([_score(one, question, model, figure) for one in counted.values()]) for question in questions
        ]
        for model in models
        for figure in FIGURES
    }
    return Result(
        {model: {figure: estimate(scores[model, figure]) for figure in FIGURES} for model in models},
        {model: sum(score is not None for score in scores[model, "mean"]) for model in models},
        {
            (one, other): {figure: difference(scores[one, figure], scores[other, figure]) for figure in FIGURES}
            for one, other in combinations(models, 2)
        },
        {figure: _agreement(list(counted.values()), questions, models, figure) for figure in FIGURES},
        [_row(rater.name, rater.judge, model, ratings) for rater, ratings in raters for model in models],
        list(counted),
        len(questions),
    )


def tables(found: Result) -> Iterator[Table]:
    """The article's table, then the differences, the agreement, and each rater's means; for a terminal."""
    yield _model_table(found)
    if found.differences:
        yield _difference_table(found)
    if len(found.counted) > 1:
        yield _agreement_table(found)
    yield _rater_table(found)


def as_json(found: Result) -> dict[str, Any]:
    """All of it, for programs."""
    return {
        "models": {
            model: {"questions": found.questions[model], **{name: _plain(one) for name, one in figures.items()}}
            for model, figures in found.models.items()
        },
        "differences": [
            {"model": one, "other": other, **{name: _plain(estimate) for name, estimate in figures.items()}}
            for (one, other), figures in found.differences.items()
        ],
        "agreement": {"measure": "Krippendorff's alpha, ordinal", **found.agreement},
        "raters": [asdict(row) for row in found.raters],
        "counted_raters": list(found.counted),
        "judges": found.judges,
        "questions": found.total,
        "interval": LEVEL,
    }


def as_csv(answers: Answers) -> str:
    """One row for each rating, those of judges and skipped ones included. Raises UserError."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["rater", "judge", "question", "language", "kind", "model", *CRITERIA, "skipped", "remark", "time"])
    questions = {question.id: question for question in answers.questions}
    for rater, ratings in raters_of(answers.path):
        for rating in ratings.values():
            question = questions.get(rating.question)
            scores = [getattr(rating.scores, name) if rating.scores else "" for name in CRITERIA]
            language, kind = (question.language, question.kind) if question else ("", "")
            time = datetime.fromtimestamp(rating.at, timezone.utc).isoformat(timespec="seconds")
            texts = [_cell(one) for one in (rating.question, language, kind, rating.model)]
            skipped = int(rating.scores is None)
            rows.writerow([_cell(rater.name), int(rater.judge), *texts, *scores, skipped, _cell(rating.remark), time])
    return text.getvalue()


def _cell(text: str) -> str:
    """`text` as a spreadsheet shows it, and never as a formula."""
    return "'" + text if text.startswith(_FORMULA) else text


def _score(ratings: Ratings, question: str, model: str, figure: str) -> float | None:
    rating = ratings.get((question, model))
    return rating.scores.of(figure) if rating and rating.scores else None


def _agreement(raters: Sequence[Ratings], questions: Sequence[str], models: Sequence[str], figure: str) -> float | None:
    return alpha(
        [[_score(one, question, model, figure) for one in raters] for question in questions for model in models]
    )


def _row(rater: str, judge: bool, model: str, ratings: Ratings) -> RaterRow:
    own = [rating for (_, name), rating in ratings.items() if name == model]
    scores = [rating.scores for rating in own if rating.scores]
    means = {figure: mean([one.of(figure) for one in scores]) for figure in FIGURES}
    return RaterRow(rater, judge, model, len(scores), len(own) - len(scores), means)


def _plain(found: Estimate | None) -> dict[str, float | None] | None:
    return None if found is None else asdict(found)


def _table(*titles: str, numbers: Sequence[str] = FIGURES) -> Table:
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for title in titles:
        table.add_column(title, overflow="fold")
    for title in numbers:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _model_table(found: Result) -> Table:
    table = _table("model", numbers=(*FIGURES, f"{LEVEL:.0%} interval", "rated"))
    for model, figures in found.models.items():
        numbers = [_number(_mean(one)) for one in figures.values()]
        table.add_row(_name(model), *numbers, _interval(figures["mean"]), f"{found.questions[model]}/{found.total}")
    return table


def _difference_table(found: Result) -> Table:
    table = _table("difference", numbers=(*FIGURES, f"{LEVEL:.0%} interval"))
    for (first, second), figures in found.differences.items():
        numbers = [_number(_mean(one), signed=True) for one in figures.values()]
        table.add_row(f"{_name(first)} less {_name(second)}", *numbers, _interval(figures["mean"], signed=True))
    return table


def _agreement_table(found: Result) -> Table:
    table = _table("agreement of raters")
    table.add_row("Krippendorff's alpha (ordinal)", *(_number(value) for value in found.agreement.values()))
    return table


def _rater_table(found: Result) -> Table:
    table = _table("rater", "model", numbers=(*FIGURES, "rated"))
    for row in found.raters:
        numbers = [_number(value) for value in row.means.values()]
        name = _name(row.rater) + ("*" if row.judge else "")
        table.add_row(name, _name(row.model), *numbers, f"{row.rated}/{found.total}")
    if judges := found.judges:
        table.caption = f"* a model: {'in' if judges[0] in found.counted else 'not in'} the means above"
        table.caption_justify = "left"
    return table


def _name(text: str) -> str:
    return printable(text)


def _mean(found: Estimate | None) -> float | None:
    return None if found is None else found.mean


def _number(value: float | None, *, signed: bool = False) -> str:
    return "-" if value is None else f"{value:+.2f}" if signed else f"{value:.2f}"


def _interval(found: Estimate | None, *, signed: bool = False) -> str:
    if found is None or found.low is None:
        return "-"
    return f"{_number(found.low, signed=signed)} … {_number(found.high, signed=signed)}"
