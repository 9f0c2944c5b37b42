"""What the settings leave open is decided here: by what was measured, what memory allows, what is usually best."""

from __future__ import annotations

from msgspec.structs import replace

from qwen_edge.device.host.cpu import usable_cores
from qwen_edge.device.host.memory import available_bytes
from qwen_edge.llama.devices import gpus
from qwen_edge.llama.model import Model
from qwen_edge.protocol.messages import Attention, KvType, Load, Tuning

# bytes per element: blocks of 32 values, with a 2-byte scale where quantized
KV_BYTES = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}

_BATCH, _GPU_BATCH = 128, 512  # tokens: a GPU computes many at once in the time of a few
_SPARE_BYTES = 256 << 20  # for the buffers of a batch, the interpreter, and others on the machine


def resolve(model: Model, load: Load, available: int | None = None) -> Load:
    """The same with nothing left open: threads, batch, kv_type and flash_attention are what the engine will use.
    `available` bytes of memory there are beside the weights; None: what there is now, with the weights loaded."""
    kv_type = load.kv_type if load.kv_type != "auto" else _best_that_fits(model, load, available)
    settled = replace(load, kv_type=kv_type, flash_attention=_attention(load, kv_type))
    return replace(settled, threads=load.threads or _threads(load.tuning), batch=load.batch or _batch(load))


def on_gpu(load: Load) -> bool:
    """Whether any layer will run on a GPU."""
    return bool(gpus(load.gpu_layers))


def free_bytes(load: Load, available: int | None = None) -> int:
    """What a KV cache can have of memory: the system's (`available`, if that is known), or its device's where it is on
    one; where it is divided between them, no more than either has."""
    available = available_bytes() if available is None else available
    devices = [device.free for device in gpus(load.gpu_layers) if device.free]
    return min(devices) if devices and load.gpu_layers < 0 else min([available, *devices])


def kv_bytes(model: Model, kv_type: str, tokens: int) -> int:
    element = KV_BYTES[kv_type]
    return model.kv_bytes_per_token(element, element) * tokens


def stash_tokens(model: Model, load: Load) -> int:
    """How many tokens the copies of what leaves the KV cache may have: no more than a conversation."""
    return min(load.stash_bytes // kv_bytes(model, load.kv_type, 1), load.context, model.trained_context)


def _best_that_fits(model: Model, load: Load, available: int | None) -> KvType:
    """The most exact type with which the whole context fits. A quantized one needs flash attention; four bits a small
    model feels: they are the last resort."""
    if load.flash_attention in ("off", "small") or not model.kv_quantizes:
        return "f16"
    available = available_bytes() if available is None else available
    room = min(available, free_bytes(load, available))
    tokens = min(load.context, model.trained_context)
    types: tuple[KvType, ...] = ("f16", "q8_0")
    return next((one for one in types if kv_bytes(model, one, tokens) + _SPARE_BYTES <= room), "q4_0")


def _attention(load: Load, kv_type: str) -> Attention:
    """Without a measurement: llama.cpp's own choice on a GPU, off on a CPU, where flash attention is slower the longer
    the context, 1.8 times at 2,048 tokens."""
    if load.flash_attention != "auto":
        return load.flash_attention
    if kv_type != "f16":
        return "on"  # there is no other way
    measured = load.tuning.flash_attention if load.tuning else "auto"
    return measured if measured != "auto" else "auto" if on_gpu(load) else "off"


def _threads(tuning: Tuning | None) -> int:
    return min(tuning.threads, usable_cores()) if tuning and tuning.threads else usable_cores()


def _batch(load: Load) -> int:
    usual = _GPU_BATCH if on_gpu(load) else _BATCH
    return max(load.tuning.batch if load.tuning and load.tuning.batch else usual, load.parallel)
