#!/usr/bin/env python3
"""What telemetry costs: seconds of processor time a sample, as percent of a core at one sample a second.

usage: telemetry.py [--seconds 20] [--emulator ../shared/tools/jtop_emu]

A Jetson's files and jtop's service are emulated, where the emulator is: a read of plain files, that is, while a real
board's sensors have drivers behind them that take their own time. The laptop is this machine, whatever it has.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from qwen_edge.device.sources.jtop import Jtop
from qwen_edge.device.sources.jtop import helper_process as start_side
from qwen_edge.device.sources.jtop_connection import HelperProcess
from qwen_edge.device.sources.laptop import Laptop
from qwen_edge.device.sources.nvml import open_nvml
from qwen_edge.device.sources.sysfs import Sysfs

REPEAT = 200


def cost(call: Callable[[], object]) -> float:
    """Processor seconds of one, warm; the best of three rounds, as others use this machine, too."""
    call()
    rounds = []
    for _ in range(3):
        began = time.process_time()
        for _ in range(REPEAT):
            call()
        rounds.append((time.process_time() - began) / REPEAT)
    return min(rounds)


def show(name: str, seconds: float, every: float = 1.0) -> None:
    print(f"{name:44} {1e6 * seconds:8.0f} us   {100 * seconds / every:7.4f} % of a core")


@contextmanager
def board(emulator: Path) -> Iterator[Path]:
    """An emulated Orin Nano: its root, with this machine's /proc."""
    with tempfile.TemporaryDirectory(prefix="qe-") as name:
        root = Path(name)
        subprocess.run([sys.executable, emulator / "mksys.py", root / "sys"], check=True)
        (root / "proc").symlink_to("/proc")
        (root / "run").mkdir()
        yield root


@contextmanager
def jtop_service(emulator: Path, root: Path) -> Iterator[psutil.Process]:
    command = [emulator / "serve.sh", root / "sys", root / "run", sys.executable]
    service = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        while "service ready" not in service.stdout.readline():
            if service.poll() is not None:
                sys.exit("jtop's service does not start here")
        yield psutil.Process(service.pid)
    finally:
        os.killpg(service.pid, signal.SIGKILL)
        service.wait()
        service.stdout.close()


def used(*processes: psutil.Process) -> float:
    """Processor seconds of their threads. Exact to the microsecond, where times(2) counts hundredths of a second
    (Documentation/scheduler/sched-stats.rst in the kernel's sources)."""
    threads = (task for one in processes for task in Path(f"/proc/{one.pid}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in threads) / 1e9


def measure_jtop(root: Path, service: psutil.Process, seconds: float) -> None:
    lives: list[HelperProcess] = []

    def start() -> HelperProcess:
        lives.append(start_side(1.0, root / "run/jtop.sock", root)())
        return lives[-1]

    source = Jtop(start)
    source.read()  # the start is not what is measured
    side, family = psutil.Process(lives[0].pid), [service, *service.children(recursive=True)]
    ours, theirs, its = time.process_time(), used(side), used(*family)
    began, samples = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        source.read()
        samples += 1
    show("jtop: our side, a line", (time.process_time() - ours) / samples)
    show("jtop: the helper process", (used(side) - theirs) / samples)
    show("jtop: its service, without nvpmodel", (used(*family) - its) / samples)
    print(f"memory: helper process {side.memory_info().rss / 1e6:.0f} MB")
    source.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--emulator", type=Path, default=Path(__file__).parents[2] / "shared/tools/jtop_emu")
    options = parser.parse_args()
    nvml = open_nvml()
    laptop = Laptop(nvml=nvml)
    show("laptop: this machine" + ("" if Laptop.found(nvml=nvml) else ", which has no sensors"), cost(laptop.read))
    if not options.emulator.is_dir():
        print(f"no emulated Jetson: {options.emulator} is not there")
        return
    with board(options.emulator) as root:
        sysfs = Sysfs(root)
        show("sysfs: a sample", cost(sysfs.read))
        show("sysfs: the power alone, 5 times a second", cost(sysfs.watts), 0.2)
        with jtop_service(options.emulator, root) as service:
            measure_jtop(root, service, options.seconds)


if __name__ == "__main__":
    main()
