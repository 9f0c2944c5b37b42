"""Prompts are computed with the weights of the file and answers with repacked ones: the words are the same."""

import asyncio
import os
import shutil
from contextlib import contextmanager

import numpy as np
import pytest

from qwen_edge.core.errors import EngineError
from qwen_edge.kv.slice import Slice
from qwen_edge.llama import ggml_tensor, plain_weights, tune_weights
from qwen_edge.llama.backend import LlamaBackend
from qwen_edge.llama.devices import Device
from qwen_edge.llama.fixed_cells import FixedCells
from qwen_edge.llama.gguf_header import Place, places_of_tensors
from qwen_edge.llama.mapped_file import MappedFile, identity_of
from qwen_edge.llama.model import Model
from qwen_edge.llama.plain_weights import PlainWeights, plain_bytes
from qwen_edge.llama.plan import plan_memory
from qwen_edge.llama.tune_weights import fastest_weights
from qwen_edge.protocol.messages import Load, Tuning
from tests.waiting import until

pytestmark = pytest.mark.model
PROMPT = [7 + number % 90 for number in range(48)]


def load(path, **changes) -> Load:
    settings = {"kv_type": "f16", "flash_attention": "off", "beat_seconds": 5.0, "parallel": 2} | changes
    return Load(model=str(path), context=512, batch=64, threads=2, gpu_layers=0, **settings)


@pytest.fixture
def file(demo_model, tmp_path):
    """A file of its own for a test, as it will be written to."""
    return shutil.copy(demo_model, tmp_path / "own.gguf")


@contextmanager
def opened(file):
    """A model, and its cells in a small context."""
    with Model(file, gpu_layers=0) as model:
        cells = FixedCells(model, load(file))
        yield model, cells
        cells.close()


def logits(cells, tokens):
    cells.decode([Slice(0, 0, list(tokens), 1)])
    found = cells.logits(len(tokens) - 1).copy()
    cells.forget(0, 0, -1)
    return found


def in_use(model) -> bool:
    """Whether the tensors of the model are the file's now."""
    return plain_bytes(model.handle, model.path) == 0


def test_both_kinds_of_weights_give_the_same_logits_but_for_rounding(demo_model):
    with opened(demo_model) as (model, cells):
        repacked = logits(cells, PROMPT)
        assert model.use_plain_weights(32)
        plain = logits(cells, PROMPT)
        assert in_use(model)
        assert np.abs(plain - repacked).max() < 0.02 * np.abs(repacked).max()
        assert (plain != repacked).any(), "it was computed another way"
        model.use_plain_weights(0)
        assert (logits(cells, PROMPT) == repacked).all()


def test_a_prompt_uses_the_files_weights_and_the_answer_after_it_the_repacked_ones(demo_model):
    with opened(demo_model) as (model, cells):
        model.use_plain_weights(32)
        for count, plain in ((48, True), (1, False), (31, False), (32, True), (3, False)):
            logits(cells, PROMPT[:count])
            assert in_use(model) == plain, count


def test_a_prompt_in_plain_weights_is_continued_in_repacked_ones_as_by_llama_cpp_alone(demo_model):
    def greedy(cells, count=24):
        tokens, said = list(PROMPT), []
        cells.decode([Slice(0, 0, tokens, 1)])
        row = len(tokens) - 1
        for _ in range(count):
            said.append(int(cells.logits(row).argmax()))
            cells.decode([Slice(0, len(tokens), said[-1:], 1)])
            tokens.append(said[-1])
            row = 0
        cells.forget(0, 0, -1)
        return said

    with opened(demo_model) as (model, cells):
        expected = greedy(cells)
        model.use_plain_weights(32)
        assert greedy(cells) == expected


def test_a_file_that_is_written_to_is_not_used_any_more(file):
    with opened(file) as (model, cells):
        expected = logits(cells, PROMPT)
        model.use_plain_weights(32)
        logits(cells, PROMPT)
        assert in_use(model)
        places = places_of_tensors(file)
        with file.open("r+b") as target:
            for place in places.values():
                target.seek(place.start)
                target.write(b"\xff" * place.size)
        assert (logits(cells, PROMPT) == expected).all()
        assert not in_use(model)


def test_a_file_that_was_written_to_before_it_was_mapped_is_not_used(file):
    with opened(file) as (model, cells):
        expected = logits(cells, PROMPT)
        os.utime(file)
        model.use_plain_weights(32)
        assert (logits(cells, PROMPT) == expected).all()
        assert not in_use(model)


def test_a_file_that_is_replaced_by_another_stays_the_one_that_was_loaded(file, tmp_path):
    with opened(file) as (model, cells):
        model.use_plain_weights(32)
        expected = logits(cells, PROMPT)
        (tmp_path / "new.gguf").write_bytes(b"GGUF" + bytes(file.stat().st_size))
        (tmp_path / "new.gguf").replace(file)
        assert (logits(cells, PROMPT) == expected).all()


def test_a_file_that_is_written_to_with_its_time_restored_is_not_used_any_more(file):
    with opened(file) as (model, cells):
        expected = logits(cells, PROMPT)
        model.use_plain_weights(32)
        before, place = file.stat(), max(places_of_tensors(file).values(), key=lambda one: one.size)
        with file.open("r+b") as target:
            target.seek(place.start)
            target.write(b"\xff" * place.size)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (logits(cells, PROMPT) == expected).all()
        assert not in_use(model)


@pytest.mark.parametrize("batch", [PROMPT, PROMPT[:8]])
def test_only_a_batch_that_may_have_read_what_was_written_meanwhile_ends_in_an_error(file, monkeypatch, batch):
    with opened(file) as (model, cells):
        model.use_plain_weights(32)
        arrange = model.arrange
        monkeypatch.setattr(model, "arrange", lambda tokens: (arrange(tokens), os.utime(file)))
        if batch == PROMPT:
            with pytest.raises(EngineError, match="was written to while a prompt was computed"):
                logits(cells, batch)
        else:
            logits(cells, batch)


@pytest.mark.parametrize("do", [lambda file, new: new.replace(file), lambda file, _new: file.unlink()])
def test_a_batch_during_which_the_file_is_replaced_or_deleted_is_right(file, tmp_path, monkeypatch, do):
    (tmp_path / "new.gguf").write_bytes(b"GGUF")
    with opened(file) as (model, cells):
        model.use_plain_weights(32)
        expected, arrange = logits(cells, PROMPT), model.arrange
        monkeypatch.setattr(model, "arrange", lambda tokens: (arrange(tokens), do(file, tmp_path / "new.gguf")))
        assert (logits(cells, PROMPT) == expected).all()
        assert in_use(model)


def test_weights_that_are_not_in_memory_are_read_beside_the_work_and_used_later(demo_model, monkeypatch):
    now, missing, read = [0.0], [True], []
    monkeypatch.setattr(MappedFile, "is_in_memory", property(lambda self: not missing[0]))
    monkeypatch.setattr(MappedFile, "read_ahead", lambda self: read.append(now[0]))
    with Model(demo_model, gpu_layers=0) as model:
        weights = PlainWeights(model.handle, demo_model, identity_of(demo_model), clock=lambda: now[0])
        weights.use(plain=True)
        assert (in_use(model), read) == (False, [0.0])
        missing[0], now[0] = False, 6.0
        assert weights.use(plain=True)
        assert in_use(model)
        for now[0] in (6.0, 8.0, 10.9):  # they are looked at again although they are used all the time
            assert weights.use(plain=True), "they were in memory a moment ago"
            missing[0] = True
        now[0] = 11.0
        assert not weights.use(plain=True)
        assert (in_use(model), read) == (False, [0.0, 11.0])
        weights.close()


def test_what_is_read_ahead_is_in_memory_afterwards(file):
    with file.open("r+b") as target:  # more than any device reads ahead
        target.truncate(64 << 20)
        os.fsync(target.fileno())
        os.posix_fadvise(target.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    mapped = MappedFile(file, identity_of(file), [Place(100_000, 60 << 20)])
    assert not mapped.is_in_memory
    mapped.read_ahead()
    asyncio.run(until(lambda: mapped.is_in_memory))
    mapped.close()


def test_a_system_that_does_not_say_what_is_in_memory_is_taken_to_have_all_of_it(file, monkeypatch):
    monkeypatch.setattr("qwen_edge.llama.mapped_file.mincore", lambda *_: -1)
    mapped = MappedFile(file, identity_of(file), places_of_tensors(file).values())
    with file.open("rb") as source:
        os.fsync(source.fileno())
        os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert mapped.is_in_memory
    mapped.close()


def test_nothing_is_read_ahead_where_memory_is_short(file, monkeypatch):
    monkeypatch.setattr("qwen_edge.llama.mapped_file.available_bytes", lambda: 1 << 20)
    mapped = MappedFile(file, identity_of(file), places_of_tensors(file).values())
    mapped.read_ahead()
    assert mapped._reading is None
    mapped.close()


def test_a_llama_cpp_with_other_tensors_serves_with_repacked_weights_only(demo_model, monkeypatch):
    for name, other in (("_OBJECT_BYTES", 40), ("_GET_TENSOR", "_ZNK11llama_model9no_tensorEPKc")):
        with monkeypatch.context() as patched, opened(demo_model) as (model, cells):
            patched.setattr(ggml_tensor, name, other)
            expected = logits(cells, PROMPT)
            assert model.use_plain_weights(32) is False
            assert (logits(cells, PROMPT) == expected).all()


def test_a_tensor_that_is_not_where_it_should_be_is_not_touched(demo_model, monkeypatch):
    places = {
        name: plain_weights.Place(one.start, one.size + 32) for name, one in places_of_tensors(demo_model).items()
    }
    monkeypatch.setattr(plain_weights, "places_of_tensors", lambda path: places)
    with Model(demo_model, gpu_layers=0) as model:
        with pytest.raises(EngineError, match="another layout"):
            PlainWeights(model.handle, demo_model, identity_of(demo_model))
        assert model.use_plain_weights(32) is False


def test_a_model_without_repacked_weights_has_one_kind_only(demo_model):
    with Model(demo_model, gpu_layers=0, repack=False) as model:
        assert model.plain_bytes == 0
        assert model.use_plain_weights(32) is False
        assert fastest_weights(model, load(demo_model)) == 0


@pytest.mark.parametrize(
    ("plain", "found"),
    [({32: 0.9, 64: 0.7}, 32), ({32: 1.0, 64: 0.7}, 64), ({32: 0.98, 64: 0.98}, 0), ({32: 1.2, 64: 1.2}, 0)],
)
def test_the_weights_for_prompts_are_those_that_were_measured_to_be_faster(demo_model, monkeypatch, plain, found):
    now = [0.0]

    def decode(cells, slices):
        (one,) = slices
        is_plain = cells.settings.model._plain_from == 1
        now[0] += plain[len(one.tokens)] if is_plain else 1.0

    monkeypatch.setattr(tune_weights, "_PLAIN_FROM", (32, 64))
    monkeypatch.setattr(FixedCells, "decode", decode)
    with Model(demo_model, gpu_layers=0) as model:
        assert fastest_weights(model, load(demo_model), clock=lambda: now[0]) == found
        assert not in_use(model)


def test_a_slow_device_does_not_measure_weights_for_ever(demo_model, monkeypatch):
    now, batches = [0.0], []

    def decode(cells, slices):
        batches.append(len(slices[0].tokens))
        now[0] += 3.0

    monkeypatch.setattr(FixedCells, "decode", decode)
    with Model(demo_model, gpu_layers=0) as model:
        assert fastest_weights(model, load(demo_model), 10.0, clock=lambda: now[0]) == 0
    assert batches == [tune_weights._PLAIN_FROM[0]] * 4


def test_weights_that_are_not_in_memory_are_not_taken_for_slow_ones(demo_model, monkeypatch):
    monkeypatch.setattr(MappedFile, "is_in_memory", False)
    with Model(demo_model, gpu_layers=0) as model:
        assert fastest_weights(model, load(demo_model)) is None


def test_a_llama_cpp_that_gives_products_to_an_accelerator_has_one_kind_only(demo_model, monkeypatch):
    monkeypatch.setattr(plain_weights, "list_devices", lambda: [Device("BLAS", "OpenBLAS", "accelerator")])
    with Model(demo_model, gpu_layers=0) as model:
        assert model.use_plain_weights(32) is False


def test_an_engine_uses_what_was_measured_and_measures_what_was_not(demo_model, monkeypatch):
    monkeypatch.setattr("qwen_edge.llama.tune.fastest_weights", lambda *_: 128)
    for known, calibrate, used, kept in (
        (Tuning(flash_attention="off", plain_from=32, flash_streams=0), True, 32, None),
        (Tuning(2, "off", 64, flash_streams=8), True, 128, Tuning(2, "off", 64, plain_from=128, flash_streams=8)),
        (Tuning(2, "off", 64), False, 0, None),
        (None, False, 0, None),
    ):
        asked = load(demo_model, flash_attention="auto", tuning=known, calibrate=calibrate)
        backend = LlamaBackend(asked, lambda _: None)
        assert (backend._model._plain_from, backend.ready().tuning) == (used, kept)
        backend.close()


def test_what_could_not_be_measured_is_not_kept(demo_model, monkeypatch):
    monkeypatch.setattr("qwen_edge.llama.tune.fastest_weights", lambda *_: None)
    known = Tuning(2, "off", 64, flash_streams=0)
    backend = LlamaBackend(load(demo_model, flash_attention="auto", tuning=known, calibrate=True), lambda _: None)
    assert (backend._model._plain_from, backend.ready().tuning) == (0, None)
    backend.close()


def test_the_memory_plan_tells_what_is_mapped_beside_what_is_taken(demo_model):
    without = plan_memory(load(demo_model), 1 << 40)
    plan = plan_memory(load(demo_model, tuning=Tuning(plain_from=32)), 1 << 40)
    with Model(demo_model, gpu_layers=0) as model:
        assert plan.mapped == model.plain_bytes > 1_000_000
    assert plan.total == without.total
    assert f"{plan.mapped / 1e6:.0f} MB of the file mapped for prompts" in str(plan)
    assert (without.mapped, "mapped" in str(without)) == (0, False)
