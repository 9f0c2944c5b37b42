"""The table says what the raters have said: means, intervals, agreement, and judges apart."""

import csv
import io
import xml.etree.ElementTree as ET

import pytest
from rich.console import Console

from qwen_edge.core.errors import UserError
from qwen_edge.rate.plot import draw
from qwen_edge.rate.ratings import CRITERIA, Rater, Rating, Scores
from qwen_edge.rate.result import as_csv, as_json, result, tables
from tests.unit.rate.samples import MODELS, answers_in, rate_all


@pytest.fixture
def answers(tmp_path):
    """Two people: alpha is worth 5 and 4, beta 3 and 2, gamma is not rated. Bob skips q3."""
    answers = answers_in(tmp_path)
    worth = {"alpha-model": 5, "beta-model": 3, "gamma-model": None}
    rate_all(answers, "Ann", lambda _, model: worth[model])
    rate_all(answers, "Bob", lambda question, model: None if question == "q3" else worth[model] and worth[model] - 1)
    return answers


def shown(found) -> str:
    console = Console(file=io.StringIO(), width=80, markup=False, emoji=False)
    for table in tables(found):
        console.print(table)
    return console.file.getvalue()


def test_a_models_mean_is_that_of_its_questions_each_by_all_who_rated_it(answers):
    found = result(answers)
    assert found.models["alpha-model"]["mean"].mean == pytest.approx((4.5 * 3 + 5) / 4)
    assert found.models["beta-model"]["fluency"].mean == pytest.approx((2.5 * 3 + 3) / 4)
    assert found.models["gamma-model"]["mean"] is None
    assert found.questions == {"alpha-model": 4, "beta-model": 4, "gamma-model": 0}
    assert found.models["alpha-model"]["mean"].low <= 4.625 <= found.models["alpha-model"]["mean"].high


def test_the_difference_of_two_models_is_paired_by_question(answers):
    found = result(answers)
    difference = found.differences["alpha-model", "beta-model"]["mean"]
    assert (difference.mean, difference.low, difference.high) == (2, 2, 2)
    assert found.differences["alpha-model", "gamma-model"]["mean"] is None


def test_each_raters_means_and_skips_are_told(answers):
    rows = {(row.rater, row.model): row for row in result(answers).raters}
    assert rows["Ann", "alpha-model"].means == dict.fromkeys((*CRITERIA, "mean"), 5)
    assert (rows["Bob", "beta-model"].rated, rows["Bob", "beta-model"].skipped) == (3, 1)
    assert rows["Bob", "beta-model"].means["mean"] == 2
    assert rows["Ann", "gamma-model"].means["mean"] is None


def test_the_agreement_is_that_of_people_on_each_criterion(tmp_path):
    answers = answers_in(tmp_path)
    for name in ("Ann", "Bob"):
        rate_all(answers, name, lambda question, model: 1 + (len(model) + int(question[1])) % 5)
    rate_all(answers, "judge: j", lambda question, _: 5 - int(question[1]), judge=True)
    assert result(answers).agreement["mean"] == pytest.approx(1)
    assert result(answers, with_judges=True).agreement["mean"] < 0.9


def test_a_judge_is_marked_everywhere_and_counts_only_if_asked(answers):
    rate_all(answers, "judge: big", lambda *_: 1, judge=True)
    apart, together = result(answers), result(answers, with_judges=True)
    assert apart.models["alpha-model"]["mean"].mean == pytest.approx(4.625)
    assert together.models["alpha-model"]["mean"].mean < 4
    assert together.models["gamma-model"]["mean"].mean == 1
    assert "judge: big*" in shown(apart) and "* a model: not in the means above" in shown(apart)
    assert "judge: big*" in shown(together) and "* a model: in the means above" in shown(together)
    assert as_json(apart)["judges"] == ["judge: big"] and as_json(apart)["counted_raters"] == ["Ann", "Bob"]
    judged = [row for row in csv.DictReader(io.StringIO(as_csv(answers))) if row["judge"] == "1"]
    assert {row["rater"] for row in judged} == {"judge: big"}
    assert "2 raters and 1 judge model" in draw(together) and "2 raters<" in draw(apart)


def test_the_table_is_the_articles_and_fits_a_terminal_of_80_columns(answers):
    text = shown(result(answers))
    lines = text.splitlines()
    assert lines[0].split() == ["model", *CRITERIA, "mean", "95%", "interval", "rated"]
    assert lines[1].split()[:6] == ["alpha-model", "4.62", "4.62", "4.62", "4.62", "4.62"]
    assert lines[3].split() == ["gamma-model", "-", "-", "-", "-", "-", "-", "0/4"]
    assert max(map(len, lines)) <= 80
    assert "Krippendorff" in text


def test_every_rating_is_a_row_of_the_csv_and_no_cell_is_a_formula(answers):
    Rater(answers.path, "Eve").add(Rating("q0", "alpha-model", Scores(1, 2, 3, 4), '=cmd|"x"!A1', 1e9))
    rows = list(csv.DictReader(io.StringIO(as_csv(answers))))
    assert len(rows) == 2 * 12 + 1
    eve = next(row for row in rows if row["rater"] == "Eve")
    assert [eve[name] for name in CRITERIA] == ["1", "2", "3", "4"]
    assert eve["remark"] == '\'=cmd|"x"!A1' and eve["time"] == "2001-09-09T01:46:40+00:00" and eve["kind"] == "fact"
    skipped = [row for row in rows if row["skipped"] == "1"]
    assert len(skipped) == 4 + 4 + 2
    assert all(row["accuracy"] == "" for row in skipped)


def test_the_plot_is_well_formed_with_a_bar_and_an_interval_for_each_model(tmp_path):
    answers = answers_in(tmp_path, models=("<b>&\x1b", "other"))
    rate_all(answers, "Ann", lambda question, model: 1 + (int(question[1]) + len(model)) % 5)
    drawing = draw(result(answers))
    root = ET.fromstring(drawing)
    assert sum(one.tag.endswith("rect") for one in root.iter()) == 1 + 2 * 5  # the ground, and the bars
    assert sum(one.tag.endswith("path") for one in root.iter()) == 2 * 5


def test_ratings_of_a_model_that_is_not_in_the_file_are_passed_over(answers):
    before = result(answers)
    Rater(answers.path, "Ann").add(Rating("q0", "unknown", Scores(1, 1, 1, 1)))
    assert result(answers) == before


@pytest.mark.parametrize("names", [("Ann", "Bob"), ("Bob", "Ann")])
def test_who_rated_first_changes_nothing(tmp_path, names):
    answers = answers_in(tmp_path, models=MODELS[:2])
    rules = {"Ann": lambda question, _: 1 + int(question[1]), "Bob": lambda question, _: 2 + int(question[1]) // 2}
    for name in names:
        rate_all(answers, name, rules[name])
    assert result(answers).counted == ["Ann", "Bob"]
    assert result(answers).models["alpha-model"]["mean"].mean == pytest.approx((2.5 + 2.5) / 2)


def test_names_from_files_are_shown_as_text(tmp_path):
    answers = answers_in(tmp_path, models=("[red]a\x1b[2J", "b\u202e"))
    rate_all(answers, "[bold]Eve[/]", lambda *_: 3)
    text = shown(result(answers))
    assert "\x1b" not in text and "\u202e" not in text
    assert "[red]a\\x1b[2J" in text and "[bold]Eve[/]" in text


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_what_a_spreadsheet_could_run_is_text_in_the_csv(answers, begin):
    Rater(answers.path, "Ann").add(Rating("q0", MODELS[0], None, f"{begin}1+1"))
    (row,) = [row for row in csv.DictReader(io.StringIO(as_csv(answers), newline="")) if row["remark"].endswith("1+1")]
    assert row["remark"] == f"'{begin}1+1"


@pytest.mark.parametrize("at", ["1e300", "NaN", "-1"])
def test_a_time_that_no_date_can_be_is_told_with_its_line(answers, at):
    rater = Rater(answers.path, "Zoe")
    rater.add(Rating("q0", MODELS[0], None))
    with rater.path.open("a") as file:
        file.write(f'{{"line":"rating","question":"q0","model":"x","scores":null,"at":{at}}}\n')
    with pytest.raises(UserError, match="line 3"):
        as_csv(answers)
