"""A bare Debian in a folder, with mounts and processes of its own: the machine of somebody who has just found us.

Made by debootstrap once and kept as an archive in /var/cache/qwen-edge-tests, beside the packages that apt and pip
fetch: a second run takes a minute. Package indexes are reached as this machine reaches them. Needs root.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

CACHE = Path("/var/cache/qwen-edge-tests")
PERSON = "me"
_UID = 1000
_SUITE = "bookworm"
_MIRROR = "http://deb.debian.org/debian"
_PACKAGES = "sudo,ca-certificates,systemd"  # what an installed Debian has beside the barest
_NETWORK = re.compile(r"(PIP_|SSL_CERT_|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|.*_PROXY$)", re.IGNORECASE)
_LOCAL_INDEX = re.compile(r"(?:file://|find-links *= *|^)(/[^\s]+)", re.MULTILINE)


def unusable() -> str | None:
    """Why there can be none here, if so."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [tool for tool in ("debootstrap", "unshare", "nsenter", "chroot", "git") if not shutil.which(tool)]
    return f"needs {', '.join(missing)}" if missing else None


class FreshRoot:
    """Use as a context manager. `checkout` is copied into the person's home as git has it, built things left out."""

    def __init__(self, checkout: Path, environment: Mapping[str, str]) -> None:
        CACHE.mkdir(parents=True, exist_ok=True)
        self._alone = (CACHE / "lock").open("w")
        fcntl.flock(self._alone, fcntl.LOCK_EX)  # apt and pip want their folders for themselves
        self.folder = Path(tempfile.mkdtemp(prefix="qe-root-", dir="/var/tmp"))
        self.folder.chmod(0o755)
        self._started: list[subprocess.Popen[str]] = []
        self._environment = {**{k: v for k, v in os.environ.items() if _NETWORK.match(k)}, **environment}
        self._unpack()
        self._configure()
        self._copy(checkout)

    def __enter__(self) -> FreshRoot:
        binds = [(CACHE / "apt", "/var/cache/apt/archives"), (CACHE / "pip", f"/home/{PERSON}/.cache/pip")]
        binds += [(path, str(path)) for path in self._local_indexes()]
        mounts = [
            f"mount --bind {self.folder} {self.folder}",
            f"mount -t proc proc {self.folder}/proc",
            f"mount --rbind /sys {self.folder}/sys",
            f"mount --rbind /dev {self.folder}/dev",
            f"mount -t tmpfs tmpfs {self.folder}/run",
            *(f"mkdir -p {self.folder}{at} && mount --bind {source} {self.folder}{at}" for source, at in binds),
            f"exec chroot {self.folder} /bin/bash -c 'while :; do sleep 1000 & wait; done'",  # it buries the dead
        ]
        command = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "bash", "-ec"]
        self._outside = subprocess.Popen([*command, "\n".join(mounts)])
        while not (inside := self._inside()):
            assert self._outside.poll() is None, "the fresh root could not be entered"
            threading.Event().wait(0.05)
        self._pid = inside
        self.sh("apt-get update -qq", root=True)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._outside.kill()  # and with it all that runs inside
        self._outside.wait()
        for process in self._started:
            process.wait(30)
        assert str(self.folder) not in Path("/proc/self/mounts").read_text(), "nothing of this machine is to be deleted"
        shutil.rmtree(self.folder)
        self._alone.close()

    def start(self, script: str, *, root: bool = False, to: Path | None = None) -> subprocess.Popen[str]:
        """Run it in the checkout, as the person unless as root, all that it says in one stream (or in a file)."""
        who, home = ("root", "/root") if root else (PERSON, f"/home/{PERSON}")
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8", **self._environment}
        variables = [f"{name}={value}" for name, value in {**environment, "HOME": home, "USER": who}.items()]
        enter = ["nsenter", f"--target={self._pid}", "--mount", "--pid", "--root", "--wd"]
        person = [] if root else ["setpriv", f"--reuid={_UID}", f"--regid={_UID}", "--init-groups"]
        command = [*enter, "env", "-i", *variables, *person, "bash", "-ec", f"cd /home/{PERSON}/qwen-edge\n{script}"]
        said = to.open("w") if to else None
        with said or contextlib.nullcontext():
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said or subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self._started.append(process)
        return process

    def sh(self, script: str, *, root: bool = False) -> str:
        """What it says. Raises AssertionError with that if it fails."""
        process = self.start(script, root=root)
        said, _ = process.communicate()
        assert process.returncode == 0, f"exit code {process.returncode}\n{script}\n{said}"
        return said

    def _inside(self) -> int | None:
        """The first process in the root, once it is there."""
        try:
            for child in psutil.Process(self._outside.pid).children():
                if Path(f"/proc/{child.pid}/root").samefile(self.folder):
                    return child.pid
        except (OSError, psutil.Error):
            pass
        return None

    def _unpack(self) -> None:
        archive = CACHE / f"{_SUITE}.tar"
        for folder in ("apt/partial", "pip"):
            (CACHE / folder).mkdir(parents=True, exist_ok=True)
        if not archive.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as name:
                base, draft = Path(name) / "base", Path(name) / "base.tar"
                command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _SUITE, str(base), _MIRROR]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                subprocess.run(["tar", "-C", base, "-cf", draft, "."], check=True)
                draft.replace(archive)
        subprocess.run(["tar", "-C", self.folder, "-xf", archive], check=True)

    def _configure(self) -> None:
        """The person, and how this machine reaches its package indexes."""
        etc, home = self.folder / "etc", self.folder / "home" / PERSON
        chroot = ["chroot", str(self.folder)]
        subprocess.run([*chroot, "useradd", "--uid", str(_UID), "-m", "-s", "/bin/bash", PERSON], check=True)
        # a person who types the password, and answers yes
        keep = " ".join(name for name in self._environment)
        (etc / "sudoers.d" / PERSON).write_text(f'{PERSON} ALL=(ALL) NOPASSWD: ALL\nDefaults env_keep += "{keep}"\n')
        fetching = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
        acquire = "".join(line + "\n" for line in fetching.splitlines() if line.startswith("Acquire::"))
        answers = 'APT::Get::Assume-Yes "true";\nBinary::apt::APT::Keep-Downloaded-Packages "true";\n'
        (etc / "apt/apt.conf.d/99test").write_text(acquire + answers)
        for file in ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt"):
            if Path(file).exists():
                shutil.copyfile(file, f"{self.folder}{file}")
        for source, target in ((Path("/etc/xdg/pip"), etc / "xdg/pip"), (_user_pip(), home / ".config/pip")):
            if source.is_dir():
                shutil.copytree(source, target)
        _seed(CACHE / "pip")
        (home / ".cache").mkdir()
        for path in (*home.rglob("*"), CACHE / "pip", *(CACHE / "pip").rglob("*")):
            os.chown(path, _UID, _UID)

    def _local_indexes(self) -> Iterator[Path]:
        """Folders of this machine that pip is told to look into."""
        files = (Path("/etc/pip.conf"), Path("/etc/xdg/pip/pip.conf"), _user_pip() / "pip.conf")
        told = [file.read_text() for file in files if file.is_file()]
        told += [
            value for name, value in self._environment.items() if name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL")
        ]
        found = {Path(path) for text in told for path in _LOCAL_INDEX.findall(text)}
        # the links of a "simple" index lead out of it
        yield from sorted({path.parent if path.name == "simple" else path for path in found if path.is_dir()})

    def _copy(self, checkout: Path) -> None:
        listed = ["git", "-C", str(checkout), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
        for name in filter(None, names):
            if (checkout / name).is_file():
                target = self.folder / "home" / PERSON / "qwen-edge" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(checkout / name, target)
        home = self.folder / "home" / PERSON / "qwen-edge"
        for path in (home, *home.rglob("*")):
            os.chown(path, _UID, _UID)


def _user_pip() -> Path:
    return Path.home() / ".config" / "pip"


def _seed(cache: Path) -> None:
    """What this machine has compiled need not be compiled again: pip takes it if the Python is the same."""
    asked = [sys.executable, "-m", "pip", "cache", "dir"]
    here = Path(subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "/nonexistent")
    if (here / "wheels").is_dir():
        shutil.copytree(here / "wheels", cache / "wheels", dirs_exist_ok=True)
