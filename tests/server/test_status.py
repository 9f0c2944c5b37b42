"""What a person sees of a running daemon and its device."""

import asyncio
import json
import os
import pty
import sys
import termios

import pytest

from qwen_edge.cli import main
from qwen_edge.cli.advise import Measured, advice
from qwen_edge.device.sources.trace import Trace
from qwen_edge.device.telemetry import Battery, Clock
from tests.server.test_device import QUICK, Board, becomes
from tests.waiting import until


async def run(capsys, *arguments: str) -> str:
    await asyncio.to_thread(main, *arguments)
    return capsys.readouterr().out


async def test_everything_that_is_known_is_shown(serve, capsys):
    board = Board(
        tj=88.5,
        watts=12.3,
        rails={"VDD_SOC": 2.0},
        mode="25W",
        fan=0.5,
        battery=Battery(0.8, True),
        clocks={"gpu": Clock(306e6)},
        gpu_load=0.9,
        memory_used=4_000_000_000,
        memory_total=8_000_000_000,
        throttled=("over-current on VDD_IN",),
        missing=("VDD_SOC: install [jetson]",),
    )
    served = await serve(lambda prompt: "word " * 30, settings=QUICK, source=board)
    await served.ask("hello")
    await becomes(served, lambda found: found["governor"]["level"] == "hot")
    shown = await run(capsys, "status", "--url", served.address, "--once")
    for words in (
        "hot  fake",
        "for heat",
        "refused",
        "background, idle",
        "88.5 °C (target 85, pause 95)",
        "cpu 40.0",
        "12.3 W  VDD_SOC 2.0",
        "gpu 90%",
        "gpu 306 MHz",
        "4.0 of 8.0 GB",
        "mode 25W",
        "fan 50%",
        "battery 80%, in use",
        "over-current on VDD_IN",
        "VDD_SOC: install [jetson]",
        "Wh today",
        "tokens of prompts",
        "test",
    ):
        assert words in shown, words


async def test_without_sensors_it_shows_what_there_is(serve, capsys):
    served = await serve()
    shown = await run(capsys, "status", "--url", served.address)
    assert "unknown" in shown
    assert "tj" not in shown


async def test_as_json_it_is_what_the_daemon_tells(serve, capsys):
    served = await serve(settings=QUICK, source=Board())
    await becomes(served, lambda found: found["telemetry"])
    shown = json.loads(await run(capsys, "status", "--url", served.address, "--json"))
    assert shown["telemetry"]["tj"] == 50.0
    assert shown["governor"]["level"] == "nominal"


async def test_what_is_recorded_can_be_played_again(serve, tmp_path):
    board, file = Board(), tmp_path / "trace.jsonl"
    served = await serve(settings=QUICK, source=board)
    await becomes(served, lambda found: found["telemetry"])
    arguments = ["status", "--url", served.address, "--record", str(file), "--every", "0.2"]
    recorder = await asyncio.create_subprocess_exec(sys.executable, "-m", "qwen_edge", *arguments)
    await until(lambda: file.exists() and len(file.read_bytes().splitlines()) > 2)
    recorder.terminate()
    await recorder.wait()
    trace = Trace(file, speed=100.0)
    assert trace.read().tj == 50.0
    assert trace.read().source == "trace"


async def test_nothing_to_record_is_told(serve, tmp_path, capsys):
    served = await serve()
    with pytest.raises(SystemExit):
        await asyncio.to_thread(main, "status", "--url", served.address, "--record", str(tmp_path / "none"))
    assert "There is no telemetry to record" in capsys.readouterr().err


def test_a_daemon_that_is_not_there_is_told(capsys):
    with pytest.raises(SystemExit):
        main("status", "--url", "http://127.0.0.1:1")
    assert "There is no qwen-edge at http://127.0.0.1:1" in capsys.readouterr().err


async def test_a_mode_is_measured_kept_and_compared(serve, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    board = Board(mode="25W", watts=20.0)
    served = await serve(lambda prompt: "word " * 200, settings=QUICK, source=board, context=1 << 16)
    served.backend.batch = 512
    await becomes(served, lambda found: found["energy"])
    assert "25W" in await run(capsys, "advise", "--url", served.address, "--repeat", "1")
    board.values.update(mode="15W", watts=5.0)
    await becomes(served, lambda found: found["telemetry"]["mode"] == "15W")
    shown = await run(capsys, "advise", "--url", served.address, "--repeat", "1")
    assert "The most tokens per joule: 15W" in shown
    assert "The shortest first token" in shown
    kept = json.loads(await run(capsys, "advise", "--url", served.address, "--repeat", "1", "--json"))
    assert {one["mode"] for one in kept} == {"15W", "25W"}


def measured(mode: str, first: float, per_joule: float | None) -> Measured:
    return Measured(mode, "model", first, 20.0, per_joule, 0.0)


def test_the_most_frugal_and_the_quickest_may_be_different_modes_and_others_are_named():
    lines = advice([measured("MAXN", 0.2, 1.0), measured("15W", 0.5, 2.0)], {0: "15W", 1: "25W", 2: "MAXN"})
    assert lines == [
        "The most tokens per joule: 15W (2.00).",
        "The shortest first token: MAXN (200 ms).",
        "Not measured: 25W. sudo nvpmodel -m 1, then qwen-edge advise.",
    ]


def test_without_a_power_sensor_advice_is_about_time_only():
    assert "power is not measured" in advice([measured("as it is", 0.2, None)], {})[0]


async def test_the_live_view_fills_a_terminal_leaves_with_q_and_gives_the_terminal_back(serve):
    served = await serve(settings=QUICK, source=Board())
    await becomes(served, lambda found: found["telemetry"])
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    arguments = ["-m", "qwen_edge", "status", "--watch", "--every", "0.2", "--url", served.address]
    view = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=theirs, stdout=theirs, env={**os.environ, "TERM": "xterm"}
    )
    shown = await asyncio.to_thread(_read_until, ours, "50.0 °C, target 85, pause 95")
    assert "\x1b[?1049h" in shown, "the screen of before is kept beside it"
    os.write(ours, b"xq")
    left = await asyncio.to_thread(_read_until, ours, "\x1b[?1049l")
    assert "\x1b[?25h" in left, "the cursor is there again"
    assert await view.wait() == 0
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


def _read_until(terminal: int, words: str) -> str:
    """What a program writes to its terminal, up to these words, which the test's own time limit waits for."""
    read = b""
    while words.encode() not in read:
        read += os.read(terminal, 65536)
    return read.decode(errors="replace")
