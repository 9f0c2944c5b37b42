"""What was found to be quickest on this machine, kept for each machine and model: by `qwen-edge tune`, or by the daemon
when it starts with a model for the first time."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

from qwen_edge.device.cpu import cpu_name, usable_cores
from qwen_edge.device.gpu import find_gpu
from qwen_edge.kept import Figures
from qwen_edge.messages import Tuning

_FILE = "tuning.json"


def recall(model: Path, folder: Path | None = None) -> Tuning | None:
    """What is best for this model on this machine, if it has been measured."""
    return Figures(_FILE, Tuning, folder).read().get(_key(model))


def keep(model: Path, tuning: Tuning, folder: Path | None = None) -> None:
    """Remember it, in place of what was found before."""
    Figures(_FILE, Tuning, folder).keep(_key(model), tuning)


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
