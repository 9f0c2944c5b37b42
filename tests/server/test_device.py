"""Heat, power and energy as clients meet them: a real daemon, and a board of a few lines."""

import asyncio
import socket
import threading
from collections.abc import Callable

import pytest

from qwen_edge.auth.keys import Keys
from qwen_edge.daemon.sd_notify import Notifier
from qwen_edge.device.telemetry import Battery, Telemetry, TelemetryError
from tests.waiting import until

QUICK = "device: {interval_seconds: 0.5}\n"


class Board:
    """A source whose sensors say what a test sets; `hang` holds up whoever reads them."""

    name = "test"

    def __init__(self, **values) -> None:
        self.values = {"tj": 50.0, "watts": 5.0, **values}
        self.hang = threading.Event()
        self.hang.set()
        self.trouble: str | None = None
        self.clock: Callable[[], float] = asyncio.get_running_loop().time
        self.reads = 0

    def read(self) -> Telemetry:
        self.hang.wait(60)
        if self.trouble:
            raise TelemetryError(self.trouble)
        self.reads += 1
        return Telemetry(source=self.name, at=self.clock(), temperatures={"cpu": 40.0}, **self.values)

    def watts(self) -> float | None:
        return self.values["watts"]

    def close(self) -> None:
        self.hang.set()


async def device(served) -> dict:
    async with served.http.get(f"{served.address}/v1/device") as response:
        assert response.status == 200
        return await response.json()


async def becomes(served, condition: Callable[[dict], bool]) -> dict:
    """The device, once it is so; the test's own timeout is the limit."""
    while not condition(found := await device(served)):  # noqa: ASYNC110 - seen from outside, as clients see it
        await asyncio.sleep(0.02)
    return found


async def test_the_device_is_shown_with_its_age_and_what_is_allowed(serve):
    served = await serve(settings=QUICK, source=Board(mode="25W", fan=0.4, battery=Battery(0.9, False)))
    found = await becomes(served, lambda found: found["telemetry"] is not None)
    assert (found["telemetry"]["tj"], found["telemetry"]["mode"], found["source"]) == (50.0, "25W", "test")
    assert 0 <= found["age"] < 60
    assert (found["governor"]["level"], found["governor"]["duty"], found["engine"]) == ("nominal", 1.0, "ready")


async def test_the_service_manager_is_told_how_the_device_is(serve, tmp_path, monkeypatch):
    monkeypatch.setattr("qwen_edge.daemon.heartbeat._TELL_SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        await serve(settings=QUICK, source=Board(tj=81.5, watts=7.25), notifier=notifier)
        heard = ""
        while "tj 81.5 C, 7.2 W" not in heard:
            heard += (await asyncio.get_running_loop().sock_recv(listener, 4096)).decode() + "\n"
        assert "STATUS=http://127.0.0.1:" in heard
        assert "warm, duty 0.28 (heat), tj 81.5 C, 7.2 W" in heard, "so much more would lead to the target"


async def test_without_sensors_it_says_so_and_serves(serve):
    served = await serve()
    assert (await served.ask())[0] == 200
    found = await device(served)
    assert (found["telemetry"], found["energy"], found["age"]) == (None, None, None)
    assert "energy_joules" not in (await served.ask())[1]["usage"]


async def test_a_hot_board_slows_the_engine_and_answers_are_whole(serve):
    board = Board(tj=84.0)
    served = await serve(lambda prompt: "word " * 60, settings=QUICK, source=board)
    await becomes(served, lambda found: found["governor"]["level"] == "warm")
    board.values["tj"] = 91.0
    found = await becomes(served, lambda found: found["governor"]["duty"] < 0.5)
    assert found["governor"]["because"] == "heat"
    status, answer = await served.ask()
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "word " * 60)


async def test_above_the_pause_nothing_is_let_in_what_runs_waits_and_goes_on_when_it_is_cool(serve):
    gate, board = threading.Event(), Board()
    served = await serve(lambda prompt: "word " * 20, settings=QUICK, source=board, gate=gate)
    asking = asyncio.create_task(served.ask())
    await until(lambda: served.begun == 1)
    board.values["tj"] = 97.0
    await becomes(served, lambda found: found["governor"]["level"] == "critical")
    gate.set()
    async with served.post({"messages": [{"role": "user", "content": "hi"}]}) as response:
        answer = await response.json()
        assert response.status == 503
        assert int(response.headers["Retry-After"]) >= 1
    assert "takes no interactive requests now (critical, duty 0.00 (heat), tj 97.0 C" in answer["error"]["message"]
    decodes = len(served.backend.decodes)
    reads = board.reads
    await until(lambda: board.reads > reads + 3)
    assert len(served.backend.decodes) <= decodes + 1, "it rests"
    assert not asking.done()
    board.values["tj"] = 60.0
    status, answer = await asking
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "word " * 20)


async def test_who_was_let_in_before_a_pause_and_waits_too_long_hears_of_the_heat(serve):
    gate, board = threading.Event(), Board()
    served = await serve(settings=QUICK, source=board, gate=gate)
    first = asyncio.create_task(served.ask())
    await until(lambda: served.begun == 1)
    waiting = [asyncio.create_task(served.ask(wait_seconds=3)) for _ in range(8)]
    board.values["tj"] = 97.0
    await becomes(served, lambda found: found["pending"] == 9 and found["governor"]["level"] == "critical")
    gate.set()
    told = [answer["error"]["message"] for status, answer in await asyncio.gather(*waiting) if status == 503]
    assert told
    for message in told:
        assert "takes no interactive requests now (critical, duty 0.00 (heat), tj 97.0 C" in message
    board.values["tj"] = 60.0
    assert (await first)[0] == 200


async def test_a_hot_board_refuses_the_background_and_answers_people(serve):
    served = await serve(settings=QUICK, source=Board(tj=89.5))
    await becomes(served, lambda found: found["governor"]["level"] == "hot")
    status, answer = await served.ask(priority="background")
    assert (status, answer["error"]["code"]) == (503, "unavailable")
    assert (await served.ask())[0] == 200


async def test_a_sensor_that_hangs_stalls_nobody_and_is_trusted_less(serve):
    board = Board()
    served = await serve(settings=QUICK, source=board)
    await becomes(served, lambda found: found["telemetry"] is not None)
    board.hang.clear()
    found = await becomes(served, lambda found: found["governor"]["because"] == "no telemetry")
    assert found["age"] > 0.5
    assert (await served.ask())[0] == 200
    board.hang.set()
    await becomes(served, lambda found: found["governor"]["because"] == "")


async def test_a_sensor_that_fails_is_told_in_its_own_words_until_it_answers(serve, caplog):
    board = Board()
    served = await serve(settings=QUICK, source=board)
    await becomes(served, lambda found: found["telemetry"] is not None)
    board.trouble = "The jtop service is not active. Start it."
    assert (await becomes(served, lambda found: found["trouble"]))["trouble"] == board.trouble
    board.trouble = None
    await becomes(served, lambda found: not found["trouble"])
    assert sum("The jtop service is not active" in line for line in caplog.messages) == 1, "said once"


async def test_a_new_engine_keeps_to_the_limits_of_the_old_one(serve):
    served = await serve(settings=QUICK, source=Board(tj=89.5))
    await becomes(served, lambda found: found["governor"]["level"] == "hot")
    await until(lambda: served.backend.used_threads == 2)
    served.engines[0].kill()
    await until(lambda: len(served.engines) == 2 and served.supervisor.state == "ready")
    assert (await served.ask())[0] == 200
    assert served.backend.used_threads == 2, "before its first answer"


async def test_a_governor_that_fails_leaves_the_device_with_little_and_says_whose_bug_it_is(serve, monkeypatch, caplog):
    def fails(*_):
        raise ZeroDivisionError("of the test")

    monkeypatch.setattr("qwen_edge.service.thermal.govern", fails)
    served = await serve(settings=QUICK, source=Board())
    found = await becomes(served, lambda found: found["governor"]["duty"] < 1.0)
    assert "this is a bug in qwen-edge" in found["trouble"]
    assert (await served.ask())[0] == 200
    reads = (await device(served))["telemetry"]["at"]
    await becomes(served, lambda found: found["telemetry"]["at"] > reads)
    assert sum("the governor failed" in line for line in caplog.messages) == 1, "once, not every second"


async def test_an_answer_tells_its_joules_and_metrics_tell_whose(serve):
    board = Board()
    served = await serve(lambda prompt: "word " * 40, settings=QUICK, source=board, keys=Keys({"secret": "sensor-7"}))
    headers = {"Authorization": "Bearer secret"}
    body = {"messages": [{"role": "user", "content": "x" * 2000}]}
    reads = board.reads
    await until(lambda: board.reads > reads + 3)  # the idle floor
    board.values["watts"] = 25.0
    usage = {}
    while not usage.get("energy_joules"):  # the first answers may be over before there was a sample
        async with served.post(body, headers=headers) as response:
            usage = (await response.json())["usage"]
    assert usage["tokens_per_joule"] == pytest.approx(usage["completion_tokens"] / usage["energy_joules"])
    reads = board.reads
    await until(lambda: board.reads > reads + 2)
    async with served.http.get(f"{served.address}/metrics", headers=headers) as response:
        page = await response.text()
    assert 'qwen_edge_client_energy_joules_total{client="sensor-7"}' in page
    for line in (
        'qwen_edge_energy_joules_total{phase="prefill"}',
        'qwen_edge_energy_today_joules{phase="decode"}',
        'qwen_edge_client_energy_today_joules{client="sensor-7"}',
        'qwen_edge_temperature_celsius{zone="cpu"} 40.0',
        "qwen_edge_board_power_watts 25.0",
        'qwen_edge_device_level{level="nominal"} 1.0',
        "qwen_edge_duty_ratio 1.0",
        "qwen_edge_telemetry_age_seconds",
        "qwen_edge_telemetry_trouble 0.0",
        "qwen_edge_sensors_missing 0.0",
        "qwen_edge_idle_watts",
    ):
        assert line in page, line


async def test_a_client_over_its_budget_is_turned_away_with_the_time_and_others_are_not(serve):
    board = Board(watts=5.0)
    settings = "device: {interval_seconds: 0.5, joules_per_hour: {greedy: 0.001}}\n"
    served = await serve(lambda prompt: "word " * 40, settings=settings, source=board)
    reads = board.reads
    await until(lambda: board.reads > reads + 3)
    board.values["watts"] = 500.0
    status = 200
    while status == 200:
        async with served.post({"messages": [{"role": "user", "content": "x" * 500}], "user": "greedy"}) as response:
            status, answer = response.status, await response.json()
            after = response.headers.get("Retry-After")
    assert (status, answer["error"]["code"]) == (429, "energy_budget_exceeded")
    assert after is not None and int(after) > 60
    assert "greedy has spent more energy" in answer["error"]["message"]
    assert (await served.ask(user="modest"))[0] == 200


async def test_whose_request_it_was_is_known_for_a_while_and_not_for_ever(serve):
    served = await serve()
    for _ in range(300):
        assert (await served.ask())[0] == 200
        async with served.http.get(f"{served.address}/v1/cache") as response:
            assert response.status == 200
    assert len(served.supervisor._requests._clients) <= 257
