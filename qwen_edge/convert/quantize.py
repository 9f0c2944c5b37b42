"""Stage two: quantizes the GGUF file with llama.cpp's quantizer, in a worker process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qwen_edge.convert.gguf_file import Plan
from qwen_edge.convert.worker import run_writer
from qwen_edge.core.errors import ConversionError
from qwen_edge.core.progress import Progress

DEFAULT_TYPE = "Q4_K_M"
# The types offered for a small model, with the most bits a weight may take: rows whose length is not a multiple of 256
# fall back to 5 or 8 bits. With this bound, Q4_K_M of the 596 M weights of Qwen3-0.6B stays below 0.7 GB.
TYPES = {"Q4_0": 9, "Q4_K_S": 9, "Q4_K_M": 9, "Q5_K_M": 9, "Q6_K": 9, "Q8_0": 9, "F16": 17, "BF16": 17}
# The output head is a third of the bytes read for each token; llama.cpp's mix gives it 6 bits a weight.
HEADS = {"q8_0": "Q8_0", "q6_k": "Q6_K", "q4_k": "Q4_K"}
_VOCABULARY_BYTES = 16 << 20


@dataclass(frozen=True)
class Recipe:
    """Which types the tensors get: those of `file_type`, one of TYPES, but for the output head, if `head` is one of
    HEADS."""

    file_type: str
    head: str | None = None

    def types(self, *, tied: bool) -> dict[str, str]:
        """The tensor types that are not those of the file type, by regular expression. `tied`: the output head is the
        embedding."""
        name = "token_embd" if tied else "output"
        return {rf"^{name}\.weight$": HEADS[self.head]} if self.head else {}


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


def check_imatrix(file_type: str, head: str | None) -> None:
    """Raises ConversionError if an importance matrix would change nothing in a file of this type and head."""
    if file_type in ("F16", "BF16") or (file_type == "Q8_0" and head in (None, "q8_0")):
        raise ConversionError(
            f"--imatrix would change nothing: {file_type} does not round by importance. Leave it out, or change --type."
        )


def quantize(
    plan: Plan,
    source: Path,
    target: Path,
    recipe: Recipe,
    *,
    importance: Path | None = None,
    threads: int,
    progress: Progress,
) -> None:
    """Write `target`. `importance`: what the stage before has measured, if anything. Raises OSError if the disk is
    full, ConversionError if llama.cpp fails or its process dies, or if the result is too large."""
    sizes = {name: plan.stored_bytes(tensor) for name, tensor in plan.tensors.items()}
    task = {
        "do": "quantize",
        "source": str(source),
        "target": str(target),
        "type": recipe.file_type,
        "types": recipe.types(tied="output.weight" not in plan.tensors),
        "importance": str(importance) if importance else None,
        "threads": threads,
        "sizes": sizes,
    }
    with progress.stage(f"quantizing to {recipe.file_type}", plan.total_bytes) as advance:
        run_writer(task, advance)
    if target.stat().st_size > quantized_bytes(plan, recipe.file_type):
        raise ConversionError(
            f"The {recipe.file_type} file has {target.stat().st_size / 1e6:.1f} MB, more than possible for that type. "
            "Please report this, with the name of the checkpoint."
        )
