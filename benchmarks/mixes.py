#!/usr/bin/env python3
"""What a mix of tensor types costs and brings: size, speed, and the difference from the unquantized model.

usage: mixes.py REFERENCE MODEL... --text TEXT [--rounds 3] [--threads 2] [--tokens 2048] [--only speed|quality]

REFERENCE is the unquantized model (`qwen-edge convert --type bf16`). Quality: each model reads TEXT, in pieces of 256
tokens, and its distribution of each next token is compared with the reference's. Speed: a step of 1, 4 and 8
sequences, which share 400 tokens and have 16 of their own, and a prompt of 213 tokens in slices of 128, with repacked
and with plain weights. Models take turns, so that a machine that slows down slows all.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from qwen_edge.kv.slice import Slice
from qwen_edge.llama.bindings import send_log_to
from qwen_edge.llama.fixed_cells import FixedCells
from qwen_edge.llama.model import Model
from qwen_edge.protocol.messages import Load

SHARED, OWN, PROMPT = 400, 16, 213
SEQUENCES = (1, 4, 8)
SLICE = 128
PIECE, ROWS = 256, 64  # tokens of a text that are read from an empty cache, and of which logits are wanted at once
NEXT = 9  # a sequence that holds nothing between two measurements


class Loaded:
    """One model and a context in which eight sequences share a beginning."""

    def __init__(self, path: Path, threads: int, *, repack: bool = True) -> None:
        self.path, self.model = path, Model(path, gpu_layers=0, repack=repack)
        load = Load(str(path), 1024, SLICE, threads, 0, "f16", "off", 5.0, parallel=ROWS // 2)
        self._context = FixedCells(self.model, load)
        self._words = np.random.default_rng(1).integers(0, self.model.vocab.size, 1000).tolist()

    def fill(self) -> None:
        """Fill the cells with what the steps of `step` continue."""
        for start in range(0, SHARED, 100):
            self._context.decode([Slice(0, start, self._words[start : start + 100], 0)])
        for sequence in range(1, max(SEQUENCES)):
            self._context.share(0, sequence, 0, SHARED)
        for sequence in range(max(SEQUENCES)):
            own = self._words[SHARED + OWN * sequence :][:OWN]
            self._context.decode([Slice(sequence, SHARED, own, 0)])

    def read(self, tokens: list[int]) -> np.ndarray:
        """The logits of tokens that are read from an empty cache, float32 of shape (tokens, vocabulary)."""
        rows = []
        for start in range(0, len(tokens), ROWS):
            some = tokens[start : start + ROWS]
            self._context.decode([Slice(NEXT, start, some, len(some))])
            rows += [self._context.logits(row).copy() for row in range(len(some))]
        self._context.forget(NEXT, 0, -1)
        return np.array(rows)

    def step(self, sequences: int) -> float:
        """Seconds of a step in which each of the sequences gets one token."""
        slices = [Slice(one, SHARED + OWN, [self._words[one]], 1) for one in range(sequences)]
        began = time.perf_counter()
        self._context.decode(slices)
        seconds = time.perf_counter() - began
        for one in range(sequences):
            self._context.forget(one, SHARED + OWN, -1)
        return seconds

    def prompt(self) -> float:
        """Seconds of a prompt of PROMPT tokens."""
        began = time.perf_counter()
        for start in range(0, PROMPT, SLICE):
            self._context.decode([Slice(NEXT, start, self._words[start : min(start + SLICE, PROMPT)], 1)])
        seconds = time.perf_counter() - began
        self._context.forget(NEXT, 0, -1)
        return seconds


def divergence(reference: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each token: the Kullback-Leibler divergence from the reference in nats, and whether the likeliest is the
    same."""
    one, other = (x - x.max(1, keepdims=True) for x in (reference, logits))
    one, other = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (one, other))
    return (np.exp(one) * (one - other)).sum(1), reference.argmax(1) == logits.argmax(1)


def quality(reference: Path, paths: list[Path], text: str, most: int, threads: int) -> dict[Path, str]:
    exact, models = Loaded(reference, threads, repack=False), [Loaded(path, threads, repack=False) for path in paths]
    tokens = exact.model.vocab.encode_marked(text)[:most]
    found: dict[Path, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for start in range(0, len(tokens), PIECE):
        piece = tokens[start : start + PIECE]
        expected = exact.read(piece)
        for model in models:
            found[model.path].append(divergence(expected, model.read(piece)))
    shown = {}
    for path, pairs in found.items():
        nats, same = np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])
        error = nats.std() / np.sqrt(len(nats))
        shown[path] = f"{nats.mean():10.5f} ±{error:8.5f}{np.quantile(nats, 0.99):9.4f}{same.mean():8.1%}"
    print(f"KL divergence (mean, its standard error, 99th percentile) over {len(tokens)} tokens; same likeliest token")
    return shown


def _measurements(packed: Loaded, plain: Loaded) -> dict[str, tuple[Callable[[], float], int]]:
    """What to run for a model, by name, and how often in a round."""
    steps = {f"{n} at once": (partial(packed.step, n), 8) for n in SEQUENCES}
    return {**steps, "prompt": (packed.prompt, 1), "prompt, plain": (plain.prompt, 1)}


def speed(paths: list[Path], rounds: int, threads: int) -> dict[Path, str]:
    """Milliseconds: medians of `rounds` rounds, in each of which every model has its turn."""
    seconds: dict[tuple[Path, str], list[float]] = defaultdict(list)
    models = [(Loaded(path, threads), Loaded(path, threads, repack=False)) for path in paths]
    for packed, _ in models:
        packed.fill()
    with contextlib.suppress(KeyboardInterrupt):  # what was measured until then is shown
        for turn in range(rounds + 1):
            for packed, plain in models:
                for name, (run, times) in _measurements(packed, plain).items():
                    value = statistics.median(run() for _ in range(times))
                    if turn:  # the first round only warms up
                        seconds[packed.path, name].append(value)
    names = list(dict.fromkeys(name for _, name in seconds))
    print("ms:", *(f"{name:>15}" for name in names))
    medians = {key: 1e3 * statistics.median(values) for key, values in seconds.items()}

    def shown(path: Path, name: str) -> str:
        if (path, name) not in medians:  # interrupted before its turn
            return f"{'-':>15}"
        return f"{medians[path, name]:9.1f} {medians[path, name] / medians[paths[0], name]:5.3f}"

    return {path: "".join(shown(path, name) for name in names) for path in paths}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--only", choices=("speed", "quality"))
    options = parser.parse_args()
    if options.only != "speed" and not options.text:
        parser.error("name a text (--text) to compare the models on, or measure only their speed (--only speed)")
    send_log_to(lambda _level, _text: None)
    columns = []
    if options.only != "speed":
        text = options.text.read_text("utf-8")
        columns.append(quality(options.reference, options.models, text, options.tokens, options.threads))
    if options.only != "quality":
        columns.append(speed(options.models, options.rounds, options.threads))
    for path in options.models:
        print(f"{path.stem:28}{path.stat().st_size / 1e6:8.1f} MB", *(column[path] for column in columns), sep="  ")


if __name__ == "__main__":
    main()
