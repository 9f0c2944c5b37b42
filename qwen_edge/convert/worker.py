"""Runs the steps that need llama.cpp in a worker process.

llama.cpp cannot be interrupted within a tensor, may abort on a damaged file, and does not free all its memory. A
process can be killed, and the cause of its death can be reported. Protocol: one JSON object as the argument; JSON lines
as output: {"advance": bytes or characters}, then {"result": ...} or {"error": "..."}.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from qwen_edge.core.errors import ConversionError, EngineError, UnservableError
from qwen_edge.core.python_process import FAULTS, python_command

_TENSOR_LINE = re.compile(r"\[\s*\d+/\s*\d+\]\s+(\S+)\s")
_PR_SET_PDEATHSIG = 1
_MEMORY = "If this machine ran out of memory, close other programs and run the same command again."
_REMEDIES = {"load": "llama.cpp cannot load this model file: make it again (qwen-edge convert)."}
_FULL = 1 << 20  # bytes: llama.cpp does not say why a write failed; less free space than this means a full disk
_LOAD_SECONDS = 120  # of processor time: a damaged header may make llama.cpp loop forever


class StepError(ConversionError):
    """A step has failed. `lasting`: it would fail again with the same file, which llama.cpp refuses or crashes on."""

    def __init__(self, message: str, *, lasting: bool) -> None:
        super().__init__(message)
        self.lasting = lasting


def run_worker(task: dict[str, Any], advance: Callable[[int], None]) -> dict[str, Any]:
    """Do one task in a worker process; `advance` receives the bytes, or characters of a text, done. Raises StepError
    with the worker's message.

    On an interrupt (Ctrl-C) the worker is killed; nothing continues in the background.
    """
    command = python_command("qwen_edge.convert.worker", json.dumps(task))
    # llama.cpp's threads sleep at once while they wait for each other, as nobody waits for a token here: beside a busy
    # program, threads that spin as long as the engine's (`llama/bindings.py`) take twice as long to measure importance
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ}
    with (
        TemporaryFile("w+", errors="replace") as complaints,  # an unread pipe would block a worker that writes much
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True, env=environment) as worker,
    ):
        assert worker.stdout
        try:
            for line in worker.stdout:
                message: dict[str, Any] = json.loads(line)
                if "result" in message:
                    result: dict[str, Any] = message["result"]
                    return result
                if "error" in message:
                    raise StepError(message["error"], lasting=message["lasting"])
                advance(message["advance"])
            worker.wait()
            complaints.seek(0)
            last_line = complaints.read().strip().splitlines()[-1:]
        except BaseException:
            worker.kill()
            raise
    raise StepError(
        f"The step '{task['do']}' died ({_exit_reason(worker.returncode)}{': ' + last_line[0] if last_line else ''}). "
        f"{_REMEDIES.get(task['do'], _MEMORY)}",
        lasting=-worker.returncode in FAULTS,
    )


def run_writer(task: dict[str, Any], advance: Callable[[int], None]) -> dict[str, Any]:
    """As `run_worker`, for a task that writes the file `target`. Raises OSError if the disk is full."""
    try:
        return run_worker(task, advance)
    except ConversionError:
        if shutil.disk_usage(Path(task["target"]).parent).free < _FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), task["target"]) from None
        raise


def _exit_reason(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def main(arguments: list[str]) -> None:
    """The main function of the worker process."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # never outlive the parent
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.environ["GGML_NO_BACKTRACE"] = "1"  # so that the last line on stderr is the error message
    os.dup2(2, 1)  # output of llama.cpp must not mix with the protocol
    task = json.loads(arguments[0])
    try:
        _say(result=_TASKS[task["do"]](task))
    except EngineError as error:
        _say(error=str(error), lasting=isinstance(error, UnservableError))


def _say(**message: Any) -> None:
    print(json.dumps(message), flush=True)  # noqa: T201 - this is the worker's protocol


def _importance(task: dict[str, Any]) -> dict[str, Any]:
    """Keys of `task`: model, text, name, target, threads."""
    from qwen_edge.convert.importance import LEAST_TOKENS, save_importance, too_short
    from qwen_edge.llama.bindings import send_log_to
    from qwen_edge.llama.importance import measure
    from qwen_edge.llama.model import Model

    send_log_to(lambda _level, _text: None)
    text = Path(task["text"]).read_bytes().decode()
    with Model(Path(task["model"]), gpu_layers=0, repack=False) as model:
        tokens = model.vocab.encode_marked(text)
        if len(tokens) < LEAST_TOKENS:
            raise EngineError(too_short(task["name"], f"{len(tokens)} tokens"))
        read = 0

        def advance(more: int) -> None:
            nonlocal read
            before, read = read, read + more
            _say(advance=len(text) * read // len(tokens) - len(text) * before // len(tokens))

        save_importance(Path(task["target"]), measure(model, tokens, task["threads"], advance), len(tokens))
    return {}


def _quantize(task: dict[str, Any]) -> dict[str, Any]:
    """Keys of `task`: source, target, type, types: {pattern: tensor type}, importance: a file, or None, threads, sizes:
    {tensor: stored bytes}."""
    from qwen_edge.convert.importance import read_importance
    from qwen_edge.llama.bindings import ERROR, send_log_to
    from qwen_edge.llama.quantize import quantize

    complaints: list[str] = []
    running = ""

    def on_log(level: int, text: str) -> None:
        nonlocal running
        if level == ERROR:
            complaints.append(text.strip())
        if match := _TENSOR_LINE.match(text):  # printed when a tensor begins, so the previous one is done
            _say(advance=task["sizes"].get(running, 0))
            running = match[1]

    send_log_to(on_log)
    importance = read_importance(Path(task["importance"])) if task["importance"] else None
    source, target = Path(task["source"]), Path(task["target"])
    try:
        quantize(source, target, task["type"], task["threads"], types=task["types"], importance=importance)
    except EngineError as error:
        raise EngineError(f"{error} Its log: {'; '.join(complaints) or 'empty'}") from None
    _say(advance=task["sizes"].get(running, 0))
    return {}


def _load(task: dict[str, Any]) -> dict[str, Any]:
    """Key of `task`: file."""
    resource.setrlimit(resource.RLIMIT_CPU, (_LOAD_SECONDS, _LOAD_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from qwen_edge.llama.bindings import ERROR, send_log_to
    from qwen_edge.llama.trial import try_loading

    complaints: list[str] = []
    send_log_to(lambda level, text: complaints.append(text.strip()) if level == ERROR else None)
    try:
        return {"ordinary_ends": try_loading(Path(task["file"]))}
    except EngineError as error:
        raise type(error)(" ".join([str(error), *complaints])) from None


def _check(task: dict[str, Any]) -> dict[str, Any]:
    """Keys of `task`: file, added: {text: id}, end_tokens: ids."""
    from qwen_edge.convert.check import check_model
    from qwen_edge.llama.bindings import ERROR, send_log_to, versions

    complaints: list[str] = []
    send_log_to(lambda level, text: complaints.append(text.strip()) if level == ERROR else None)
    file, told = Path(task["file"]), 0
    size = file.stat().st_size

    def on_progress(fraction: float) -> None:
        nonlocal told
        if (done := round(fraction * size)) - told > size // 100:
            _say(advance=done - told)
            told = done

    try:
        return {"seen": check_model(file, task["added"], task["end_tokens"], on_progress), "tools": versions()}
    except EngineError as error:
        raise type(error)(" ".join([str(error), *complaints])) from None


_TASKS = {"importance": _importance, "quantize": _quantize, "check": _check, "load": _load}
