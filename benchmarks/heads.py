#!/usr/bin/env python3
"""What the type of the output head costs and brings: size, a step of 1, 4 and 8 sequences, difference in logits.

usage: heads.py REFERENCE MODEL... [--repeat 5] [--steps 16] [--threads 2]

REFERENCE is the unquantized model (`qwen-edge convert --type bf16`). The sequences share 400 tokens and have 16 of
their own. Models take turns, so that a machine that slows down slows all.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from qwen_edge.kv.slice import Slice
from qwen_edge.llama.bindings import send_log_to
from qwen_edge.llama.growing_cells import GrowingCells
from qwen_edge.llama.model import Model
from qwen_edge.protocol.messages import Load

SHARED, OWN = 400, 16
SEQUENCES = (1, 4, 8)


class Loaded:
    """One model and a context in which eight sequences share a beginning."""

    def __init__(self, path: Path, threads: int) -> None:
        self.path, self._model = path, Model(path)
        load = Load(str(path), 2048, 128, threads, 0, "f16", "off", 5.0, parallel=8)
        self._context = GrowingCells(self._model, load)
        words = np.random.default_rng(1).integers(0, 100_000, 1000).tolist()
        self._words = words
        for start in range(0, SHARED, 100):
            self._context.decode([Slice(0, start, words[start : start + 100], 0)])
        for sequence in range(1, max(SEQUENCES)):
            self._context.share(0, sequence, 0, SHARED)
        for sequence in range(max(SEQUENCES)):
            own = words[SHARED + OWN * sequence :][:OWN]
            self._context.decode([Slice(sequence, SHARED, own, 0)])

    def logits(self, count: int) -> np.ndarray:
        """Of `count` tokens behind the first 100, float32 of shape (count, vocabulary)."""
        context, rows = self._context, []
        for start in range(100, 100 + count, 8):
            context.share(0, 9, 0, start)
            context.decode([Slice(9, start, self._words[start : start + 8], 8)])
            rows += [context.logits(row).copy() for row in range(8)]
            context.forget(9, 0, -1)
        return np.array(rows)

    def step(self, sequences: int) -> float:
        """Seconds of one."""
        slices = [Slice(one, SHARED + OWN, [self._words[one]], 1) for one in range(sequences)]
        began = time.perf_counter()
        self._context.decode(slices)
        seconds = time.perf_counter() - began
        for one in range(sequences):
            self._context.forget(one, SHARED + OWN, -1)
        return seconds


def difference(reference: np.ndarray, logits: np.ndarray) -> tuple[float, float]:
    """Kullback-Leibler divergence from the reference in nats, and how often the likeliest token is the same."""
    one, other = (x - np.log(np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True)) for x in (reference, logits))
    one, other = one - reference.max(1, keepdims=True), other - logits.max(1, keepdims=True)
    divergence = (np.exp(one) * (one - other)).sum(1).mean()
    return float(divergence), float((reference.argmax(1) == logits.argmax(1)).mean())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("reference", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    send_log_to(lambda _level, _text: None)
    exact = Loaded(options.reference, options.threads).logits(200)
    models = [Loaded(path, options.threads) for path in options.models]
    seconds = defaultdict(list)
    for _ in range(options.repeat):
        for count in SEQUENCES:
            for model in models:
                steps = [model.step(count) for _ in range(options.steps)]
                seconds[model.path, count].append(statistics.median(steps))
    print(f"{'model':28}{'MB':>8}{'KL, nats':>12}{'same top':>10}", *(f"{n} at once, ms" for n in SEQUENCES), sep="  ")
    for model in models:
        divergence, same = difference(exact, model.logits(200))
        size = model.path.stat().st_size / 1e6
        steps = [f"{1e3 * statistics.median(seconds[model.path, count]):14.1f}" for count in SEQUENCES]
        print(f"{model.path.stem:28}{size:8.1f}{divergence:12.5f}{same:10.1%}", *steps, sep="  ")


if __name__ == "__main__":
    main()
