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


def stays(cells: GrowingCells, streams: int) -> None:
    """Some steps of this many requests, for which there is room."""
    for _ in range(2):
        cells.expect(200, 0, 50, 60, streams)
        if cells.growing:
            cells.growing.wait()


@pytest.mark.parametrize("kv_type", ["f16", "q8_0_keys"])
def test_many_requests_at_once_get_flash_attention_until_nothing_runs(model, kv_type):
    cells = begun(GrowingCells(model, load(model, kv_type=kv_type)))
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
        stays(cells, 1)
        assert cells.skips, "the next request may come soon"
        assert cells.growing is None
        cells.fit(200)
        assert not cells.skips
        assert np.allclose(next_logits(cells), next_logits(plain), atol=0.1)
    finally:
        for one in (cells, plain, flash):
            one.close()


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
    assert resolve(model, load(model, flash_attention="auto", flash_streams=0, tuning=measured)).flash_streams == 3


@pytest.mark.parametrize(
    ("faster_from", "parallel", "found"), [(8, 32, 8), (16, 32, 16), (16, 12, 0), (8, 7, 0), (64, 32, 0)]
)
def test_the_smallest_crowd_that_gains_is_found(model, monkeypatch, faster_from, parallel, found):
    measured = []

    def pretend(_model, _load, streams, _clock):
        measured.append(streams)
        return (0.9, 1.0) if streams >= faster_from else (1.01, 1.0)

    monkeypatch.setattr(tune_streams, "_seconds", pretend)
    assert fastest_streams(model, load(model, parallel=parallel)) == found
    assert all(streams <= parallel for streams in measured)


def test_a_measurement_of_crowds_ends_when_its_time_is_over_or_memory_is(model, monkeypatch):
    monkeypatch.setattr(tune_streams, "_seconds", lambda *_: (1.0, 1.0))
    clock = count()
    assert fastest_streams(model, load(model), 2.0, lambda: float(next(clock))) == 0
    assert next(clock) == 3, "two numbers were not even tried"

    def refuse(*_):
        raise EngineError("there is not enough memory")

    monkeypatch.setattr(tune_streams, "_seconds", refuse)
    assert fastest_streams(model, load(model)) == 0


def test_both_kinds_of_attention_are_measured_with_as_many_streams(model, monkeypatch):
    made = []

    class Watched(tune_streams.FixedCells):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)
            self.steps, self.closed = [], False

        def decode(self, slices):
            super().decode(slices)
            self.steps.append(slices)

        def close(self):
            super().close()
            self.closed = True

    monkeypatch.setattr(tune_streams, "FixedCells", Watched)
    ticks = count()
    assert fastest_streams(model, load(model, parallel=8), clock=lambda: float(next(ticks))) == 0, "equal times"
    assert [one.skips for one in made] == [True, False]
    for one in made:
        assert {tuple(slice.sequence for slice in step) for step in one.steps} == {(0,), tuple(range(8))}
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
    assert "on while 12 requests or more run at once" in described(Tuning(flash_attention="off", flash_streams=12))
    assert "at once" not in described(Tuning(flash_attention="off", flash_streams=0))


def test_what_an_earlier_version_has_not_measured_is_measured_at_the_next_start(model, monkeypatch):
    monkeypatch.setattr(tuning, "fastest_streams", lambda *_: 8)
    for known, kept in (
        (Tuning(2, "off", 64, plain_from=24), Tuning(2, "off", 64, plain_from=24, flash_streams=8)),
        (Tuning(2, "off", 64, plain_from=24, flash_streams=0), None),
        (Tuning(2, "on", 64, plain_from=24), None),
    ):
        asked = load(model, flash_attention="auto", flash_streams=0, tuning=known, calibrate=True)
        backend = LlamaBackend(asked, lambda _: None)
        assert backend.ready().tuning == kept
        assert backend.cells.settings.flash_streams == (8 if kept else 0)
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
