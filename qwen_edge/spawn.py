"""Starting a Python process of our own: like `python -m module`, but not from the current folder.

`-m` puts the current folder first on the path, so a file called msgspec.py in somebody's downloads would be run by the
engine. (`python -P` does the same from Python 3.11 on.)
"""

from __future__ import annotations

import sys


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs `module.main([...])` with this interpreter."""
    code = (
        f"import sys; sys.path[:1] = sys.path[:1] if sys.path[0] else []; from {module} import main; main(sys.argv[1:])"
    )
    return [sys.executable, "-c", code, *arguments]
