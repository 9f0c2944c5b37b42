"""How much memory this process may still take: what the system has, and what its control group is allowed. And how to
give some back.

A container or a service with a limit sees all of the machine's memory in /proc/meminfo, and is killed when it believes
it (cgroup v2, Documentation/admin-guide/cgroup-v2.rst in the kernel's sources).
"""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import psutil


def available_bytes(root: Path = Path("/")) -> int:
    """Without swapping, and with what the kernel only caches counted as free."""
    free = int(psutil.virtual_memory().available)
    for group in _groups(root):
        free = min(free, _left(group, free))
    return max(0, free)


def own_bytes(pid: int, root: Path = Path("/")) -> int:
    """What a process has for itself, in memory and in swap; 0 where the system does not tell, or it is gone. Files that
    are only mapped are not in it (proc_pid_status(5): RssAnon, VmSwap)."""
    try:
        lines = (root / f"proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    sizes = dict(line.split(":", 1) for line in lines if line.startswith(("RssAnon:", "VmSwap:")))
    return sum(1024 * int(size.split()[0]) for size in sizes.values())


def own_pages(size: int) -> mmap.mmap:
    """So many bytes, or one, that go back to the system when nobody has them any more: glibc keeps up to 64 MB of what
    is freed (mallopt(3): M_MMAP_THRESHOLD, M_TRIM_THRESHOLD)."""
    return mmap.mmap(-1, max(1, size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def is_granted(size: int) -> bool:
    """Whether the system promises this process so many bytes more. Nothing is taken, and no promise is kept for sure:
    it may give more than it has (proc_sys_vm(5): overcommit_memory)."""
    try:
        own_pages(size).close()
    except (OSError, MemoryError):
        return False
    return True


def give_back() -> None:
    """Hand the free pages of the heap back to the system, which glibc does of its own accord only at its end."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim:
        trim(0)


def _groups(root: Path) -> list[Path]:
    """The folders of our control group and of those around it; none where there are no control groups."""
    mount = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = next((line[3:].strip("/") for line in lines if line.startswith("0::")), None)
    if own is None:
        return []
    group = mount / own
    return [group, *(parent for parent in group.parents if parent.is_relative_to(mount))]


def _left(group: Path, otherwise: int) -> int:
    try:
        limits = [_number(group / name) for name in ("memory.max", "memory.high")]
        used = _number(group / "memory.current")
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return otherwise
    if used is None:
        return otherwise
    cached = int(stat.get("inactive_file", 0))
    return min((limit - used + cached for limit in limits if limit is not None), default=otherwise)


def _number(file: Path) -> int | None:
    text = file.read_text().strip()
    return None if text == "max" else int(text)
