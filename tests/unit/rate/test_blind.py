"""A rater sees answers without names, in an order of their own, and goes on where they stopped."""

import json
import random
from collections import Counter

import pytest

from qwen_edge.core.errors import UserError
from qwen_edge.rate import answers as answers_file
from qwen_edge.rate.answers import Answer, Model, load
from qwen_edge.rate.blind import Session, code_of
from qwen_edge.rate.ratings import Rater, Rating, Scores, checked_name, folder_of, raters_of
from tests.unit.rate.samples import MODELS, answers_in, rate_all

GOOD = Scores(5, 4, 3, 2)


def order_of(session: Session, question: str) -> list[str]:
    return [item.model for item in session.items if item.question.id == question]


def test_the_order_differs_between_raters_and_questions_and_is_the_same_each_time(tmp_path):
    answers = answers_in(tmp_path, questions=60)
    orders = {}
    for name in ("Ann", "Bob"):
        session = Session(answers, Rater(answers.path, name))
        again = Session(load(answers.path), Rater(answers.path, name))
        assert [item.code for item in session.items] == [item.code for item in again.items]
        assert [item.question.id for item in session.items] == [f"q{n}" for n in range(60) for _ in MODELS]
        orders[name] = [tuple(order_of(session, f"q{number}")) for number in range(60)]
        assert len(set(orders[name])) == 6
        for place in range(3):  # each model stands as often at each place
            assert all(10 <= count <= 30 for count in Counter(order[place] for order in orders[name]).values())
    same = sum(one == other for one, other in zip(*orders.values(), strict=True))
    assert same < 30


def test_another_seed_gives_another_order_and_a_new_file_has_a_new_seed(tmp_path):
    answers = answers_in(tmp_path)
    seeds = {
        answers_file.create(tmp_path / name, answers.questions, answers.header.sampling).header.seed for name in "abc"
    }
    assert len(seeds) == 3
    assert all(len(seed) == 32 for seed in seeds)
    assert len({code_of(seed, "Ann", "q0", "alpha-model") for seed in seeds}) == 3


def test_a_model_that_comes_later_leaves_the_order_of_the_others(tmp_path):
    answers = answers_in(tmp_path, questions=20)
    before = Session(answers, Rater(answers.path, "Ann"))
    answers.add(Model("late", "x"))
    for question in answers.questions:
        answers.add(Answer(question.id, "late", "late text"))
    after = Session(answers, Rater(answers.path, "Ann"))
    assert [item.code for item in after.items if item.model != "late"] == [item.code for item in before.items]
    assert {item.places for item in after.items} == {4}


def test_an_answer_that_is_an_error_is_not_shown(tmp_path):
    answers = answers_in(tmp_path, questions=2)
    answers.add(Answer("q1", "beta-model", error="it broke"))
    session = Session(answers, Rater(answers.path, "Ann"))
    assert order_of(session, "q1").count("beta-model") == 0
    assert len(session.items) == 5


def test_a_rater_goes_on_where_they_stopped_in_any_session(tmp_path):
    answers = answers_in(tmp_path)
    here, there = (Session(answers, Rater(answers.path, "Ann")) for _ in range(2))
    assert here.standing().next == 0
    assert here.rate(here.items[0].code, GOOD, " good ").next == 1
    assert there.standing().next == 1
    assert there.rate(there.items[1].code, None).next == 2
    standing = here.standing()
    assert (standing.of, standing.rated, standing.skipped, standing.next) == (12, 1, 1, 2)
    assert here.rating(here.items[0]) == there.rating(there.items[0])
    assert here.rating(here.items[0]).remark == "good"
    assert Session(answers, Rater(answers.path, "Bob")).standing().next == 0


def test_the_last_rating_of_an_answer_counts_and_the_next_one_is_that_after_it(tmp_path):
    answers = answers_in(tmp_path)
    session = Session(answers, Rater(answers.path, "Ann"))
    for item in session.items[:-1]:
        session.rate(item.code, GOOD)
    assert session.rate(session.items[3].code, Scores(1, 1, 1, 1)).next == 11
    assert session.rate(session.items[11].code, None).next is None
    assert session.rating(session.items[3]).scores == Scores(1, 1, 1, 1)
    assert session.standing().rated == 11


def test_a_rating_torn_by_a_power_cut_is_asked_again_and_all_others_stay(tmp_path):
    answers = answers_in(tmp_path)
    rater = Rater(answers.path, "Ann")
    session = Session(answers, rater)
    for item in session.items[:3]:
        session.rate(item.code, GOOD)
    whole = rater.path.read_bytes()
    for cut in random.Random(1).sample(range(40, 60), 8):
        rater.path.write_bytes(whole[:-cut])
        assert session.standing().next == 2
        session.rate(session.items[2].code, GOOD)
        assert session.standing().next == 3


def test_an_unknown_answer_and_a_file_without_answers_are_refused(tmp_path):
    answers = answers_in(tmp_path)
    with pytest.raises(UserError, match="no such answer"):
        Session(answers, Rater(answers.path, "Ann")).rate("0" * 24, GOOD)
    empty = answers_in(tmp_path / "other", models=())
    with pytest.raises(UserError, match="holds no answer yet"):
        Session(empty, Rater(empty.path, "Ann"))


def test_each_rater_has_a_file_and_people_come_before_judges(tmp_path):
    answers = answers_in(tmp_path)
    names = ["Ann", "ann", "李雷", "韩梅梅", "a/../b", "x" * 60, "😀" * 60, "judge of wine"[6:]]
    for name in names:
        rate_all(answers, name, lambda *_: 3)
    rate_all(answers, "judge: big", lambda *_: 2, judge=True)
    found = raters_of(answers.path)
    assert sorted(rater.name for rater, _ in found[:-1]) == sorted(names)
    assert (found[-1][0].name, found[-1][0].judge) == ("judge: big", True)
    assert {file.parent for file in folder_of(answers.path).iterdir()} == {folder_of(answers.path)}
    assert len({file.name.lower() for file in folder_of(answers.path).iterdir()}) == len(names) + 1
    assert all(len(file.name.encode()) < 100 for file in folder_of(answers.path).iterdir())


def test_a_name_is_checked_and_has_one_spelling():
    assert checked_name("  Ann   Lee ") == "Ann Lee"
    assert checked_name("Zoe\u0308") == checked_name("Zoë")
    for bad in ("", "  ", "x" * 61, "a\x1bb", "a\u202eb", "judge: me", "JUDGE:x", "judge：x"):
        with pytest.raises(UserError):
            checked_name(bad)


def test_a_rating_that_is_damaged_is_told_with_its_line(tmp_path):
    answers = answers_in(tmp_path)
    rater = Rater(answers.path, "Ann")
    rater.add(Rating("q0", "alpha-model", GOOD))
    with rater.path.open("a") as out:
        out.write(json.dumps({"line": "rating", "question": "q0", "model": "m", "scores": {"relevance": 6}}) + "\n")
    with pytest.raises(UserError, match=r"line 3: .*`int` <= 5"):
        rater.ratings()


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"line": "answer", "question": "q9", "model": "alpha-model"}', "'q9'"),
        ('{"line": "answer", "question": "q0", "model": "nobody"}', "'nobody'"),
        ('{"line": "answer", "question": 1}', "line 14"),
        ('{"line": "other"}', "line 14"),
    ],
)
def test_a_file_of_answers_that_is_damaged_is_told(tmp_path, line, what):
    answers = answers_in(tmp_path, models=MODELS[:2])
    answers = answers_in(tmp_path / "2", models=MODELS[:2])
    assert len(answers.path.read_text().splitlines()) == 11
    with answers.path.open("a") as out:
        out.write('{"line": "model", "name": "m", "target": "t"}\n' * 2 + line + "\n")
    with pytest.raises(UserError, match=what):
        load(answers.path)


def test_a_file_that_is_none_of_answers_is_told(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "none")
    (tmp_path / "other.json").write_text('{"version": 2}\n')
    with pytest.raises(UserError, match="Is this a file of answers"):
        load(tmp_path / "other.json")
