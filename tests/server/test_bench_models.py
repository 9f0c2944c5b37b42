"""Models are measured one after the other, each in a daemon of its own; one that fails does not end the bench."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from contextlib import asynccontextmanager

import pytest

from qwen_edge.bench.article_table import WORK, article_plot, article_table
from qwen_edge.bench.measure import Plan, Target, measure_one_by_one
from qwen_edge.bench.plot import draw
from qwen_edge.bench.report import Results
from qwen_edge.cli import main
from qwen_edge.client.private_daemon import PrivateDaemon
from qwen_edge.client.start_server import started
from qwen_edge.core.errors import UnservableError
from tests.server.test_bench_start import Small


@pytest.fixture
def daemons(tmp_path, monkeypatch):
    """Starts a small server in place of each private daemon, never two at once; returns the models of all starts."""
    starts, running = [], []

    @asynccontextmanager
    async def start(model, *, say=lambda _: None):
        starts.append(model.name)
        assert not running
        if model.name == "damaged.gguf":
            raise UnservableError("damaged.gguf is no GGUF file\x1b[2J. Make it again.")
        small = Small(tmp_path, *(["--dies-at", 1000] if model.name == "large.gguf" else []))
        async with started(small.command) as process:
            running.append(small)
            try:
                yield PrivateDaemon(small.url, model, process)
            finally:
                running.pop()

    monkeypatch.setattr("qwen_edge.bench.measure.private_daemon", start)
    return starts


def models(tmp_path, *names: str) -> list[Target]:
    for name in names:
        (tmp_path / name).touch()
    return [Target(name, model=tmp_path / name) for name in names]


async def test_the_second_start_of_each_model_counts(tmp_path, daemons):
    results = await measure_one_by_one(models(tmp_path, "a.gguf", "b.gguf"), Plan(WORK, 2, 1), lambda _: None)
    assert daemons == ["a.gguf", "a.gguf", "b.gguf", "b.gguf"]
    assert results.failed == {}
    for name in ("a.gguf", "b.gguf"):
        assert results.median("start", "load time, s", name)
        assert results.median("8K context", "8K supported", name) == 1.0
    (row,) = [row for row in results.rows if (row.workload, row.figure) == ("relativity", "tokens/s")]
    assert [len(row.runs[name]) for name in ("a.gguf", "b.gguf")] == [2, 2]


async def test_a_model_that_cannot_load_is_a_row_without_figures_and_the_others_go_on(tmp_path, daemons):
    said = []
    targets = models(tmp_path, "a.gguf", "damaged.gguf", "b.gguf")
    results = await measure_one_by_one(targets, Plan(["relativity"], 1, 1), said.append)
    assert results.measured == ["a.gguf", "b.gguf"]
    rows = list(zip(*(column.cells for column in article_table(results).columns), strict=True))
    assert [row[0] for row in rows] == ["a.gguf", "damaged.gguf", "b.gguf"]
    assert rows[1][1:] == ("-",) * 5
    assert "-" not in (*rows[0][1:4], *rows[2][1:4])
    assert {row.figure for row in results.rows} >= {"load time, s", "tokens/s"}
    assert results.table().row_count == len(results.rows) > 0
    assert results.as_json()["failed"].keys() == {"damaged.gguf"}
    for drawing in (article_plot(results), draw(results)):
        assert "a.gguf" in [text.text for text in ET.fromstring(drawing).iter("{http://www.w3.org/2000/svg}text")]
    assert "is no GGUF file" in article_plot(results)


async def test_what_was_measured_of_a_model_that_dies_at_its_work_is_kept(tmp_path, daemons):
    targets = models(tmp_path, "large.gguf", "b.gguf")
    results = await measure_one_by_one(targets, Plan(WORK, 1, 1), lambda _: None)
    assert "cannot be reached" in results.failed["large.gguf"]
    (large, other) = zip(*(column.cells for column in article_table(results).columns), strict=True)
    assert large[3] != "-"
    assert (large[5], other[5]) == ("-", "yes")


async def test_the_progress_comes_to_its_end_whatever_fails(tmp_path, daemons):
    plan, done = Plan(WORK, 3, 1), []
    targets = models(tmp_path, "damaged.gguf", "large.gguf", "b.gguf")
    await measure_one_by_one(targets, plan, lambda _: None, done.append)
    assert sum(done) == pytest.approx(3 * plan.seconds)


async def test_a_server_with_a_command_is_measured_beside_models_in_its_turn(tmp_path, daemons):
    server = Small(tmp_path)
    targets = [*models(tmp_path, "a.gguf"), Target(server.url, command=server.command), Target("http://127.0.0.1:1")]
    results = await measure_one_by_one(targets, Plan(["relativity"], 1, 1), lambda _: None)
    assert results.measured == ["a.gguf", server.url]
    assert results.median("start", "load time, s", server.url)
    assert "Is the server running?" in results.failed["http://127.0.0.1:1"]
    assert not server.runs


def test_nothing_measured_is_an_error_after_the_table(tmp_path, daemons, capsys):
    (damaged,) = models(tmp_path, "damaged.gguf")
    with pytest.raises(SystemExit) as ended:
        main("bench", str(damaged.model), "--rest", "0", "--article")
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert "damaged.gguf was not measured to the end: damaged.gguf is no GGUF file\\x1b[2J." in printed.out
    assert printed.err.splitlines()[-1] == "qwen-edge: Nothing could be measured."


def test_the_command_names_models_by_their_files_and_draws_them(tmp_path, daemons, capsys):
    model, damaged = models(tmp_path, "a.gguf", "damaged.gguf")
    plot = tmp_path / "plot.svg"
    main("bench", str(model.model), str(damaged.model), "--rest", "0", "--repeat", "1", "--plot", str(plot))
    printed = capsys.readouterr()
    assert "damaged.gguf was not measured to the end: damaged.gguf is no GGUF file\\x1b[2J." in printed.out
    assert "measuring: done in " in printed.err
    assert str(model.model) not in printed.out and "a.gguf" in printed.out
    assert ET.parse(plot).getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nothing"], "neither the address of a server, such as http://127.0.0.1:8080, nor a model."),
        (["http://a", "http://a"], "http://a is given twice."),
        (["a:1", "http://a:1"], "http://a:1 is given twice."),
        (["x.gguf", "--start", "a"], "There are 1 --start commands and 0 URLs"),
        (["http://a", "--plot", "no/such/x.svg"], "is not a folder"),
    ],
    ids=["neither", "twice", "twice, once without http", "start", "plot"],
)
def test_arguments_that_do_not_go_together_are_told_before_anything_is_measured(
    arguments, sentence, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.gguf").touch()
    with pytest.raises(SystemExit) as ended:
        main("bench", *arguments)
    assert ended.value.code == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_a_figure_of_a_server_that_failed_later_does_not_leave_the_others_out():
    results = Results(["ours", "theirs"])
    results.add("relativity", "ours", {"tokens/s": 25.0})
    results.failed["theirs"] = "it died"
    (row,) = results.rows
    assert row.runs == {"ours": [25.0]}
    results.failed["ours"] = "so did this"
    assert results.rows == []
    assert results.table().row_count == 0
