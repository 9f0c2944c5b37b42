#!/usr/bin/env python3
"""Prompts and answers with the weights of the file and with repacked ones, with flash attention and without.

usage: weights.py MODEL [--threads 2] [--batch 128] [--repeat 3]

The kinds take turns, and the medians are printed, as a table in Markdown. `both` is what the engine does: plain weights
for batches of at least 24 tokens, repacked ones for smaller batches.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from itertools import product
from pathlib import Path

from msgspec.structs import replace

from qwen_edge.llama.bindings import send_log_to
from qwen_edge.llama.model import Model
from qwen_edge.llama.tune import Effort, measure
from qwen_edge.protocol.messages import Load

_PROMPTS = (213, 1800)  # tokens
_DEPTHS = (0, 256, 512, 1024, 2048)  # tokens
_WEIGHTS = {"plain": 1, "repacked": 0, "both": 24}  # from how many tokens on a batch uses plain weights
_ATTENTION = {"no FA": "off", "FA": "on"}


def speeds(model: Model, load: Load) -> dict[str, float]:
    """Tokens per second: of prompts, and of answers behind so many tokens."""
    found = {}
    for tokens in _PROMPTS:
        (speed,) = measure(model, load, Effort(depths=(0,), prompt=tokens, answer=1)).speeds
        found[f"prompt of {tokens:,}"] = speed.prompt
    for speed in measure(model, load, Effort(depths=_DEPTHS, prompt=1, answer=24)).speeds:
        found[f"answer at depth {speed.depth:,}"] = speed.answer
    return found


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("model", type=Path)
    asked.add_argument("--threads", type=int, default=2)
    asked.add_argument("--batch", type=int, default=128)
    asked.add_argument("--repeat", type=int, default=3)
    options = asked.parse_args()
    send_log_to(lambda _level, _text: None)
    load = Load(str(options.model), 4096, options.batch, options.threads, 0, "f16", "off", 5.0)
    measured: dict[tuple[str, str], list[float]] = defaultdict(list)
    kinds = [f"{weights}, {attention}" for weights, attention in product(_WEIGHTS, _ATTENTION)]
    with Model(options.model, gpu_layers=0) as model:
        for _, kind in product(range(options.repeat), kinds):
            weights, attention = kind.split(", ")
            if not model.use_plain_weights(_WEIGHTS[weights]):
                raise SystemExit(
                    "llama.cpp repacks nothing of this model on this machine: there is one kind of weights."
                )
            for what, speed in speeds(model, replace(load, flash_attention=_ATTENTION[attention])).items():
                measured[what, kind].append(speed)
    print(f"| tokens per second | {' | '.join(kinds)} |\n|---|{'---|' * len(kinds)}")
    for what in dict.fromkeys(what for what, _ in measured):
        cells = (f"{statistics.median(measured[what, kind]):.0f}" for kind in kinds)
        print(f"| {what} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
