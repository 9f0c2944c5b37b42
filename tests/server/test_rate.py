"""Answers are collected from several servers, resumed after errors, and rated from the command line."""

import asyncio
import contextlib
import csv
import json
import os
import signal
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from qwen_edge.client.server import servers_at
from qwen_edge.core.errors import UserError
from qwen_edge.rate.answers import Sampling, create, load
from qwen_edge.rate.collect import Collector, Target, parse_targets
from qwen_edge.rate.judge import judge
from qwen_edge.rate.questions import Question
from qwen_edge.rate.ratings import CRITERIA, Scores, raters_of
from tests.server.rated import question_of, scripted
from tests.unit.rate.samples import answers_in

SCORES = {"relevance": 5, "fluency": 4, "accuracy": 3, "coherence": 2}


class Run:
    """A collector of three questions that writes down what it says and how far it is."""

    def __init__(self, folder: Path, **sampling) -> None:
        questions = [Question(id=name, question=f"{name}?") for name in ("one", "two", "three")]
        self.file = folder / "answers.jsonl"
        create(self.file, questions, Sampling(**sampling))
        self.said: list[str] = []
        self.stages: list[tuple[str, int]] = []
        self.done = 0.0

    @contextlib.contextmanager
    def stage(self, title, total):
        self.stages.append((title, total))
        yield self.advance

    def advance(self, further):
        self.done += further

    async def collect(self, *targets: str, **options) -> int:
        collector = Collector(load(self.file), self.stage, self.said.append, **options)
        return await collector.collect(parse_targets(targets))

    def texts(self, model: str) -> dict[str, str]:
        answers = load(self.file)
        return {one.id: found.text for one in answers.questions if (found := answers.find(one.id, model))}


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


async def test_all_models_are_asked_the_same_in_the_same_way(tmp_path):
    run = Run(tmp_path, temperature=0.5, max_tokens=77, thinking=True)
    async with scripted(lambda body: f"A: {question_of(body)}", "a") as a, scripted(lambda body: "B", "b") as b:
        assert await run.collect(f"A={a.url}", f"{b.url}/v1") == 0
        assert [{**body, "model": ""} for body in a.asked] == [{**body, "model": ""} for body in b.asked]
        assert a.asked[0]["model"] == "a"
        assert (a.asked[0]["temperature"], a.asked[0]["max_tokens"]) == (0.5, 77)
        assert a.asked[0]["chat_template_kwargs"] == {"enable_thinking": True}
        assert a.asked[0]["messages"] == [{"role": "user", "content": "one?"}]
        assert run.texts("A") == {"one": "A: one?", "two": "A: two?", "three": "A: three?"}
        assert run.texts(b.url.removeprefix("http://"))["two"] == "B"
    answer = load(run.file).find("one", "A")
    assert (answer.tokens, answer.cut) == (7, False)
    assert run.stages[0] == ("A", 3) and run.done == 6


async def test_what_a_server_refuses_is_written_down_and_asked_again(run):
    async with scripted(lambda body: (500, "broken") if question_of(body) == "two?" else "good") as server:
        assert await run.collect(f"M={server.url}") == 1
        assert set(run.texts("M")) == {"one", "three"}
        assert "two" in run.said[-1] and "broken" in run.said[-1]
        assert "500: " in load(run.file).lines["two", "M"].error
        server.answer = lambda body: "better"
        assert await run.collect(f"M={server.url}") == 0
        assert run.texts("M") == {"one": "good", "two": "better", "three": "good"}
        assert [question_of(body) for body in server.asked] == ["one?", "two?", "three?", "two?"]
        assert await run.collect(f"M={server.url}") == 0
        assert len(server.asked) == 4


async def test_a_server_that_is_gone_does_not_keep_the_others_from_answering(run):
    async with scripted(lambda body: "good") as server:
        assert await run.collect("Gone=http://127.0.0.1:9", f"M={server.url}") == 3
    assert len(run.texts("M")) == 3
    assert "Gone" in run.said[0] and "cannot be reached" in run.said[0]


async def test_a_server_that_goes_away_is_left_and_its_other_questions_are_for_the_next_run(run):
    async with contextlib.AsyncExitStack() as life:
        server = await life.enter_async_context(scripted(lambda body: "good"))
        port = int(server.url.rpartition(":")[2])

        async def leave(body):
            if question_of(body) == "two?":
                raise ConnectionResetError
            return "good"

        server.answer = leave
        await run.collect(f"M={server.url}")
    assert await run.collect(f"M=http://127.0.0.1:{port}") == 1  # nobody listens any more
    assert set(run.texts("M")) == {"one", "three"}
    async with scripted(lambda body: "late", port=port) as server:
        assert await run.collect(f"M={server.url}") == 0
        assert len(server.asked) == 1
    assert run.texts("M")["two"] == "late"


async def test_thoughts_in_the_text_are_cut_off_and_an_answer_of_thoughts_only_is_an_error(run):
    said = {"one?": "<think>\nhm</think>\n\nyes", "two?": "<think>hm and hm", "three?": "use <think> here"}
    async with scripted(lambda body: said[question_of(body)]) as server:
        assert await run.collect(f"M={server.url}") == 1
    assert run.texts("M") == {"one": "yes", "three": "use <think> here"}
    assert "only thought" in run.said[-1]


async def test_an_answer_that_was_cut_off_is_marked(run):
    async with scripted(lambda body: "and then") as server:
        server.finish = "length"
        await run.collect(f"M={server.url}")
    assert load(run.file).find("one", "M").cut


async def test_an_error_within_a_stream_is_no_answer(run):
    half = [{"choices": [{"delta": {"content": "half"}}]}, {"error": {"message": "the engine failed"}}]
    async with scripted(lambda body: half) as server:
        assert await run.collect(f"M={server.url}") == 3
    assert run.texts("M") == {}
    assert "the engine failed" in run.said[0]


async def test_an_answer_that_breaks_off_is_no_answer(run):
    async with scripted(lambda body: [{"choices": [{"delta": {"content": "half"}}]}]) as server:
        assert await run.collect(f"M={server.url}") == 3
    assert run.texts("M") == {}
    assert "in the middle" in run.said[0]


async def test_a_server_without_the_option_to_think_is_asked_with_the_same_temperature(tmp_path):
    run = Run(tmp_path, temperature=0.5)
    async with scripted(lambda body: "good") as server:
        server.refused = {"chat_template_kwargs"}
        assert await run.collect(f"M={server.url}") == 0
        assert [body["temperature"] for body in server.asked] == [0.5] * 3


async def test_an_answer_that_takes_too_long_is_an_error(run):
    async with scripted(lambda body: "good") as server:
        assert await run.collect(f"M={server.url}", answer_seconds=1e-9) == 3
        assert "--answer-seconds" in run.said[0]
        assert await run.collect(f"M={server.url}") == 0


async def test_a_name_stands_for_one_model_only(run):
    async with scripted(lambda body: "good", "first") as one, scripted(lambda body: "good", "second") as other:
        one.answer = lambda body: (500, "later") if question_of(body) == "two?" else "good"
        await run.collect(f"M={one.url}")
        with pytest.raises(UserError, match=r"M is first, but .* serves second"):
            await run.collect(f"N={one.url}", f"M={other.url}", f"O={other.url}")
        other.model = "first"
        assert await run.collect(f"M={other.url}") == 0  # the same model elsewhere is the same model


def test_targets_are_urls_and_files_with_and_without_names(tmp_path):
    file = tmp_path / "model=x.gguf"
    file.touch()
    assert Target.parse("http://127.0.0.1:8080") == Target("127.0.0.1:8080", "http://127.0.0.1:8080")
    assert Target.parse("a b=https://h/?c=d") == Target("a b", "https://h/?c=d")
    assert Target.parse(str(file)) == Target("model=x", file)
    other = tmp_path / "m.gguf"
    other.touch()
    assert Target.parse(f"m={other}") == Target("m", other)
    for bad in ("nothing", "m=nothing", "ftp://x", "m=", "", str(tmp_path), "a\0b"):
        with pytest.raises(UserError, match="neither"):
            Target.parse(bad)
    with pytest.raises(UserError, match="Two targets have the name m"):
        parse_targets([f"m={other}", str(other)])
    with pytest.raises(UserError, match="more than 60"):
        Target.parse(f"{'x' * 61}={other}")


class TestJudge:
    """A model rates as a rater of its own."""

    @staticmethod
    async def judge(answers, url, model=None) -> tuple[int, list[str]]:
        said: list[str] = []

        @contextlib.contextmanager
        def stage(title, total):
            yield lambda further: None

        async with servers_at([url], model) as (server,):
            return await judge(load(answers.path), server, stage, said.append), said

    async def test_it_is_held_to_a_schema_and_sees_no_name(self, tmp_path):
        answers = answers_in(tmp_path, questions=2)
        async with scripted(lambda body: json.dumps(SCORES), "big") as server:
            assert await self.judge(answers, server.url) == (0, [])
            assert len(server.asked) == 6
            for body in server.asked:
                schema = body["response_format"]["json_schema"]["schema"]
                assert schema["properties"] == {name: {"type": "integer", "enum": [1, 2, 3, 4, 5]} for name in CRITERIA}
                assert body["temperature"] == 0
                assert set(json.loads(question_of(body))) == {"question", "answer"}
                assert "alpha" not in json.dumps(body) and "served" not in json.dumps(body)
        ((rater, ratings),) = raters_of(answers.path)
        assert (rater.name, rater.judge) == ("judge: big", True)
        assert {rating.scores for rating in ratings.values()} == {Scores(5, 4, 3, 2)}

    async def test_a_reply_without_scores_is_asked_again_by_the_next_run(self, tmp_path):
        answers = answers_in(tmp_path, questions=2)
        replies = iter(['{"relevance": 9}', "I like it", *[json.dumps(SCORES)] * 10])
        async with scripted(lambda body: next(replies), "big") as server:
            missing, said = await self.judge(answers, server.url, "chosen")
            assert missing == 2 and len(said) == 2 and "not answered with scores" in said[0]
            assert await self.judge(answers, server.url, "chosen") == (0, [])
            assert len(server.asked) == 8
            assert {body["model"] for body in server.asked} == {"chosen"}
            _, said = await self.judge(answers, server.url, "chosen")
            assert said == ["judge: chosen has rated all 6 answers"]

    async def test_the_schema_stays_when_a_server_does_not_know_how_to_switch_thinking_off(self, tmp_path):
        answers = answers_in(tmp_path, questions=1)
        async with scripted(lambda body: json.dumps(SCORES)) as server:
            server.refused = {"chat_template_kwargs"}
            assert await self.judge(answers, server.url) == (0, [])
            assert all("response_format" in body for body in server.asked)

    async def test_a_judge_that_is_gone_is_told(self, tmp_path):
        with pytest.raises(UserError, match="cannot be reached"):
            await self.judge(answers_in(tmp_path), "http://127.0.0.1:9")


class TestCommandLine:
    """`qwen-edge rate` as it is typed."""

    @pytest.fixture
    def start(self, tmp_path):
        async def start(*words, typed: str | None = None):
            return await asyncio.create_subprocess_exec(
                sys.executable, "-m", "qwen_edge", "rate", *map(str, words), cwd=tmp_path,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
            )  # fmt: skip

        return start

    @pytest.fixture
    def rate(self, start):
        async def rate(*words, typed: str = "", code: int = 0) -> tuple[str, str]:
            process = await start(*words)
            out, err = await process.communicate(typed.encode())
            assert process.returncode == code, err.decode()
            return out.decode(), err.decode()

        return rate

    async def test_from_questions_to_the_table(self, rate, tmp_path):
        (tmp_path / "q.txt").write_text("Who are you?\n你好\n")
        async with (
            scripted(lambda body: "better " + question_of(body), "big") as good,
            scripted(lambda body: "worse " + question_of(body), "small") as bad,
            scripted(lambda body: json.dumps(SCORES), "wise") as wise,
        ):
            words = ("collect", "a.jsonl", f"Good={good.url}", f"Bad={bad.url}", "--questions", "q.txt")
            out, err = await rate(*words)
            assert out == "a.jsonl: questions: 2, models: 2\n"
            assert "Good (2 answers)" in err and "Bad: done" in err
            await rate("judge", "a.jsonl", wise.url)
            for name in ("Ann", "李雷"):
                shown, _ = await rate("answer", "a.jsonl", "--rater", name, typed="5\n5\n5\n5\n\n" * 2)
                assert "Good" not in shown and "Rated 2 of 4 answers" in shown
                shown, _ = await rate("answer", "a.jsonl", "--rater", name, typed="4\n3\n2\n1\nbad\n" * 2)
                assert "Rated 4 of 4 answers. Thank you." in shown
            out, _ = await rate("result", "a.jsonl", "--csv", "r.csv", "--plot", "r.svg")
        assert "Good" in out and "judge: wise*" in out and "not in the means" in out and "李雷" in out
        ET.parse(tmp_path / "r.svg")
        with (tmp_path / "r.csv").open(newline="") as file:
            assert len(list(csv.DictReader(file))) == 12
        out, _ = await rate("result", "a.jsonl", "--json")
        found = json.loads(out)
        assert found["agreement"]["relevance"] is not None
        assert found["models"]["Good"]["questions"] == 2
        out, _ = await rate("result", "a.jsonl", "--json", "--with-judges")
        assert json.loads(out)["counted_raters"] == ["Ann", "李雷", "judge: wise"]

    async def test_a_collection_interrupted_by_a_signal_goes_on_where_it_was(self, start, rate, tmp_path):
        (tmp_path / "q.txt").write_text("one\ntwo\nthree\n")

        async def never(body):
            await asyncio.Event().wait()

        async with scripted(lambda body: never(body) if question_of(body) == "two" else "x") as server:
            words = ("collect", "a.jsonl", f"M={server.url}", "--questions", "q.txt")
            process = await start(*words)
            await server.has_been_asked(2)
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
            assert (process.returncode, "Traceback" in err.decode()) == (130, False)
            server.answer = lambda body: "y"
            await rate(*words)
            assert [question_of(body) for body in server.asked] == ["one", "two", "two", "three"]
        answers = load(tmp_path / "a.jsonl")
        assert [answers.find(str(number), "M").text for number in (1, 2, 3)] == ["x", "y", "y"]

    async def test_missing_answers_are_told_with_a_code_of_their_own(self, rate, tmp_path):
        async with scripted(lambda body: (500, "later")) as server:
            _, err = await rate("collect", "a.jsonl", f"M={server.url}", "--id", "fact-capital-zh", code=75)
        assert "Missing answers: 1. Run the same command again" in err

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    async def test_a_signal_ends_the_page_and_the_ratings_stay(self, start, tmp_path, number):
        answers = answers_in(tmp_path)
        process = await start("serve", answers.path, "--port", 0)
        line = (await process.stdout.readline()).decode()
        assert "http://127.0.0.1:" in line
        process.send_signal(number)
        _, err = await process.communicate()
        assert process.returncode == 130
        assert err.decode().strip() == "qwen-edge: Interrupted."

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("result", "none"), "none does not exist. Collect answers first"),
            (("result", "answers.jsonl"), "Nobody has rated answers.jsonl yet"),
            (("answer", "answers.jsonl", "--rater", "judge: me"), "is that of a model"),
            (("answer", "other", "--rater", "me"), "line 1: not a JSON object"),
            (
                ("collect", "answers.jsonl", "http://127.0.0.1:9", "--temperature", "1"),
                "asked for with temperature 0.0",
            ),
            (("collect", "answers.jsonl", "http://127.0.0.1:9", "--think"), "asked for with thinking False"),
            (("collect", "answers.jsonl", "http://127.0.0.1:9", "--language", "zh"), "answers to other questions"),
            (("collect", "new", "nowhere"), "nowhere is neither"),
            (
                ("collect", "new", "http://127.0.0.1:9", "--kind", "joke"),
                "No question has the kind joke. There are: fact",
            ),
            (("collect", "new", "http://127.0.0.1:9", "--questions", "other"), "other, line 1: this is not UTF-8"),
            (("collect", "new", "http://127.0.0.1:9", "--questions", "\x1b[31m"), "\\x1b[31m cannot be read"),
            (("serve", "answers.jsonl", "--host", "192.0.2.1"), "Cannot listen on 192.0.2.1"),
            (("judge", "answers.jsonl", "nothing"), "is not the address of a server"),
        ],
    )
    async def test_a_mistake_is_one_sentence(self, rate, tmp_path, words, told):
        answers_in(tmp_path)
        (tmp_path / "other").write_bytes(b"\xff nonsense\n")
        code = 75 if "serve" in words else 2
        _, err = await rate(*words, code=code)
        assert told in err and "Traceback" not in err
        assert "\x1b" not in err
        assert not (tmp_path / "new").exists()
