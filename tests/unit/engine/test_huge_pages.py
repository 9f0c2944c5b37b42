"""Large allocations become huge pages while the engine is idle."""

import ctypes
import errno
import gc
import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qwen_edge.engine.huge_pages import HugePages, madvise

MiB = 1 << 20
COLLAPSE = 25


class Kernel:
    """Remembers what it is asked; `refuses` is what it answers to a collapse."""

    def __init__(self, refuses: int = 0) -> None:
        self.refuses = refuses
        self.collapsed: list[tuple[int, int]] = []

    def __call__(self, address: int, length: int, advice: int) -> int:
        if advice == COLLAPSE:
            self.collapsed.append((address, length))
            return self.refuses
        return 0


@pytest.fixture
def root(tmp_path) -> Path:
    write(tmp_path, "sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never")
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def mapping(begin: int, size: int, rest: str = "rw-p 00000000 00:00 0") -> str:
    return f"{begin:x}-{begin + size:x} {rest}\n"


def collapse_all(pages: HugePages) -> None:
    pages.scan()
    while pages.step():
        pass


def test_only_large_memory_of_our_own_is_collapsed(root):
    large = mapping((1 << 40) + 4096, 100 * MiB)
    file = mapping(2 << 40, 100 * MiB, "rw-p 00000000 08:01 1234  /models/a.gguf")
    code = mapping(3 << 40, 100 * MiB, "r-xp 00000000 00:00 0")
    write(root, "proc/self/maps", large + mapping(4 << 40, 32 * MiB) + file + code)
    kernel = Kernel()
    collapse_all(HugePages(root, kernel))
    assert kernel.collapsed[0][0] == (1 << 40) + 2 * MiB
    assert sum(length for _, length in kernel.collapsed) == 98 * MiB
    assert all(address % (2 * MiB) == length % (2 * MiB) == 0 for address, length in kernel.collapsed)


def test_what_was_seen_is_left_alone_and_what_is_new_is_not(root):
    pages = HugePages(root, kernel := Kernel())
    write(root, "proc/self/maps", mapping(1 << 40, 64 * MiB))
    collapse_all(pages)
    collapse_all(pages)
    assert sum(length for _, length in kernel.collapsed) == 64 * MiB
    write(root, "proc/self/maps", mapping(1 << 40, 64 * MiB) + mapping(2 << 40, 128 * MiB))
    collapse_all(pages)
    assert sum(length for _, length in kernel.collapsed) == 192 * MiB


@pytest.mark.parametrize("why", [errno.ENOMEM, errno.EINVAL])
def test_a_piece_that_cannot_be_had_does_not_end_it(root, why):
    write(root, "proc/self/maps", mapping(1 << 40, 256 * MiB))
    collapse_all(HugePages(root, kernel := Kernel(refuses=why)))
    assert len(kernel.collapsed) == 64


@pytest.mark.parametrize("setting", ["always madvise [never]", None])
def test_nothing_is_done_where_huge_pages_are_off_or_unknown(root, setting):
    file = root / "sys/kernel/mm/transparent_hugepage/enabled"
    file.write_text(setting) if setting else file.unlink()
    write(root, "proc/self/maps", mapping(1 << 40, 64 * MiB))
    collapse_all(HugePages(root, kernel := Kernel()))
    assert not kernel.collapsed


def test_the_real_kernel_keeps_every_byte_and_is_not_stopped_by_memory_that_holds_nothing_yet():
    with anonymous(256 * MiB) as memory:
        begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        first = -(-(begin + 128 * MiB) // (2 * MiB)) * 2 * MiB
        for at in range(128 * MiB, 256 * MiB, 4096):
            memory[at] = at // 4096 % 251
        able = madvise(first, 2 * MiB, COLLAPSE) == 0
        collapse_all(HugePages())
        assert all(memory[at] == at // 4096 % 251 for at in range(128 * MiB, 256 * MiB, 4096))
        if able:
            assert max(map(int, re.findall(r"AnonHugePages:\s+(\d+)", Path("/proc/self/smaps").read_text()))) > 64 << 10


@contextmanager
def anonymous(size: int) -> Iterator[mmap.mmap]:
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    yield memory
    gc.collect()  # an address that was asked for keeps it open
    memory.close()
