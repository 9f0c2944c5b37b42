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
import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
_OLDEST = (3, 10)
_OURS = f"{sys.version_info.major}.{sys.version_info.minor}"
_COMPILED = re.compile(r"\[(\d+)/(\d+)\]")
_SOURCES = ("qwen_edge", "docs", "setup.cfg", "pyproject.toml", "README.md", "README.zh.md", "CHANGELOG.md", "LICENSE")
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))  # what ProtectHome= hides from a service
_PREFIX = "qwen-edge-install-"
_INTERPRETER = re.compile(r"""^(?:#!|'{3}exec' )"?(/.*?/bin)/python[^/]*$""", re.MULTILINE)


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
        _give_up(
            f"Python {sys.version.split()[0]} is too old: 3.10 or later is needed (JetPack 6, Ubuntu 22.04). "
            "If there is a newer one, name it: make PYTHON=python3.12 ..."
        )
    venv, extras = _asked()
    linked = ROOT in (venv.parent.resolve() / venv.name).parents
    if os.geteuid() == 0:
        os.umask(0o022)  # a service runs what root installs, and root's umask may keep everything to itself
    _check_place(venv)
    _check_writable(venv)
    stamp, described = venv / ".qwen-edge", _described(linked)
    version = None if _strays(venv) else _version(venv / "bin" / "python")
    installed = _installed(stamp, described)
    if version == _OURS and installed is not None and extras <= installed:
        if not linked:
            print(f"{venv} is up to date")
        return
    if not linked:
        extras |= _noted(stamp)  # an update of the service leaves nothing out that it had
    python = _make_venv(venv, version)
    installed = _installed(stamp, described)  # nothing, if the environment was made anew
    if not _has(python, "llama_cpp"):
        _check_compiler()
    stamp.unlink(missing_ok=True)  # half an installation is none
    (_link if linked else _copy)(python, sorted(extras))
    stamp.write_text(json.dumps({"described": described, "extras": sorted(extras | (installed or set()))}) + "\n")


def _asked() -> tuple[Path, set[str]]:
    parser = argparse.ArgumentParser(description="Make a virtual environment with qwen-edge in it.")
    parser.add_argument("venv", metavar="VENV", help="its folder: inside this checkout a link to it, elsewhere a copy")
    parser.add_argument("extras", metavar="EXTRA", nargs="*", help="further parts: dev, jetson, nvidia, train")
    asked = parser.parse_args()
    return Path(os.path.normpath(Path.cwd() / asked.venv)), set(asked.extras)


def _check_place(venv: Path) -> None:
    """The service's environment must be where the service can see it, and so must the Python that runs it."""
    unit = ROOT / "systemd" / "qwen-edge.service"
    if not unit.is_file() or f"ExecStart={venv}/bin/" not in unit.read_text():
        return
    if home := _home(Path(sys.executable).resolve()):
        _give_up(
            f"{Path(sys.executable).resolve()} lies in {home}, where the service cannot see it. Take the system's "
            f"Python: sudo /usr/bin/python3 {sys.argv[0]} {venv}"
        )
    for folder in reversed(venv.parents):
        if folder.is_dir() and not folder.stat().st_mode & 0o001:
            _give_up(f"{folder} is closed to others, so to the service, too. Open it: sudo chmod a+rx {folder}")


def _home(path: Path) -> Path | None:
    """The folder of homes that `path` lies in, if it does."""
    return next((home for home in _HOMES if home in path.parents), None)


def _check_writable(venv: Path) -> None:
    there = next(path for path in (venv, *venv.parents) if path.exists())
    stamp = venv / ".qwen-edge"
    for path in filter(Path.exists, (there, stamp)):
        if not os.access(path, os.W_OK):
            _give_up(
                f"You may not write to {path}, which belongs to {_owner(path)}. "
                f"Name another folder, or make it yours: sudo chown -R $(id -un) {there}"
            )


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:
        return f"user {path.stat().st_uid}"


def _strays(venv: Path) -> bool:
    """Whether its programs name the interpreter of another place: it was copied or moved, and would run that one."""
    try:
        head = (venv / "bin" / "pip").read_text(errors="replace")[:1000]
    except OSError:
        return False
    named = _INTERPRETER.search(head)
    try:
        return named is not None and not Path(named[1]).samefile(venv / "bin")
    except OSError:
        return True


def _described(linked: bool) -> str:
    """Changes when what is to be installed changes: what is linked to changes by itself."""
    names = ("setup.cfg", "pyproject.toml") if linked else _SOURCES
    files = sorted(file for name in names for file in _files(ROOT / name))
    parts = (str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes() for file in files)
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    return [path] if path.is_file() else []


def _installed(stamp: Path, described: str) -> set[str] | None:
    """The extras that were installed by this same description; None if nothing was."""
    try:
        noted = json.loads(stamp.read_text())
        return set(noted["extras"]) if noted["described"] == described else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _noted(stamp: Path) -> set[str]:
    """The extras that were installed by any description."""
    try:
        return set(json.loads(stamp.read_text())["extras"])
    except (OSError, ValueError, TypeError, KeyError):
        return set()


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
        told = (
            "it was copied from another place"
            if _strays(venv)
            else why.get(version, f"it was made with Python {version}")
        )
        print(f"{venv} cannot be used: {told}", flush=True)
    elif venv.is_dir() and any(venv.iterdir()):
        _give_up(f"{venv} holds other things than a virtual environment. Name another folder.")
    print(f"making {venv} with Python {sys.version.split()[0]}", flush=True)
    if _create(venv):
        _give_up(f"{venv} could not be made: Python's complaint is above.")
    return python


def _create(venv: Path) -> int:
    """Python's exit code. Ctrl-C reaches neither it nor the pip that it starts, so neither shows a traceback."""
    command = [sys.executable, "-m", "venv", "--clear", str(venv)]
    with _workshop() as folder:
        environment = {**os.environ, "TMPDIR": str(folder)}
        with subprocess.Popen(command, start_new_session=True, env=environment) as process:
            try:
                return process.wait()
            except KeyboardInterrupt:
                _end(process, signal.SIGKILL)
                raise


def _has(python: Path, module: str) -> bool:
    found = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", found], check=False, start_new_session=True).returncode == 0


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


def _link(python: Path, extras: list[str]) -> None:
    """Install this checkout as it is: what is changed in it is changed for this environment."""
    print("installing qwen-edge; llama.cpp is compiled the first time, which takes minutes", flush=True)
    with _workshop() as folder:
        flags = {**_build_flags(), "TMPDIR": str(folder)}
        _pip(python, "install", "--editable", _target(ROOT, extras), flags=flags)


def _copy(python: Path, extras: list[str]) -> None:
    """Build wheels from a clean copy of the sources, so that the checkout is left as it is, and unpack them all."""
    print("installing qwen-edge; llama.cpp is compiled unless pip's cache has it, which takes minutes", flush=True)
    with _workshop() as folder:
        source, wheels, temporary = folder / "source", folder / "wheels", folder / "tmp"
        wheels.mkdir()
        temporary.mkdir()
        for file in (file for part in _SOURCES for file in _files(ROOT / part)):
            copied = source / file.relative_to(ROOT)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copied)
        person = _person(python)
        if person:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, person.pw_uid, person.pw_gid)
        flags = {**_build_flags(), "TMPDIR": str(temporary)}
        _pip(python, "wheel", "--wheel-dir", str(wheels), _target(source, extras), person=person, flags=flags)
        built = [str(wheel) for wheel in sorted(wheels.glob("*.whl"))]
        _pip(python, "install", "--no-index", "--no-deps", "--force-reinstall", *built, flags={"TMPDIR": str(folder)})


@contextlib.contextmanager
def _workshop() -> Iterator[Path]:
    """A folder, pip's own temporary files included, that is gone afterwards; as are those of runs that were killed,
    whose locks went with them."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), _locked(left):
            if time.time() - left.stat().st_mtime > 60:  # not one that is about to be locked
                shutil.rmtree(left, ignore_errors=True)
    # errors: a compiler that is being killed may write a last file
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name, _locked(Path(name)):
        yield Path(name)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Raises OSError if it belongs to another process, or to somebody else."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.geteuid() not in (0, os.fstat(opened).st_uid):
            raise PermissionError
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)


def _target(source: Path, extras: list[str]) -> str:
    return f"{source}[{','.join(extras)}]" if extras else str(source)


def _person(python: Path) -> pwd.struct_passwd | None:
    """Who typed sudo, if it was somebody who can run this Python: builds are theirs, in the cache that is theirs."""
    try:
        person = pwd.getpwnam(os.environ["SUDO_USER"])
    except KeyError:
        return None
    if os.geteuid() != 0 or person.pw_uid == 0:
        return None
    try:
        runs = subprocess.run([python, "-c", ""], check=False, cwd="/", **_as(person))
    except OSError:
        return None
    return person if runs.returncode == 0 else None


def _as(person: pwd.struct_passwd) -> dict[str, Any]:
    """For a process that is to be this person's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SUDO_", "XDG_"))}
    environment |= {"HOME": person.pw_dir, "USER": person.pw_name, "LOGNAME": person.pw_name}
    groups = os.getgrouplist(person.pw_name, person.pw_gid)
    return {"user": person.pw_uid, "group": person.pw_gid, "extra_groups": groups, "env": environment}


def _pip(
    python: Path, *arguments: str, person: pwd.struct_passwd | None = None, flags: Mapping[str, str] | None = None
) -> None:
    """pip, with one line that moves instead of its log; the log is shown if it fails."""
    command = [str(python), "-m", "pip", arguments[0], "--verbose", "--disable-pip-version-check", *arguments[1:]]
    options = _as(person) if person else {"env": dict(os.environ)}
    options["env"].update(flags or {})
    log: list[str] = []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches it through us alone
        **options,
    ) as pip:
        assert pip.stdout
        progress = _Progress()
        try:
            for line in pip.stdout:
                log.append(line)
                progress.show(line)
        except KeyboardInterrupt:
            _end(pip, signal.SIGINT, signal.SIGKILL)  # first as Ctrl-C does, so that it tidies up
            raise
        progress.end()
    if pip.returncode:
        print("".join(log[-60:]))
        _give_up("Installing failed; the last lines of pip's log are above.")


def _end(process: subprocess.Popen[Any], *numbers: int) -> None:
    """It and all that it has started, by these signals, one after the other."""
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)


def _build_flags() -> Mapping[str, str]:
    """The environment's variables that build for this machine, beside what the user has set."""
    environment = {name: f"{os.environ.get(name, '')} {_without_amx()}".strip() for name in ("CFLAGS", "CXXFLAGS")}
    if "CMAKE_ARGS" in os.environ:
        return environment
    flags = ["-DLLAVA_BUILD=OFF"]  # the multimodal part: not used, a third of the compile time
    sys.path.insert(0, str(ROOT))
    sys.dont_write_bytecode = True  # by sudo it would be root's, in a checkout that is not
    from qwen_edge.device.host.gpu import find_gpu

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
        print(f"\r{'':79}\rdone in {seconds:.0f} s" if self._terminal else f"done in {seconds:.0f} s")


def _give_up(sentence: str) -> NoReturn:
    print(f"bootstrap: {sentence}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    run()
