"""`qwen-edge doctor`: checks what the daemon needs and prints a fix for each problem."""

from __future__ import annotations

import errno
import http.client
import json
import platform
import queue
import shutil
import socket
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from qwen_edge.cli.terminal import other_program
from qwen_edge.config.load import config_of
from qwen_edge.config.paths import Place, find_model, find_place
from qwen_edge.config.schema import Config
from qwen_edge.convert.load_check import check_loads
from qwen_edge.convert.manifest import read_manifest
from qwen_edge.convert.tensor_table import read_tensor_table
from qwen_edge.core.checksum import sha256
from qwen_edge.core.errors import UserError
from qwen_edge.core.printable import clean
from qwen_edge.device.from_config import find_source
from qwen_edge.device.host.gpu import find_gpu, rebuild_command
from qwen_edge.device.host.llama_cpp_build import install_bindings, rebuild_bindings
from qwen_edge.device.host.memory import available_bytes
from qwen_edge.device.sources.reader import Reader, ReaderEvent
from qwen_edge.device.telemetry import Telemetry, TelemetryError
from qwen_edge.models.tuning import described, recall
from qwen_edge.protocol.messages import Tuning
from qwen_edge.renderer.handle import check_template
from qwen_edge.supervisor.engine_settings import load_message

if TYPE_CHECKING:
    from qwen_edge.llama.plan import MemoryPlan

_SENSOR_SECONDS = 12.0  # jtop takes several seconds to start
_SHORTEST = 512  # tokens: a shorter context is of no use
_NO_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"  # as in scripts/installer/compiler.py
_NO_END = "the file has no end token, or a wrong one: convert the model again, or set tokenizer.ggml.eos_token_id"
_COMPILERS = ("c++", "g++", "clang++")
_MARKS = {"ok": ("ok  ", "green"), "note": ("note", "yellow"), "bad": ("BAD ", "red")}


@dataclass(frozen=True)
class Finding:
    """One line of the report. `bad`: the daemon will not work; `note`: it will work, but with a limitation."""

    mark: Literal["ok", "note", "bad"]
    what: str
    remedy: str = ""


@click.command("doctor", short_help="Check this machine and installation; print fixes.")
@click.option("-c", "--config", "file", type=click.Path(path_type=Path), help="Settings file that the daemon will use.")
@click.option("--model", help="Model to check.  [default: the configured one]")
@click.option("--verify", is_flag=True, help="Also verify the model's checksum (seconds to a minute).")
def command(file: Path | None, model: str | None, verify: bool) -> None:
    """Check this machine and installation, and print a fix for each problem. The exit code is 1 if the daemon will not
    work.

    If the service is installed and -c names no other settings file, the files of the service are checked; otherwise
    those of a daemon that you run yourself."""
    place = find_place(file)
    place.check("doctor")
    config = config_of(place)
    worst = "ok"
    for finding in diagnose(config, model or config.model, place, verify=verify):
        mark, colour = _MARKS[finding.mark]
        remedy = f"\n       -> {clean(finding.remedy)}" if finding.remedy else ""
        click.echo(f"{click.style(mark, fg=colour)}  {clean(finding.what)}{remedy}")
        worst = "bad" if finding.mark == "bad" else worst
    if worst == "bad":
        raise SystemExit(1)


def diagnose(config: Config, model: str | None, place: Place, *, verify: bool) -> Iterator[Finding]:
    """Run all checks, in the order in which the daemon would meet the problems."""
    host, port = config.server.host, config.server.port
    running = _answers_as_us(host, port)
    yield Finding("ok", f"checking {place.words()}")
    if other := other_program(place):
        yield Finding("note", other, f"sudo {place.program} doctor")
    yield Finding("ok", f"Python {platform.python_version()} on {platform.machine()}, {platform.system()}")
    yield _compiler()
    yield from _llama(config)
    try:
        path = find_model(model, place.models)
    except UserError as error:
        yield Finding("bad", "no model to serve", str(error))
    else:
        whole = yield from _guarded(lambda: _model(path, verify=verify))
        if whole and (yield from _guarded(lambda: _loading(path))):
            yield from _guarded(lambda: _chat_template(path))
            yield from _guarded(lambda: _memory(config, path, recall(path, place.state), running=running))
    yield from _device(config)
    if running:
        yield Finding("ok", f"qwen-edge is running on {_place(host, port)}")
    else:
        yield from (check_port(host, one, setting) for setting, one in config.server.ports.items())


def _guarded(check: Callable[[], Iterator[Finding]]) -> Generator[Finding, None, bool]:
    """Turn a UserError of the check into a finding. Returns whether the check ran to its end."""
    try:
        yield from check()
    except UserError as error:
        yield Finding("bad", str(error))
        return False
    return True


def _compiler() -> Finding:
    found = next((path for name in _COMPILERS if (path := shutil.which(name))), None)
    if found:
        return Finding("ok", f"C++ compiler {found}")
    return Finding("note", "no C++ compiler: needed only to build llama.cpp, not to run", "sudo apt install g++")


def _llama(config: Config) -> Iterator[Finding]:
    try:
        from qwen_edge.llama.bindings import uses_amx, versions
        from qwen_edge.llama.devices import list_devices
    except UserError as error:
        yield Finding("bad", str(error))
        return
    except (OSError, RuntimeError) as error:
        remedy = install_bindings("--force-reinstall", "--no-cache-dir")
        yield Finding("bad", f"llama.cpp cannot be loaded: {error}", remedy)
        return
    found = versions()
    devices = list_devices()
    names = ", ".join(str(device) for device in devices)
    yield Finding("ok", f"llama.cpp {found['llama.cpp']} (llama-cpp-python {found['llama-cpp-python']}): {names}")
    if uses_amx():
        what = "llama.cpp was compiled for AMX, with which it crashes (segmentation faults)"
        yield Finding("bad", what, rebuild_bindings(CFLAGS=_NO_AMX, CXXFLAGS=_NO_AMX))
    gpu = find_gpu()
    usable = [device for device in devices if device.kind == "GPU"]
    if usable:
        yield Finding("ok", f"GPU used by llama.cpp: {usable[0]}")
    elif gpu:
        mark: Literal["bad", "note"] = "bad" if config.engine.require_gpu else "note"
        yield Finding(mark, f"{gpu.name} found, but llama.cpp was built without CUDA", rebuild_command(gpu))
    elif config.engine.require_gpu:
        yield Finding("bad", "engine.require_gpu is set, but there is no GPU", "set engine.require_gpu: false")


def _model(path: Path, *, verify: bool) -> Iterator[Finding]:
    table = read_tensor_table(path)
    yield Finding("ok", f"model {path}: {path.stat().st_size / 1e6:.1f} MB, {len(table)} tensors, complete")
    manifest = read_manifest(path)
    again = f"qwen-edge convert -o {path}"
    if manifest is None:
        yield Finding("note", "no manifest beside the model: its origin is unknown", again)
    elif manifest.bytes != path.stat().st_size or (verify and manifest.sha256 != sha256(path)):
        yield Finding("bad", "the model is not the file its manifest describes", again)
    else:
        parts = [f"{manifest.type} of {manifest.source}"]
        if kept := manifest.vocabulary:
            parts.append(f"{kept.tokens:,} of {kept.of:,} tokens for {' and '.join(kept.languages)}")
        if manifest.imatrix:
            parts.append(f"rounded by importance for {manifest.imatrix.text}")
        parts += [manifest.created, "checksum verified" if verify else "size as described"]
        yield Finding("ok", f"manifest: {', '.join(parts)}")


def _loading(path: Path) -> Iterator[Finding]:
    """Check in another process that llama.cpp can load the file, before this one opens it."""
    if find_spec("llama_cpp") is None:
        return  # told above
    if words := check_loads(path):
        yield Finding("note", f"an ordinary word ends every answer of the model: token {', '.join(words)}", _NO_END)


def _chat_template(path: Path) -> Iterator[Finding]:
    try:
        from qwen_edge.llama.template import read_template
    except (UserError, OSError, RuntimeError):
        return  # told above

    yield Finding("ok", f"chat template: {check_template(read_template(path))}")


def _memory(config: Config, path: Path, measured: dict[str, Tuning], *, running: bool) -> Iterator[Finding]:
    try:
        from qwen_edge.llama.plan import plan_memory
        from qwen_edge.llama.site import site
    except (UserError, OSError, RuntimeError):
        return  # told above

    if tuning := measured.get(site(config.engine.gpu_layers)):
        yield Finding("ok", f"measured to be fastest here: {described(tuning)}")
    else:
        remedy = "start the daemon, or run qwen-edge tune" if config.engine.calibrate else "run qwen-edge tune"
        yield Finding("note", "the fastest settings have not been measured here", remedy)
    available = available_bytes()
    plan = plan_memory(load_message(config.engine, path, measured), available)
    if plan.tokens < config.engine.context:
        what = f"engine.context is {config.engine.context}, more than the {plan.tokens} tokens of the training"
        yield Finding("note", f"{what}: the context has {plan.tokens}", f"set engine.context: {plan.tokens}")
    what = f"memory: {plan}; {available / 1e6:.0f} MB available"
    if plan.total <= available:
        yield Finding("ok", what)
    elif running:
        yield Finding(
            "note", f"{what}; the running daemon holds part of the rest", "stop the daemon for an exact answer"
        )
    else:
        yield Finding("bad", f"{what}: {(plan.total - available) / 1e6:.0f} MB too many", _smaller(plan, available))


def _device(config: Config) -> Iterator[Finding]:
    """Check the telemetry. Without it the daemon runs, but does not control heat and power."""
    try:
        source, description = find_source(config.device)
    except TelemetryError as error:
        yield Finding("bad", f"telemetry: {error}")
        return
    if source is None:
        remedy = "" if config.device.source in ("auto", "none") else "see device.source in docs/settings.md"
        yield Finding("note", f"telemetry: {description}: heat and power are not controlled", remedy)
        return
    events = queue.Queue[ReaderEvent]()
    reader = Reader(lambda: (source, description), events.put)
    reader.start()
    try:
        events.get()  # the result of the search
        sample = events.get(timeout=_SENSOR_SECONDS)
    except queue.Empty:
        yield Finding("bad", f"telemetry: {description}: it does not answer", "choose another device.source, or none")
    else:
        if isinstance(sample, Telemetry):
            yield Finding("ok", f"telemetry: {description}: {_readings(sample)}")
        else:
            yield Finding("bad", f"telemetry: {description}", str(sample))
    finally:
        reader.stop()


def _readings(sample: Telemetry) -> str:
    """The main readings of a sample, and the missing ones."""
    known = [f"tj {sample.tj:.1f} C" if sample.tj is not None else "no temperature"]
    known.append(f"{sample.watts:.1f} W" if sample.watts is not None else "no power, so no energy accounting")
    missing = f" ({'; '.join(sample.missing)})" if sample.missing else ""
    return ", ".join([*known, *([f"mode {sample.mode}"] if sample.mode else [])]) + missing


def _smaller(plan: MemoryPlan, available: int) -> str:
    longest = plan.tokens_within(available)
    if longest < _SHORTEST:
        return "close other programs; not even a short context would fit"
    return f"set engine.context: {longest}, or close other programs"


def _answers_as_us(host: str, port: int) -> bool:
    """Whether a qwen-edge daemon listens at this address."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/health")
        health = json.load(connection.getresponse())
        return isinstance(health, dict) and "restarts" in health
    except (OSError, ValueError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def check_port(host: str, port: int, setting: str = "server.port") -> Finding:
    """Check that the daemon can listen on every address of the host, IPv4 and IPv6, as asyncio does. `setting`: which
    one names the port."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except OSError as error:
        remedy = f"choose another server.host or {setting}"
        if error.errno == errno.EADDRINUSE:
            remedy = f"stop what uses it (ss -ltnp 'sport = :{port}' shows what), or choose another {setting}"
        return Finding("bad", f"cannot listen on {_place(host, port)}: {error.strerror}", remedy)
    return Finding("ok", f"port {_place(host, port)} is free")


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
