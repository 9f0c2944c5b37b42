"""What these tests need from outside the project: ../shared, with the full-size checkpoint's maker."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shared.board import Board, unusable_board

SHARED = Path(__file__).resolve().parents[3] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.shared)
            item.add_marker(pytest.mark.timeout(900))
            if not SHARED.is_dir():
                item.add_marker(pytest.mark.skip(reason=f"{SHARED} is not there"))


@pytest.fixture
def board() -> Iterator[Board]:
    """An emulated board; its jtop service is started by the test."""
    if why := unusable_board():
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="qe-") as name:
        Path(name).chmod(0o755)
        board = Board(Path(name))
        yield board
        board.end()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """Qwen3-0.6B's shapes and tokenizer at full size, with answers known word for word (walk.json)."""
    folder = tmp_path_factory.mktemp("full") / "Qwen3-0.6B"
    maker = SHARED / "tools" / "make_synthetic_qwen3.py"
    subprocess.run([sys.executable, str(maker), str(folder)], check=True)
    return folder


@pytest.fixture(scope="session")
def walk(checkpoint) -> dict:
    return json.loads((checkpoint / "walk.json").read_text())


@pytest.fixture(scope="session")
def conversion(checkpoint, tmp_path_factory) -> dict:
    """The whole conversion by the command line, as `convert` describes it."""
    return convert(checkpoint, tmp_path_factory.mktemp("model") / "qwen3-0.6b-q4_k_m.gguf")


def convert(checkpoint: Path, output: Path, *options: str) -> dict:
    """A conversion by the command line, with what it took: the file, seconds, and peak memory in bytes."""
    command = [sys.executable, "-m", "qwen_edge", "convert", str(checkpoint), "-o", str(output), *options]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        peaks = _watch(process)
    assert process.returncode == 0
    return {"file": output, "seconds": time.monotonic() - began, **peaks}


def _watch(process: subprocess.Popen) -> dict[str, int]:
    """Peak resident bytes of the command and its workers together, and anonymous ones before the quantizer runs."""
    import psutil

    resident = anonymous = 0
    main = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            family = [main, *main.children()]
            resident = max(resident, sum(member.memory_info().rss for member in family))
            if len(family) == 1:
                info = main.memory_info()
                anonymous = max(anonymous, info.rss - info.shared)
        except psutil.NoSuchProcess:
            continue
        time.sleep(0.02)
    return {"resident": resident, "anonymous": anonymous}
