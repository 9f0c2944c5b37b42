#!/usr/bin/env python3
"""Make a virtual environment with qwen-edge in it, on a machine that has nothing but Python and a C++ compiler.

usage: bootstrap.py VENV [EXTRA ...]

Only the standard library is used. llama.cpp is built from source, some minutes on two cores: a line shows how far it
is. What is missing (Python, venv, compiler) is named with the command that installs it. With an NVIDIA GPU and nvcc
the build is for CUDA. Run again, it does nothing if the environment is up to date.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
_OLDEST = (3, 10)
_OURS = f"{sys.version_info.major}.{sys.version_info.minor}"
_COMPILED = re.compile(r"\[(\d+)/(\d+)\]")


def main() -> None:
    if sys.version_info < _OLDEST:
        _give_up(
            f"Python {sys.version.split()[0]} is too old: 3.10 or later is needed (JetPack 6, Ubuntu 22.04). "
            "If there is a newer one, name it: make PYTHON=python3.12 ..."
        )
    venv, extras = Path(sys.argv[1]), set(sys.argv[2:])
    stamp, described = venv / ".qwen-edge", _described()
    version = _version(venv / "bin" / "python")
    installed = _installed(stamp, described)
    if version == _OURS and installed is not None and extras <= installed:
        return
    python = _make_venv(venv, version)
    installed = _installed(stamp, described)  # nothing, if the environment was made anew
    if not _has(python, "llama_cpp"):
        _check_compiler()
    stamp.unlink(missing_ok=True)  # half an installation is none
    _install(python, sorted(extras))
    stamp.write_text(json.dumps({"described": described, "extras": sorted(extras | (installed or set()))}) + "\n")


def _described() -> str:
    """Changes when what is to be installed changes."""
    return hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in ("setup.cfg", "pyproject.toml"))).hexdigest()


def _installed(stamp: Path, described: str) -> set[str] | None:
    """The extras that were installed by this same description; None if nothing was."""
    try:
        noted = json.loads(stamp.read_text())
        return set(noted["extras"]) if noted["described"] == described else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _version(python: Path) -> str | None:
    """ "3.11", as the interpreter itself says; None if it does not run (the Python it was made from is gone)."""
    tell = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        told = subprocess.run([python, "-c", tell], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return told.stdout.strip() if told.returncode == 0 else None


def _make_venv(venv: Path, version: str | None) -> Path:
    """The interpreter in `venv`, which is made unless it is there, for this Python, and complete.

    A virtual environment is bound to the Python that made it: with another one nothing in it would be found.
    """
    python = venv / "bin" / "python"
    if version == _OURS and _has(python, "pip"):
        return python
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        _give_up(f"Python's venv is missing. Install it: sudo apt install python{_OURS}-venv")
    if (venv / "pyvenv.cfg").is_file():
        why = {None: "the Python it was made with is gone", _OURS: "it has no pip"}
        print(f"{venv} cannot be used: {why.get(version, f'it was made with Python {version}')}", flush=True)
    elif venv.is_dir() and any(venv.iterdir()):
        _give_up(f"{venv} holds other things than a virtual environment. Name another folder.")
    print(f"making {venv} with Python {sys.version.split()[0]}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
    return python


def _has(python: Path, module: str) -> bool:
    found = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", found], check=False).returncode == 0


def _check_compiler() -> None:
    """A compiler that cannot compile is as good as none: a C++ program is tried."""
    remedy = "Install it: sudo apt install build-essential"
    compiler = _compiler()
    if compiler is None:
        _give_up(f"There is no C++ compiler to build llama.cpp with. {remedy}")
    tried = _compile(compiler)
    if tried.returncode:
        said = tried.stderr.decode(errors="replace").strip().splitlines()
        _give_up(f"The C++ compiler {compiler} does not work ({said[-1] if said else 'no output'}). {remedy}")


def _compiler() -> str | None:
    return os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)


def _compile(compiler: str, *flags: str) -> subprocess.CompletedProcess[bytes]:
    program = b"#include <thread>\nint main() { std::thread([] {}).join(); }\n"
    command = [*compiler.split(), *flags, "-x", "c++", "-std=c++17", "-pthread", "-", "-o", "/dev/null"]
    return subprocess.run(command, input=program, capture_output=True, check=False)


def _install(python: Path, extras: list[str]) -> None:
    """pip, with one line that moves instead of its log; the log is shown if it fails."""
    target = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    command = [str(python), "-m", "pip", "install", "--verbose", "--disable-pip-version-check", "--editable", target]
    print("installing qwen-edge; llama.cpp is compiled the first time, which takes minutes", flush=True)
    log: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=_environment()
    ) as pip:
        assert pip.stdout
        progress = _Progress()
        for line in pip.stdout:
            log.append(line)
            progress.show(line)
        progress.end()
    if pip.returncode:
        print("".join(log[-60:]))
        _give_up("Installing failed; the last lines of pip's log are above.")


def _environment() -> Mapping[str, str]:
    """Build flags for this machine, unless the user has set some."""
    environment = dict(os.environ)
    for name in ("CFLAGS", "CXXFLAGS"):
        environment[name] = f"{environment.get(name, '')} {_without_amx()}".strip()
    if "CMAKE_ARGS" in environment:
        return environment
    flags = ["-DLLAVA_BUILD=OFF"]  # the multimodal part: not used, a third of the compile time
    sys.path.insert(0, str(ROOT))
    from qwen_edge.device.gpu import find_gpu

    gpu = find_gpu()
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if gpu and nvcc:
        print(f"building for {gpu.name} with {nvcc}", flush=True)
        flags += ["-DGGML_CUDA=on", f"-DCMAKE_CUDA_ARCHITECTURES={gpu.compute}"]
        environment["CUDACXX"] = nvcc
    elif gpu:
        print(f"{gpu.name} is here, but nvcc is not: building for the CPU only (sudo apt install cuda-toolkit)")
    environment["CMAKE_ARGS"] = " ".join(flags)
    return environment


def _without_amx(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Flags for a processor with AMX, which are those of servers: llama.cpp's code for it ends in a segmentation fault,
    with GCC 12.2 at the first long prompt (https://github.com/ggml-org/llama.cpp/issues/20824)."""
    try:
        units = set(re.findall(r"\bamx_(tile|int8|bf16)\b", cpuinfo.read_text()))
    except OSError:
        return ""
    flags = [f"-mno-amx-{unit}" for unit in sorted(units)]
    # a compiler that does not know AMX does not use it
    known = flags and (compiler := _compiler()) and _compile(compiler, *flags).returncode == 0
    return " ".join(flags) if known else ""


class _Progress:
    """Shows that pip is alive: on a terminal one line that changes, in a log one line every 15 seconds."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()
        self._terminal = sys.stdout.isatty()
        self._doing = "collecting packages"

    def show(self, line: str) -> None:
        if match := _COMPILED.search(line):
            self._doing = f"compiling llama.cpp: {match[1]} of {match[2]} files"
        elif line.startswith(("Collecting ", "Building wheel", "Installing collected")):
            self._doing = line.strip()[:70]
        now = time.monotonic()
        if now - self._said < (0.2 if self._terminal else 15.0):
            return
        self._said = now
        text = f"  {int(now - self._began):4} s  {self._doing}"
        print(f"\r{text:79.79}" if self._terminal else text, end="" if self._terminal else "\n", flush=True)

    def end(self) -> None:
        seconds = time.monotonic() - self._began
        print(f"\r{'':79}\rinstalled in {seconds:.0f} s" if self._terminal else f"installed in {seconds:.0f} s")


def _give_up(sentence: str) -> NoReturn:
    print(f"bootstrap: {sentence}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
