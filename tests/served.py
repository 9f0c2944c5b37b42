"""`qwen-edge serve` as users run it: a process, a port, a line that says it is ready."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil


def engine_of(daemon: int) -> psutil.Process:
    """The engine process of the daemon with this number: one child among others."""
    return child_of(daemon, "qwen_edge.engine.main")


def renderer_of(daemon: int) -> psutil.Process:
    """The process that renders chat templates."""
    return child_of(daemon, "qwen_edge.renderer.main")


def child_of(daemon: int, module: str) -> psutil.Process:
    (child,) = [one for one in psutil.Process(daemon).children() if module in " ".join(one.cmdline())]
    return child


def events(response: Iterable[bytes]) -> Iterator[str]:
    """The data of server-sent events, each on one line; comments between them say nothing."""
    return (line.decode()[len("data: ") :].strip() for line in response if line.startswith(b"data: "))


class ServedModel:
    """A running daemon. Use as a context manager: leaving it stops the daemon and checks that it ended well."""

    def __init__(self, model: Path, *options: str, settings: str = "", descriptors: int | None = None) -> None:
        """`settings` are YAML lines. Nothing is kept for another daemon, unless they say so. It may have so many file
        `descriptors`."""
        if "remember:" not in settings:
            settings += "\nremember: {where: off}\n"
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as file:
            file.write(settings)
        self._settings = Path(file.name)
        command = [sys.executable, "-m", "qwen_edge", "serve", "--model", str(model), "--port", "0", *options]
        command += ["-c", file.name]
        if descriptors is not None:
            command = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *command]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.log: list[str] = []
        self.reader = threading.Thread(target=self._read_log, daemon=True)  # of the log; ends with the process
        self.reader.start()

    def __enter__(self) -> ServedModel:
        assert self.process.stdout
        self.line = self.process.stdout.readline()
        assert self.line, "".join(self.log)
        self.address = next(word for word in self.line.split() if word.startswith("http://"))
        return self

    def __exit__(self, *_exception: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self._settings.unlink()
            assert self.process.stdout
            self.process.stdout.close()

    @property
    def engine(self) -> psutil.Process:
        return engine_of(self.process.pid)

    def get(self, path: str) -> tuple[int, Any]:
        return self._open(urllib.request.Request(self.address + path))

    def ask(self, content: str, **body: Any) -> dict[str, Any]:
        """The message of a whole answer, with `finish_reason` and `usage` beside it."""
        status, answer = self.post({"messages": [{"role": "user", "content": content}], **body})
        assert status == 200, answer
        choice = answer["choices"][0]
        return {**choice["message"], "finish_reason": choice["finish_reason"], "usage": answer["usage"]}

    def post(self, body: dict[str, Any]) -> tuple[int, Any]:
        return self._open(self._request(body))

    def stream(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The chunks of an answer, the last of which may be an error."""
        with urllib.request.urlopen(self._request({**body, "stream": True})) as response:
            for data in events(response):
                if data == "[DONE]":
                    return
                yield (chunk := json.loads(data))
                if "error" in chunk:
                    return
        raise AssertionError("the stream broke off\n" + "".join(self.log))

    def streamed(self, content: str, *, ends: str = "stop", **body: Any) -> tuple[str, str]:
        """Reasoning and answer of a streamed answer, which ends for this reason."""
        chunks = list(self.stream({"messages": [{"role": "user", "content": content}], **body}))
        assert "error" not in chunks[-1], (chunks[-1], "".join(self.log))
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        assert choices[-1]["finish_reason"] == ends, f"{len(choices)} pieces\n" + "".join(self.log)
        deltas = [choice["delta"] for choice in choices]
        reasoning, answer = ([delta.get(key) or "" for delta in deltas] for key in ("reasoning_content", "content"))
        return "".join(reasoning), "".join(answer)

    def _request(self, body: dict[str, Any]) -> urllib.request.Request:
        headers = {"Content-Type": "application/json"}
        return urllib.request.Request(f"{self.address}/v1/chat/completions", json.dumps(body).encode(), headers)

    @staticmethod
    def _open(request: urllib.request.Request) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def _read_log(self) -> None:
        assert self.process.stderr
        with self.process.stderr as stream:
            self.log += stream
