"""Resolves settings that are left open (`auto`, 0): by measurements, by available memory, else by a default."""

from __future__ import annotations

from msgspec.structs import replace

from qwen_edge.device.host.cpu import usable_cores
from qwen_edge.device.host.memory import available_bytes
from qwen_edge.llama.devices import gpus
from qwen_edge.llama.kv_types import STORED
from qwen_edge.llama.model import Model
from qwen_edge.protocol.loading import FLASH_ONLY
from qwen_edge.protocol.messages import Attention, KvType, Load, Tuning

_BATCH, _GPU_BATCH = 128, 512  # tokens: on a GPU a large batch takes hardly longer than a small one
_EXACT_FIRST: tuple[KvType, ...] = ("f16", "q8_0_keys", "q8_0", "q4_0")
_SPARE_BYTES = 256 << 20  # for the buffers of a batch, the interpreter, and other programs


def resolve(model: Model, load: Load, available: int | None = None) -> Load:
    """Return `load` with all settings as the engine will use them. `available`: bytes of memory beside the weights;
    None: the memory that is available now, with the weights loaded."""
    kv_type = load.kv_type if load.kv_type != "auto" else _best_that_fits(model, load, available)
    measured, attention = load.tuning or Tuning(), _attention(load, kv_type)
    is_open = load.flash_attention == "auto" and attention in ("off", "small") and not on_gpu(load)
    return replace(
        load,
        kv_type=kv_type,
        flash_attention=attention,
        threads=load.threads or _threads(load.tuning),
        batch=load.batch or _batch(load),
        flash_cells=measured.flash_cells or load.flash_cells,
        plain_from=0 if on_gpu(load) else measured.plain_from or load.plain_from,
        flash_streams=(measured.flash_streams or 0) if is_open else load.flash_streams,
    )


def on_gpu(load: Load) -> bool:
    """Whether any layer will run on a GPU."""
    return bool(gpus(load.gpu_layers))


def free_bytes(load: Load, available: int | None = None) -> int:
    """Bytes that a KV cache can take: of the system's memory (`available`, if given), or of the device's memory if the
    cache is on a device. A cache that is divided between both can take the smaller of the two."""
    available = available_bytes() if available is None else available
    devices = [device.free for device in gpus(load.gpu_layers) if device.free]
    return min(devices) if devices and load.gpu_layers < 0 else min([available, *devices])


def kv_bytes(model: Model, kv_type: str, tokens: int) -> int:
    stored = STORED[kv_type]
    return model.kv_bytes_per_token(stored.keys.bytes, stored.values.bytes) * tokens


def host_tier_cells(model: Model, load: Load) -> int:
    """Of how many evicted cells the host tier may keep copies: at most the context length."""
    return min(load.stash_bytes // kv_bytes(model, load.kv_type, 1), load.context, model.trained_context)


def _best_that_fits(model: Model, load: Load, available: int | None) -> KvType:
    """The most exact type with which the whole context fits, else the smallest. q4_0 is the last resort: four bits
    degrade the answers of a small model."""
    available = available_bytes() if available is None else available
    room = min(available, free_bytes(load, available))
    tokens = min(load.context, model.trained_context)
    types = [one for one in _EXACT_FIRST if _is_possible(model, load, one)]
    return next((one for one in types if kv_bytes(model, one, tokens) + _SPARE_BYTES <= room), types[-1])


def _is_possible(model: Model, load: Load, kv_type: KvType) -> bool:
    """Whether `auto` may choose this type. On a GPU it chooses keys and values of one type: the speed of two types
    has not been measured there."""
    if kv_type in FLASH_ONLY and load.flash_attention in ("off", "small"):
        return False
    if kv_type == "q8_0_keys" and on_gpu(load):
        return False
    return STORED[kv_type].fills_blocks(*model.head_lengths)


def _attention(load: Load, kv_type: str) -> Attention:
    """The measured kind of attention. Without a measurement: llama.cpp's own choice on a GPU; off on a CPU, where flash
    attention slows down with the length of the context (1.8 times slower at 2,048 tokens)."""
    if load.flash_attention != "auto":
        return load.flash_attention
    if kv_type in FLASH_ONLY:
        return "on"
    measured = load.tuning.flash_attention if load.tuning else "auto"
    return measured if measured != "auto" else "auto" if on_gpu(load) else "off"


def _threads(tuning: Tuning | None) -> int:
    return min(tuning.threads, usable_cores()) if tuning and tuning.threads else usable_cores()


def _batch(load: Load) -> int:
    usual = _GPU_BATCH if on_gpu(load) else _BATCH
    return max(load.tuning.batch if load.tuning and load.tuning.batch else usual, load.parallel)
