"""Writes the trained model in Hugging Face's layout, with the same keys as Qwen/Qwen3-0.6B, and reads it back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from .model import Qwen3, Shape
from .render import TEMPLATE
from .tokenizer import added_id, write_tokenizer

CONTEXT = 8192


def write_checkpoint(model: Qwen3, tokenizer: Tokenizer, folder: Path) -> None:
    """Every file of the model but its card. The template is the repository's and must lie there already."""
    template = TEMPLATE.read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    write_tokenizer(tokenizer, folder, template, CONTEXT)
    end, pad = (added_id(tokenizer, token) for token in ("<|im_end|>", "<|endoftext|>"))
    _write(folder / "config.json", _config(model, end, pad))
    _write(
        folder / "generation_config.json",
        {
            "bos_token_id": pad,
            "do_sample": True,
            "eos_token_id": [end, pad],
            "pad_token_id": pad,
            "temperature": 0.3,
            "top_k": 20,
            "top_p": 0.9,
            "transformers_version": "4.51.0",
        },
    )
    weights = {name: weight.to(torch.bfloat16).contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def read_checkpoint(folder: Path) -> tuple[Qwen3, Tokenizer]:
    """What `write_checkpoint` has written, to go on training from."""
    model = Qwen3(Shape())
    model.load_state_dict(load_file(folder / "model.safetensors"))  # copied into float32
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))


def _config(model: Qwen3, end: int, pad: int) -> Mapping[str, Any]:
    shape = model.shape
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": pad,
        "eos_token_id": end,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.ffn,
        "max_position_embeddings": CONTEXT,
        "max_window_layers": shape.layers,
        "model_type": "qwen3",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shape.eps,
        "rope_scaling": None,
        "rope_theta": shape.rope_theta,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": shape.vocab,
    }


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
