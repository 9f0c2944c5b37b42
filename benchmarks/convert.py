#!/usr/bin/env python3
"""Our conversion beside llama.cpp's converter and quantizer: seconds and peak memory, one after the other in one run.

usage: convert.py CHECKPOINT LLAMA_CPP PYTHON [--repeat 3]
    LLAMA_CPP is a checkout; PYTHON one with torch and transformers, for its converter

The quantizer is the same library on both sides: theirs with its defaults, ours as `qwen-edge convert` calls it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_QUANTIZE = """
import ctypes, sys
from llama_cpp import llama_cpp as C
quiet = C.llama_log_callback(lambda level, text, data: None)  # kept: C holds no reference
C.llama_log_set(quiet, None)
params = C.llama_model_quantize_default_params()
params.ftype, params.nthread = C.LLAMA_FTYPE_MOSTLY_Q4_K_M, int(sys.argv[3])
sys.exit(C.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(params)))
"""


@dataclass(frozen=True)
class Run:
    """Wall seconds, and the most resident bytes of the process with its children at one time."""

    seconds: float
    peak: int


def timed(command: list[str]) -> Run:
    began, peak = time.monotonic(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        main = psutil.Process(process.pid)
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                peak = max(peak, sum(member.memory_info().rss for member in [main, *main.children(recursive=True)]))
            time.sleep(0.02)
    if process.returncode:
        sys.exit(f"failed with {process.returncode}: {' '.join(command)}")
    return Run(time.monotonic() - began, peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("llama_cpp", type=Path)
    parser.add_argument("python")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    threads = str(len(os.sched_getaffinity(0)))
    converter = str(options.llama_cpp / "convert_hf_to_gguf.py")
    rows: dict[str, list[Run]] = {"qwen-edge convert": [], "llama.cpp converter": [], "llama.cpp quantizer": []}
    with tempfile.TemporaryDirectory() as name:
        ours, wide, theirs = (Path(name) / file for file in ("ours.gguf", "wide.gguf", "theirs.gguf"))
        for turn in range(options.repeat + 1):  # the first warms the page cache and is not counted
            steps = {
                "qwen-edge convert": [
                    sys.executable,
                    "-m",
                    "qwen_edge",
                    "convert",
                    str(options.checkpoint),
                    "--force",
                    "-o",
                    str(ours),
                ],
                "llama.cpp converter": [options.python, converter, str(options.checkpoint), "--outfile", str(wide)],
                "llama.cpp quantizer": [sys.executable, "-c", _QUANTIZE, str(wide), str(theirs), threads],
            }
            for step, command in steps.items():
                run = timed(command)
                if turn:
                    rows[step].append(run)
        same = hashlib.sha256(ours.read_bytes()).digest() == hashlib.sha256(theirs.read_bytes()).digest()
    report(rows, same)


def report(rows: dict[str, list[Run]], same: bool) -> None:
    print(f"{'':24}{'seconds (median, all)':36}peak memory")
    for step, runs in rows.items():
        seconds = [run.seconds for run in runs]
        every = " ".join(f"{one:.1f}" for one in seconds)
        print(f"{step:24}{statistics.median(seconds):6.1f}   {every:27}{max(run.peak for run in runs) / 1e6:6.0f} MB")
    ours, *others = rows.values()
    ratios = [mine.seconds / (a.seconds + b.seconds) for mine, a, b in zip(ours, *others, strict=True)]
    print(f"ours / theirs, run by run: {' '.join(f'{ratio:.2f}' for ratio in ratios)}")
    print(f"the same bytes: {'yes' if same else 'NO'}")


if __name__ == "__main__":
    main()
