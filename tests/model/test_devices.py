"""On a device that still computes when llama.cpp has returned, what is measured is what it took; 0 layers are 0."""

import ctypes
from dataclasses import replace as replaced

import numpy as np
import pytest
from msgspec.structs import replace

from qwen_edge.kv.slice import Slice
from qwen_edge.llama import context as contexts
from qwen_edge.llama import devices, resolve, site
from qwen_edge.llama.bindings import C
from qwen_edge.llama.devices import Device
from qwen_edge.llama.growing_cells import GrowingCells
from qwen_edge.llama.model import Model
from qwen_edge.llama.plan import plan_memory
from qwen_edge.llama.resolve import free_bytes
from qwen_edge.llama.site import with_measured
from qwen_edge.llama.tune import Effort, measure
from qwen_edge.protocol.messages import Load, Tuning

pytestmark = pytest.mark.model

GPU = Device("CUDA0", "Orin", "GPU", free=3 << 30)
CPU = Device("CPU", "Cortex", "CPU", free=8 << 30)


def load(path, **changes) -> Load:
    fields = {"context": 512, "batch": 32, "threads": 1, "gpu_layers": 0, "kv_type": "f16", "flash_attention": "off"}
    return Load(model=str(path), beat_seconds=5.0, **{**fields, **changes})


@pytest.fixture(scope="module")
def model(tiny_model):
    with Model(tiny_model) as model:
        yield model


class Late:
    """A device that does its work when it is waited for: a second of its clock for every token."""

    def __init__(self, monkeypatch) -> None:
        self.now, self.owed = 0.0, 0
        decode, synchronize = C.llama_decode, C.llama_synchronize

        def begin(context, batch):
            self.owed += batch.n_tokens
            return decode(context, batch)

        def wait(context):
            self.now, self.owed = self.now + self.owed, 0
            synchronize(context)

        monkeypatch.setattr(C, "llama_decode", begin)
        monkeypatch.setattr(C, "llama_synchronize", wait)

    def clock(self) -> float:
        return self.now


def test_a_decode_takes_as_long_as_the_device_computes(model, monkeypatch):
    device, context = Late(monkeypatch), GrowingCells(model, load(model.path))
    for tokens, logits in (([50] * 20, 0), ([50] * 30, 1), ([50], 1)):
        before = device.clock()
        context.decode([Slice(0, 0, tokens, logits)])
        assert device.clock() - before == len(tokens)
        context.forget(0, 0, -1)
    context.close()


def test_what_is_tuned_by_is_the_devices_own_time(model, monkeypatch):
    device = Late(monkeypatch)
    result = measure(model, load(model.path), Effort(depths=(0, 128), prompt=64, answer=3), device.clock)
    assert [(speed.prompt, speed.answer) for speed in result.speeds] == [(1.0, 1.0)] * 2


def test_cells_that_were_copied_are_there_when_the_copy_ends(model, monkeypatch):
    context, waits = GrowingCells(model, load(model.path)), []
    context.decode([Slice(0, 0, [50] * 20, 1)])
    saved = context.save(0, 0, 20)
    monkeypatch.setattr(C, "llama_synchronize", waits.append)
    context.load(saved, 1, 0, 20)
    assert len(waits) == 1
    assert context.make_room(500)
    context._close_up()
    assert len(waits) > 1
    context.close()


def test_an_rpc_device_is_asked_as_it_cannot_be_waited_for(model, monkeypatch):
    asked = []
    with_device(monkeypatch, Device("RPC0", "127.0.0.1:1", "GPU"))
    context = GrowingCells(model, load(model.path, gpu_layers=-1))
    monkeypatch.setattr(contexts, "list_devices", lambda: asked.append(1))
    context.decode([Slice(0, 0, [50], 0)])
    assert asked == [1]
    context.close()


def with_device(monkeypatch, *found: Device) -> None:
    monkeypatch.setattr(devices, "list_devices", lambda: [CPU, *found])


def parameters(model, **changes):
    seen = []
    create = lambda _, params: seen.append(params) or made(model, params)  # noqa: E731
    GrowingCells(model, load(model.path, **changes), create=create).close()
    return seen[0]


def made(model, params):
    return C.llama_init_from_model(model.handle, params)


def test_no_layers_on_a_gpu_means_no_gpu(model, tiny_model, monkeypatch):
    with_device(monkeypatch, GPU)
    none, all_ = parameters(model, gpu_layers=0), parameters(model, gpu_layers=-1)
    assert (none.op_offload, none.offload_kqv) == (False, False)
    assert (all_.op_offload, all_.offload_kqv) == (True, True)
    seen = []
    real = C.llama_model_load_from_file
    monkeypatch.setattr(C, "llama_model_load_from_file", lambda path, params: seen.append(params) or real(path, params))
    for layers in (0, -1):
        Model(tiny_model, gpu_layers=layers).close()
    assert not ctypes.cast(seen[0].devices, ctypes.POINTER(ctypes.c_void_p))[0], "a list, of no devices"
    assert seen[1].devices is None, "llama.cpp's own choice"


def test_a_gpu_computes_large_batches_unless_something_else_is_known(model, monkeypatch):
    open_ = load(model.path, batch=0)
    assert resolve.resolve(model, replace(open_, gpu_layers=-1)).batch == 128
    with_device(monkeypatch, GPU)
    assert resolve.resolve(model, replace(open_, gpu_layers=-1)).batch == 512
    assert resolve.resolve(model, open_).batch == 128
    assert resolve.resolve(model, replace(open_, gpu_layers=-1, tuning=Tuning(batch=64))).batch == 64
    assert resolve.resolve(model, replace(open_, gpu_layers=-1, batch=32)).batch == 32


def test_the_memory_plan_counts_the_batch_of_a_gpu(tiny_model, monkeypatch):
    open_ = load(tiny_model, batch=0, context=4096, gpu_layers=-1)
    small = plan_memory(open_, 1 << 40).compute
    with_device(monkeypatch, GPU)
    assert plan_memory(open_, 1 << 40).compute > 2 * small


def test_a_cache_on_a_gpu_grows_into_the_gpus_memory(model, monkeypatch):
    with_device(monkeypatch, GPU)
    on_gpu = load(model.path, gpu_layers=-1, context=4096)
    assert free_bytes(on_gpu, 4 << 30) == 3 << 30
    assert free_bytes(on_gpu, 2 << 30) == 3 << 30, "what the system has is another matter"
    assert free_bytes(replace(on_gpu, gpu_layers=1), 2 << 30) == 2 << 30, "some of it is in the system's"
    assert free_bytes(load(model.path), 4 << 30) == 4 << 30
    with_device(monkeypatch, replaced(GPU, free=0))
    assert free_bytes(on_gpu, 4 << 30) == 4 << 30, "it does not tell"
    asked = list[int]()
    context = GrowingCells(model, on_gpu, create=lambda _, params: asked.append(params.n_ctx) or made(model, params))
    with_device(monkeypatch, replaced(GPU, free=1 << 10))
    assert not context.make_room(4096)
    assert asked == [512], "not even tried"
    context.close()


def test_what_was_measured_counts_where_it_was_measured(monkeypatch, model):
    on_cpu = site.site(-1)
    assert "no GPU" in on_cpu
    assert "llama.cpp" in on_cpu
    with_device(monkeypatch, GPU)
    on_gpu, off = site.site(-1), site.site(0)
    assert "CUDA0 (Orin), gpu_layers -1" in on_gpu
    assert len({on_cpu, on_gpu, off, site.site(5)}) == 4
    known = {on_gpu: Tuning(2, "on", 512), off: Tuning(3, "off", 64)}
    asked = load(model.path, measured=known)
    assert with_measured(asked).tuning == known[off]
    assert with_measured(replace(asked, gpu_layers=-1)).tuning == known[on_gpu]
    assert with_measured(replace(asked, gpu_layers=5)).tuning is None
    for name, value in (("usable_cores", 99), ("cpu_model", "Zen 5"), ("build", "llama.cpp, another build")):
        with monkeypatch.context() as patch:
            patch.setattr(site, name, lambda value=value: value)
            assert with_measured(asked).tuning is None


def test_waiting_for_a_cpu_that_is_done_changes_nothing(model):
    context = GrowingCells(model, load(model.path))
    context.decode([Slice(0, 0, [50] * 20, 1)])
    before = context.logits(19).copy()
    context.context.wait()
    assert np.array_equal(context.logits(19), before)
    context.close()
