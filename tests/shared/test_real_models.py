"""Real models of other makers, as ../shared/tools/real_models.sh fetches them into the folder that QE_MODELS names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qwen_edge.core.errors import UnservableError
from qwen_edge.engine.loop import Engine
from qwen_edge.llama.backend import LlamaBackend
from qwen_edge.protocol.messages import Load, Sampling, Segment, Submit, Tokens

FOLDER = os.environ.get("QE_MODELS", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="QE_MODELS names no folder with real models")


def load(name: str) -> Load:
    found = sorted(Path(FOLDER).glob(name))
    if not found:
        pytest.skip(f"there is no {name} in {FOLDER}")
    return Load(str(found[0]), 2048, 128, 0, 0, "f16", "off", 5.0)


def test_gemma_3_is_refused_for_its_sliding_window():
    with pytest.raises(UnservableError, match=r"\(gemma3\) has a sliding window of 512 tokens"):
        LlamaBackend(load("gemma-3-*.gguf"), lambda _: None)


def test_smollm2_knows_the_capital_of_france():
    engine = Engine(LlamaBackend(load("SmolLM2-*.gguf"), lambda _: None))
    engine.submit(Submit(1, (Segment("The capital of France is"),), Sampling(temperature=0.0), 8, 60.0))
    events = []
    while engine.busy:
        events += engine.step()
    assert "".join(event.text for event in events if isinstance(event, Tokens)).startswith(" Paris")
