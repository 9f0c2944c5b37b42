"""Statistics of ratings: agreement between raters, and intervals of means. Pure.

Agreement is Krippendorff's alpha (K. Krippendorff, Content Analysis, 4th ed. 2018, chapter 12; A. F. Hayes and K.
Krippendorff, "Answering the call for a standard reliability measure for coding data", Communication Methods and
Measures 1(1), 2007): one minus observed over expected disagreement. It takes any number of raters, and missing ratings.
Of its metrics, `ordinal` suits marks from 1 to 5: they are ordered, but the step from 1 to 2 need not be as large as
that from 4 to 5. `interval` takes all steps as equal.

Intervals are percentile intervals of a bootstrap over questions: questions, not single ratings, are drawn, because all
ratings of one question hang together. Two models are compared by their difference on each question (paired).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Metric = Literal["ordinal", "interval", "nominal"]

_DRAWS, _AT_ONCE = 10_000, 500
_SEED = 20_260  # fixed: the same ratings give the same interval
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval at `LEVEL`; `low` and `high` are None if there are fewer than two questions."""

    mean: float
    low: float | None
    high: float | None


def alpha(ratings: Sequence[Sequence[float | None]], metric: Metric = "ordinal") -> float | None:
    """Krippendorff's alpha. `ratings`: a row for each thing that was rated, a column for each rater; None where a rater
    has not rated. 1 is perfect agreement, 0 is what chance gives, below 0 is systematic disagreement. None if it is not
    defined: no thing has two ratings, or all ratings are equal."""
    rows = [[value for value in row if value is not None] for row in ratings]
    rows = [row for row in rows if len(row) > 1]  # a single rating can be paired with none
    values = sorted({value for row in rows for value in row})
    if len(values) < 2:
        return None
    number = {value: index for index, value in enumerate(values)}
    coincidences = np.zeros((len(values), len(values)))
    for row in rows:
        counts = np.bincount([number[value] for value in row], minlength=len(values)).astype(float)
        coincidences += (np.outer(counts, counts) - np.diag(counts)) / (len(row) - 1)
    totals = coincidences.sum(axis=0)
    distances = _distances(np.array(values, dtype=float), totals, metric)
    observed = float((coincidences * distances).sum())
    expected = float((np.outer(totals, totals) * distances).sum()) / (totals.sum() - 1)
    return float(1 - observed / expected)


def estimate(scores: Sequence[float | None]) -> Estimate | None:
    """The mean of the scores, one for each question, and its interval. None where a question has no score; None in
    all if no question has one."""
    known = [score for score in scores if score is not None]
    if not known:
        return None
    mean = float(np.mean(known))
    if len(known) < 2:
        return Estimate(mean, None, None)
    low, high = _interval(np.array(known))
    return Estimate(mean, low, high)


def difference(one: Sequence[float | None], other: Sequence[float | None]) -> Estimate | None:
    """The mean of `one` less that of `other`, on the questions that both have a score for."""
    pairs = zip(one, other, strict=True)
    return estimate([mine - theirs if mine is not None and theirs is not None else None for mine, theirs in pairs])


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are there; None if there is none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _distances(values: Floats, totals: Floats, metric: Metric) -> Floats:
    """The squared difference of each two values."""
    if metric == "nominal":
        return np.not_equal.outer(values, values).astype(np.float64)
    if metric == "ordinal":  # of ranks: how many ratings lie between two values, with half of those at the two
        values = np.cumsum(totals) - totals / 2
    squared: Floats = (values[:, None] - values[None, :]) ** 2
    return squared


def _interval(scores: Floats) -> tuple[float, float]:
    random = np.random.default_rng(_SEED)
    means = [
        scores[random.integers(0, len(scores), (_AT_ONCE, len(scores)))].mean(axis=1) for _ in range(_DRAWS // _AT_ONCE)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
