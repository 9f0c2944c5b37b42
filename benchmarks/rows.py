#!/usr/bin/env python3
"""Where the time of a step for several streams goes: layers, output head, and attention over everybody's cells.

usage: rows.py MODEL [--threads 2] [--cells 128] [--repeat 7] [--flash]

Each line is a step of so many tokens, in ms: `layers` with the logits of one token, `head` what the logits of all of
them add, `attention` what is added where each token belongs to a stream of its own behind so many cells.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from qwen_edge.kv.slice import Slice
from qwen_edge.llama.bindings import send_log_to
from qwen_edge.llama.fixed_cells import FixedCells
from qwen_edge.llama.model import Model
from qwen_edge.protocol.messages import Attention, Load

_ROWS = (1, 2, 4, 8, 12, 16)
_TOKEN = 7  # exists in every vocabulary


def seconds(cells: FixedCells, slices: list[Slice], repeat: int) -> float:
    """The median of some steps, each of which is forgotten afterwards."""
    taken = []
    for _ in range(repeat):
        began = time.perf_counter()
        cells.decode(slices)
        taken.append(time.perf_counter() - began)
        for one in slices:
            cells.forget(one.sequence, one.position, -1)
    return statistics.median(taken)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("model", type=Path)
    asked.add_argument("--threads", type=int, default=2)
    asked.add_argument("--cells", type=int, default=128)
    asked.add_argument("--repeat", type=int, default=7)
    asked.add_argument("--flash", action="store_true", help="with flash attention")
    options = asked.parse_args()
    send_log_to(lambda _level, _text: None)
    room = max(_ROWS) * (options.cells + 1)
    attention: Attention = "on" if options.flash else "off"
    load = Load(str(options.model), room, 128, options.threads, 0, "f16", attention, 5.0, parallel=max(_ROWS))
    print("| tokens | weights | layers | head | attention | tokens per second |\n|---|---|---|---|---|---|")
    with Model(options.model, gpu_layers=0) as model:
        for rows in _ROWS:
            for kind, least in (("repacked", 0), ("plain", 1)):
                model.use_plain_weights(least)
                cells = FixedCells(model, load)
                tokens = [_TOKEN] * rows
                layers = seconds(cells, [Slice(0, 0, tokens, 1)], options.repeat)
                headed = seconds(cells, [Slice(0, 0, tokens, rows)], options.repeat)
                for stream in range(rows):
                    cells.decode([Slice(stream, 0, [_TOKEN] * options.cells, 0)])
                streams = [Slice(stream, options.cells, [_TOKEN], 1) for stream in range(rows)]
                whole = seconds(cells, streams, options.repeat)
                cells.close()
                parts = (f"{1000 * part:.1f}" for part in (layers, headed - layers, whole - headed))
                print(f"| {rows} | {kind} | {' | '.join(parts)} | {rows / whole:.0f} |", flush=True)


if __name__ == "__main__":
    main()
