"""What ends a turn in the checkpoint ends it in the engine, and a word that does is told."""

import asyncio
import json

import pytest

from qwen_edge.convert.load_check import check_loads
from qwen_edge.core.errors import ConversionError
from qwen_edge.llama.model import Model
from tests.checkpoints import write_checkpoint
from tests.model.conftest import converted
from tests.served import ServedModel
from tests.waiting import until

pytestmark = pytest.mark.model

FIRST, WORD = 261, 257  # ids: of the first added token, and of "ll"
TAKEN = r"11 ('\x0b')"  # by llama.cpp if no token is named: a comma in Qwen's vocabulary, another byte in this one


def test_every_end_token_of_the_checkpoint_ends_a_turn_and_can_be_barred(tmp_path):
    folder = tmp_path / "tiny"
    write_checkpoint(folder)
    named = [FIRST + i for i in range(7)] + [WORD]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": named}))
    with Model(converted(folder, tmp_path / "tiny.gguf")) as model:
        assert set(model.vocab.ends) == set(named)
        assert all(model.vocab.is_end(token) for token in named)
        assert not model.vocab.is_end(WORD - 1)
        assert model.vocab.ordinary_ends == [WORD]


def test_a_proper_end_token_is_nothing_to_tell(tiny_model):
    assert check_loads(tiny_model) == []


def test_a_word_that_llama_cpp_takes_for_the_end_is_told_with_its_text(endless_model):
    assert check_loads(endless_model) == [TAKEN]


def test_the_daemon_warns_of_a_word_that_ends_answers(endless_model):
    with ServedModel(endless_model, "--context", "512") as served:
        asyncio.run(until(lambda: f"answers end where the model writes token {TAKEN}" in "".join(served.log)))


def test_a_file_that_llama_cpp_dies_of_takes_nobody_along(tiny_model, tmp_path):
    """Its embedding length is no multiple of what the heads need: an assertion, not an error."""
    data = bytearray(tiny_model.read_bytes())
    key = b"qwen3.attention.head_count"
    place = data.index(key) + len(key) + 4
    data[place : place + 4] = bytes(4)
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(ConversionError, match=r"died \(SIG|could not load"):
        check_loads(tmp_path / "m.gguf")
