"""GET /v1/device/history by a real port: what a board did in the last minutes."""

import time
from xml.etree import ElementTree

import jsonschema
import msgspec
import pytest

from qwen_edge.auth.keys import Keys
from qwen_edge.device.history import LONGEST, History, since_boot
from qwen_edge.device.telemetry import Clock
from qwen_edge.server.admin.device_history import DeviceHistory
from tests.server.test_device import QUICK, Board, becomes, device
from tests.server.test_status import run


@pytest.fixture
def quick_clock(monkeypatch):
    """Time in which a daemon is recorded passes 100 times as fast."""

    def quick(_settings, memory):
        began, wall = since_boot(), time.time()
        return History(
            memory=memory,
            clock=lambda: 100 * (since_boot() - began),
            wall=lambda: wall + 100 * (since_boot() - began),
        )

    monkeypatch.setattr("qwen_edge.device.history.kept_history", quick)


async def history(served, query: str = "") -> dict:
    async with served.http.get(f"{served.address}/v1/device/history{query}") as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def recorded(served, query: str = "") -> dict:
    """The history, once there is a sample; the test's own timeout is the limit."""
    while not (found := await history(served, query))["samples"]:
        await becomes(served, lambda found: True)
    return found


async def test_the_last_minutes_come_in_steps_of_five_seconds(serve, quick_clock):
    board = Board(tj=81.5, watts=7.25, clocks={"cpu": Clock(1.5e9), "gpu": Clock(3e8)})
    served = await serve(settings=QUICK, source=board)
    await becomes(served, lambda found: found["telemetry"] is not None)
    found = await recorded(served, "?seconds=900")
    assert (found["object"], found["every"]) == ("device.history", 5)
    while found["samples"][-1]["celsius"] is None:  # from before the first reading
        found = await recorded(served)
    last = found["samples"][-1]
    assert set(last) == {
        "at",
        "celsius",
        "target",
        "watts",
        "duty",
        "hertz",
        "tokens_per_second",
        "pending",
        "memory",
    }
    assert (last["celsius"], last["target"], last["watts"], last["hertz"]) == (81.5, 85.0, 7.25, 1.5e9)
    assert 0 < last["duty"] <= 1
    assert (last["pending"], last["tokens_per_second"]) == (0, 0)
    assert last["memory"] > 1_000_000


async def test_more_than_fifteen_minutes_come_by_the_minute(serve, quick_clock):
    served = await serve(settings=QUICK, source=Board())
    found = await recorded(served, f"?seconds={LONGEST}")
    assert found["every"] == 60
    assert found["samples"][0]["celsius"] == 50.0


async def test_without_sensors_the_work_and_the_memory_are_recorded(serve, quick_clock):
    found = await recorded(await serve(settings=QUICK))
    first = found["samples"][0]
    assert [first[name] for name in ("celsius", "target", "watts", "hertz")] == [None] * 4
    assert first["memory"] > 1_000_000


@pytest.mark.parametrize("seconds", ["0", "-5", "nan", "inf", "", "many", "1e9", str(LONGEST + 1), "5%00"])
async def test_a_time_that_is_not_kept_is_refused(serve, seconds):
    served = await serve()
    async with served.http.get(f"{served.address}/v1/device/history?seconds={seconds}") as response:
        error = (await response.json())["error"]
        assert (response.status, error["param"]) == (400, "seconds")
        assert str(LONGEST) in error["message"]


async def test_it_needs_a_key_as_the_device_does_and_is_as_described(serve, quick_clock):
    served = await serve(settings=QUICK, keys=Keys({"secret": "one"}))
    async with served.http.get(f"{served.address}/v1/device/history") as response:
        assert response.status == 401
    served.http.headers["x-api-key"] = "secret"
    found = await recorded(served)
    msgspec.convert(found, DeviceHistory)
    async with served.http.get(f"{served.address}/openapi.json") as response:
        document = await response.json()
    operation = document["paths"]["/v1/device/history"]["get"]
    assert operation["parameters"][0]["name"] == "seconds"
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(found, {**schema, "components": document["components"]})


async def test_the_device_tells_its_memory_its_context_and_engines_that_died(serve):
    served = await serve(settings=QUICK, source=Board(), context=512)
    found = await device(served)
    assert (found["context"], found["restarts"], found["last_death"]) == (512, 0, None)
    assert found["memory"] > 1_000_000
    served.engines[0].kill()
    found = await becomes(served, lambda found: found["restarts"] == 1)
    assert found["last_death"]


async def test_the_reason_of_the_governor_is_also_a_code(serve):
    board = Board()
    served = await serve(settings=QUICK, source=board)
    await becomes(served, lambda found: found["governor"]["reason"] == "none")
    board.values["tj"] = 91.0
    await becomes(served, lambda found: found["governor"]["reason"] == "heat")
    board.hang.clear()
    await becomes(served, lambda found: found["governor"]["reason"] == "no_telemetry")
    board.hang.set()


async def test_the_history_is_drawn_to_a_file_or_to_the_output(serve, quick_clock, tmp_path, capsys, monkeypatch):
    served = await serve(settings=QUICK, source=Board(), keys=Keys({"secret": "one"}))
    monkeypatch.setenv("QWEN_EDGE_API_KEY", "secret")
    served.http.headers["x-api-key"] = "secret"
    await recorded(served)
    asks = ["status", "--url", served.address, "--plot", "0.25"]
    file = tmp_path / "plot.svg"
    assert await run(capsys, *asks, "--out", str(file)) == f"{file}\n"
    shown = await run(capsys, *asks, "--out", "-")
    for svg in (shown, file.read_text()):
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert "Hottest zone" in svg
    link = tmp_path / "link.svg"
    link.symlink_to(file)
    await run(capsys, *asks, "--out", str(link))
    assert link.is_symlink(), "nor is /dev/null replaced when root draws to it"
    monkeypatch.chdir(tmp_path)
    assert await run(capsys, *asks) == "device-history.svg\n"
    assert (tmp_path / "device-history.svg").exists()


async def test_a_plot_that_cannot_be_drawn_or_written_is_told_in_a_sentence(serve, quick_clock, tmp_path, capsys):
    served = await serve(settings=QUICK, source=Board())
    await recorded(served)
    for arguments, words in [
        (["--plot", "0.25", "--out", str(tmp_path / "none" / "plot.svg")], "cannot be written: No such file"),
        (["--plot", "73"], "73"),
        (["--out", "plot.svg"], "--plot"),
        (["--plot", "0.25", "--url", f"{served.address}/page"], "/v1/device/history"),
    ]:
        with pytest.raises(SystemExit) as ended:
            await run(capsys, "status", "--url", served.address, *arguments)
        assert ended.value.code == 2
        assert words.lower() in capsys.readouterr().err.lower(), arguments
