"""Starting a Python process of our own: like `python -m module`, but not from the current folder.

`-m` puts the current folder first on the path, so a file called msgspec.py in somebody's downloads would be run by the
engine. (`python -P` does the same from Python 3.11 on.)
"""

from __future__ import annotations

import sys
from collections.abc import Mapping


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs `module.main([...])` with this interpreter."""
    code = (
        f"import sys; sys.path[:1] = sys.path[:1] if sys.path[0] else []; from {module} import main; main(sys.argv[1:])"
    )
    return [sys.executable, "-c", code, *arguments]


def with_huge_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment, and in it the wish that large allocations get pages of 2 MiB where the kernel leaves that to
    the program, as most do.

    Every token reads all weights and, of a KV cache without flash attention, one short piece a page: that is what
    translating addresses costs most for. For glibc from 2.35 on; others do not look at it. What the user has set there
    comes later and so wins. https://sourceware.org/glibc/manual/latest/html_node/Memory-Allocation-Tunables.html
    """
    set_already = environment.get("GLIBC_TUNABLES")
    return {**environment, "GLIBC_TUNABLES": ":".join(filter(None, ("glibc.malloc.hugetlb=1", set_already)))}
