"""A KV cache that cannot grow, shrink or be copied for lack of memory is as it was, and everybody goes on."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from qwen_edge.core.errors import EngineError
from qwen_edge.kv.slice import Slice
from qwen_edge.llama.backend import LlamaBackend
from qwen_edge.llama.bindings import C
from qwen_edge.llama.fixed_cells import FixedCells
from qwen_edge.llama.growing_cells import GrowingCells
from qwen_edge.llama.model import Model
from qwen_edge.protocol.messages import Load

pytestmark = pytest.mark.model

TOKENS = [40 + i % 60 for i in range(2000)]


def load(path, **changes) -> Load:
    fields = {"context": 2000, "batch": 64, "threads": 2, "gpu_layers": 0, "kv_type": "f16", "flash_attention": "off"}
    return Load(model=str(path), beat_seconds=5.0, **{**fields, **changes})


@pytest.fixture(scope="module")
def model(tiny_model):
    with Model(tiny_model) as model:
        yield model


class Memory:
    """Makes contexts as long as they have no more cells than this; the next `refused` not even then."""

    def __init__(self, cells: int, refused: int = 0) -> None:
        self.cells, self.refused, self.asked = cells, refused, list[int]()

    def create(self, model, params):
        self.asked.append(int(params.n_ctx))
        if self.refused:
            self.refused -= 1
            return None
        return C.llama_init_from_model(model, params) if params.n_ctx <= self.cells else None


def filled(model, memory: Memory, count: int = 500, **changes) -> GrowingCells:
    context = GrowingCells(model, load(model.path, **changes), create=memory.create)
    for at in range(0, count, 50):
        context.decode([Slice(0, at, TOKENS[at : at + 50], 0)])
    return context


def next_logits(context: GrowingCells, at: int) -> np.ndarray:
    context.decode([Slice(0, at, TOKENS[at : at + 10], 1)])
    logits = context.logits(9).copy()
    context.forget(0, at, -1)
    return logits


@pytest.fixture(scope="module")
def expected(model):
    context = filled(model, Memory(2048))
    logits = next_logits(context, 500)
    context.close()
    return logits


def test_a_cache_that_cannot_grow_is_as_it_was(model, expected):
    memory = Memory(512)
    context = filled(model, memory)
    assert not context.make_room(600)
    assert context.room == 512
    assert np.allclose(next_logits(context, 500), expected, atol=1e-4)
    with pytest.raises(EngineError, match="no memory for a larger KV cache"):
        context.decode([Slice(0, 500, TOKENS[:50], 1)])
    memory.cells = 2048
    assert context.make_room(600)
    assert np.allclose(next_logits(context, 500), expected, atol=1e-4)
    context.close()


def test_where_there_is_no_memory_for_both_the_old_cache_makes_way_for_the_new_one(model, expected, monkeypatch):
    context = filled(model, Memory(2048))
    alive = []
    free = C.llama_free
    monkeypatch.setattr(C, "llama_free", lambda one: alive.remove(one) or free(one))

    def only_one(handle, params):
        if alive:
            return None
        alive.append(C.llama_init_from_model(handle, params))
        return alive[-1]

    alive.append(context.context.handle)
    context.settings = replace(context.settings, create=only_one)
    assert context.make_room(600)
    assert context.room > 600
    assert np.allclose(next_logits(context, 500), expected, atol=1e-4)
    context.close()
    assert not alive


def test_the_old_cache_is_there_until_the_new_one_is(model, monkeypatch):
    context = filled(model, Memory(2048))
    seen = []
    free = C.llama_free
    monkeypatch.setattr(C, "llama_free", lambda one: seen.append("freed") or free(one))
    context.settings = replace(
        context.settings, create=lambda handle, params: seen.append("made") or C.llama_init_from_model(handle, params)
    )
    assert context.make_room(600)
    assert seen == ["made", "freed"]
    context.close()


def test_llama_cpp_is_not_asked_for_what_the_system_does_not_give(model, expected, monkeypatch):
    """It would end the process over some of its own memory."""
    context = GrowingCells(model, load(model.path))
    for at in range(0, 500, 50):
        context.decode([Slice(0, at, TOKENS[at : at + 50], 0)])
    monkeypatch.setattr("qwen_edge.llama.context.is_granted", lambda _size: False)
    assert not context.make_room(600)
    monkeypatch.undo()
    assert np.allclose(next_logits(context, 500), expected, atol=1e-4)
    context.close()


def test_more_than_there_is_is_not_even_tried(model, expected, monkeypatch):
    """The kernel would promise it, and end the process when it is used."""
    memory = Memory(2048)
    context = filled(model, memory)
    before = list(memory.asked)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=100 << 10))
    assert not context.make_room(2000)
    assert memory.asked == before
    assert np.allclose(next_logits(context, 500), expected, atol=1e-4)
    context.close()


def test_a_cache_grows_by_less_where_there_is_no_memory_for_twice_its_size(model, expected):
    memory = Memory(768)
    context = filled(model, memory, flash_attention="off")
    assert context.make_room(520)
    assert context.room == 768
    assert np.allclose(next_logits(context, 500), expected, atol=1e-4)
    context.close()


def test_a_larger_cache_that_could_not_be_made_beside_the_work_is_made_when_it_is_needed(model, expected):
    memory, now = Memory(2048), [0.0]
    context = filled(model, memory)
    context._clock = lambda: now[0]
    memory.refused = 1
    context.expect(500, 0, 200, 300, 1)
    context.growing.wait()
    context.expect(500, 0, 200, 300, 1)
    assert context.growing is None
    assert context.room == 512
    context.expect(500, 0, 200, 300, 1)
    assert context.growing is None, "not at every step"
    assert np.allclose(next_logits(context, 500), expected, atol=1e-4)
    now[0] = 60.0
    context.expect(500, 0, 200, 300, 1)
    assert context.growing
    assert context.make_room(600)
    assert context.growing is None
    assert np.allclose(next_logits(context, 500), expected, atol=1e-4)
    context.close()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
def test_where_there_can_be_no_thread_for_a_larger_cache_the_work_goes_on(model, expected, monkeypatch, error):
    def refuse(*_):
        raise error

    context = filled(model, Memory(2048))
    monkeypatch.setattr("qwen_edge.llama.growing_cells.BackgroundGrowth", refuse)
    context.expect(500, 0, 200, 300, 1)
    assert context.growing is None
    assert np.allclose(next_logits(context, 500), expected, atol=1e-4)
    context.close()


def test_memory_that_others_have_taken_meanwhile_is_not_touched(model, monkeypatch):
    context = filled(model, Memory(2048))
    looks = iter([True, False])
    monkeypatch.setattr(GrowingCells, "_has_memory", lambda self, size: next(looks))
    context.expect(500, 0, 200, 300, 1)
    context.growing.wait()
    assert context.growing.context is None
    context.close()


def test_a_cache_that_cannot_shrink_or_be_copied_stays_as_it_is(model, expected, monkeypatch):
    memory = Memory(2048)
    context = filled(model, memory)
    assert context.make_room(1900)
    grown = context.room
    context.settings = replace(
        context.settings,
        create=lambda model, params: C.llama_init_from_model(model, params) if params.n_ctx == grown else None,
    )
    context.fit(500)
    assert context.room == grown

    def refuse(_size):
        raise OSError("Cannot allocate memory")

    monkeypatch.setattr("qwen_edge.llama.context.own_pages", refuse)
    context.fit(500)
    context.expect(500, 0, 1400, 1400, 1)
    assert context.room == grown
    with pytest.raises(EngineError, match="no memory for a copy"):
        context.context.save(0, 0, 500)
    assert context.save(0, 0, 500) is None
    assert np.allclose(next_logits(context, 500), expected, atol=1e-2)
    context.close()


@pytest.mark.parametrize("kind", [FixedCells, GrowingCells])
def test_cells_that_are_fitted_also_return_the_free_pages_of_the_heap(model, monkeypatch, kind):
    returned = []
    monkeypatch.setattr("qwen_edge.llama.fixed_cells.give_back", lambda: returned.append(1))
    cells = kind(model, load(model.path))
    cells.fit(0)
    assert returned == [1]
    cells.close()


def test_a_cache_that_is_lost_after_all_is_an_error_in_words(model):
    context = filled(model, Memory(2048))
    context.settings = replace(context.settings, create=lambda *_: None)
    with pytest.raises(
        EngineError, match=r"no memory for a KV cache of .* tokens, nor for one of 512 again\. Stop other programs"
    ):
        context.make_room(600)
    context.close()


def test_a_first_cache_for_which_there_is_no_memory_is_an_error_that_names_the_remedies(model):
    with pytest.raises(EngineError, match=r"not enough memory. Lower engine\.context or engine\.batch"):
        GrowingCells(model, load(model.path), create=lambda *_: None)


LIFE = """
import json, resource, sys
from qwen_edge.engine.loop import Engine
from qwen_edge.llama.backend import LlamaBackend
from qwen_edge.protocol.messages import Failed, Done, Load, Sampling, Segment, Submit, Tokens

path, more = sys.argv[1], int(sys.argv[2])
load = Load(model=path, context=4096, batch=64, threads=1, gpu_layers=0, kv_type="f16", flash_attention="off",
            beat_seconds=5.0, parallel=4, stash_bytes=0)
backend = LlamaBackend(load, lambda _: None)
backend.warm_up()
engine = Engine(backend, speculates=False)
if more:
    size = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) << 10
    resource.setrlimit(resource.RLIMIT_AS, (size + more, size + more))
words = "The lamp in the kitchen is on and the door of the garage is closed. "
for number in range(1, 7):
    prompt = (Segment("<|im_start|>", True), Segment(f"user {number}. " + words * (8 + number)))
    engine.submit(Submit(number, prompt, Sampling(temperature=0.0, ignore_eos=True), 120, 1e9))
said, ends = {}, {}
while engine.busy:
    for event in engine.step():
        if isinstance(event, Tokens):
            said[event.id] = said.get(event.id, "") + event.text
        elif isinstance(event, Done):
            ends[event.id] = event.completion_tokens
        elif isinstance(event, Failed):
            ends[event.id] = event.detail
print(json.dumps({"said": said, "ends": ends, "room": backend.cells.room}))
"""


def life(model: Path, more: int) -> dict:
    command = [sys.executable, "-c", LIFE, str(model), str(more)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's here")
@pytest.mark.parametrize("megabytes", [2, 20, 60])  # a context of llama.cpp takes some 30 beside its cells
def test_no_word_changes_where_the_system_gives_no_more_memory(demo_model, megabytes):
    free, short = life(demo_model, 0), life(demo_model, megabytes << 20)
    assert short["said"] == free["said"]
    assert short["ends"] == free["ends"] == {str(number): 120 for number in range(1, 7)}
    assert short["room"] < free["room"]


def test_a_copy_for_which_there_is_no_memory_is_not_made_and_costs_no_request(tiny_model, monkeypatch):
    backend = LlamaBackend(load(tiny_model), lambda _: None)
    backend.decode([Slice(0, 0, TOKENS[:50], 0)])

    def refuse(_size):
        raise OSError("Cannot allocate memory")

    monkeypatch.setattr("qwen_edge.llama.context.own_pages", refuse)
    assert backend.cells.save(0, 0, 50) is None
    monkeypatch.undo()
    assert len(backend.cells.save(0, 0, 50)) > 0
