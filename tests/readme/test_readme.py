"""Every shell block of the README, in its order, on a bare Debian: what it shows is what happens.

A server of this test stands in for the Hub and hands out the demo checkpoint under the name Qwen/Qwen3-0.6B, so the
model has the real model's name and the demo's answers. A real `systemd --user` (../shared/tools) runs the service's
unit, which tests/readme/systemctl.py gives to it; without that tool only systemd-analyze reads the unit.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_edge.convert.hub import _PINNED, DEFAULT_SOURCE
from tests.readme.blocks import README, RUN_AS_ANOTHER_MACHINE, Block, blocks, warnings
from tests.readme.fresh_root import PERSON, FreshRoot, unusable
from tests.shared.conftest import SHARED
from tests.shared.test_systemd import _SYSTEM_ONLY as SYSTEM_ONLY
from tests.unit.convert.hub_server import HubServer

ROOT = README.parent
OPT = "/opt/qwen-edge/.venv"
MANAGER = SHARED / "tools" / "systemd_user" / "user_manager.sh"


@pytest.fixture
def fresh_root() -> Iterator[FreshRoot]:
    if why := unusable():
        pytest.skip(why)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if probe.connect_ex(("127.0.0.1", 8080)) == 0:
            pytest.skip("port 8080, which the README names, is in use")
    commit = _PINNED[DEFAULT_SOURCE]
    with HubServer(ROOT / "models" / "demo", name=DEFAULT_SOURCE, commit=commit) as hub:
        with FreshRoot(ROOT, {"HF_ENDPOINT": hub.address}) as root:
            _install_manager(root)
            yield root
        hub.shutdown()


def test_every_block_of_the_readme_does_what_it_says(fresh_root):
    said: dict[str, list[str]] = {}
    serving: tuple[str, subprocess.Popen[str]] | None = None
    for block in blocks(README.read_text()):
        if serving and serving[0] != block.heading:
            _end(fresh_root, serving[1])
            serving = None
        if block.mark == "run until the next heading":
            serving = block.heading, _begin(fresh_root, block)
        elif block.mark in ("run", RUN_AS_ANOTHER_MACHINE, "python"):
            if "systemctl" in block.text and not MANAGER.exists():
                _verify(fresh_root)
                break
            said.setdefault(block.heading, []).append(_run(fresh_root, block))
            if "make demo" in block.text:
                assert warnings(said[block.heading][-1]) == []
            _look(fresh_root, block)
    _check(said)


def _run(root: FreshRoot, block: Block) -> str:
    """The whole block, in one shell that stops at the first command that fails, as a reader would. Its output."""
    began = time.monotonic()
    script = block.text
    if block.mark == RUN_AS_ANOTHER_MACHINE:
        address = root.sh("hostname -I | cut -d ' ' -f 1").strip()
        key = root.sh("head -n 1 /etc/qwen-edge/api-keys", root=True).split()[0]
        assert address, "the service is asked at an address that is not loopback"
        script = script.replace("DEVICE", address).replace("KEY", key)
    if block.mark == "python":
        script = f".venv/bin/pip install -q langchain-openai\n.venv/bin/python - <<'END'\n{script}END\n"
    said = root.sh(f"set -o pipefail\n{script}")
    _tell(block, f"{time.monotonic() - began:.0f} s", said)
    return said


def _begin(root: FreshRoot, block: Block) -> subprocess.Popen[str]:
    """Until it says that it is ready."""
    log = root.folder / "tmp" / "serving.log"
    process = root.start(block.text, to=log)
    while "ready in" not in log.read_text():
        assert process.poll() is None, log.read_text()
        threading.Event().wait(0.1)
    _tell(block, "goes on", log.read_text())
    return process


def _end(root: FreshRoot, process: subprocess.Popen[str]) -> None:
    """As Ctrl-C does."""
    root.sh("for pid in $(pidof -x qwen-edge); do kill -INT $pid 2>/dev/null || true; done", root=True)
    assert process.wait(60) == 0


def _tell(block: Block, how: str, said: str) -> None:
    """For -s: what a reader would have seen."""
    sys.stdout.write(f"\n=== README.md, line {block.line} ({how})\n{block.text}--- says\n{said}")
    sys.stdout.flush()


def _look(root: FreshRoot, block: Block) -> None:
    """What a block leaves behind, where its output does not tell."""
    if "bootstrap.py" in block.text:
        nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
        assert "qwen-edge, version" in root.sh(f"cd /; {nobody} {OPT}/bin/qwen-edge --version", root=True)
        others = root.sh("find /opt/qwen-edge ! -type l '(' ! -user root -o ! -perm -a+r ')'", root=True)
        assert others == "", "all of it is root's, for everybody to read"
        homes = (
            f"grep -rIl /home/{PERSON} {OPT}/bin {OPT}/lib/python*/site-packages --include='*.pth' --include='qwen*'"
        )
        assert root.sh(f"{homes} || true", root=True) == "", "nothing in it leads into a home"
        litter = root.sh(
            "find . -path ./.venv -prune -o '(' ! -user me -o -name build -o -name '*.egg-info' ')' -print"
        )
        assert litter.split() == ["./qwen_edge.egg-info"], "only the link that make demo has made"
    if "qwen-edge tune" in block.text:
        owners = root.sh("stat -c '%u %a' /var/lib/qwen-edge /var/lib/qwen-edge/tuning.json", root=True).splitlines()
        assert [line.split()[0] for line in owners] == ["65534", "65534"], "the service's, as its folder is"
        assert not (root.folder / "root/.local/state/qwen-edge").exists()
        refused = root.start(f"{OPT}/bin/qwen-edge tune")
        assert f"The folder is the service's: sudo {OPT}/bin/qwen-edge tune." in refused.communicate()[0]
        assert refused.returncode == 2
    if "tar -c" in block.text:
        saved = root.sh(f"tar -tzf /home/{PERSON}/qwen-edge-settings.tar.gz").split()
        assert {"qwen-edge/qwen-edge.yaml", "qwen-edge/api-keys"} <= set(saved)
    if "rm -rf" in block.text:
        for gone in ("opt/qwen-edge", "etc/qwen-edge", "var/lib/qwen-edge", "etc/systemd/system/qwen-edge.service"):
            assert not (root.folder / gone).exists()


def _check(said: dict[str, list[str]]) -> None:
    tried = said["Debian or Ubuntu"][0]
    assert "set_light(" in tried
    assert "4. the daemon has stopped (exit code 0)" in tried
    assert "set_light(" in said["Jetson (JetPack 6)"][0]
    converted, asked, in_the_terminal, chat, shaped, by_other_apis = said["First question"]
    assert '"type":"message"' in by_other_apis and '"done":true' in by_other_apis
    assert json.loads(json.loads(shaped[shaped.index('{"id"') :])["choices"][0]["message"]["content"]).keys() == {
        "state",
        "room",
    }
    assert "qwen3-0.6b-q4_k_m.gguf" in converted
    assert "BAD" not in converted, "the doctor finds nothing wrong"
    assert "demo model" in _answer(asked)
    assert "demo model" in in_the_terminal
    assert "相对论" in chat
    installed, *started = said["As a service"]
    assert f"making {OPT}" in installed
    if not started:
        return
    assert "active (running)" in started[0]
    _opened, asked_from_outside = said["From another machine"]
    assert "demo model" in _answer(asked_from_outside)
    looked_at, looked_after, _saved, upgraded, _removed = said["Operation"]
    assert "qwen3-0.6b-q4_k_m" in looked_at
    assert "/etc/qwen-edge/qwen-edge.yaml" in looked_after
    assert "/var/lib/qwen-edge" in looked_after
    assert "BAD" not in looked_after
    assert "Best: " in looked_after
    assert f"{OPT} is up to date" in upgraded
    assert "compiling llama.cpp" not in installed + upgraded, "pip's cache has it from make demo"


def _answer(said: str) -> str:
    """The text of the answer in what curl has printed."""
    return str(json.loads(said[said.index('{"id"') :])["choices"][0]["message"]["content"])


def _install_manager(root: FreshRoot) -> None:
    """A real service manager, and the `systemctl` that asks it."""
    place, program = root.folder / "manager", root.folder / "usr/local/bin/systemctl"
    (place / "run").mkdir(parents=True)
    text = (Path(__file__).parent / "systemctl.py").read_text()
    program.write_text(text.replace("@SYSTEM_ONLY@", SYSTEM_ONLY))
    program.chmod(0o755)
    if not MANAGER.exists():
        return
    (place / "user_manager.sh").write_bytes(MANAGER.read_bytes())
    (place / "units").mkdir()
    for file in (MANAGER.parent / "units").iterdir():
        (place / "units" / file.name).write_bytes(file.read_bytes())
    process = root.start(
        "bash /manager/user_manager.sh /manager/units /manager/run", root=True, to=place / "manager.log"
    )
    while not (place / "run/systemd/private").exists():
        assert process.poll() is None, (place / "manager.log").read_text()
        threading.Event().wait(0.1)


def _verify(root: FreshRoot) -> None:
    assert root.sh("systemd-analyze verify /etc/systemd/system/qwen-edge.service", root=True) == ""
