"""The unquantized GGUF is llama.cpp's own converter's, key for key and bit for bit (recorded in tests/golden)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_edge.core.checksum import sha256
from tests.golden.make_converter_golden import GOLDEN, describe, make_checkpoints


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    return make_checkpoints(tmp_path_factory.mktemp("faithful"))


@pytest.mark.parametrize("kind", ["qwen3", "qwen2"])
def test_the_unquantized_file_is_the_one_llama_cpp_writes(checkpoints, tmp_path, kind):
    theirs = json.loads(GOLDEN.read_text())[kind]
    command = [sys.executable, "-m", "qwen_edge", "convert", str(checkpoints[kind]), "--type", "BF16"]
    subprocess.run([*command, "-o", str(tmp_path / "ours.gguf")], check=True)
    if sha256(tmp_path / "ours.gguf") != theirs["sha256"]:
        ours = describe(tmp_path / "ours.gguf")
        assert ours["keys"] == theirs["keys"]
        assert ours["tensors"] == theirs["tensors"]
        pytest.fail("the same keys and tensors in another order")
