"""In the terminal, a rater types scores, skips, goes back and leaves; everything typed so far is kept."""

import pytest

from qwen_edge.rate.answers import Answer
from qwen_edge.rate.blind import Session
from qwen_edge.rate.ratings import Rater, Scores
from qwen_edge.rate.terminal import rate
from tests.unit.rate.samples import MODELS, answers_in


class Person:
    """Types these lines, and then ends the input. `seen`: all that was shown."""

    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)
        self.seen = ""

    def read(self, prompt: str) -> str:
        self.seen += prompt
        if not self.lines:
            raise EOFError
        self.seen += "\n"
        return self.lines.pop(0)

    def say(self, text: str) -> None:
        self.seen += text + "\n"

    def rate(self, session: Session, **options: bool) -> str:
        rate(session, self.read, self.say, **options)
        return self.seen


@pytest.fixture
def session(tmp_path):
    answers = answers_in(tmp_path, questions=2, models=MODELS[:2])
    return Session(answers, Rater(answers.path, "Ann"))


def scores(session):
    return [rating and rating.scores for rating in map(session.rating, session.items)]


def test_scores_and_a_remark_are_read_and_no_model_is_named(session):
    seen = Person("5", "4", "3", "2", "well said", "1", "1", "1", "1", "").rate(session)
    assert scores(session) == [Scores(5, 4, 3, 2), Scores(1, 1, 1, 1), None, None]
    assert session.rating(session.items[0]).remark == "well said"
    assert "model" not in seen
    assert "Question 0?" in seen and session.items[0].text in seen
    assert "Rated 2 of 4 answers. 2 are left." in seen


def test_what_is_no_score_is_asked_again(session):
    seen = Person("0", "6", "good", "", "5", "5", "5", "5", "").rate(session)
    assert seen.count("Type a number from 1 to 5") == 4
    assert scores(session)[0] == Scores(5, 5, 5, 5)


def test_an_answer_half_rated_at_the_end_is_asked_again(session):
    Person("5", "4").rate(session)
    assert scores(session) == [None] * 4
    Person("1", "1", "1", "1", "").rate(session)
    assert scores(session)[0] == Scores(1, 1, 1, 1)


def test_s_skips_b_goes_back_and_q_leaves(session):
    person = Person("s", "5", "5", "5", "5", "", "2", "b", "4", "", "", "", "changed", "q")
    person.rate(session)
    assert scores(session) == [None, Scores(4, 5, 5, 5), None, None]
    assert session.rating(session.items[0]).scores is None  # skipped, and not asked again
    assert session.rating(session.items[1]).remark == "changed"
    assert session.standing().next == 2
    assert "Rated 1 of 4 answers, 1 skipped. 2 are left." in person.seen


def test_at_the_end_thanks_are_said_and_again_goes_through_all(session):
    seen = Person(*["3", "3", "3", "3", ""] * 4).rate(session)
    assert "Rated 4 of 4 answers. Thank you." in seen
    assert "Question 0?" not in Person().rate(session)
    person = Person(*[""] * 5, "1", *[""] * 4, *[""] * 10)
    person.rate(session, again=True)
    assert scores(session) == [Scores(3, 3, 3, 3), Scores(1, 3, 3, 3), Scores(3, 3, 3, 3), Scores(3, 3, 3, 3)]


def test_an_answer_is_shown_as_text_and_a_cut_one_is_marked(tmp_path):
    answers = answers_in(tmp_path, questions=1, models=("m",))
    answers.add(Answer("q0", "m", "\x1b[31mred\x1b]0;x\x07 [b]", cut=True))
    seen = Person().rate(Session(answers, Rater(answers.path, "Ann")))
    assert "\x1b" not in seen and "\x07" not in seen
    assert "\\x1b[31mred" in seen and "[b] [cut off here]" in seen
