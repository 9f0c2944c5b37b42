"""A model file answers the questions of a rating: a daemon of its own is started and stopped."""

import contextlib

import psutil

from qwen_edge.rate.answers import Sampling, create, load
from qwen_edge.rate.collect import Collector, parse_targets
from qwen_edge.rate.questions import Question


async def test_a_model_file_answers_and_its_daemon_is_gone_afterwards(tiny_model, tmp_path):
    file = tmp_path / "answers.jsonl"
    create(file, [Question(id="a", question="Hello"), Question(id="b", question="你好")], Sampling(max_tokens=8))
    said = list[str]()

    @contextlib.contextmanager
    def stage(title, total):
        assert (title, total) == ("tiny", 2)
        yield lambda further: None

    collector = Collector(load(file), stage, said.append)
    missing = await collector.collect(parse_targets([f"tiny={tiny_model}"]))
    answers = load(file)
    assert missing == sum(bool(line.error) for line in answers.lines.values())  # noise may be no text
    assert set(answers.lines) == {("a", "tiny"), ("b", "tiny")}
    assert answers.models["tiny"].served == tiny_model.stem
    assert not psutil.Process().children(recursive=True)


async def test_a_file_that_is_no_model_is_told_and_does_not_end_the_others(tmp_path):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF nonsense")
    file = tmp_path / "answers.jsonl"
    create(file, [Question(id="a", question="Hello")], Sampling())
    said = list[str]()
    collector = Collector(load(file), lambda *_: contextlib.nullcontext(lambda _: None), said.append)
    assert await collector.collect(parse_targets([str(bad), "Gone=http://127.0.0.1:9"])) == 2
    assert any("bad: " in line for line in said) and any("Gone: " in line for line in said)
    assert load(file).lines == {}
