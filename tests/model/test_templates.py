"""Chat templates as they stand in model files: refused with a sentence, or used as the model means them."""

import json
import subprocess
import sys

import pytest

from qwen_edge.convert import pipeline
from qwen_edge.llama.template import read_template
from tests.checkpoints import write_checkpoint
from tests.model.conftest import converted
from tests.served import ServedModel, renderer_of
from tests.unit.chat.templates import CHATML, FAULTS, WITH_TOOLS

pytestmark = pytest.mark.model

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
def with_template(tmp_path, monkeypatch):
    """Makes a model file with a template as other converters let it pass."""

    def make(template):
        write_checkpoint(tmp_path / "tiny")
        file = tmp_path / "tiny" / "tokenizer_config.json"
        settings = json.loads(file.read_text())
        file.write_text(json.dumps({**settings, "chat_template": template}))
        monkeypatch.setattr(pipeline, "check_chat_template", lambda folder, tokenizer: "")
        return converted(tmp_path / "tiny", tmp_path / "tiny.gguf")

    return make


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "qwen_edge", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def is_refused(model, words: str) -> None:
    served = run("serve", "--port", "0", "--model", str(model))
    assert (served.returncode, served.stdout) == (78, ""), served.stderr
    assert "Traceback" not in served.stderr
    assert words in served.stderr.splitlines()[-1]
    seen = run("doctor", "--model", str(model))
    assert seen.returncode == 1
    assert [line for line in seen.stdout.splitlines() if line.startswith("BAD") and words in line]


@pytest.mark.parametrize("name", ["syntax", "unknown filter", "division", "the messages are ignored"])
def test_a_faulty_template_is_refused_by_serve_and_doctor(with_template, name):
    template, words = FAULTS[name]
    is_refused(with_template(template), words)


def test_a_model_without_a_template_is_refused_by_serve_and_doctor(with_template):
    is_refused(with_template(None), "has no chat template")


def test_a_template_that_is_no_text_is_refused_by_serve_and_doctor(with_template):
    model = with_template(CHATML + "é")
    data = model.read_bytes()
    assert data.count(CHATML.encode() + "é".encode()) == 1
    model.write_bytes(data.replace(CHATML.encode() + "é".encode(), CHATML.encode() + b"\xff\xfe"))
    is_refused(model, "is not UTF-8 text")


def test_the_template_for_tools_is_used_with_tools(with_template):
    model = with_template([{"name": "default", "template": CHATML}, {"name": "tool_use", "template": WITH_TOOLS}])
    source = read_template(model)
    assert (source.default, source.tool_use) == (CHATML, WITH_TOOLS)
    assert (source.bos, source.eos) == ("<|endoftext|>", "<|im_end|>")
    with ServedModel(model, "--context", "512", "--threads", "1") as served:
        plain = served.ask("hi", max_tokens=1)["usage"]["prompt_tokens"]
        assert served.ask("hi", max_tokens=1, tools=[TOOL])["usage"]["prompt_tokens"] > plain


def test_the_renderer_ends_with_the_daemon_however_that_ends(tiny_model):
    with ServedModel(tiny_model, "--context", "512", "--threads", "1") as served:
        assert served.ask("hi", max_tokens=1)
        renderer = renderer_of(served.process.pid)
        served.process.kill()
        renderer.wait(10)


def test_doctor_says_what_the_template_can_do(demo_model):
    seen = run("doctor", "--model", str(demo_model))
    assert "ok    chat template: system messages, tools, calls of tools, thinking on or off" in seen.stdout
