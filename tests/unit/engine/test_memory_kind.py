"""What the memory of a model cannot do is not asked of it: the fake cells fail at once where it is."""

from dataclasses import replace
from functools import partial

import pytest

from qwen_edge.engine.loop import Engine
from qwen_edge.engine.main import open_disk
from qwen_edge.kv.memory_kind import FULL, STATE, WINDOW, MemoryKind
from qwen_edge.protocol.messages import Done, Files, Sampling, Segment, Submit, Tokens, Warm
from tests.fakes import FakeBackend, FakeCells, ticking

SAYING = "on and off, " * 12
POORER = pytest.mark.parametrize("memory", [WINDOW, STATE], ids=lambda memory: memory.name)


def backend_of(memory: MemoryKind, script=str.upper, **options) -> FakeBackend:
    return FakeBackend(script, cells=partial(FakeCells, memory=memory), **options)


def submit(number: int, text: str, **more) -> Submit:
    return Submit(number, (Segment(text),), Sampling(), **{"max_tokens": 400, "max_seconds": 1e6, **more})


def run(engine: Engine) -> tuple[dict[int, str], dict[int, Done]]:
    """Run to the end; returns the text and the end of each request."""
    said, ends = dict[int, str](), dict[int, Done]()
    while engine.busy:
        for event in engine.step():
            if isinstance(event, Tokens):
                said[event.id] = said.get(event.id, "") + event.text
            elif isinstance(event, Done):
                ends[event.id] = event
    return said, ends


@POORER
def test_no_guesses_are_drafted_where_wrong_ones_could_not_be_cut_off(memory):
    widest = {}
    for kind in (FULL, memory):
        backend = backend_of(kind, lambda prompt: SAYING, batch=64)
        said, _ = run_one(backend)
        assert said == SAYING
        widest[kind] = max(length for (_, length), *_ in backend.decodes[1:])
    assert widest[FULL] > 1
    assert widest[memory] == 1


def run_one(backend: FakeBackend) -> tuple[str, Done]:
    engine = Engine(backend, ticking(0.001))
    engine.submit(submit(1, "prompt"))
    said, ends = run(engine)
    return said[1], ends[1]


@POORER
def test_equal_prompts_are_each_computed_whole_and_at_once_where_prefixes_cannot_be_shared(memory):
    backend = backend_of(memory, batch=32, parallel=3)
    engine = Engine(backend, ticking(0.01))
    for number in range(6):  # three run beside each other, three begin after those have ended
        engine.submit(submit(number, "the same words for all"))
    said, ends = run(engine)
    assert set(said.values()) == {"THE SAME WORDS FOR ALL"}
    assert {end.cached_tokens for end in ends.values()} == {0}
    assert len(backend.decodes[0]) > 1, "the second waited for the first, as if it could share what that computes"
    assert sum(position == 0 for batch in backend.decodes for position, _ in batch) == 6
    assert backend.cells.used == 0, "no other request could use them"
    assert engine.open_cells == backend.open_samplers == 0


@POORER
def test_a_sequence_that_has_to_give_way_is_computed_again_from_its_beginning(memory):
    backend = backend_of(memory, parallel=1)
    engine = Engine(backend, ticking(0.01))
    engine.submit(submit(1, "a background job", priority="background"))
    begun = [event.text for _ in range(6) for event in engine.step() if isinstance(event, Tokens)]
    engine.submit(submit(2, "a question", priority="interactive"))
    said, ends = run(engine)
    assert "".join(begun)
    assert ("".join(begun) + said[1], said[2]) == ("A BACKGROUND JOB", "A QUESTION")
    assert list(ends) == [2, 1]
    assert backend.cells.used == 0


@POORER
def test_nothing_is_computed_ahead_where_no_request_could_use_it(memory):
    backend = backend_of(memory)
    engine = Engine(backend, ahead_per_hour=1e9)
    engine.warm(Warm((Segment("what the next turn begins with"),)))
    assert engine.prepare() is None
    assert backend.decodes == []


@pytest.mark.parametrize("memory", [replace(FULL, saves_parts=False), WINDOW, STATE])
def test_no_copy_and_no_file_is_made_where_parts_cannot_be_saved(memory, tmp_path, caplog):
    backend = backend_of(memory, spare=0)
    disk = open_disk(Files(str(tmp_path / "kept"), 1 << 20, 1 << 30), backend)
    assert disk is None
    assert "cannot be saved in parts" in caplog.text
    engine = Engine(backend)
    for number in range(3):
        engine.submit(submit(number, f"question {number} leaves the cache when the next one comes"))
        run(engine)
        while engine.prepare():
            pass
    assert engine._kv_cache.host_tier.size == 0
    assert list(tmp_path.iterdir()) == []
