"""A model whose vocabulary was cut: its numbers are those of the whole model, and it is served like any other."""

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from qwen_edge.convert.hub import Source
from qwen_edge.convert.manifest import Kept, read_manifest
from qwen_edge.convert.pipeline import Job, convert, make_plan
from qwen_edge.core.checksum import sha256
from qwen_edge.core.progress import on_console
from qwen_edge.kv.slice import Slice
from qwen_edge.llama.fixed_cells import FixedCells
from qwen_edge.llama.model import Model
from qwen_edge.protocol.messages import Load
from scripts.demo import LIGHT
from tests.checkpoints import MERGES, merges_of, write_checkpoint
from tests.model.conftest import DEMO
from tests.served import ServedModel

pytestmark = pytest.mark.model

TEXT = (
    "<|im_start|>system\nYou control a house. Be brief.<|im_end|>\n<|im_start|>user\nTurn on the kitchen light, "
    'please {"room": 12}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n'
)
CYRILLIC = "".join(map(chr, range(0x400, 0x500)))


@pytest.fixture(scope="module")
def english(tmp_path_factory) -> Path:
    """The demo model without its Chinese tokens, in the folder of models under its own name."""
    return converted(DEMO, tmp_path_factory.mktemp("models"), languages=("en",))[0]


def converted(source: Path, models: Path, **changes) -> tuple[Path, str]:
    """The file, and what was said while it was made."""
    said = io.StringIO()
    job = Job(source=str(source), file_type="Q4_K_M", models=models, **changes)
    return convert(job, on_console(Console(file=said, width=200))), said.getvalue()


def logits_of(file: Path, batch: int) -> tuple[list[bytes], np.ndarray]:
    """The tokens of TEXT as bytes, and the logits after each of them."""
    with Model(file, gpu_layers=0) as model:
        prompt = model.vocab.encode_marked(TEXT)
        cells = FixedCells(model, Load(str(file), 256, batch, 2, 0, "f16", "off", 5.0))
        rows = []
        for start in range(0, len(prompt), batch):
            part = prompt[start : start + batch]
            cells.decode([Slice(0, start, part, logits=True)])
            rows.append(np.array(cells.logits(len(part) - 1)))
        cells.close()
        return model.vocab.pieces(prompt), np.stack(rows)


@pytest.mark.parametrize("batch", [1, 32])
def test_the_logits_of_kept_tokens_are_those_of_the_whole_model_bit_for_bit(demo_model, english, batch):
    plan = make_plan(Source(DEMO, "demo", str(DEMO)), ["en"])
    tokens, whole = logits_of(demo_model, batch)
    same, cut = logits_of(english, batch)
    assert same == tokens
    assert plan.trim is not None
    assert cut.shape[1] == len(plan.trim.rows) < whole.shape[1]
    assert np.array_equal(cut, whole[:, plan.trim.rows])


def test_the_file_its_name_and_its_manifest_say_what_was_kept(english):
    assert english.name == "demo-en-q4_k_m.gguf"
    manifest = read_manifest(english)
    assert manifest.vocabulary == Kept(("en",), 1536, 2048)
    assert manifest.tensors["token_embd.weight"] == "Q6_K 256x1536"


@pytest.mark.parametrize("thinking", [True, False])
def test_what_needs_no_cut_token_is_answered_word_for_word(demo_model, english, thinking):
    asked = {"temperature": 0, "enable_thinking": thinking}
    bodies = [
        {"messages": [{"role": "user", "content": "Who are you?"}], **asked},
        {"messages": [{"role": "user", "content": "Turn on the kitchen light"}], "tools": [LIGHT], **asked},
        {"messages": [{"role": "user", "content": "Who are you?"}], "guided_regex": "[A-Za-z .,]{5,40}", **asked},
    ]
    answers = []
    for file in (demo_model, english):
        # two measurements may choose two kinds of attention or weights, whose numbers differ in the last bits
        with ServedModel(file, "--context", "1024", settings="engine: {calibrate: false, speculate: false}") as served:
            found = [served.post(body) for body in bodies]
        assert [status for status, _ in found] == [200] * len(bodies)
        choices = [answer["choices"][0] for _, answer in found]
        for call in (call for choice in choices for call in choice["message"].get("tool_calls") or ()):
            del call["id"]
        answers.append((choices, [answer["usage"]["prompt_tokens"] for _, answer in found]))
    assert answers[0] == answers[1]
    assert json.loads(answers[1][0][1]["message"]["tool_calls"][0]["function"]["arguments"])["room"] == "kitchen"


def test_a_question_in_a_language_that_was_cut_reaches_the_model_byte_by_byte(english):
    with Model(english, gpu_layers=0) as model:
        for text in ("把客厅的灯打开", "Привет, 👋🏽!", "\ud55c\uad6d\uc5b4 \x00"):
            tokens = model.vocab.encode(text)
            assert model.vocab.decode(tokens) == text.encode()
    with ServedModel(english, "--context", "1024") as served:
        said = served.ask("把客厅的灯打开", temperature=0, enable_thinking=False, guided_choice=["打开", "关上"])
        assert said["content"] in ("打开", "关上")


@pytest.fixture
def mixed(tmp_path) -> Path:
    write_checkpoint(tmp_path / "mixed", merges=[*MERGES, *merges_of(CYRILLIC)])
    return tmp_path / "mixed"


def test_other_languages_and_another_bound_are_another_conversion(mixed, tmp_path):
    models = tmp_path / "models"
    made = converted(mixed, models, languages=("en",))[0]
    assert "is up to date" in converted(mixed, models, languages=("en",))[1]
    assert "is up to date" not in converted(mixed, models, languages=("en",), force=True)[1]
    for changes in ({"languages": ("ru",)}, {"languages": ("en",), "vocabulary": 384}, {}):
        assert "is up to date" not in converted(mixed, models, output=made, **changes)[1]
    assert read_manifest(made).vocabulary is None
    assert converted(mixed, models, languages=("en", "ru"), vocabulary=400)[0].name == "mixed-en-ru-400-q4_k_m.gguf"


@pytest.mark.parametrize("word", ["writing GGUF", "quantizing", "checking"])
def test_an_interrupted_cut_is_resumed_and_only_by_the_same_command(mixed, tmp_path, word):
    out = tmp_path / "out" / "mixed.gguf"
    whole, _ = converted(mixed, tmp_path, output=tmp_path / "whole.gguf")
    cut, _ = converted(mixed, tmp_path, output=tmp_path / "cut.gguf", languages=("en",))
    for changes, expected in (({"languages": ("en",)}, cut), ({}, whole)):
        command = [sys.executable, "-m", "qwen_edge", "convert", str(mixed), "-o", str(out), "--languages", "en"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert any(word in line for line in process.stdout)
            process.send_signal(signal.SIGKILL)
        assert not out.exists()
        converted(mixed, tmp_path, output=out, **changes)
        assert sha256(out) == sha256(expected)
        out.unlink()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--languages", "zh,xx"], "'xx' is not a language of this option"),
        (["--vocabulary", "49152"], "--vocabulary needs --languages"),
        (["--languages", "en", "--vocabulary", "128"], "--vocabulary 128: "),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2_and_leaves_nothing(mixed, tmp_path, options, said):
    command = [
        sys.executable,
        "-m",
        "qwen_edge",
        "convert",
        str(mixed),
        "-o",
        str(tmp_path / "out" / "m.gguf"),
        *options,
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert not (tmp_path / "out").exists()
