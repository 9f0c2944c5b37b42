"""Real client libraries against a real daemon: `python -m tests.clients.run [NAME ...]` (`make clients` runs it).

Each client has a folder here with its tests, and an environment of its own under build/clients, which is made when it
is missing and reused while its requirements are the same: then no network is needed. The tests know the daemons only
by environment variables, as users' programs do:

- DEMO_URL: a daemon with the demo model, without keys.
- SCRIPTED_URL: a daemon with a fake model that says what it is asked to say (scripted.py), which needs API_KEY.

A table at the end says what passed. Exit code: 0 if everything passed, else 1. The whole output of a client is in
build/clients/NAME.log.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as xml
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from scripts.demo import CHECKPOINT, MODEL
from tests.clients.environments import BUILD, HERE, Client, NotInstalledError, all_clients, make
from tests.served import ServedModel

ROOT = HERE.parents[1]
FAST = ("openai-python", "anthropic-python", "ollama-python", "openai-node")
"""What CI runs (ONLY=fast): the four libraries that most others stand on; with the installations 5 minutes at most."""
SECONDS = 300  # for the tests of one client
_INSTALLERS = 3  # at once: they wait for the network most of the time
_OTHERS_KEYS = re.compile(
    "OPENAI|ANTHROPIC|OLLAMA|LANGCHAIN|LANGSMITH|LITELLM|LLM_|HF_|AI_SDK|HTTPS?_PROXY|PYTHONPATH", re.I
)
_SETTINGS = {
    "NO_PROXY": "127.0.0.1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # no list of prices from the network
    "OPENAI_AGENTS_DISABLE_TRACING": "1",  # it would send traces to OpenAI
    "LANGSMITH_TRACING": "false",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True)
class Row:
    """How the tests of a client went. `note`: why there are no numbers."""

    client: Client
    passed: int = 0
    failed: int = 0
    note: str = ""

    @property
    def good(self) -> bool:
        return self.passed > 0 and not self.failed and not self.note


def main() -> None:
    clients = _chosen(sys.argv[1:])
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run waits: both would make the same environments
        rows = _run(clients)
    print(f"\n{table(rows)}")
    sys.exit(0 if all(row.good for row in rows) else 1)


def _run(clients: Sequence[Client]) -> list[Row]:
    missing = _environments(clients)
    _model()
    rows = []
    with daemons() as addresses:
        for client in clients:
            row = Row(client, note=missing[client.name]) if client.name in missing else _test(client, addresses)
            rows.append(row)
            print(f"{client.name}: {row.note or f'{row.passed} passed, {row.failed} failed'}", flush=True)
            if not row.good and not row.note:
                print(_failures(client), flush=True)
    return rows


def _chosen(arguments: Sequence[str]) -> list[Client]:
    known = all_clients()
    parser = argparse.ArgumentParser(description="Run client libraries against the daemon.")
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"all, fast, or some of: {', '.join(known)}")
    names = [
        name for word in parser.parse_args(arguments).names for name in {"fast": FAST, "all": known}.get(word, [word])
    ]
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no such client: {', '.join(unknown)}. There are: {', '.join(known)}; and fast, and all.")
    return [known[name] for name in dict.fromkeys(names or known)]


def _environments(clients: Sequence[Client]) -> dict[str, str]:
    """Make the environments; what could not be made is returned with the reason."""

    def made(client: Client) -> tuple[str, str]:
        try:
            make(client)
        except NotInstalledError as error:
            print(f"{client.name} is not installed: {error}", flush=True)
            return client.name, f"not installed: {str(error).splitlines()[0]}"
        print(f"{client.name} is installed: {client.version}", flush=True)
        return client.name, ""

    with ThreadPoolExecutor(_INSTALLERS) as pool:
        return {name: why for name, why in pool.map(made, clients) if why}


def _model() -> None:
    """The demo model, converted as `make demo` does."""
    if not MODEL.exists():
        command = [sys.executable, "-m", "qwen_edge", "convert", str(CHECKPOINT), "-o", str(MODEL)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


@contextlib.contextmanager
def daemons() -> Iterator[Mapping[str, str]]:
    """Both daemons, on free ports; yields the environment variables for the tests."""
    os.environ["XDG_STATE_HOME"] = str(BUILD / "state")  # what was measured of the model is kept for the next run
    key = secrets.token_hex(16)
    command = [sys.executable, "-m", "tests.clients.scripted", key]
    log = BUILD / "scripted.log"
    with (
        ServedModel(MODEL, "--context", "8192") as demo,
        log.open("w") as errors,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True) as scripted,
    ):
        try:
            assert scripted.stdout
            line = scripted.stdout.readline()
            assert line, f"the scripted daemon did not start: see {log}"
            address = next(word for word in line.split() if word.startswith("http://"))
            yield {"DEMO_URL": demo.address, "SCRIPTED_URL": address, "API_KEY": key}
        finally:
            scripted.send_signal(signal.SIGTERM)
            (BUILD / "demo.log").write_text("".join(demo.log))


def _test(client: Client, addresses: Mapping[str, str]) -> Row:
    environment = {name: value for name, value in os.environ.items() if not _OTHERS_KEYS.search(name)}
    home = BUILD / "home" / client.name
    shutil.rmtree(home, ignore_errors=True)  # a client finds nothing of an earlier run, nor of the person who runs this
    home.mkdir(parents=True)
    environment |= {
        **_SETTINGS,
        **addresses,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "COLUMNS": "200",
    }
    report = client.environment / "report.xml"
    report.unlink(missing_ok=True)
    command = _in_javascript(client) if client.in_javascript else _in_python(client, report)
    with _log(client).open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=client.environment,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            return Row(client, note=f"took more than {SECONDS} s: see {_log(client)}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with whatever the client has started
            process.wait()
    passed, failed = _counted_tap(_log(client)) if client.in_javascript else _counted_xml(report)
    if not failed and process.returncode:
        return Row(client, passed, note=f"exit code {process.returncode}: see {_log(client)}")
    return Row(client, passed, failed)


def _in_python(client: Client, report: Path) -> list[str]:
    pytest = [str(client.environment / "bin" / "python"), "-m", "pytest", str(client.folder)]
    return [
        *pytest,
        "-c",
        str(HERE / "pytest.ini"),
        "--rootdir",
        str(ROOT),
        "--confcutdir",
        str(HERE),
        f"--junitxml={report}",
    ]


def _in_javascript(client: Client) -> list[str]:
    """Node finds a package only in folders above the file that imports it, so the tests are copied there."""
    tests = sorted(client.folder.glob("*.test.mjs"))
    for path in [*tests, HERE / "daemons.mjs"]:
        shutil.copy(path, client.environment)
    return ["node", "--test", "--test-reporter=tap", *(path.name for path in tests)]


def _counted_xml(report: Path) -> tuple[int, int]:
    if not report.exists():
        return 0, 1
    cases = list(xml.parse(report).iter("testcase"))
    failed = sum(any(child.tag in ("failure", "error", "skipped") for child in case) for case in cases)
    return len(cases) - failed, failed


def _counted_tap(log: Path) -> tuple[int, int]:
    counts = dict(re.findall(r"^# (\w+) (\d+)$", log.read_text(), re.MULTILINE))
    passed, everything = int(counts.get("pass", 0)), int(counts.get("tests", 1))
    return passed, everything - passed


def _log(client: Client) -> Path:
    return BUILD / f"{client.name}.log"


def _failures(client: Client) -> str:
    """The lines of the log that say which tests failed, and why."""
    lines = _log(client).read_text(errors="replace").splitlines()
    marks = r"\s*(not ok|error: )" if client.in_javascript else "(FAILED|ERROR) "
    failed = [line for line in lines if re.match(marks, line)]
    return "\n".join(f"    {line.strip()[:300]}" for line in failed or lines[-20:])


def table(rows: Sequence[Row]) -> str:
    shown = [("client", "version", "passed", "failed")]
    shown += [
        (row.client.name, row.client.version, *((row.note, "") if row.note else (str(row.passed), str(row.failed))))
        for row in rows
    ]
    widths = [max(len(line[column]) for line in shown) for column in (0, 1)]
    return "\n".join(
        f"{name:{widths[0]}} | {version:{widths[1]}} | {passed:>6} | {failed}"
        for name, version, passed, failed in shown
    )


if __name__ == "__main__":
    main()
