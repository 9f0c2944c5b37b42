#!/usr/bin/env python3
"""Two types of KV cache beside each other: steps of an answer, and slices of a prompt, at several depths.

usage: kv_types.py MODEL [--types f16 q8_0_keys] [--attention off] [--depth 0 256 512 1024 2048] [--threads 2]
                         [--repeat 24]

Each line is the work for one token, for eight streams that share their beginning, or for 128 tokens of a prompt: the
lower quartile in ms with either type, the ratio of these, and the median ratio of two neighbouring measurements. The
types take turns step by step (ABBA), so that a machine that slows down slows both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from msgspec.structs import replace

from qwen_edge.kv.slice import Slice
from qwen_edge.llama.bindings import send_log_to
from qwen_edge.llama.growing_cells import GrowingCells
from qwen_edge.llama.model import Model
from qwen_edge.llama.resolve import resolve
from qwen_edge.protocol.messages import Load

_STREAMS, _SLICE = 8, 128  # tokens in a batch
_SETTLE = 2  # steps that are not counted


def fill(cells: GrowingCells, start: int, end: int) -> None:
    """Compute the tokens from `start` to before `end` of the first stream, and give the cache the size for them."""
    for at in range(start, end, _SLICE):
        cells.decode([Slice(0, at, _tokens(at, min(_SLICE, end - at)), 0)])
    cells.fit(end + _SLICE)
    for stream in range(1, _STREAMS):
        cells.share(0, stream, start, end)


def work(depth: int) -> dict[str, list[Slice]]:
    return {
        "1 row": [Slice(0, depth, [7], 1)],
        "8 rows": [Slice(stream, depth, [7 + stream], 1) for stream in range(_STREAMS)],
        "prompt": [Slice(0, depth, _tokens(depth, _SLICE), 1)],
    }


def seconds(caches: list[GrowingCells], slices: list[Slice], repeat: int) -> list[list[float]]:
    """The times of the same batch with each cache, in turn; its tokens are forgotten afterwards."""
    taken: list[list[float]] = [[] for _ in caches]
    pairs = list(zip(caches, taken, strict=True))
    for number in range(_SETTLE + repeat):
        pairs.reverse()
        for cells, times in pairs:
            began = time.perf_counter()
            cells.decode(slices)
            if number >= _SETTLE:
                times.append(time.perf_counter() - began)
            for one in slices:
                cells.forget(one.sequence, one.position, -1)
    return taken


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("model", type=Path)
    asked.add_argument("--types", nargs=2, default=["f16", "q8_0_keys"])
    asked.add_argument("--attention", default="off")
    asked.add_argument("--depth", type=int, nargs="+", default=[0, 256, 512, 1024, 2048])
    asked.add_argument("--threads", type=int, default=2)
    asked.add_argument("--repeat", type=int, default=24)
    options = asked.parse_args()
    send_log_to(lambda _level, _text: None)
    context = max(options.depth) + 4 * _SLICE
    load = Load(str(options.model), context, _SLICE, options.threads, 0, "f16", options.attention, 5.0, _STREAMS)
    print(f"{'depth':>6}  {'work':<8}{options.types[0]:>12}{options.types[1]:>12}  ratio")
    with Model(options.model, gpu_layers=0) as model:
        model.use_plain_weights(24)  # for prompts, as the daemon does
        caches = [GrowingCells(model, resolve(model, replace(load, kv_type=kind))) for kind in options.types]
        filled = 0
        for depth in sorted(options.depth):
            for cells in caches:
                fill(cells, filled, depth)
            filled = depth
            for name, slices in work(depth).items():
                repeat = options.repeat if name == "1 row" else max(2, options.repeat // 4)
                times = seconds(caches, slices, repeat)
                first, second = (1000 * statistics.quantiles(one)[0] for one in times)
                paired = statistics.median(one / other for one, other in zip(*times, strict=True))
                ratios = f"{first / second:.2f} {paired:.2f}"
                print(f"{depth:6}  {name:<8}{first:9.2f} ms{second:9.2f} ms  {ratios}", flush=True)
        for cells in caches:
            cells.close()


def _tokens(start: int, count: int) -> list[int]:
    return [20 + (start + number) % 200 for number in range(count)]  # ids that exist in every vocabulary


if __name__ == "__main__":
    main()
