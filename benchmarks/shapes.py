"""What shapes cost: the six-field command, masks, the first shape of an engine's life, and the worst ones to compile.

    python benchmarks/shapes.py MODEL.gguf

A stream of free text runs beside the shapes that are compiled. Its longest gap says how much they hold it up.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Collection
from pathlib import Path
from random import Random

from qwen_edge.engine.loop import Engine
from qwen_edge.llama.backend import LlamaBackend
from qwen_edge.llama.shape_tokenizer import shape_tokenizer
from qwen_edge.protocol.messages import Done, Failed, Load, Sampling, Segment, Shape, Submit, Tokens
from qwen_edge.structured.compiler import Compiler
from qwen_edge.structured.errors import ShapeError

WORD = Random(1)
SIX = {
    "type": "object",
    "properties": {
        "device": {"enum": ["light", "heater", "curtain", "fan"]},
        "room": {"enum": ["kitchen", "hall", "garden", "bedroom"]},
        "state": {"enum": ["on", "off"]},
        "percent": {"type": "integer", "minimum": 0, "maximum": 100},
        "minutes": {"type": "integer", "minimum": 0, "maximum": 600},
        "note": {"type": "string", "maxLength": 40},
    },
    "required": ["device", "room", "state", "percent", "minutes", "note"],
    "additionalProperties": False,
}


def word(length: int) -> str:
    return "".join(WORD.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(length))


def schema(value: object) -> Shape:
    return Shape("json_schema", json.dumps(value))


def worst() -> dict[str, Shape]:
    """Shapes that take long to compile, or whose masks take long."""
    return {
        "8,000 words": schema({"enum": [word(12) for _ in range(8000)]}),
        "20,000 numbers": schema({"enum": list(range(20000))}),
        "400 optional properties": schema({"properties": {word(8): {"type": "string"} for _ in range(400)}}),
        "700 optional properties": schema({"properties": {word(8): {} for _ in range(700)}}),
        "130 ranges": schema(
            {"anyOf": [{"type": "number", "minimum": -1e6 * n, "maximum": 7.3 * n} for n in range(130)]}
        ),
        "3 multiples": schema({"properties": {word(8): {"type": "integer", "multipleOf": 9900 + n} for n in range(3)}}),
        "50 patterns": schema({"anyOf": [{"pattern": f"^.*{word(5)}.*{word(5)}.*$"} for _ in range(50)]}),
        "100,000 items": schema({"type": "array", "items": {"type": "integer"}, "minItems": 100_000}),
        "a text of 30,000 characters": schema({"const": word(30_000)}),
        "states without end": Shape("regex", r"(.|\n)*a(.|\n){30}"),
        "an ambiguous grammar": Shape("lark", 'start: e\ne: e e | "a" | "b" | e "a" e | "a" e "a"'),
        "letters of all scripts": Shape("regex", r"(\p{L}|\p{N}){1,500}"),
        "5,000 choices": Shape("choice", json.dumps([word(15) for _ in range(5000)])),
        "a grammar of 450 rules": Shape(
            "gbnf",
            "root ::= r0\n"
            + "\n".join(f'r{n} ::= ("{word(6)}" (r{n + 1} | "z"))*' for n in range(450))
            + '\nr450 ::= "a"',
        ),
    }


class Bench:
    """An engine, with a stream that somebody reads. `gaps`: seconds between two words of it."""

    def __init__(self, model: Path) -> None:
        load = Load(
            model=str(model), context=4096, batch=128, threads=2, gpu_layers=0, kv_type="f16", flash_attention="off",
            beat_seconds=5.0, parallel=4,
        )  # fmt: skip
        self.backend = LlamaBackend(load, lambda _: None)
        self.engine = Engine(self.backend, speculates=False)
        self.gaps: list[float] = []
        self._heard = 0.0
        self._number = 1

    def ask(self, text: str, most: int, shape: Shape | None = None) -> int:
        start, end = Segment("<|im_start|>", True), Segment("<|im_end|>", True)
        prompt = (start, Segment(f"user\n{text}"), end, Segment("\n"), start, Segment("assistant\n"))
        sampling = Sampling(temperature=1.0, seed=self._number, ignore_eos=shape is None)
        self._number += 1
        self.engine.submit(Submit(self._number, prompt, sampling, most, 1e9, shape=shape))
        return self._number

    def stream(self) -> int:
        stream = self.ask("Tell me about the house", 3500)
        while not self.gaps:
            self.until(-1, stream, steps=1)
        return stream

    def until(self, number: int, stream: int | None = None, steps: int = 100_000) -> Done | Failed | None:
        """Step until the request has ended; returns its end."""
        for _ in range(steps):
            for event in self.engine.step():
                if isinstance(event, Done | Failed) and event.id == number:
                    return event
                if isinstance(event, Tokens) and event.id == stream:
                    now = time.perf_counter()
                    self.gaps += [now - self._heard] if self._heard else []
                    self._heard = now
        return None

    def close(self) -> None:
        self.engine.leave(0.0)
        self.backend.close()


def anonymous() -> float:
    """Megabytes of memory of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def end_of(end: Done | Failed | None) -> str:
    if isinstance(end, Failed):
        return f"refused: {end.detail[:70]}"
    assert end
    why = f" ({end.stopped_by})" if end.stopped_by else ""
    mask = end.steered.seconds / max(1, end.steered.masks)
    return f"{end.reason}{why}, {end.completion_tokens} tokens, {mask * 1e3:.2f} ms a step"


def alone(compiler: Compiler, ends: Collection[int], name: str, shape: Shape) -> None:
    """Seconds of a processor, whatever else runs: to compile a shape, and the worst of the first steps of an answer
    that takes any token."""
    began, random, worst = time.thread_time(), Random(2), 0.0
    compiled = 0.0
    try:
        constraint = compiler.compile(shape)
        compiled = time.thread_time() - began
        for _ in range(100):
            began = time.thread_time()
            for token in constraint.forced():
                constraint.accept(token)
            allowed = constraint.allowed()
            worst = max(worst, time.thread_time() - began)
            allowed[[*ends]] = False
            if constraint.done or not allowed.any():
                break
            constraint.accept(int(random.choice(allowed.nonzero()[0])))
        end = ""
    except ShapeError as error:
        compiled = compiled if worst else time.thread_time() - began
        end = f"{'cut' if worst else 'refused'}: {error.what[:50]}"
    print(f"{name:28} {compiled * 1e3:6.1f} ms to compile, worst step {worst * 1e3:5.1f} ms  {end}", flush=True)


def six_fields(bench: Bench) -> None:
    """The command alone: tokens, and what shape and masks cost a step."""
    steps = list[tuple[int, int, int, float, float]]()
    for _ in range(10):
        began = time.perf_counter()
        end = bench.until(bench.ask("Dim the light in the hall to 40 percent for ten minutes", 200, schema(SIX)))
        assert isinstance(end, Done)
        steered = end.steered
        steps.append(
            (end.completion_tokens, steered.forced, steered.masks, steered.seconds, time.perf_counter() - began)
        )
    tokens, forced, masks, seconds, took = (statistics.median(column) for column in zip(*steps, strict=True))
    print(
        f"six fields: {tokens:.0f} tokens, {forced:.0f} forced, {masks:.0f} chosen; {took * 1e3:.0f} ms; "
        f"shape {seconds / masks * 1e3:.3f} ms a step, {seconds / took:.1%} of the time"
    )


def beside(bench: Bench, stream: int, name: str, shape: Shape | None, text: str = "Go on") -> None:
    bench.gaps.clear()
    began, before = time.perf_counter(), anonymous()
    end = bench.until(bench.ask(text, 8, shape), stream)
    took, more = time.perf_counter() - began, anonymous() - before
    gap, usual = max(bench.gaps), statistics.median(bench.gaps)
    spent = f"{took * 1e3:7.0f} ms, longest gap {gap * 1e3:5.0f} ms (usual {usual * 1e3:3.0f})"
    print(f"{name:28} {spent}  {more:+5.1f} MB  {end_of(end)}", flush=True)


def main() -> None:
    bench = Bench(Path(sys.argv[1]))
    vocabulary = bench.backend.vocabulary
    compiler = Compiler(lambda: shape_tokenizer(vocabulary), vocabulary.size, vocabulary.ends)
    compiler.prepare()
    for name, shape in {"six fields": schema(SIX), **worst()}.items():
        alone(compiler, vocabulary.ends, name, shape)
    stream = bench.stream()
    beside(bench, stream, "no shape", None)
    beside(bench, stream, "the first shape", schema(SIX), "Dim the light")
    beside(bench, stream, "the same again", schema(SIX), "Dim the light")
    for name, shape in worst().items():
        beside(bench, stream, name, shape)
    bench.close()
    bench = Bench(Path(sys.argv[1]))
    six_fields(bench)
    bench.close()


if __name__ == "__main__":
    main()
