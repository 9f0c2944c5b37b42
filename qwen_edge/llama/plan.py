"""The memory that a model with a full context takes, computed by llama.cpp without allocating it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from qwen_edge.llama.bindings import C, send_log_to
from qwen_edge.llama.fixed_cells import FixedCells
from qwen_edge.llama.model import Model
from qwen_edge.llama.resolve import host_tier_cells, kv_bytes, resolve
from qwen_edge.llama.site import with_measured
from qwen_edge.protocol.messages import Load

_BUFFER = re.compile(r"(?:compute|output) buffer size =\s*([\d.]+) MiB")
# numpy, the vocabulary in memory and the interpreters of engine, daemon and renderer (measured on x86-64, Python 3.11)
_PROGRAM_BYTES = 136 << 20


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by purpose. `token`: one token in a KV cache of `kv_type` with room for `tokens`. `compute`: the buffers of
    one batch and its logits. `copies`: copies of conversations evicted from the cache. `program`: everything outside
    llama.cpp. `mapped`: the part of the model's file that prompts are computed with (`PlainWeights`). It is not in the
    total: the system takes it back when memory is short, and then does without."""

    weights: int
    tokens: int
    token: int
    kv_type: str
    compute: int
    copies: int
    mapped: int = 0
    program: int = _PROGRAM_BYTES

    @property
    def kv_cache(self) -> int:
        return self.tokens * self.token

    @property
    def _parts(self) -> dict[str, int]:
        parts = {"weights": self.weights, "KV cache": self.kv_cache, "compute": self.compute}
        return {**parts, "copies": self.copies, "program": self.program}

    @property
    def total(self) -> int:
        return sum(self._parts.values())

    def __str__(self) -> str:
        sums = " + ".join(f"{name} {size / 1e6:.0f}" for name, size in self._parts.items())
        each = f"KV cache: {self.tokens} tokens x {self.token / 1024:.0f} KiB, {self.kv_type}"
        mapped = f"; {self.mapped / 1e6:.0f} MB of the file mapped for prompts, which the system can take back"
        return f"{sums} = {self.total / 1e6:.0f} MB ({each}{mapped if self.mapped else ''})"

    def tokens_within(self, available: int) -> int:
        """The longest context that fits into `available` bytes, in steps of 256 tokens; 0 if none does."""
        left = available - (self.total - self.kv_cache)
        return max(0, left // self.token // 256 * 256)


def plan_memory(load: Load, available: int) -> MemoryPlan:
    """Read the model's header and let llama.cpp plan its buffers without allocating them. `available` (bytes) decides
    on the kv_type if it is `auto`. Takes 0.3 s. Raises EngineError."""
    log: list[str] = []
    send_log_to(lambda _level, text: log.append(text))
    with Model(Path(load.model), gpu_layers=load.gpu_layers, simulate=True) as model:
        resolved = resolve(model, with_measured(load), available - model.weights_bytes)
        cells = FixedCells(model, resolved, create=C.llama_init_from_model)  # nothing is allocated
        cells.close()
        return MemoryPlan(
            weights=model.weights_bytes,
            tokens=cells.size,
            token=kv_bytes(model, resolved.kv_type, 1),
            kv_type=resolved.kv_type,
            copies=kv_bytes(model, resolved.kv_type, host_tier_cells(model, resolved)),
            mapped=model.plain_bytes if resolved.plain_from else 0,
            compute=sum(int(float(found) * (1 << 20)) for found in _BUFFER.findall("".join(log))),
        )
