"""Diagnoses what was given in place of a checkpoint (a git-lfs pointer, a web page, an adapter, a quantized model) and
says what to do.

Every function returns or raises one sentence. Files are identified by their first bytes, folders by the names of their
files.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from qwen_edge.core.errors import ConversionError
from qwen_edge.llama.header import TELLING, stand_in

_MERGE = (
    "Merge it into its base model with PEFT (model.merge_and_unload(), then save_pretrained of model and tokenizer), "
    "and convert the resulting folder."
)
# weights in another format -> what to do
_OTHER_WEIGHTS = {
    "*.gguf": "GGUF files need no conversion: qwen-edge serve --model FILE.",
    "pytorch_model*.bin": "PyTorch files cannot be converted: load the model with transformers, and save it with "
    "save_pretrained(..., safe_serialization=True).",
    "consolidated*.safetensors": "It is in the layout of the model's maker, not in that of Hugging Face: download the "
    "checkpoint that transformers loads.",
    "consolidated*.pth": "It is in the layout of the model's maker, not in that of Hugging Face: download the "
    "checkpoint that transformers loads.",
    "*.pth": "PyTorch files cannot be converted: save the model with transformers' save_pretrained().",
    "*.pt": "PyTorch files cannot be converted: save the model with transformers' save_pretrained().",
    "*.h5": "TensorFlow files cannot be converted: save the model with transformers' save_pretrained().",
    "*.msgpack": "Flax files cannot be converted: save the model with transformers' save_pretrained().",
    "*.onnx": "ONNX files cannot be converted: download the checkpoint that transformers loads.",
}
_PREFIXES = {"module.": "PyTorch's data-parallel wrapper", "_orig_mod.": "torch.compile"}


def read_bytes(file: Path) -> bytes:
    """The content of a file of a checkpoint. Raises FileNotFoundError, OSError, and ConversionError if it is not a
    regular file, is empty, or is a git-lfs pointer or a web page."""
    if file.exists() and not stat.S_ISREG(file.stat().st_mode) and not file.is_dir():
        raise ConversionError(f"{file} is not a regular file. Replace it by the file of the checkpoint.")
    data = file.read_bytes()
    refuse_other_content(file, data)
    return data


def refuse_other_content(file: Path, begin: bytes) -> None:
    """Raises ConversionError if `begin`, the first bytes of a file, show that it is not from a checkpoint."""
    if what := _other_content(begin):
        raise ConversionError(f"{file} is damaged: {what}")


def _other_content(begin: bytes) -> str | None:
    if not begin:
        return "it is empty. Download it again."
    found = stand_in(begin)
    if found == "pointer":
        return (
            "it is a git-lfs pointer, not the file itself. Fetch the file: run `git lfs install` "
            "and `git lfs pull` in its folder, or download it from the Hub."
        )
    if found == "page":
        return (
            "it is a web page, not the file itself. Download it again, from an address that contains /resolve/, "
            "or with the Hub's own tools; a gated model needs HF_TOKEN."
        )
    return None


def explain_file(file: Path) -> str:
    """Why this file cannot be the SOURCE of a conversion: that has to be a folder."""
    if not stat.S_ISREG(file.stat().st_mode):
        return f"{file} is neither a folder nor a file. Give the folder of a checkpoint."
    with file.open("rb") as stream:
        begin = stream.read(TELLING)
    name = file.name.lower()
    if what := _other_content(begin):
        return f"{file} is not a checkpoint: {what}"
    if begin.startswith(b"GGUF") or name.endswith(".gguf"):
        return f"{file} is a GGUF file: it needs no conversion. Serve it: qwen-edge serve --model {file}"
    if name.endswith((".pth", ".pt", ".bin", ".ckpt")):
        return (
            f"{file} is PyTorch's own file. Save the model with transformers' save_pretrained(), and give its folder."
        )
    if begin.startswith((b"PK\x03\x04", b"\x1f\x8b", b"\xfd7zXZ", b"7z\xbc\xaf", b"BZh")) or b"ustar" in begin:
        return f"{file} is an archive: unpack it, and give the folder with config.json."
    return f"{file} is a file: give the folder it lies in, with config.json, the weights and the tokenizer."


def explain_no_weights(folder: Path) -> str:
    """Why a folder without model.safetensors cannot be converted."""
    for pattern, remedy in _OTHER_WEIGHTS.items():
        if found := sorted(folder.glob(pattern)):
            return f"{folder} has no model.safetensors, but {found[0].name}. {remedy}"
    return f"{folder} has no model.safetensors. Only safetensors checkpoints can be converted."


def has_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter, such as LoRA."""
    return any((folder / name).exists() for name in ("adapter_config.json", "adapter_model.safetensors"))


def explain_adapter(folder: Path, base: object) -> str:
    """Why an adapter cannot be converted. `base`: the name of its base model, if known."""
    made_for = f" for {base[:200]}" if isinstance(base, str) and base else ""
    return f"{folder} holds a LoRA adapter{made_for}, not a whole model. {_MERGE}"


def refuse_quantized(config: Mapping[str, Any], where: Path) -> None:
    """Raises ConversionError for weights that are already quantized: GPTQ, AWQ, FP8, bitsandbytes, MLX, ..."""
    found = config.get("quantization_config") or config.get("quantization")
    if not found:
        return
    method = found.get("quant_method") if isinstance(found, Mapping) else None
    if not isinstance(method, str):
        method = "MLX" if "quantization" in config else "an unknown method"
    base = config.get("_name_or_path")
    known = f" (perhaps {base[:200]})" if isinstance(base, str) and "/" in base else ""
    raise ConversionError(
        f"{where}: the checkpoint is quantized already, by {method[:40]}. Convert the original{known}: "
        "weights lose too much when they are quantized twice."
    )


def refuse_wrapped(names: Collection[str], folder: Path) -> None:
    """Raises ConversionError for tensors that a training tool has renamed."""
    for name in names:
        if name.startswith("base_model.model.") or ".lora_" in name or ".base_layer." in name:
            raise ConversionError(
                f"{folder}: tensor {name[:200]!r} is named by PEFT: the adapter is not merged into the model. {_MERGE}"
            )
        for prefix, wrapper in _PREFIXES.items():
            if name.startswith(prefix):
                raise ConversionError(
                    f"{folder}: tensor {name[:200]!r} is named by {wrapper}: save the model inside the wrapper with "
                    "save_pretrained()."
                )
