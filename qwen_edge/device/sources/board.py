"""A Jetson's fan, power mode, and counters of over-current events."""

from __future__ import annotations

import re
from pathlib import Path

from qwen_edge.device.sources.files import FileSnapshot, glob_numbered, read_word

_MODE = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>")
# NVIDIA Jetson Linux Developer Guide, Platform Power and Performance, "Over-current event"
_EVENTS = {"oc1": "under-voltage", "oc2": "over-current on average", "oc3": "over-current for a moment"}


class Fan:
    """The fan. On some boards two drivers show its duty and its speed (Documentation/hwmon/sysfs-interface.rst)."""

    def __init__(self, root: Path) -> None:
        folders = glob_numbered(root / "sys/class/hwmon", "hwmon*")
        fans = [folder for folder in folders if re.search("fan|tach", read_word(folder / "name"))]
        self._duty = next((folder / "pwm1" for folder in fans if (folder / "pwm1").exists()), None)
        speeds = [folder / name for folder in fans for name in ("rpm", "fan1_input")]
        self._speed = next((file for file in speeds if file.exists()), None)

    def read(self, snapshot: FileSnapshot) -> tuple[float | None, float | None]:
        """Duty (0..1) and speed in revolutions per minute."""
        duty = snapshot.read_number("fan", self._duty, 0, 255)
        speed = snapshot.read_number("fan speed", self._speed, 0, 100_000)
        return None if duty is None else duty / 255, None if speed is None else float(speed)


class PowerMode:
    """The power mode, by its nvpmodel name, from files that every user may read. `modes`: the names of all modes by
    number; numbers differ between boards."""

    def __init__(self, root: Path) -> None:
        self._status = root / "var/lib/nvpmodel/status"
        try:
            text = (root / "etc/nvpmodel.conf").read_text(errors="replace")
        except OSError:
            text = ""
        self.modes = {int(number): name for number, name in _MODE.findall(text)}

    def read(self) -> str | None:
        number = re.search(r"pmode:(\d+)", read_word(self._status))
        return self.modes.get(int(number[1])) if number else None


def power_events(root: Path) -> dict[str, Path]:
    """The counters of events at which the hardware divided its clocks, too briefly to show in the value of a rail."""
    return {
        reason: file
        for folder in glob_numbered(root / "sys/class/hwmon", "hwmon*")
        for name, reason in _EVENTS.items()
        if (file := folder / f"{name}_event_cnt").exists()
    }
