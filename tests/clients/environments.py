"""Environments of the client libraries, each as a user of that library would make it: a virtual environment, or a
folder with node_modules, under build/clients. One is made again when what it must hold has changed."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build" / "clients"
TOOLS = HERE / "tools.txt"
OLDEST_NODE = 18
NO_NODE = (
    f"Clients in JavaScript need Node {OLDEST_NODE} or later with npm: sudo apt install nodejs npm "
    "(or https://nodejs.org). Or name other clients: make clients ONLY=openai-python"
)
_SECONDS = 900  # for an installation


class NotInstalledError(Exception):
    """An environment could not be made; the text says why, and what to do."""


@dataclass(frozen=True)
class Client:
    """A client library: a folder of tests/clients with its tests, and with its requirements.txt or package.json."""

    name: str
    folder: Path

    @property
    def environment(self) -> Path:
        return BUILD / self.name

    @property
    def in_javascript(self) -> bool:
        return (self.folder / "package.json").exists()

    @property
    def version(self) -> str:
        """The library, with its pinned version."""
        if self.in_javascript:
            pinned: dict[str, str] = json.loads((self.folder / "package.json").read_text())["dependencies"]
            return " ".join(next(iter(pinned.items())))
        first = (self.folder / "requirements.txt").read_text().split()[0]
        return re.sub(r"\[.*?\]", "", first).replace("==", " ")


def all_clients(folder: Path = HERE) -> dict[str, Client]:
    kinds = ("requirements.txt", "package.json")
    return {
        path.parent.name: Client(path.parent.name, path.parent)
        for kind in kinds
        for path in sorted(folder.glob(f"*/{kind}"))
    }


def make(client: Client) -> None:
    """Make the environment, unless it is there already. Raises NotInstalledError."""
    stamp, wanted = client.environment / "made-of", _ingredients(client)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(client.environment, ignore_errors=True)
    client.environment.mkdir(parents=True)
    if client.in_javascript:
        check_node()
        shutil.copy(client.folder / "package.json", client.environment)
        _run(client, "npm", "install", "--no-audit", "--no-fund", "--silent")
    else:
        python = client.environment / "bin" / "python"
        _run(client, sys.executable, "-m", "venv", str(client.environment))
        requirements = str(client.folder / "requirements.txt")
        _run(client, str(python), "-m", "pip", "install", "--quiet", "-r", str(TOOLS), "-r", requirements)
    stamp.write_text(wanted)


def check_node() -> None:
    """Raises NotInstalledError if Node or npm is missing or too old."""
    if not shutil.which("npm") or not shutil.which("node"):
        raise NotInstalledError(NO_NODE)
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").partition(".")[0]) < OLDEST_NODE:
        raise NotInstalledError(f"Node {version} is too old. {NO_NODE}")


def _ingredients(client: Client) -> str:
    """What the environment is made of, in short: another text means another environment."""
    if client.in_javascript:
        parts = [(client.folder / "package.json").read_text()]
    else:
        parts = [str(sys.version_info[:2]), TOOLS.read_text(), (client.folder / "requirements.txt").read_text()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _run(client: Client, *command: str) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=client.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotInstalledError(f"{' '.join(command[:4])} ... took more than {_SECONDS} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise NotInstalledError(said or f"{' '.join(command[:4])} ... ended with exit code {done.returncode}")
