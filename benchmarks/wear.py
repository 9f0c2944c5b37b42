"""What single questions write to disk while the engine is idle: `python benchmarks/wear.py [--questions 200]`.

Each question has a `user` of its own, as Home Assistant sends it, and the system prompt of the house. The model is one
of a few lines, whose tokens are bytes of text; a cell counts as the 112 KiB that one of Qwen3-0.6B takes at f16.
"""

import argparse
import tempfile
from pathlib import Path

from qwen_edge.engine.loop import Engine
from qwen_edge.kv.disk_tier import DiskTier
from qwen_edge.protocol.messages import Sampling, Segment, Submit
from tests.fakes import FakeBackend

_SYSTEM = "You are the voice of a house. " + "The lamp in the kitchen is on, and the garage is closed. " * 20
_ROOMS = ("kitchen", "bedroom", "attic", "garage", "hall", "cellar", "study", "garden")
_CELL = 112 << 10  # bytes


def questions(count: int) -> list[str]:
    return [f"{number} o'clock: turn the light in the {_ROOMS[number % 8]} to {number} %" for number in range(count)]


def told(number: int, text: str) -> Submit:
    """A request as the daemon hands it to the engine, in this version and in older ones."""
    parts = (("<|im_start|>", _SYSTEM), ("<|im_start|>", f"user: {text}"), ("<|im_start|>", "assistant: "))
    prompt = tuple(segment for mark, words in parts for segment in (Segment(mark, special=True), Segment(words)))
    return Submit(number, prompt, Sampling(), 100, 1e9, conversation=f"conversation-{number}")


def written(count: int, spare: int | None) -> tuple[int, int]:
    """How many cells were written while idle, and in how many files. While a request runs, the others keep no more than
    `spare` cells for themselves; None: as many as there are."""
    with tempfile.TemporaryDirectory() as folder:
        disk = DiskTier(Path(folder), "fake", limit=1 << 40, per_day=1 << 60, cell=4)
        engine = Engine(FakeBackend(lambda _: "Done.", spare=spare), disk=disk)
        cells, files = 0, 0
        put = disk.put

        def counted(copy) -> None:
            nonlocal cells, files
            cells, files = cells + copy.size, files + 1
            put(copy)

        disk.put = counted
        for number, text in enumerate(questions(count), 1):
            engine.submit(told(number, text))
            while engine.busy:
                engine.step()
            engine.tidy()
            while engine.prepare() or engine.writing:
                disk.wait(10)
        disk.close()
    return cells, files


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=200)
    count = parser.parse_args().questions
    for spare, where in ((0, "on a CPU"), (None, "with flash attention")):
        cells, files = written(count, spare)
        size = f"{cells * _CELL / 1e6:,.0f} MB of Qwen3-0.6B at f16"
        print(f"{count} questions {where}: {cells} cells in {files} files, {size}")
