#!/usr/bin/env python3
"""The engine alone, without daemon and HTTP: what guessing tokens brings, and where the time of a decode step goes.

usage: engine.py MODEL [WALK] [--repeat 3] [--threads 2]

MODEL is the checkpoint whose answers are known (walk.json): a prompt that holds the answer already is one whose answer
quotes it. `edit` holds it with every eighth word another, `new` not at all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from qwen_edge.engine.loop import Engine
from qwen_edge.llama.backend import LlamaBackend
from qwen_edge.protocol.messages import Done, Load, Sampling, Segment, Submit, Tokens

_FRAME = (Segment("<|im_start|>", True), Segment("user\n")), (
    Segment("<|im_end|>", True), Segment("\n"), Segment("<|im_start|>", True), Segment("assistant\n"),
    Segment("<think>", True), Segment("\n\n"), Segment("</think>", True), Segment("\n\n"),
)  # fmt: skip


_GREEDY = Sampling(temperature=0.0)
_QWENS = Sampling(temperature=0.7, top_k=20, top_p=0.8)  # what Qwen recommends without thinking


def submit(number: int, text: str, tokens: int, sampling: Sampling = _GREEDY) -> Submit:
    return Submit(number, (*_FRAME[0], Segment(text), *_FRAME[1]), sampling, tokens, 1e9)


class Watched:
    """A backend whose calls are timed: seconds by name, and how many steps there were."""

    def __init__(self, backend: LlamaBackend) -> None:
        self._backend = backend
        self.seconds: dict[str, float] = defaultdict(float)
        self.steps = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def decode(self, slices: Any) -> None:
        began = time.perf_counter()
        self._backend.decode(slices)
        self.seconds["llama_decode"] += time.perf_counter() - began
        self.steps += 1

    def sampler(self, settings: Sampling) -> Any:
        sampler, watched = self._backend.sampler(settings), self
        sample = sampler.sample

        def timed(row: int) -> int:
            began = time.perf_counter()
            token: int = sample(row)
            watched.seconds["sampling"] += time.perf_counter() - began
            return token

        sampler.sample = timed
        return sampler


def answer(engine: Engine, request: Submit) -> Done:
    engine.submit(request)
    while True:
        for event in engine.step():
            if isinstance(event, Done):
                return event


def speculation(backend: LlamaBackend, walk: dict[str, Any], repeat: int) -> None:
    known = walk["answer"]
    words = known.split(" ")
    edited = " ".join("thing" if number % 8 == 7 else word for number, word in enumerate(words))
    works = {"quote": f"Say this: {known}", "edit": f"Mend this: {edited}", "new": "Say something."}
    print(f"{'work':8}{'tok/s with':>12}{'without':>12}{'ratio':>8}   (all ratios)")
    for work, text in works.items():
        speeds: dict[bool, list[float]] = {True: [], False: []}
        for number in range(repeat):
            for guess in (True, False):
                engine = Engine(backend, speculates=guess)
                done = answer(engine, submit(2 * number + guess, text, 160))
                speeds[guess].append((done.completion_tokens - 1) / done.decode_seconds)
                clear(backend)
        ratios = [one / other for one, other in zip(speeds[True], speeds[False], strict=True)]
        medians = [statistics.median(speeds[guess]) for guess in (True, False)]
        listed = " ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{work:8}{medians[0]:12.1f}{medians[1]:12.1f}{statistics.median(ratios):8.2f}   ({listed})", flush=True)


def profile(backend: LlamaBackend, sequences: int, name: str, sampling: Sampling, tokens: int = 64) -> None:
    watched = Watched(backend)
    engine = Engine(watched, speculates=False)  # type: ignore[arg-type]
    for number in range(sequences):
        engine.submit(submit(number, "Say something.", tokens, replace(sampling, ignore_eos=True)))
    answering: set[int] = set()
    while len(answering) < sequences:
        answering |= {event.id for event in engine.step() if isinstance(event, Tokens)}
    watched.seconds.clear()
    watched.steps = 0
    began = time.perf_counter()
    while not any(isinstance(event, Done) for event in engine.step()):
        pass
    whole = time.perf_counter() - began
    parts = {**watched.seconds, "Python": whole - sum(watched.seconds.values())}
    listed = "   ".join(f"{part} {1e3 * seconds / watched.steps:.2f}" for part, seconds in parts.items())
    print(f"{sequences} sequences, {name}: a step takes {1e3 * whole / watched.steps:.1f} ms: {listed}", flush=True)
    while engine.busy:
        engine.step()
    clear(backend)


def clear(backend: LlamaBackend) -> None:
    for sequence in range(backend.cells.sequences):
        backend.cells.forget(sequence, 0, -1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("walk", type=Path, nargs="?")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    load = Load(str(options.model), 8192, 0, options.threads, 0, "f16", "off", 5.0, parallel=8)
    backend = LlamaBackend(load, lambda _: None)
    backend.warm_up()
    for name, sampling in (("greedy", _GREEDY), ("sampled", _QWENS)):
        for sequences in (1, 8):
            profile(backend, sequences, name, sampling)
    if options.walk:
        speculation(backend, json.loads(options.walk.read_text()), options.repeat)


if __name__ == "__main__":
    main()
