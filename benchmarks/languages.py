#!/usr/bin/env python3
"""What a vocabulary cut to languages costs and brings: size, seconds a token, tokens a text needs, and the logits.

usage: languages.py WHOLE CUT... --texts FILE... [--repeat 5] [--steps 16] [--threads 2]

WHOLE and CUT are files that `qwen-edge convert` made of one checkpoint, without and with `--languages`. The texts are
in UTF-8. Models take turns, so that a machine that slows down slows all. Where kept tokens have the same logits, the
Kullback-Leibler divergence of CUT from WHOLE is -log(1 - p), with the probability p that WHOLE gives to the tokens that
CUT lacks; it is a mean over 200 kept tokens of the texts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from qwen_edge.kv.slice import Slice
from qwen_edge.llama.bindings import C, send_log_to
from qwen_edge.llama.growing_cells import GrowingCells
from qwen_edge.llama.model import Model
from qwen_edge.protocol.messages import Load

DEPTHS = (0, 512)  # tokens before a measured one
COMPARED, TOGETHER = 200, 8


class Loaded:
    """One model and a context in which sequence 0 holds 512 tokens."""

    def __init__(self, path: Path, threads: int) -> None:
        self.path, self._model = path, Model(path)
        self.vocab = self._model.vocab
        self._cells = GrowingCells(
            self._model, Load(str(path), 1024, 128, threads, 0, "f16", "off", 5.0, parallel=TOGETHER)
        )
        text = C.llama_vocab_get_text
        self.ids = {text(self.vocab.handle, token): token for token in range(self.vocab.size)}
        self._words = np.random.default_rng(1).integers(0, self.vocab.size, max(DEPTHS)).tolist()
        for start in range(0, max(DEPTHS), 128):
            self._cells.decode([Slice(0, start, self._words[start : start + 128], 0)])

    def tokens_of(self, text: str) -> int:
        return len(self.vocab.encode(text))

    def step(self, depth: int) -> float:
        """Seconds of one token behind `depth` others."""
        sequence = 0 if depth else 1
        began = time.perf_counter()
        self._cells.decode([Slice(sequence, depth, self._words[:1], 1)])
        seconds = time.perf_counter() - began
        self._cells.forget(sequence, depth, -1)
        return seconds

    def logits(self, tokens: list[int]) -> np.ndarray:
        """After each of the tokens, float32 of shape (tokens, vocabulary)."""
        rows = []
        for start in range(0, len(tokens), TOGETHER):
            part = tokens[start : start + TOGETHER]
            self._cells.decode([Slice(1, start, part, len(part))])
            rows += [self._cells.logits(row).copy() for row in range(len(part))]
        self._cells.forget(1, 0, -1)
        return np.array(rows)


def compare(whole: Loaded, cut: Loaded, text: str) -> tuple[bool, float]:
    """Whether kept tokens have the same logits, bit for bit, and the divergence that the tokens that were cut make."""
    pairs = [(token, cut.ids[name]) for name, token in whole.ids.items() if name in cut.ids]
    old, new = (np.array(column) for column in zip(*pairs, strict=True))
    known = dict(pairs)
    tokens = [token for token in whole.vocab.encode(text) if token in known][:COMPARED]
    before, after = whole.logits(tokens), cut.logits([known[token] for token in tokens])
    shares = np.exp(before.astype(np.float64) - before.max(1, keepdims=True))
    left = shares[:, old].sum(1) / shares.sum(1)
    return np.array_equal(before[:, old], after[:, new]), float(-np.log(np.minimum(left, 1)).mean())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("whole", type=Path)
    parser.add_argument("cuts", type=Path, nargs="+")
    parser.add_argument("--texts", type=Path, nargs="+", required=True)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    send_log_to(lambda _level, _text: None)
    models = [Loaded(path, options.threads) for path in (options.whole, *options.cuts)]
    texts = {path.stem: path.read_text(encoding="utf-8") for path in options.texts}
    seconds = defaultdict(list)
    for _ in range(options.repeat):
        for depth in DEPTHS:
            for model in models:
                steps = [model.step(depth) for _ in range(options.steps)]
                seconds[model.path, depth].append(statistics.median(steps))
    whole = models[0]
    print(
        f"{'model':28}{'rows':>8}{'MB':>8}",
        *(f"ms at {depth:3}" for depth in DEPTHS),
        *texts,
        "same logits, KL in nats",
    )
    for model in models:
        steps = [f"{1e3 * statistics.median(seconds[model.path, depth]):9.1f}" for depth in DEPTHS]
        needed = [f"{model.tokens_of(text) / whole.tokens_of(text):{len(name)}.3f}" for name, text in texts.items()]
        same, divergence = compare(whole, model, "".join(text[: 2 * COMPARED] for text in texts.values()))
        print(
            f"{model.path.stem:28}{model.vocab.size:8}{model.path.stat().st_size / 1e6:8.1f}", *steps, *needed, end=" "
        )
        print(f"{same!s}, {divergence:.4f}")


if __name__ == "__main__":
    main()
