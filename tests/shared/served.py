"""The daemon on an emulated board, with its telemetry from the real jtop."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from tests.shared.board import Board

ROOT = Path(__file__).resolve().parents[2]


class Served:
    """`qwen-edge serve` where /sys is the emulated board's and /run/jtop.sock its service's."""

    def __init__(self, board: Board, model: Path) -> None:
        settings = board.folder / "settings.yaml"
        settings.write_text(
            "device: {source: jtop, interval_seconds: 0.5}\nengine: {threads: 1, calibrate: false}\n"
            'remember: {where: "off"}\nserver: {port: 0}\n'
        )
        enter = ["unshare", "--user", "--map-root-user", "--mount", "--propagation", "private", "--"]
        mount = ["sh", "-ec", 'mount --rbind "$1" /sys; mount --bind "$2" /run; shift 2; exec "$@"', "sh"]
        serve = [sys.executable, "-m", "qwen_edge", "serve", "--model", str(model), "-c", str(settings)]
        folders = [str(board.folder / "sys"), str(board.folder / "run")]
        self.process = subprocess.Popen(
            [*enter, *mount, *folders, *serve], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read() if self.process.stderr else ""
        self.address = re.findall(r"http://\S+", line)[0]

    @property
    def engine(self) -> psutil.Process:
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if "engine.main" in " ".join(child.cmdline()))

    def device(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.address}/v1/device") as response:
            found: dict[str, Any] = json.load(response)
            return found

    def stream(self, tokens: int) -> int:
        """The tokens of an answer that does not end by itself."""
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": tokens}
        more = {"ignore_eos": True, "stream_options": {"include_usage": True}}
        data = json.dumps(body | more).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self.address}/v1/chat/completions", data)) as response:
            events = [line.decode().removeprefix("data: ").strip() for line in response if line.strip()]
        assert events[-1] == "[DONE]", "no answer is cut"
        return int(json.loads(events[-2])["usage"]["completion_tokens"])

    def end(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0
