"""Installs with pip: a link to the checkout, or a copy built from clean sources."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.installer.compiler import build_flags
from scripts.installer.console import Progress, give_up
from scripts.installer.processes import end, workshop
from scripts.installer.stamp import SOURCES, files


def link(python: Path, extras: list[str], root: Path) -> None:
    """Install this checkout as it is: what is changed in it is changed for this environment."""
    print("installing qwen-edge; llama.cpp is compiled the first time, which takes minutes", flush=True)
    with workshop() as folder:
        flags = {**build_flags(), "TMPDIR": str(folder)}
        _pip(python, "install", "--editable", _target(root, extras), flags=flags)


def copy(python: Path, extras: list[str], root: Path) -> None:
    """Build wheels from a clean copy of the sources, so that the checkout is left as it is, and unpack them all."""
    print("installing qwen-edge; llama.cpp is compiled unless pip's cache has it, which takes minutes", flush=True)
    with workshop() as folder:
        source, wheels, temporary = folder / "source", folder / "wheels", folder / "tmp"
        wheels.mkdir()
        temporary.mkdir()
        for file in (file for part in SOURCES for file in files(root / part)):
            copied = source / file.relative_to(root)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copied)
        person = _person(python)
        if person:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, person.pw_uid, person.pw_gid)
        flags = {**build_flags(), "TMPDIR": str(temporary)}
        _pip(python, "wheel", "--wheel-dir", str(wheels), _target(source, extras), person=person, flags=flags)
        built = [str(wheel) for wheel in sorted(wheels.glob("*.whl"))]
        _pip(python, "install", "--no-index", "--no-deps", "--force-reinstall", *built, flags={"TMPDIR": str(folder)})


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
        progress = Progress()
        try:
            for line in pip.stdout:
                log.append(line)
                progress.show(line)
        except KeyboardInterrupt:
            end(pip, signal.SIGINT, signal.SIGKILL)  # first as Ctrl-C does, so that it tidies up
            raise
        progress.end()
    if pip.returncode:
        print("".join(log[-60:]))
        give_up("Installing failed; the last lines of pip's log are above.")


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
