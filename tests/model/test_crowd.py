"""Where flash attention is faster only for many requests at once, they have it, and no word changes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count

import numpy as np
import pytest
from msgspec.structs import replace

from qwen_edge.core.errors import EngineError
from qwen_edge.kv.slice import Slice
from qwen_edge.llama import tune as tuning
from qwen_edge.llama import tune_streams
from qwen_edge.llama.backend import LlamaBackend
from qwen_edge.llama.bindings import C
from qwen_edge.llama.growing_cells import GrowingCells
from qwen_edge.llama.model import Model
from qwen_edge.llama.resolve import resolve
from qwen_edge.llama.site import site
from qwen_edge.llama.tune_streams import fastest_streams
from qwen_edge.models.tuning import described, keep
from qwen_edge.protocol.messages import Load, Tuning
from tests.served import ServedModel

pytestmark = pytest.mark.model

TOKENS = [40 + i % 60 for i in range(2000)]


@pytest.fixture(scope="module")
def model(tiny_model):
    with Model(tiny_model) as model:
        yield model


def load(model: Model, **changes: object) -> Load:
    load = Load(str(model.path), 2048, 64, 2, 0, "f16", "off", 5.0, parallel=32, flash_streams=3)
    return replace(load, **changes)


def begun(cells: GrowingCells) -> GrowingCells:
    """Two sequences of 100 tokens."""
    for sequence in (0, 1):
        for at in (0, 50):
            cells.decode([Slice(sequence, at, TOKENS[at : at + 50], 0)])
    return cells


def next_logits(cells: GrowingCells) -> np.ndarray:
    cells.decode([Slice(0, 100, TOKENS[:10], 1)])
    logits = cells.logits(9).copy()
    cells.forget(0, 100, -1)
    return logits


def stays(cells: GrowingCells, streams: int, *, soon: int = 50, later: int = 60) -> None:
    """Some steps of this many requests, for which there is room."""
    for _ in range(3):
        cells.expect(200, 0, soon, later, streams)
        if cells.growing:
            cells.growing.wait()


@pytest.mark.parametrize("gone", ["rest", "half a minute"])
@pytest.mark.parametrize("kv_type", ["f16", "q8_0_keys"])
def test_many_requests_at_once_get_flash_attention_until_they_have_gone(model, kv_type, gone):
    now = [0.0]
    cells = begun(GrowingCells(model, load(model, kv_type=kv_type), clock=lambda: now[0]))
    plain, flash = (
        begun(GrowingCells(model, load(model, kv_type=kv_type, flash_attention=kind))) for kind in ("off", "on")
    )
    try:
        stays(cells, 2)
        assert not cells.skips
        room = cells.room
        stays(cells, 3)
        assert cells.skips
        assert cells.room == room, "nothing else has changed"
        assert np.allclose(next_logits(cells), next_logits(flash), atol=0.1)
        now[0] = 29.0
        stays(cells, 2)
        assert cells.skips, "the others may come again soon"
        assert cells.growing is None
        if gone == "rest":
            cells.fit(200)
        else:
            now[0] = 31.0
            stays(cells, 2)
        assert not cells.skips
        assert cells.growing is None
        assert np.allclose(next_logits(cells), next_logits(plain), atol=0.1)
    finally:
        for one in (cells, plain, flash):
            one.close()


def test_many_short_answers_get_it_too(model):
    cells = begun(GrowingCells(model, load(model)))
    stays(cells, 3, soon=50, later=50)
    assert cells.skips
    cells.close()


def test_a_larger_cache_in_the_making_gives_way_where_only_the_attention_is_missing(model):
    opened = []

    def create(handle, params):
        opened.append((int(params.n_ctx), int(params.flash_attn_type)))
        return C.llama_init_from_model(handle, params)

    cells = begun(GrowingCells(model, load(model), create=create))
    cells.expect(200, 0, 400, 500, 1)
    cells.growing.wait()
    stays(cells, 3)
    assert cells.skips
    assert opened == [(512, 0), (768, 0), (512, 1)]
    cells.close()


def test_so_many_cells_that_a_copy_takes_long_are_not_copied_for_the_attention_alone(model, monkeypatch):
    monkeypatch.setattr("qwen_edge.llama.growing_cells._LONGEST_MOVE", 0.009)
    cells = begun(GrowingCells(model, load(model)))
    stays(cells, 3)
    assert (cells.skips, cells.growing) == (False, None)
    cells.expect(200, 0, 800, 900, 3)
    assert cells.make_room(1000)
    assert cells.skips, "it must be copied anyway"
    cells.close()


def test_a_small_cache_stays_as_it_is_where_a_larger_one_would_have_another_attention(model):
    cells = GrowingCells(model, load(model, flash_attention="small", flash_cells=512, flash_streams=0))
    for at in range(0, 400, 50):
        cells.decode([Slice(0, at, TOKENS[at : at + 50], 0)])
    cells.fit(400)
    assert (cells.room, cells.skips) == (512, True)
    cells.close()


@pytest.mark.parametrize("flash_attention", ["off", "small"])
def test_without_memory_for_the_other_attention_the_cache_is_as_it_was(model, flash_attention):
    refused = []

    def create(handle, params):
        return None if refused and refused.pop() else C.llama_init_from_model(handle, params)

    settings = {"flash_attention": flash_attention, "flash_cells": 256}
    cells = begun(GrowingCells(model, load(model, **settings), create=create))
    stays(cells, 3)
    before = next_logits(cells)
    refused += [False, True, True]
    cells.fit(200)
    assert not refused, "two were asked for, and the old one again"
    assert cells.skips
    assert np.allclose(next_logits(cells), before, atol=1e-4)
    cells.fit(200)
    assert not cells.skips
    cells.close()


def test_a_cache_that_grows_for_many_requests_has_flash_attention(model):
    cells = begun(GrowingCells(model, load(model)))
    try:
        cells.expect(200, 0, 800, 900, 3)
        assert cells.make_room(1000)
        assert cells.skips
        assert cells.room >= 1000
        cells.expect(200, 0, 100, 100, 3)
        assert cells.growing is None, "it is as it should be"
    finally:
        cells.close()


def test_without_memory_for_another_cache_many_requests_go_on_in_the_old_one(model, monkeypatch):
    cells = begun(GrowingCells(model, load(model)))
    before = next_logits(cells)
    monkeypatch.setattr(GrowingCells, "_has_memory", lambda _self, _size: False)
    stays(cells, 3)
    assert (cells.skips, cells.growing) == (False, None)
    assert np.array_equal(next_logits(cells), before)
    cells.close()


def test_who_has_chosen_an_attention_keeps_it(model):
    measured = Tuning(flash_attention="off", flash_streams=3)
    assert resolve(model, load(model, flash_attention="off", flash_streams=0, tuning=measured)).flash_streams == 0
    asked = load(model, flash_attention="auto", flash_streams=0, tuning=measured)
    assert resolve(model, asked).flash_streams == 3
    assert resolve(model, replace(asked, kv_type="q8_0")).flash_streams == 0
    assert resolve(model, replace(asked, tuning=replace(measured, flash_attention="on"))).flash_streams == 0


@pytest.mark.parametrize("streams", [0, 1])
def test_one_request_is_no_crowd_whatever_a_file_says(model, streams):
    cells = begun(GrowingCells(model, load(model, flash_streams=streams)))
    stays(cells, 1)
    assert not cells.skips
    cells.close()


@pytest.mark.parametrize(
    ("faster_from", "parallel", "found"), [(8, 32, 8), (16, 32, 16), (16, 12, 0), (8, 7, None), (64, 32, 0)]
)
def test_the_smallest_crowd_that_gains_is_found(model, monkeypatch, faster_from, parallel, found):
    measured = []

    def pretend(_model, _load, streams, _clock):
        measured.append(streams)
        return (0.9, 1.0) if streams >= faster_from else (1.01, 1.0)

    monkeypatch.setattr(tune_streams, "_seconds", pretend)
    assert fastest_streams(model, load(model, parallel=parallel)) == found
    assert all(streams <= parallel for streams in measured)


def test_a_measurement_of_crowds_ends_when_its_time_is_over(model, monkeypatch):
    monkeypatch.setattr(tune_streams, "_seconds", lambda *_: (1.0, 1.0))
    clock = count()
    assert fastest_streams(model, load(model), 2.0, lambda: float(next(clock))) == 0
    assert next(clock) == 3, "two numbers were not even tried"
    assert fastest_streams(model, load(model), 0.0) is None, "none was tried"


@pytest.mark.parametrize(("context", "most"), [(512, None), (600, 8), (800, 12)])
def test_no_more_is_measured_than_the_context_holds(model, monkeypatch, context, most):
    measured = []
    monkeypatch.setattr(tune_streams, "_seconds", lambda *given: measured.append(given[2]) or (1.0, 1.0))
    assert fastest_streams(model, load(model, context=context)) == (None if most is None else 0)
    assert max(measured, default=None) == most


def test_what_cannot_be_measured_is_not_known(model, monkeypatch):
    def refuse(*_):
        raise EngineError("there is not enough memory")

    assert fastest_streams(model, load(model, kv_type="q8_0")) is None, "it has no choice"
    monkeypatch.setattr(tune_streams, "_seconds", refuse)
    assert fastest_streams(model, load(model)) is None
    monkeypatch.setattr(tune_streams, "_seconds", lambda *_: (0.1, 1.0))
    assert fastest_streams(model, load(model)) == 8
    monkeypatch.setattr(tune_streams, "on_gpu", lambda _load: True)
    assert fastest_streams(model, load(model)) is None


@pytest.mark.parametrize(("flash", "plain", "found"), [(1.0, 2.0, 8), (2.0, 1.0, 0), (1.0, 1.0, 0)])
def test_both_kinds_of_attention_are_measured_with_as_many_streams(model, monkeypatch, flash, plain, found):
    made, now = [], [0.0]

    class Watched(tune_streams.FixedCells):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)
            self.steps, self.held, self.closed = [], dict[int, int](), False

        def decode(self, slices):
            super().decode(slices)
            self.steps.append(slices)
            first = len(self.steps) == 2  # the step after a decode of 64 tokens, which may be slower
            now[0] += (flash if self.skips else plain) + 10.0 * first

        def load(self, saved, sequence, start, end):
            super().load(saved, sequence, start, end)
            self.held[sequence] = end - start

        def close(self):
            super().close()
            self.closed = True

    monkeypatch.setattr(tune_streams, "FixedCells", Watched)
    assert fastest_streams(model, load(model, parallel=8), clock=lambda: now[0]) == found
    assert [one.skips for one in made] == [True, False]
    for one in made:
        assert {tuple(slice.sequence for slice in step) for step in one.steps} == {(0,), tuple(range(8))}
        assert one.held == dict.fromkeys(range(1, 8), 64), "each stream has as many cells as the first"
        assert one.closed


def favouring(attention: str, _model: Model, load: Load, *_: object) -> tuning.Try:
    """A measurement in which this kind of attention is the faster one."""
    speed = 10.0 if load.flash_attention == attention else 5.0
    setting = Tuning(load.threads, load.flash_attention, load.batch)
    return tuning.Try(setting, (tuning.Speed(0, 10 * speed, speed),))


def test_tune_and_the_first_start_learn_from_how_many_requests_on_it_is_faster(model, monkeypatch):
    monkeypatch.setattr(tuning, "fastest_weights", lambda *_: 24)
    monkeypatch.setattr(tuning, "fastest_streams", lambda *_: 12)

    asked = load(model, flash_attention="auto", flash_streams=0)
    for best, found in (("off", 12), ("on", None)):
        monkeypatch.setattr(tuning, "measure", partial(favouring, best))
        assert tuning.tune(model, asked, tuning.Effort.brief()).flash_streams == found
    assert "off (on for 12 requests at once or more)" in described(Tuning(flash_attention="off", flash_streams=12))
    assert "at once" not in described(Tuning(flash_attention="off", flash_streams=0))


def test_what_an_earlier_version_has_not_measured_is_measured_at_the_next_start(model, monkeypatch):
    monkeypatch.setattr(tuning, "fastest_streams", lambda *_: 8)
    for known, kept in (
        (Tuning(2, "off", 64, plain_from=24), Tuning(2, "off", 64, plain_from=24, flash_streams=8)),
        (Tuning(2, "off", 64, plain_from=24, flash_streams=0), None),
        (Tuning(2, "on", 64, plain_from=24), None),
        (Tuning(2, "small", 64, 512, 24), Tuning(2, "small", 64, 512, 24, 8)),
    ):
        asked = load(model, flash_attention="auto", flash_streams=0, tuning=known, calibrate=True)
        backend = LlamaBackend(asked, lambda _: None)
        assert backend.ready().tuning == kept
        assert backend.cells.settings.flash_streams == (8 if kept else 0)
        backend.close()


@pytest.mark.parametrize("setting", [{"flash_attention": "off"}, {"kv_type": "q8_0"}])
def test_what_a_setting_gives_is_not_measured(model, monkeypatch, setting):
    def refuse(*_):
        raise AssertionError("measured")

    monkeypatch.setattr(tuning, "fastest_streams", refuse)
    known = Tuning(2, "off", 64, plain_from=24)
    asked = load(
        model, **{"flash_attention": "auto", "flash_streams": 0, "tuning": known, "calibrate": True, **setting}
    )
    backend = LlamaBackend(asked, lambda _: None)
    assert backend.ready().tuning is None
    backend.close()


def test_a_crowd_hears_what_each_of_it_hears_alone(demo_model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    keep(demo_model, site(0), Tuning(2, "off", 64, plain_from=24, flash_streams=3), tmp_path / "qwen-edge")
    questions = ["What time is it?", "Turn on the kitchen lamp.", "How warm is it outside?", "你好！"]
    with ServedModel(demo_model, settings="engine: {gpu_layers: 0, context: 2048}") as served:

        def ask(question: str) -> tuple[str, str]:
            return served.streamed(question, temperature=0, enable_thinking=False, max_tokens=40)

        alone = [ask(question) for question in questions]
        with ThreadPoolExecutor(len(questions)) as clients:
            assert list(clients.map(ask, questions)) == alone
        assert ask(questions[0]) == alone[0]
