"""Models for the tests that need llama.cpp: a tiny random one, and the demo model; each converted once."""

from __future__ import annotations

import io
from pathlib import Path

import gguf
import pytest
from rich.console import Console

from qwen_edge.convert.pipeline import Job, convert
from qwen_edge.core.progress import on_console
from tests.checkpoints import write_checkpoint

DEMO = Path(__file__).parents[2] / "models" / "demo"


def converted(source: Path, output: Path, head: str | None = None) -> Path:
    job = Job(source=str(source), file_type="Q4_K_M", models=output.parent, output=output, head=head)
    return convert(job, on_console(Console(file=io.StringIO())))


def without_key(model: Path, key: str, target: Path) -> Path:
    """The same GGUF file without one key."""
    return with_values(model, target, {key: None})


def with_values(model: Path, target: Path, values: dict[str, int | float | bool | None]) -> Path:
    """The same GGUF file with other values of these keys; None: without the key."""
    kinds = {int: gguf.GGUFValueType.UINT32, float: gguf.GGUFValueType.FLOAT32, bool: gguf.GGUFValueType.BOOL}
    reader = gguf.GGUFReader(model)
    writer = gguf.GGUFWriter(target, "qwen3")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", *values):
            continue
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], inner)
    for key, value in values.items():
        if value is not None:
            writer.add_key_value(key, value, kinds[type(value)])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    write_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_checkpoint, tmp_path_factory) -> Path:
    """A random model that says nothing of sense, always the same."""
    return converted(tiny_checkpoint, tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="session")
def demo_model(tmp_path_factory) -> Path:
    return converted(DEMO, tmp_path_factory.mktemp("models") / "demo.gguf")


@pytest.fixture(scope="session")
def endless_model(tiny_model, tmp_path_factory) -> Path:
    """The random model as a file from elsewhere that names no end token."""
    return without_key(tiny_model, "tokenizer.ggml.eos_token_id", tmp_path_factory.mktemp("models") / "endless.gguf")
