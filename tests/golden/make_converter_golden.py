"""Record what llama.cpp's own converter writes, for tests/shared/test_faithful.py to compare with.

usage: python -m tests.golden.make_converter_golden LLAMA_CPP PYTHON
       LLAMA_CPP is a checkout, PYTHON one with torch and transformers

Made from llama-cpp-python 0.3.36's sources (llama.cpp 0c1e570). Needs ../shared for Qwen's vocabulary.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import gguf

from qwen_edge.core.checksum import sha256
from tests.checkpoints import noise

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
GOLDEN = Path(__file__).with_name("converter.json")


def make_checkpoints(folder: Path) -> dict[str, Path]:
    """Two checkpoints with Qwen's tokenizer: Qwen3 of two layers, and the same weights as a Qwen2 with biases.

    The weights are noise that no library's random generator has a say in, so that they can be made anywhere.
    """
    import ml_dtypes
    from safetensors.numpy import load_file, save_file

    maker = SHARED / "tools" / "make_synthetic_qwen3.py"
    qwen3, qwen2 = folder / "Qwen3-Two", folder / "Qwen2-Two"
    subprocess.run([sys.executable, str(maker), str(qwen3), "--layers", "2"], check=True, stdout=subprocess.DEVNULL)
    shapes = {name: tensor.shape for name, tensor in load_file(qwen3 / "model.safetensors").items()}
    tensors = {name: noise(i, shapes[name], ml_dtypes.bfloat16) for i, name in enumerate(sorted(shapes))}
    save_file(tensors, qwen3 / "model.safetensors", metadata={"format": "pt"})
    qwen2.mkdir()
    for file in qwen3.iterdir():
        if file.name.startswith(("tokenizer", "vocab", "merges", "generation")):
            (qwen2 / file.name).write_bytes(file.read_bytes())
    config = json.loads((qwen3 / "config.json").read_text())
    changes = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "num_attention_heads": 8,
        "rms_norm_eps": 1e-5,
    }
    config = {key: value for key, value in {**config, **changes}.items() if key not in ("head_dim", "attention_bias")}
    (qwen2 / "config.json").write_text(json.dumps(config))
    for i in range(2):
        p = f"model.layers.{i}.self_attn."
        del tensors[p + "q_norm.weight"], tensors[p + "k_norm.weight"]
        tensors[p + "q_proj.weight"] = tensors[p + "q_proj.weight"][:1024].copy()
        tensors[p + "o_proj.weight"] = tensors[p + "o_proj.weight"][:, :1024].copy()
        for name in "qkv":
            tensors[p + f"{name}_proj.bias"] = tensors[p + f"{name}_proj.weight"][:, 0].copy()
    save_file(tensors, qwen2 / "model.safetensors", metadata={"format": "pt"})
    return {"qwen3": qwen3, "qwen2": qwen2}


def describe(file: Path) -> dict[str, Any]:
    """All keys with type and value, all tensors with type, shape and digest. Long values are digests."""
    reader = gguf.GGUFReader(file)
    keys = {}
    for name, field in reader.fields.items():
        if not name.startswith("GGUF."):
            value = json.dumps(field.contents(), ensure_ascii=False)
            short = value if len(value) < 100 else hashlib.sha256(value.encode()).hexdigest()
            keys[name] = [[kind.name for kind in field.types], short]
    tensors = [
        [tensor.name, tensor.tensor_type.name, tensor.shape.tolist(), hashlib.sha256(tensor.data.tobytes()).hexdigest()]
        for tensor in reader.tensors
    ]
    return {"keys": keys, "tensors": tensors}


def main() -> None:
    llama_cpp, python = Path(sys.argv[1]), sys.argv[2]
    golden = {}
    with tempfile.TemporaryDirectory() as name:
        for kind, checkpoint in make_checkpoints(Path(name)).items():
            out = Path(name) / f"{kind}.gguf"
            converter = llama_cpp / "convert_hf_to_gguf.py"
            subprocess.run([python, str(converter), str(checkpoint), "--outfile", str(out)], check=True)
            golden[kind] = {"sha256": sha256(out), **describe(out)}
    GOLDEN.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
