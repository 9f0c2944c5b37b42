#!/usr/bin/env python3
"""Make a virtual environment with qwen-edge in it, on a machine that has nothing but Python and a C++ compiler.

usage: bootstrap.py VENV [EXTRA ...]

An environment inside this checkout is for working on it and links to the sources. One anywhere else, such as the
service's in /opt, gets a copy: the checkout may move, change or lie where a service cannot see it. By sudo, pip builds
as the person who typed it, with that person's cache, so that llama.cpp is not compiled twice; root only unpacks.

Only the standard library is used. llama.cpp is built from source, some minutes on two cores: a line shows how far it
is. What is missing (Python, venv, compiler) is named with the command that installs it. With an NVIDIA GPU and nvcc
the build is for CUDA. Run again, it does nothing if the environment is up to date, and else brings it up to date.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.dont_write_bytecode = True  # by sudo it would be root's, in a checkout that is not

from scripts.installer import environment, pip  # noqa: E402
from scripts.installer.compiler import check_compiler  # noqa: E402
from scripts.installer.console import give_up  # noqa: E402
from scripts.installer.place import check_place, check_writable  # noqa: E402
from scripts.installer.stamp import described, installed_by, noted  # noqa: E402

_OLDEST = (3, 10)


def run() -> None:
    """`main`, which Ctrl-C, SIGTERM or a terminal that closes may end: nothing it has started or made is left then."""
    signals = [one for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) != signal.SIG_IGN]

    def end(number: int, _frame: object) -> NoReturn:
        for one in signals:
            signal.signal(one, signal.SIG_IGN)  # tidying up takes a moment
        raise KeyboardInterrupt(number)

    for one in signals:
        signal.signal(one, end)
    try:
        main()
    except KeyboardInterrupt as interrupt:
        print("\nbootstrap: Interrupted. The same command goes on from here.", file=sys.stderr)
        sys.exit(128 + interrupt.args[0])


def main() -> None:
    if sys.version_info < _OLDEST:
        give_up(
            f"Python {sys.version.split()[0]} is too old: 3.10 or later is needed (JetPack 6, Ubuntu 22.04). "
            "If there is a newer one, name it: make PYTHON=python3.12 ..."
        )
    venv, extras = _asked()
    linked = ROOT in (venv.parent.resolve() / venv.name).parents
    if os.geteuid() == 0:
        os.umask(0o022)  # a service runs what root installs, and root's umask may keep everything to itself
    check_place(venv, ROOT)
    check_writable(venv)
    stamp, description = venv / ".qwen-edge", described(ROOT, linked=linked)
    version = None if environment.strays(venv) else environment.version_of(venv / "bin" / "python")
    installed = installed_by(stamp, description)
    if version == environment.OURS and installed is not None and extras <= installed:
        if not linked:
            print(f"{venv} is up to date")
        return
    if not linked:
        extras |= noted(stamp)  # an update of the service leaves nothing out that it had
    python = environment.make_venv(venv, version)
    installed = installed_by(stamp, description)  # nothing, if the environment was made anew
    if not environment.has(python, "llama_cpp"):
        check_compiler()
    stamp.unlink(missing_ok=True)  # half an installation is none
    (pip.link if linked else pip.copy)(python, sorted(extras), ROOT)
    stamp.write_text(json.dumps({"described": description, "extras": sorted(extras | (installed or set()))}) + "\n")


def _asked() -> tuple[Path, set[str]]:
    parser = argparse.ArgumentParser(description="Make a virtual environment with qwen-edge in it.")
    parser.add_argument("venv", metavar="VENV", help="its folder: inside this checkout a link to it, elsewhere a copy")
    parser.add_argument("extras", metavar="EXTRA", nargs="*", help="further parts: dev, jetson, nvidia, train")
    asked = parser.parse_args()
    return Path(os.path.normpath(Path.cwd() / asked.venv)), set(asked.extras)


if __name__ == "__main__":
    run()
