"""What was found to be quickest on this machine, kept for each machine and model: by `qwen-edge tune`, or by the daemon
when it starts with a model for the first time.

A JSON file in the state folder. It holds nothing that cannot be measured again: a file that cannot be read is a file
that is not there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
from importlib.metadata import version
from pathlib import Path

import msgspec

from qwen_edge.device.cpu import cpu_name, usable_cores
from qwen_edge.device.gpu import find_gpu
from qwen_edge.messages import Tuning
from qwen_edge.paths import state_folder

log = logging.getLogger(__name__)

_FILE = "tuning.json"


def recall(model: Path, folder: Path | None = None) -> Tuning | None:
    """What is best for this model on this machine, if it has been measured."""
    return _read(_file(folder)).get(_key(model))


def keep(model: Path, tuning: Tuning, folder: Path | None = None) -> None:
    """Remember it, in place of what was found before. Where nothing can be written, the log says so."""
    file = _file(folder)
    known = _read(file) | {_key(model): tuning}
    draft = file.with_name(f"{_FILE}.{os.getpid()}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(known), indent=1))
        draft.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        log.warning("what was measured cannot be kept in %s: %s", file, error.strerror or error)


def _file(folder: Path | None) -> Path:
    return (folder or state_folder()) / _FILE


def _read(file: Path) -> dict[str, Tuning]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Tuning])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("%s cannot be read and is left out: %s", file, error)
        return {}


def _key(model: Path) -> str:
    """Everything that changes what is best: processor, cores (a Jetson's power mode), GPU, build, and model."""
    gpu = find_gpu()
    parts = [
        f"{cpu_name()}, {usable_cores()} cores",
        gpu.name if gpu else "no GPU",
        platform.machine(),
        f"llama-cpp-python {version('llama-cpp-python')}",
        f"{model.name}, {model.stat().st_size} bytes",
    ]
    return "; ".join(parts)
