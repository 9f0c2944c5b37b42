"""Stage one: writes the unquantized GGUF file, with the same tensors and keys as llama.cpp's own converter.

Weights are streamed in pieces of 4 MiB and checked on the way, so that memory use does not depend on the size of the
model. The header is written by gguf's writer; the order of keys follows llama.cpp's converter (conversion/base.py), so
that the two files are byte-identical but for the name of the model.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import gguf
import numpy as np
import numpy.typing as npt
import yaml

from qwen_edge.convert.architecture import Architecture
from qwen_edge.convert.checkpoint import Checkpoint
from qwen_edge.convert.safetensors import BYTES_PER_ELEMENT, Tensor, read_pieces
from qwen_edge.convert.templates import DEFAULT, gguf_template_name
from qwen_edge.convert.tokenizer import Tokenizer
from qwen_edge.convert.trim import Trim
from qwen_edge.core.errors import ConversionError
from qwen_edge.core.progress import Progress
from qwen_edge.llama.header import END_TOKENS

_ALIGNMENT = gguf.GGUF_DEFAULT_ALIGNMENT
_TYPES = {"BF16": gguf.GGMLQuantizationType.BF16, "F16": gguf.GGMLQuantizationType.F16}
_FILE_TYPES = {"BF16": gguf.LlamaFileType.MOSTLY_BF16, "F16": gguf.LlamaFileType.MOSTLY_F16}
# end tokens that llama.cpp knows by their text (llama-vocab.cpp); for others there are two further keys
_KNOWN_END_TOKENS = ("<|im_end|>", "<|endoftext|>")
_END_TOKEN_ROLES = ("eot", "eom")
# keys of a model card that may hold lists of texts; the second set also lists of {name: ..., repo_url: ...}
_LISTS = {"license", "tags", "pipeline_tag", "language", "languages"}
_GROUPS = {"base_model", "base_models", "base_model_sources", "dataset", "datasets", "dataset_sources"}


@dataclass(frozen=True)
class Plan:
    """The content of the file to write; `tensors` maps GGUF names to source tensors, in writing order. `trim`: how the
    vocabulary was cut, if it was."""

    name: str
    checkpoint: Checkpoint
    architecture: Architecture
    tokenizer: Tokenizer
    tensors: dict[str, Tensor]
    sampling: Mapping[str, str | float]
    trim: Trim | None = None

    @property
    def notes(self) -> list[str]:
        """Sentences for the user about choices that were made."""
        return [*self.checkpoint.notes, *self.tokenizer.notes]

    @property
    def dtype(self) -> str:
        """The type of all matrices: that of the first 16-bit matrix, else F16, as in llama.cpp's converter."""
        matrices = (tensor.dtype for tensor in self.tensors.values() if len(tensor.shape) >= 2)
        return next((dtype for dtype in matrices if dtype in _TYPES), "F16")

    def stored_type(self, tensor: Tensor) -> gguf.GGMLQuantizationType:
        """The type of a tensor in the file. Vectors (norms, biases) stay in F32, in which llama.cpp uses them."""
        return gguf.GGMLQuantizationType.F32 if len(tensor.shape) < 2 else _TYPES[self.dtype]

    def stored_bytes(self, tensor: Tensor) -> int:
        return tensor.elements * (4 if self.stored_type(tensor) == gguf.GGMLQuantizationType.F32 else 2)

    @property
    def total_bytes(self) -> int:
        return sum(self.stored_bytes(tensor) for tensor in self.tensors.values())


def write_gguf(plan: Plan, file: Path, progress: Progress) -> None:
    """Write the unquantized GGUF. Raises ConversionError on a weight that is not finite, OSError on a full disk."""
    _write_header(plan, file)
    with file.open("r+b") as out, progress.stage("writing GGUF", plan.total_bytes) as advance:
        out.seek(0, 2)
        _pad(out)
        for tensor in plan.tensors.values():
            for piece in _stored_pieces(tensor, plan.stored_type(tensor)):
                out.write(piece)
                advance(len(piece))
            _pad(out)


def _write_header(plan: Plan, file: Path) -> None:
    logging.getLogger("gguf.gguf_writer").setLevel(logging.WARNING)
    writer = gguf.GGUFWriter(path=None, arch=plan.architecture.name)
    for name, tensor in plan.tensors.items():
        kind = plan.stored_type(tensor)
        # with any dtype but uint8 the writer does not change the shape
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), plan.stored_bytes(tensor), raw_dtype=kind)
    writer.add_type(gguf.GGUFType.MODEL)
    _general(plan, writer.get_total_parameter_count()[0]).set_gguf_meta_model(writer)
    _add_hyperparameters(writer, plan.architecture)
    writer.add_file_type(_FILE_TYPES[plan.dtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_tokenizer(writer, plan.tokenizer)
    writer.write_header_to_file(path=file)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()


def _general(plan: Plan, parameters: int) -> gguf.Metadata:
    """The general metadata: authorship from the model card, sampling defaults from generation_config.json."""
    card = _model_card(plan.checkpoint.folder)
    config = {key: value for key, value in plan.checkpoint.config.items() if isinstance(value, str)}
    # the folder of a Hub download is named after the revision, so the model's name is given
    metadata = gguf.Metadata.apply_metadata_heuristic(gguf.Metadata(), card, config, Path(plan.name), parameters)
    metadata.name = metadata.name or plan.name
    if metadata.size_label is None:
        metadata.size_label = gguf.size_label(parameters, parameters, 0, 0)
    for name, value in plan.sampling.items():
        setattr(metadata, f"sampling_{name}", value)
    if plan.trim:
        metadata.languages = list(plan.trim.languages)
    return metadata


def _model_card(folder: Path) -> dict[str, Any]:
    """The front matter of README.md, without entries that gguf cannot store: authors may write anything there."""
    try:
        card = gguf.Metadata.load_model_card(folder)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return {key: value for key, value in card.items() if _storable(key, value)}


def _storable(key: str, value: Any) -> bool:
    if not isinstance(value, list):
        return isinstance(value, str)
    if not all(isinstance(item, dict) for item in value):
        return key in _LISTS | _GROUPS and all(isinstance(item, str) for item in value)
    return key in _GROUPS and all(isinstance(inner, str) for item in value for inner in item.values())


def _add_hyperparameters(writer: gguf.GGUFWriter, arch: Architecture) -> None:
    writer.add_block_count(arch.layers)
    writer.add_context_length(arch.context)
    writer.add_embedding_length(arch.hidden)
    writer.add_feed_forward_length(arch.feed_forward)
    writer.add_head_count(arch.heads)
    writer.add_head_count_kv(arch.kv_heads)
    if arch.rope_scaling:
        _add_rope_scaling(writer, arch.rope_scaling)
    writer.add_rope_freq_base(arch.rope_theta)
    writer.add_layer_norm_rms_eps(arch.rms_eps)
    if arch.head_dim is not None:
        writer.add_key_length(arch.head_dim)
        writer.add_value_length(arch.head_dim)


def _add_rope_scaling(writer: gguf.GGUFWriter, scaling: Mapping[str, Any]) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType(scaling["rope_type"]))
    writer.add_rope_scaling_factor(scaling["factor"])
    if scaling["rope_type"] != "yarn":
        return
    writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    for add, value in (
        (writer.add_rope_scaling_yarn_ext_factor, scaling.get("extrapolation_factor")),
        (writer.add_rope_scaling_yarn_attn_factor, scaling.get("attention_factor", scaling.get("attn_factor"))),
        (writer.add_rope_scaling_yarn_beta_fast, scaling.get("beta_fast")),
        (writer.add_rope_scaling_yarn_beta_slow, scaling.get("beta_slow")),
    ):
        if value is not None:
            add(value)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokenizer.texts)
    writer.add_token_types(tokenizer.kinds)
    writer.add_token_merges(tokenizer.merges)
    for role, token_id in tokenizer.roles.items():
        getattr(writer, f"add_{role}_token_id")(token_id)
    for role, value in tokenizer.adds.items():
        getattr(writer, f"add_add_{role}_token")(value)
    _add_templates(writer, tokenizer.chat_templates)
    _add_further_end_tokens(writer, tokenizer)


def _add_templates(writer: gguf.GGUFWriter, templates: Mapping[str, str]) -> None:
    """Write the templates as gguf's writer does, but always in the same order."""
    others = {gguf_template_name(name): text for name, text in sorted(templates.items()) if name != DEFAULT}
    for name, text in others.items():
        writer.add_string(gguf.Keys.Tokenizer.CHAT_TEMPLATE_N.format(name=name), text)
    if others:
        writer.add_array(gguf.Keys.Tokenizer.CHAT_TEMPLATES, list(others))
    if DEFAULT in templates:
        writer.add_string(gguf.Keys.Tokenizer.CHAT_TEMPLATE, templates[DEFAULT])


def _add_further_end_tokens(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    """Write the end tokens other than the end of sequence. If GGUF's keys do not suffice, the rest goes into a key of
    qwen-edge, as text: llama.cpp's API does not return arrays."""
    more = [token for token in tokenizer.end_tokens[1:] if tokenizer.texts[token] not in _KNOWN_END_TOKENS]
    for role, token in zip(_END_TOKEN_ROLES, more, strict=False):
        getattr(writer, f"add_{role}_token_id")(token)
    if rest := more[len(_END_TOKEN_ROLES) :]:
        writer.add_string(END_TOKENS, ",".join(map(str, rest)))


def _stored_pieces(tensor: Tensor, kind: gguf.GGMLQuantizationType) -> Iterator[memoryview]:
    """The tensor's bytes as GGUF stores them, piece by piece. A piece is valid until the next one is requested."""
    same = kind.name == tensor.dtype
    for piece in read_pieces(tensor):
        if not _all_finite(piece, tensor.dtype):
            raise ConversionError(
                f"{tensor.file}: tensor {tensor.name!r} holds a value that is not a finite number. "
                "The checkpoint is damaged, or its training diverged: download it again, or use another."
            )
        if same:
            yield piece
            continue
        stored = gguf.quants.quantize(_as_float32(piece, tensor.dtype), kind)
        if kind == gguf.GGMLQuantizationType.F16 and not np.isfinite(stored).all():
            raise ConversionError(
                f"{tensor.file}: tensor {tensor.name!r} holds values too large for F16. "
                "Convert a checkpoint in BF16 instead."
            )
        yield memoryview(stored.tobytes())


def _all_finite(piece: memoryview, dtype: str) -> bool:
    """Infinities and NaNs have every exponent bit set, in each of the three formats."""
    exponent = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F800000}[dtype]
    words = np.frombuffer(piece, dtype=np.uint32 if BYTES_PER_ELEMENT[dtype] == 4 else np.uint16)
    return not bool(((words & exponent) == exponent).any())


def _as_float32(piece: memoryview, dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "BF16":
        return (np.frombuffer(piece, dtype=np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(piece, dtype=np.float32 if dtype == "F32" else np.float16).astype(np.float32)


def _pad(out: BinaryIO) -> None:
    out.write(b"\0" * (-out.tell() % _ALIGNMENT))
