"""Stage two: quantizes the GGUF file with llama.cpp's quantizer, in a worker process."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from qwen_edge.convert.gguf_file import Plan
from qwen_edge.convert.progress import Progress
from qwen_edge.convert.worker import run_worker
from qwen_edge.core.errors import ConversionError

DEFAULT_TYPE = "Q4_K_M"
# The types offered for a small model, with the most bits a weight may take: rows whose length is not a multiple of 256
# fall back to 5 or 8 bits. With this bound, Q4_K_M of the 596 M weights of Qwen3-0.6B stays below 0.7 GB.
TYPES = {"Q4_0": 9, "Q4_K_S": 9, "Q4_K_M": 9, "Q5_K_M": 9, "Q6_K": 9, "Q8_0": 9, "F16": 17, "BF16": 17}
# The output head is a third of the bytes read for each token; llama.cpp's mix gives it 6 bits a weight.
HEADS = {"q8_0": "Q8_0", "q6_k": "Q6_K", "q4_k": "Q4_K"}
_VOCABULARY_BYTES = 16 << 20
_FULL = 1 << 20  # bytes: llama.cpp does not say why a write failed; less free space than this means a full disk


def check_type(name: str) -> str:
    """The type in upper case. Raises ConversionError for a type that is not offered."""
    if name.upper() not in TYPES:
        raise ConversionError(f"{name} is not a quantization type of this converter. Choose one of {', '.join(TYPES)}.")
    return name.upper()


def quantized_bytes(plan: Plan, file_type: str) -> int:
    """An upper bound of the size of the quantized file in bytes, vocabulary included."""
    weights = sum(tensor.elements for tensor in plan.tensors.values())
    return weights * TYPES[file_type] // 8 + _VOCABULARY_BYTES


def check_head(name: str | None, file_type: str) -> str | None:
    """The head in lower case. Raises ConversionError if it is not offered, or `file_type` is not quantized."""
    if name is None:
        return None
    if name.lower() not in HEADS:
        raise ConversionError(f"--head {name} is not a type for the output head. Choose one of {', '.join(HEADS)}.")
    if file_type in ("F16", "BF16"):
        raise ConversionError(
            f"--head needs a quantized --type, and {file_type} is not quantized. Leave out --head, or change --type."
        )
    return name.lower()


def quantize(
    plan: Plan, source: Path, target: Path, file_type: str, head: str | None, *, threads: int, progress: Progress
) -> None:
    """Write `target`. `head` is one of HEADS, or None for the type's own. Raises OSError if the disk is full,
    ConversionError if llama.cpp fails or its process dies, or if the result is too large."""
    sizes = {name: plan.stored_bytes(tensor) for name, tensor in plan.tensors.items()}
    task = {
        "do": "quantize",
        "source": str(source),
        "target": str(target),
        "type": file_type,
        "head": HEADS[head] if head else None,
        "tied": "output.weight" not in plan.tensors,
        "threads": threads,
        "sizes": sizes,
    }
    with progress.stage(f"quantizing to {file_type}", plan.total_bytes) as advance:
        try:
            run_worker(task, advance)
        except ConversionError:
            if shutil.disk_usage(target.parent).free < _FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from None
            raise
    if target.stat().st_size > quantized_bytes(plan, file_type):
        raise ConversionError(
            f"The {file_type} file has {target.stat().st_size / 1e6:.1f} MB, more than possible for that type. "
            "Please report this, with the name of the checkpoint."
        )
