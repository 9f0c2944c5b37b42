#!/usr/bin/env python3
"""The daemon's decode speed beside llama-bench's, at the same depths, threads and flags; and its time to ready.

usage: decode.py MODEL LLAMA_BENCH [--depth 0 512 2048] [--tokens 128] [--repeat 5] [--threads 2]

The daemon is measured from outside, over HTTP: tokens after the first, by the time between the first and the last.
The two take turns, so that a machine that slows down slows both.
"""

from __future__ import annotations

import argparse
import http.client
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_SETTINGS = "engine: {speculate: false}\n"  # the question is always the same, and its answer would be guessed


class Daemon:
    """`qwen-edge serve` on a free port; `ready` are the seconds from exec to the line that says so."""

    def __init__(self, model: Path, threads: int) -> None:
        command = [sys.executable, "-m", "qwen_edge", "serve", "--model", str(model), "--port", "0"]
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as settings:
            settings.write(_SETTINGS)
            settings.flush()
            command += ["--threads", str(threads), "--config", settings.name]
            began = time.perf_counter()
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert self._process.stdout
            self.line = self._process.stdout.readline().strip()
            self.ready = time.perf_counter() - began
        self._host = self.line.partition("http://")[2].split()[0]

    def decode(self, prompt: str, tokens: int) -> tuple[int, float]:
        """Tokens of the prompt, and tokens a second after the first."""
        body = {
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": tokens,
            "temperature": 0,
            "enable_thinking": False,  # no markers: every token but the last is seen as text
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        connection = http.client.HTTPConnection(self._host)
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        first = last = 0.0
        usage: dict[str, Any] = {}
        for line in connection.getresponse():
            if line.startswith(b"data: {"):
                chunk = json.loads(line[6:])
                usage = chunk.get("usage") or usage
                last = last if not chunk["choices"] else time.perf_counter()
                if not first and chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                    first = last
        connection.close()
        return usage["prompt_tokens"], (usage["completion_tokens"] - 1) / (last - first)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


def bench(llama_bench: Path, model: Path, depth: int, tokens: int, threads: int) -> float:
    """llama-bench with the daemon's flags: batch 128, no flash attention, f16 KV, weights loaded and not mapped."""
    flags = ["-p", "0", "-n", str(tokens), "-d", str(depth), "-t", str(threads), "-r", "1", "-fa", "0", "-ub", "128"]
    command = [str(llama_bench), "-m", str(model), *flags, "-lm", "none", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)[0]["avg_ts"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("llama_bench", type=Path)
    parser.add_argument("--depth", type=int, nargs="+", default=[0, 512, 2048])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    starts = []
    for _ in range(options.repeat):
        daemon = Daemon(options.model, options.threads)
        starts.append(daemon.ready)
        daemon.stop()
    print(f"exec to ready: {statistics.median(starts):.2f} s ({' '.join(f'{start:.2f}' for start in starts)})")
    daemon = Daemon(options.model, options.threads)
    print(daemon.line)
    for depth in options.depth:
        prompt = "Hello" + " and more" * (depth // 2)
        daemon.decode(prompt, options.tokens)
        time.sleep(4)  # idle, as between requests: the engine sees to its memory, which would disturb llama-bench
        pairs = []
        for _ in range(options.repeat):
            real, ours = daemon.decode(prompt, options.tokens)
            pairs.append((ours, bench(options.llama_bench, options.model, real, options.tokens, options.threads)))
        ratios = [ours / theirs for ours, theirs in pairs]
        mine, other = (statistics.median(side) for side in zip(*pairs, strict=True))
        every = " ".join(f"{ratio:.3f}" for ratio in ratios)
        ratio = statistics.median(ratios)
        print(f"depth {real:5}: {mine:6.2f} tok/s, llama-bench {other:6.2f}, ratio {ratio:.3f} ({every})")
    daemon.stop()


if __name__ == "__main__":
    main()
