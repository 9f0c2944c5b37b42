"""How much memory a model with a full context will take, worked out by llama.cpp itself without taking it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from qwen_edge.llama.bindings import send_log_to
from qwen_edge.llama.context import KV_BYTES, Context
from qwen_edge.llama.model import Model
from qwen_edge.messages import Load

_BUFFER = re.compile(r"(?:compute|output) buffer size =\s*([\d.]+) MiB")
# numpy, the vocabulary in memory and the interpreters of engine and daemon (measured on x86-64, Python 3.11)
_PROGRAM_BYTES = 120 << 20


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by purpose. `compute` are the buffers of one batch, `program` is everything that is not llama.cpp's."""

    weights: int
    kv_cache: int
    compute: int
    program: int = _PROGRAM_BYTES

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.compute + self.program

    def __str__(self) -> str:
        parts = {"weights": self.weights, "KV cache": self.kv_cache, "compute": self.compute, "program": self.program}
        sums = " + ".join(f"{name} {size / 1e6:.0f}" for name, size in parts.items())
        return f"{sums} = {self.total / 1e6:.0f} MB"


def plan_memory(load: Load) -> MemoryPlan:
    """Read the model's header and let llama.cpp reserve on paper. Takes a third of a second. Raises EngineError."""
    log: list[str] = []
    send_log_to(lambda _level, text: log.append(text))
    with Model(Path(load.model), gpu_layers=load.gpu_layers, simulate=True) as model:
        context = Context(model, load, room=load.context)
        context.close()
        element = KV_BYTES[load.kv_type]
        return MemoryPlan(
            weights=model.weights_bytes,
            kv_cache=model.kv_bytes_per_token(element, element) * context.size,
            compute=sum(int(float(found) * (1 << 20)) for found in _BUFFER.findall("".join(log))),
        )
