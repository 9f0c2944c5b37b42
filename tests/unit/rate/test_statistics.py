"""Alpha gives the published values, and has the properties that its authors claim; intervals hold their means."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_edge.rate.statistics import alpha, difference, estimate, mean


def table(*raters: str) -> list[list[float | None]]:
    """Rows of things, from one line of marks for each rater; a dot is a missing mark."""
    lines = [[None if mark == "." else float(mark) for mark in rater.split()] for rater in raters]
    return [list(row) for row in zip(*lines, strict=True)]


# K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), example D: four observers, missing data
FOUR = table(
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
)
# the example of the article on the measure in Wikipedia: three coders, 15 units
THREE = table(
    ". . . . . 3 4 1 2 1 1 3 3 . 3",
    "1 . 2 1 3 3 4 3 . . . . . . .",
    ". . 2 1 3 4 4 . 2 1 1 3 3 . 4",
)

MARKS = st.integers(1, 5)
THINGS = st.lists(st.lists(st.one_of(st.none(), MARKS), min_size=3, max_size=3), min_size=2, max_size=12)


@pytest.mark.parametrize(
    ("ratings", "metric", "published"),
    [
        (FOUR, "nominal", 0.743),
        (FOUR, "ordinal", 0.815),
        (FOUR, "interval", 0.849),
        (THREE, "nominal", 0.691),
        (THREE, "interval", 0.811),
    ],
)
def test_alpha_of_a_published_example_is_the_published_one(ratings, metric, published):
    assert alpha(ratings, metric) == pytest.approx(published, abs=0.0005)


@given(st.lists(MARKS, min_size=2, max_size=20).filter(lambda marks: len(set(marks)) > 1), st.integers(2, 4))
def test_raters_who_agree_perfectly_have_alpha_1(marks, raters):
    assert alpha([[mark] * raters for mark in marks]) == pytest.approx(1)


def test_raters_who_guess_have_an_alpha_near_0():
    guess = random.Random(1)
    assert alpha([[guess.randint(1, 5) for _ in range(3)] for _ in range(3000)]) == pytest.approx(0, abs=0.03)


def test_raters_who_are_of_opposite_mind_have_an_alpha_below_0():
    assert alpha([[mark, 6 - mark] for mark in (1, 2, 4, 5)] * 5) < -0.5


@given(THINGS, st.permutations(range(3)), st.randoms(use_true_random=False))
def test_alpha_does_not_depend_on_who_is_called_what_nor_on_the_order_of_things(things, order, shuffle):
    other = [[row[place] for place in order] for row in things]
    shuffle.shuffle(other)
    assert alpha(other) == pytest.approx(alpha(things))


@given(THINGS)
def test_alpha_is_at_most_1_and_a_rater_who_rates_nothing_does_not_count(things):
    value = alpha(things)
    assert value is None or value <= 1 + 1e-9
    assert alpha([[*row, None] for row in things]) == pytest.approx(value)


@given(THINGS)
def test_ordinal_alpha_depends_on_the_order_of_marks_only(things):
    stretched = [[None if mark is None else mark**3 for mark in row] for row in things]
    assert alpha(stretched, "ordinal") == pytest.approx(alpha(things, "ordinal"))


@given(THINGS)
def test_interval_alpha_does_not_change_with_unit_and_zero(things):
    moved = [[None if mark is None else 10 * mark - 3 for mark in row] for row in things]
    assert alpha(moved, "interval") == pytest.approx(alpha(things, "interval"))


@pytest.mark.parametrize("ratings", [[], [[1, None], [None, 2]], [[3, 3], [3, 3]], [[None, None]]])
def test_alpha_is_not_defined_without_pairs_or_without_different_marks(ratings):
    assert alpha(ratings) is None


@settings(max_examples=40)
@given(st.lists(st.one_of(st.none(), st.floats(1, 5)), max_size=30))
def test_an_interval_holds_its_mean_and_lies_within_the_scores(scores):
    known = [score for score in scores if score is not None]
    found = estimate(scores)
    if not known:
        assert found is None
        return
    assert found.mean == pytest.approx(sum(known) / len(known))
    if len(known) == 1:
        assert found.low is found.high is None
    else:
        assert min(known) - 1e-9 <= found.low <= found.mean + 1e-9
        assert found.mean - 1e-9 <= found.high <= max(known) + 1e-9


def test_the_same_scores_give_the_same_interval_and_more_questions_a_narrower_one():
    few, many = [1.0, 5.0, 3.0, 4.0], [1.0, 5.0, 3.0, 4.0] * 10
    assert estimate(few) == estimate(few)
    assert estimate(many).high - estimate(many).low < estimate(few).high - estimate(few).low


def test_nineteen_of_twenty_intervals_hold_the_true_mean():
    draw = random.Random(2)
    held = 0
    for _ in range(200):
        found = estimate([draw.choice((1, 2, 3, 4, 5)) for _ in range(40)])
        held += found.low <= 3 <= found.high
    assert 180 <= held <= 199


def test_a_difference_is_taken_on_the_questions_that_both_have():
    one, other = [5.0, 1.0, None, 3.0], [4.0, 0.0, 1.0, None]
    found = difference(one, other)
    assert (found.mean, found.low, found.high) == (1.0, 1.0, 1.0)  # paired: no spread, though the scores have one
    assert difference([None], [1.0]) is None


def test_a_mean_passes_over_what_is_missing():
    assert mean([1, None, 4]) == 2.5
    assert mean([None]) is None
