"""The clocks of processor, GPU and memory (Documentation/admin-guide/pm/cpufreq.rst and
Documentation/ABI/testing/sysfs-class-devfreq in the kernel's sources)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from qwen_edge.device.sources.files import FileSnapshot, glob_numbered, read_word
from qwen_edge.device.telemetry import Clock

_MOST_KILOHERTZ = 20_000_000
_MOST_HERTZ = 1000 * _MOST_KILOHERTZ
_GPU = re.compile(r"gpu|gv11b|gp10b|ga10b|gb10b")
_LOADS = ("bus@0/17000000.gpu/load", "gpu.0/load")  # below sys/devices and sys/devices/platform


class ProcessorClock:
    """The clock of the fastest core. Cores of a cluster share a clock, which is read once."""

    def __init__(self, root: Path) -> None:
        cpus = root / "sys/devices/system/cpu"
        folders = glob_numbered(cpus, "cpufreq/policy*") or glob_numbered(cpus, "cpu*/cpufreq")
        self._policies = [folder for folder in folders if read_word(folder.parent / "online") != "0"]

    def read(self, snapshot: FileSnapshot) -> Clock | None:
        """`cap` is the lower of the limit set now (by power mode, governor or heat) and the limit of the processor."""
        fastest = [self._kilohertz(snapshot, folder, "scaling_cur_freq") for folder in self._policies]
        caps = [self._cap(snapshot, folder) for folder in self._policies]
        now, cap = max((one for one in fastest if one), default=None), max((one for one in caps if one), default=None)
        return Clock(1000.0 * now, None if cap is None else 1000.0 * cap) if now else None

    def _cap(self, snapshot: FileSnapshot, folder: Path) -> int | None:
        limits = [self._kilohertz(snapshot, folder, name) for name in ("scaling_max_freq", "cpuinfo_max_freq")]
        return min((limit for limit in limits if limit), default=None)

    @staticmethod
    def _kilohertz(snapshot: FileSnapshot, folder: Path, name: str) -> int | None:
        return snapshot.read_number("processor clock", folder / name, 0, _MOST_KILOHERTZ)


class JetsonClocks:
    """The clocks of GPU and memory (EMC) of a Jetson, from devfreq. Except on the newest boards, the memory's is in
    debugfs, which only root may read."""

    def __init__(self, root: Path) -> None:
        devfreq = [path for path in glob_numbered(root / "sys/class/devfreq", "*") if _GPU.search(path.name)]
        places = [root / "sys/devices" / middle / load for load in _LOADS for middle in ("platform", "")]
        self._gpu = next(iter(devfreq), None)
        self._load = next(
            (file for file in [*places, *(one / "device/load" for one in devfreq)] if file.exists()), None
        )
        emc, bwmgr = root / "sys/kernel/debug/bpmp/debug/clk/emc", root / "sys/class/devfreq/bwmgr"
        pairs = [(emc / "rate", emc / "max_rate"), (bwmgr / "cur_freq", bwmgr / "max_freq")]
        self._memory = next((pair for pair in pairs if os.access(pair[0], os.R_OK)), None)

    def read(self, snapshot: FileSnapshot) -> dict[str, Clock]:
        gpu = self._gpu and _clock(snapshot, "GPU clock", self._gpu / "cur_freq", self._gpu / "max_freq")
        memory = self._memory and _clock(snapshot, "memory clock", *self._memory)
        return {name: clock for name, clock in (("gpu", gpu), ("memory", memory)) if clock}

    def gpu_load(self, snapshot: FileSnapshot) -> float | None:
        """The load of the GPU, 0..1; the file has thousandths."""
        load = snapshot.read_number("GPU load", self._load, 0, 1000)
        return None if load is None else load / 1000


def _clock(snapshot: FileSnapshot, name: str, now: Path, cap: Path) -> Clock | None:
    hertz = snapshot.read_number(name, now, 0, _MOST_HERTZ)
    most = snapshot.read_number(f"cap of {name}", cap, 1, _MOST_HERTZ)
    return None if hertz is None else Clock(float(hertz), None if most is None else float(most))
