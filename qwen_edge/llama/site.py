"""The site: everything but the model and its settings on which the fastest settings depend."""

from __future__ import annotations

import platform

from msgspec.structs import replace

from qwen_edge.device.host.cpu import cpu_model, cpu_name, usable_cores
from qwen_edge.llama.bindings import build, versions
from qwen_edge.llama.devices import gpus
from qwen_edge.protocol.messages import Load


def site(gpu_layers: int) -> str:
    """A description of the site, used as the key of measurements. `gpu_layers` as in the settings, -1 for all."""
    devices = ", ".join(map(str, gpus(gpu_layers))) or "no GPU"
    parts = [
        f"{cpu_name()} ({cpu_model()}), {usable_cores()} cores",  # a Jetson's power mode shows in its number of cores
        f"{devices}, gpu_layers {gpu_layers}",
        platform.machine(),
        f"llama-cpp-python {versions()['llama-cpp-python']}",
        build(),
    ]
    return "; ".join(parts)


def with_measured(load: Load) -> Load:
    """`load` with the tuning that was measured at this site, if any."""
    return replace(load, tuning=load.tuning or load.measured.get(site(load.gpu_layers)))
