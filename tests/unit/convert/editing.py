"""Changes to the files of a checkpoint, as people and tools make them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qwen_edge.convert.gguf_file import Plan
from qwen_edge.convert.hub import Source
from qwen_edge.convert.pipeline import make_plan
from qwen_edge.core.errors import ConversionError


@contextmanager
def edited(file: Path) -> Iterator[dict[str, Any]]:
    """The JSON object of a file, {} if there is none; written back at the end."""
    values = json.loads(file.read_text()) if file.exists() else {}
    yield values
    file.write_text(json.dumps(values))


def plan_of(folder: Path) -> Plan:
    return make_plan(Source(folder, "tiny", str(folder)))


def refused(folder: Path) -> str:
    """The one sentence, or some, with which the checkpoint is refused."""
    with pytest.raises(ConversionError) as error:
        plan_of(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    return str(error.value)
