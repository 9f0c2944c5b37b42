"""An importance matrix that llama.cpp's own callback gives, and what the quantizer makes of it."""

import io
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from qwen_edge.convert import pipeline
from qwen_edge.convert.importance import OWN, Text, measure_importance, read_importance, read_text, tokens_read
from qwen_edge.convert.manifest import Imatrix, read_manifest
from qwen_edge.convert.pipeline import Job, convert
from qwen_edge.core.checksum import sha256
from qwen_edge.core.errors import ConversionError
from qwen_edge.core.progress import on_console
from qwen_edge.kv.slice import Slice
from qwen_edge.llama.fixed_cells import FixedCells
from qwen_edge.llama.importance import measure
from qwen_edge.llama.model import Model
from qwen_edge.protocol.messages import Load
from tests.checkpoints import write_checkpoint
from tests.model.conftest import DEMO

pytestmark = pytest.mark.model
PROSE = Text("prose", "The kettle is on, and the lamp in the hall is off. 水壶开着，走廊的灯关着。\n" * 40)


def run(source, out, file_type="Q4_K_M", **changes) -> str:
    """Convert; returns what was said."""
    said = io.StringIO()
    job = Job(source=str(source), file_type=file_type, models=out.parent, output=out, threads=1, **changes)
    convert(job, on_console(Console(file=said, width=200)))
    return said.getvalue()


@pytest.fixture
def source(tmp_path):
    write_checkpoint(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """The demo model, unquantized."""
    out = tmp_path_factory.mktemp("exact") / "demo.gguf"
    run(DEMO, out, "BF16")
    return out


@pytest.fixture(scope="module")
def measured(exact, tmp_path_factory):
    """The importance matrix of the demo model on our own text."""
    target = tmp_path_factory.mktemp("measured") / "imatrix.npz"
    measure_importance(read_text(None), exact, target, threads=1, progress=on_console(Console(file=io.StringIO())))
    return target


def test_every_column_of_every_matrix_has_a_positive_finite_importance(exact, measured):
    importance = read_importance(measured)
    layers = [f"blk.{layer}.{name}.weight" for layer in range(6) for name in MATRICES]
    assert set(importance) == {*layers, "token_embd.weight"}, "the tied embedding is measured as the output head"
    assert tokens_read(measured) > 4000
    for name, values in importance.items():
        assert values.shape == (512 if "ffn_down" in name else 256,)
        assert np.isfinite(values).all()
        assert (values > 0).all()
        assert values.std() > 0.01


MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def test_the_importance_is_the_mean_square_of_what_a_matrix_is_multiplied_with(tmp_path):
    """The first queries' input is the normed embedding, which numpy computes as well."""
    tensors = write_checkpoint(tmp_path / "tiny")
    run(tmp_path / "tiny", tmp_path / "tiny.gguf", "BF16")
    with Model(tmp_path / "tiny.gguf", gpu_layers=0, repack=False) as model:
        tokens = model.vocab.encode_marked(PROSE.text)[:700]
        found = measure(model, tokens, 1, lambda _: None)
    embedded = tensors["model.embed_tokens.weight"].astype(np.float64)[tokens]
    normed = embedded / np.sqrt((embedded**2).mean(axis=1, keepdims=True) + 1e-6)
    normed *= tensors["model.layers.0.input_layernorm.weight"].astype(np.float64)
    squares = (normed**2).mean(axis=0)
    for name in ("attn_q", "attn_k", "attn_v"):
        np.testing.assert_allclose(found[f"blk.0.{name}.weight"], squares / squares.mean(), rtol=1e-3)


def logits(model_file, text: str, most: int):
    with Model(model_file, gpu_layers=0, repack=False) as model:
        tokens = model.vocab.encode_marked(text)[:most]
        cells = FixedCells(model, Load(str(model_file), 512, 64, 1, 0, "f16", "off", 5.0, parallel=32))
        rows = []
        for start in range(0, len(tokens), 64):
            some = tokens[start : start + 64]
            cells.decode([Slice(0, start, some, len(some))])
            rows += [cells.logits(row).astype(np.float64) for row in range(len(some))]
        cells.close()
    shifted = np.array(rows) - np.max(rows, axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def divergence(exact, other) -> float:
    return float((np.exp(exact) * (exact - other)).sum(axis=1).mean())


def test_a_file_rounded_by_importance_is_nearer_to_the_exact_model(exact, tmp_path):
    said = run(DEMO, tmp_path / "by-importance.gguf", text=read_text(None))
    assert "measuring importance" in said
    run(DEMO, tmp_path / "plain.gguf")
    manifest = read_manifest(tmp_path / "by-importance.gguf")
    assert manifest.types == read_manifest(tmp_path / "plain.gguf").types
    assert set(manifest.seconds) == {"write", "imatrix", "quantize", "check", "hash"}
    text = OWN.read_text("utf-8")
    expected = logits(exact, text, 512)
    plain, rounded = (
        divergence(expected, logits(tmp_path / f, text, 512)) for f in ("plain.gguf", "by-importance.gguf")
    )
    assert rounded < plain


def test_the_manifest_says_with_which_text(source, tmp_path):
    out = tmp_path / "tiny.gguf"
    file = tmp_path / "mine.txt"
    file.write_text(PROSE.text)
    text = read_text(file)
    run(source, out, text=text)
    found = read_manifest(out).imatrix
    assert found == Imatrix(str(file), sha256(file), found.tokens)
    assert found.tokens > 512
    run(source, out)
    assert read_manifest(out).imatrix is None


@pytest.mark.parametrize("tied", [True, False])
def test_another_text_is_another_conversion_and_the_same_one_is_none(tmp_path, tied):
    source, out = tmp_path / "tiny", tmp_path / "tiny.gguf"
    write_checkpoint(source, tied=tied)
    run(source, out, text=PROSE)
    first = sha256(out)
    assert "is up to date" in run(source, out, text=PROSE)
    assert "is up to date" not in run(source, out, text=Text("other", PROSE.text[::-1]))
    assert sha256(out) != first
    run(source, out, text=Text("moved", PROSE.text))
    assert sha256(out) == first, "the same text gives the same bytes, whatever its name"
    run(source, out)
    assert sha256(out) != first


def test_a_text_of_too_few_tokens_leaves_nothing_behind(tmp_path):
    out = tmp_path / "out" / "demo.gguf"
    with pytest.raises(ConversionError, match=r"--imatrix prose is too short: it has \d+ tokens, and at least 512"):
        run(DEMO, out, text=Text("prose", PROSE.text[:600]))
    assert list(out.parent.iterdir()) == []


def start(source, out, text) -> subprocess.Popen:
    words = ["convert", str(source), "-o", str(out), "--threads", "1", "--imatrix", str(text)]
    return subprocess.Popen(
        [sys.executable, "-m", "qwen_edge", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("word", ["measuring", "quantizing", "checking"])
def test_interrupted_the_next_run_goes_on_and_gives_the_same_bytes(source, tmp_path, monkeypatch, word, number):
    out, file = tmp_path / "out" / "tiny.gguf", tmp_path / "mine.txt"
    file.write_text(PROSE.text)
    run(source, tmp_path / "undisturbed.gguf", text=read_text(file))
    process = start(source, out, file)
    for line in process.stdout:
        if word in line:
            break
    process.send_signal(number)
    process.communicate()
    assert not out.exists()
    done = json.loads((out.parent / "tiny.gguf.work" / "journal.json").read_text())["seconds"]
    stages = ["write", "imatrix", "quantize"][: {"measuring": 1, "quantizing": 2, "checking": 3}[word]]
    assert set(stages) <= set(done)

    def must_not_run(*_arguments, **_options):
        raise AssertionError("a finished stage ran again")

    for stage, name in zip(stages, ("write_gguf", "measure_importance", "quantize"), strict=False):
        assert stage in done
        monkeypatch.setattr(pipeline, name, must_not_run)
    run(source, out, text=read_text(file))
    assert sha256(out) == sha256(tmp_path / "undisturbed.gguf")
    assert sorted(path.name for path in out.parent.iterdir()) == ["tiny.gguf", "tiny.gguf.json"]
    assert read_manifest(out).imatrix.sha256 == sha256(file)
