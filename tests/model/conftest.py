"""Models for the tests that need llama.cpp: a tiny random one, and the demo model; each converted once."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from qwen_edge.convert.pipeline import Job, convert
from qwen_edge.convert.progress import Progress
from tests.checkpoints import write_checkpoint

DEMO = Path(__file__).parents[2] / "models" / "demo"


def converted(source: Path, output: Path) -> Path:
    job = Job(source=str(source), file_type="Q4_K_M", models=output.parent, output=output)
    return convert(job, Progress(Console(file=io.StringIO())))


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
