"""Checks a converted file with llama.cpp before it is published: finite weights, a correct tokenizer, one decode.

Runs in a worker process, as a damaged file may make llama.cpp abort.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qwen_edge.core.errors import EngineError
from qwen_edge.kv.slice import Slice
from qwen_edge.llama.fixed_cells import FixedCells
from qwen_edge.llama.model import Model
from qwen_edge.llama.vocab import Vocab
from qwen_edge.protocol.messages import Load

_PROBES = (
    "Turn on the kitchen light, please. It's 21.5 °C outside; I'll be back at 6:30!",
    "请把客厅的灯调到百分之四十，谢谢。你好，世界！",
    'def f(x):\n    return {"a": [1, 2.5e-3], "b": x}  # naïve\n\n\n',
    "\t\r\n  mixed   spaces\u3000and 🙂👩‍👩‍👧 emoji, кириллица, العربية, 한국어\n",
)
_PROMPT = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


def check_model(
    file: Path, added: Mapping[str, int], end_tokens: Sequence[int], on_progress: Callable[[float], None]
) -> dict[str, Any]:
    """Load every tensor with validation, encode and decode sample texts, check that each of `end_tokens` ends a turn,
    and decode one prompt. `on_progress` gets the share of the file that is loaded.

    Returns the results for the manifest. Raises EngineError with the fault found. Needs about as much memory as the
    file is large, most of it mapped from the file.
    """
    with Model(file, gpu_layers=0, repack=False, check_tensors=True, on_progress=on_progress) as model:
        _check_tokenizer(model.vocab, added)
        _check_end_tokens(model.vocab, end_tokens)
        token = _decode_once(model)
        return {
            "tensors": "every block finite",
            "tokenizer": f"{len(_PROBES)} texts and {len(added)} special tokens there and back",
            "ends": [model.vocab.text(token) for token in end_tokens],
            "decode": f"{_PROMPT!r} -> {model.vocab.text(token)!r}",
            "parameters": model.parameters,
        }


def _check_tokenizer(vocab: Vocab, added: Mapping[str, int]) -> None:
    for text in _PROBES:
        back = vocab.decode(vocab.encode(text)).decode("utf-8", "replace")
        if back != text:
            raise EngineError(
                f"The converted tokenizer turns {text!r} into {back!r}. The tokenizer files are damaged: download them "
                "again."
            )
    for text, token in added.items():
        if vocab.encode_marked(text) != [token] or vocab.text(token) != text:
            raise EngineError(
                f"The converted tokenizer does not read {text!r} as token {token}. Check the tokenizer files of the "
                "checkpoint."
            )


def _check_end_tokens(vocab: Vocab, end_tokens: Sequence[int]) -> None:
    for token in end_tokens:
        if not vocab.is_end(token) or token not in vocab.ends:
            raise EngineError(f"The converted model does not end its turn with token {token}, {vocab.text(token)!r}.")


def _decode_once(model: Model) -> int:
    prompt = model.vocab.encode_marked(_PROMPT)
    load = Load(str(model.path), 256, max(32, len(prompt)), 2, 0, "f16", "off", 5.0)
    cells = FixedCells(model, load)
    try:
        cells.decode([Slice(0, 0, prompt, logits=True)])
        logits = cells.logits(len(prompt) - 1)
        if not np.isfinite(logits).all():
            raise EngineError(
                f"{model.path} decodes to values that are not finite numbers. The weights are damaged: download the "
                "checkpoint again."
            )
        return int(logits.argmax())
    finally:
        cells.close()
