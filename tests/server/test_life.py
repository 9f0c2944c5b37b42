"""Starting, dying, hanging, stopping: the daemon stays, and every client learns what became of its request."""

import asyncio
import errno
import json
import os
import signal
import socket
import threading

import aiohttp
import pytest

from qwen_edge.core.errors import EngineError, NotNowError
from qwen_edge.daemon.sd_notify import Notifier
from qwen_edge.protocol.messages import Load, Tuning
from qwen_edge.server.openai import encode as openai
from qwen_edge.supervisor.limits import SupervisorLimits
from qwen_edge.supervisor.supervisor import Supervisor
from tests.waiting import until

MESSAGES = [{"role": "user", "content": "hi"}]


async def test_health_is_ok_once_the_model_is_there(serve):
    served = await serve()
    assert await served.health() == (200, {"status": "ok", "restarts": 0, "pending": 0})


async def test_an_address_that_cannot_be_had_is_told_in_a_sentence(serve):
    with pytest.raises(NotNowError, match=r"Cannot listen on 192\.0\.2\.1:0: .*Stop what uses the port"):
        await serve(settings="  host: 192.0.2.1\n")


async def test_an_engine_that_dies_is_replaced_and_its_requests_fail_with_503(serve):
    gate = threading.Event()
    served = await serve(gate=gate)
    asking = asyncio.create_task(served.ask())
    await until(lambda: served.begun == 1)
    served.engines[0].kill()
    gate.set()
    status, answer = await asking
    assert (status, answer["error"]["code"]) == (503, "engine_failed")
    assert "killed by SIGKILL" in answer["error"]["message"]
    assert (await served.ask())[0] == 200
    assert await served.health() == (
        200,
        {"status": "ok", "restarts": 1, "pending": 0, "last_death": "killed by SIGKILL"},
    )


async def test_an_engine_that_has_died_is_not_taken_for_one_that_was_let_go(serve, monkeypatch):
    gate, size, may_reap = threading.Event(), [0], threading.Event()
    served = await serve(gate=gate, growth=1, memory=lambda pid: size[0])
    engine, supervisor = served.engines[0], served.supervisor
    reap = engine.how_it_ended
    monkeypatch.setattr(engine, "how_it_ended", lambda: reap() if may_reap.is_set() else None)
    asking = asyncio.create_task(served.ask())
    await until(lambda: served.begun == 1)
    size[0] = 2  # it has grown, and is let go as soon as nobody asks
    await until(lambda: supervisor._memory.exceeded)
    engine.kill()
    gate.set()
    await until(lambda: supervisor.state == "reaping")
    asking.cancel()
    await until(lambda: not supervisor.pending)
    size[0] = 0
    may_reap.set()
    await until(lambda: supervisor.state != "leaving" and supervisor.restarts == 1)
    assert supervisor.last_death == "killed by SIGKILL"


async def test_what_a_dying_engine_had_not_begun_is_answered_by_the_next(serve):
    gate = threading.Event()
    served = await serve(gate=gate, parallel=2)
    asking = [asyncio.create_task(served.ask(f"number {i}")) for i in range(6)]
    await until(lambda: served.supervisor.pending == 6 and served.begun)
    served.engines[0].kill()
    gate.set()
    statuses = [status for status, _ in await asyncio.gather(*asking)]
    begun = statuses.count(503)
    assert 1 <= begun <= 2
    assert statuses.count(200) == 6 - begun


async def test_a_request_that_waits_for_an_engine_waits_no_longer_than_for_anything_else(serve):
    served = await serve()
    served.may_load.clear()
    served.engines[0].kill()
    await until(lambda: served.supervisor.state == "loading")
    status, answer = await served.ask(wait_seconds=0.2)
    assert (status, "wait_seconds" in answer["error"]["message"]) == (503, True)
    served.may_load.set()
    assert (await served.ask())[0] == 200


async def test_an_engine_that_dies_again_and_again_is_given_a_pause_and_health_says_so(serve):
    served = await serve()
    for restarts in (1, 2, 3):
        served.engines[-1].kill()
        await until(lambda expected=restarts: served.supervisor.restarts == expected)
        if restarts < 3:
            await until(lambda: served.supervisor.state == "ready")
    status, health = await served.health()
    assert (status, health["status"], health["last_death"]) == (503, "restarting", "killed by SIGKILL")
    assert 1 < health["retry_in"] <= 2
    async with served.post({"messages": MESSAGES}) as response:
        answer = await response.json()
        assert (response.status, int(response.headers["Retry-After"])) == (503, 4)
    assert (
        "died 3 times without a minute of service in between (the last time: killed by SIGKILL)"
        in answer["error"]["message"]
    )
    await until(lambda: served.supervisor.state == "ready")
    assert (await served.ask())[0] == 200


async def test_an_engine_that_nobody_needs_goes_and_comes_back_with_the_next_request(serve):
    served = await serve(idle=1.0)
    assert (await served.ask())[0] == 200
    await until(lambda: served.supervisor.state == "asleep")
    assert served.supervisor.pid is None
    assert (await served.health()) == (200, {"status": "asleep", "restarts": 0, "pending": 0})
    answers = await asyncio.gather(*(served.ask(f"number {i}") for i in range(3)))
    assert [status for status, _ in answers] == [200] * 3
    assert len(served.engines) == 2


async def test_a_daemon_whose_engine_sleeps_is_alive_and_can_be_stopped(serve):
    served = await serve(idle=0.1)
    await until(lambda: served.supervisor.state == "asleep")
    assert served.supervisor.absence == 0
    os.kill(os.getpid(), signal.SIGTERM)
    await served.task


async def test_an_engine_that_has_grown_is_replaced_when_nobody_asks_and_nobody_notices(serve, caplog):
    gate, size = threading.Event(), [100]
    gate.set()
    served = await serve(gate=gate, growth=1000, memory=lambda pid: size[0])
    gate.clear()
    asking = asyncio.create_task(served.ask())
    await until(lambda: served.begun)
    size[0] = 2000
    await until(lambda: "more than its limit" in caplog.text)
    assert len(served.engines) == 1
    size[0] = 100
    gate.set()
    assert (await asking)[0] == 200
    assert (await served.ask())[0] == 200
    assert len(served.engines) == 2
    assert served.supervisor.restarts == 0


async def test_a_limit_below_what_the_engine_needs_is_logged_and_ignored(serve, caplog):
    served = await serve(growth=1000, memory=lambda pid: 5000)
    assert "engine.memory_limit_bytes (1000) is less than the 5000 bytes that the engine needs" in caplog.text
    assert (await served.ask())[0] == 200
    assert len(served.engines) == 1


async def test_a_running_stream_ends_with_an_error_event_when_the_engine_dies(serve):
    gate = threading.Event()
    gate.set()
    served = await serve(lambda prompt: "x" * 3000, gate=gate)
    async with served.post({"messages": MESSAGES, "stream": True}) as response:
        await response.content.readline()
        gate.clear()
        served.engines[0].kill()
        gate.set()
        rest = (await response.text()).strip().split("\n\n")
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "engine_failed"


async def test_requests_while_the_engine_is_replaced_wait_for_the_new_one(serve):
    served = await serve()
    served.engines[0].kill()
    answers = await asyncio.gather(*(served.ask(f"number {i}") for i in range(4)))
    assert [status for status, _ in answers] == [200] * 4


async def test_an_engine_that_hangs_is_killed_and_replaced(serve):
    gate = threading.Event()
    served = await serve(gate=gate, hang_seconds=0.8)
    status, answer = await served.ask()
    assert (status, answer["error"]["code"]) == (503, "engine_failed")
    assert "silent for 1 s" in answer["error"]["message"]
    assert served.supervisor.last_death == "silent for 1 s"
    gate.set()
    await until(lambda: served.supervisor.state == "ready")
    assert (await served.ask())[0] == 200


async def test_requests_of_an_engine_that_cannot_even_be_killed_fail_all_the_same(serve):
    gate = threading.Event()
    served = await serve(gate=gate, hang_seconds=0.8)
    served.engines[0].kill = lambda: None  # as a process that a driver holds
    status, answer = await served.ask()
    assert (status, answer["error"]["code"]) == (503, "engine_failed")
    await until(lambda: len(served.engines) == 2)
    gate.set()


async def test_a_machine_with_no_room_for_another_process_is_asked_again(serve):
    served = await serve()
    served.failing_starts.append(OSError(errno.EAGAIN, "Resource temporarily unavailable"))
    served.engines[0].kill()
    await until(lambda: len(served.engines) == 2 and served.supervisor.state == "ready")
    assert (await served.ask())[0] == 200
    assert served.supervisor.restarts == 2


async def test_a_machine_with_no_room_for_the_very_first_process_is_told():
    def full() -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    load = Load("fake.gguf", 512, 16, 1, 0, "f16", "off", 0.2)
    supervisor = Supervisor(load, SupervisorLimits(load_seconds=30, hang_seconds=30), start=full)
    supervisor.spawn()
    with pytest.raises(EngineError, match=r"the process cannot be started: .*Resource temporarily unavailable"):
        await supervisor.run()
    assert "cannot be started" in supervisor.last_death


async def test_an_error_of_ours_over_a_message_is_logged_and_ends_neither_engine_nor_daemon(serve, caplog):
    def broken(_: object) -> None:
        raise KeyError("a mistake of ours")

    served = await serve()
    served.supervisor.on_step = broken
    assert (await served.ask())[0] == 200
    assert "bug: a message of the engine could not be handled" in caplog.text
    assert "KeyError: 'a mistake of ours'" in caplog.text
    assert (await served.health())[1] == {"status": "ok", "restarts": 0, "pending": 0}


async def test_an_error_of_ours_in_the_watch_over_the_engine_is_logged_and_the_engine_replaced(serve, caplog):
    broken = [False]

    def memory(_pid: int) -> int:
        if broken[0]:
            broken[0] = False
            raise KeyError("a mistake of ours")
        return 0

    served = await serve(memory=memory)
    broken[0] = True
    await until(lambda: served.supervisor.restarts == 1 and served.supervisor.state == "ready")
    assert "bug: the engine is killed, because of an error in the daemon" in caplog.text
    assert "KeyError('a mistake of ours')" in (await served.health())[1]["last_death"]
    assert (await served.ask())[0] == 200


async def test_an_engine_in_doubt_is_not_called_ready_until_it_has_answered(serve):
    gate = threading.Event()
    served = await serve(gate=gate)
    for restarts in (1, 2):
        asking = asyncio.create_task(served.ask())
        await until(lambda: served.begun == 1)
        served.engines[-1].kill()
        await until(lambda expected=restarts: served.supervisor.restarts == expected)
        assert (await asking)[0] == 503
        await until(lambda: served.supervisor.state == "ready")
    gate.set()
    status, health = await served.health()
    assert (status, health["status"]) == (503, "failing")
    async with served.http.get(f"{served.address}/v1/device") as response:
        assert (await response.json())["engine"] == "failing"
    assert (await served.ask())[0] == 200
    assert (await served.health())[1]["status"] == "ok"


async def test_what_an_engine_has_measured_is_not_measured_by_the_next_one(serve):
    served = await serve(tuning=Tuning(threads=3))
    assert served.engines[0].load.measured == {}
    served.engines[0].kill()
    await until(lambda: served.supervisor.restarts and served.supervisor.state == "ready")
    assert served.engines[1].load.measured == {"here": Tuning(threads=3)}


async def test_engines_that_load_and_cannot_be_made_are_never_called_ready(serve, monkeypatch):
    served = await serve()

    def damaged(*_: object, **__: object) -> None:
        raise ValueError("bytes length not a multiple of item size")

    monkeypatch.setattr("qwen_edge.engine.main.Engine", damaged)
    seen = set()
    served.engines[0].kill()
    await until(lambda: served.supervisor.restarts)
    while served.supervisor.restarts < 3:
        seen.add((await served.health())[1]["status"])
    assert not seen & {"ok", "ready"}
    status, health = await served.health()
    assert (status, health["status"]) == (503, "restarting")
    assert health["last_death"] == (
        "this is a bug in qwen-edge: ValueError('bytes length not a multiple of item size')"
    )
    monkeypatch.undo()
    await until(lambda: served.supervisor.state == "ready")
    assert (await served.ask())[0] == 200


async def test_an_error_of_ours_in_a_stream_reaches_the_client_as_an_event(serve, monkeypatch):
    def broken(*_: object) -> None:
        raise KeyError("a mistake of ours")

    served = await serve()
    monkeypatch.setattr(openai.Encoder, "finish", broken)
    async with served.post({"messages": MESSAGES, "stream": True}) as response:
        rest = (await response.text()).strip().split("\n\n")
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "internal_error"
    monkeypatch.undo()
    assert (await served.ask())[0] == 200


async def test_an_idle_engine_gives_signs_of_life(serve):
    served = await serve(hang_seconds=0.8)
    for _ in range(20):
        await asyncio.sleep(0.1)
        assert served.supervisor.absence < 0.8
    assert len(served.engines) == 1


async def test_sigterm_finishes_what_runs_and_takes_nothing_new(serve):
    gate = threading.Event()
    served = await serve(gate=gate)
    asking = asyncio.create_task(served.ask())
    await until(lambda: served.supervisor.pending)
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: not _listens(served.address))
    gate.set()
    assert (await asking)[0] == 200
    await served.task


async def test_a_kept_connection_gets_503_while_stopping(serve):
    gate = threading.Event()
    served = await serve(gate=gate)
    await served.health()  # leaves a connection open
    asking = asyncio.create_task(served.ask())
    await until(lambda: served.supervisor.pending)
    await served.health()
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: not _listens(served.address))
    status, answer = await served.ask("another")
    assert (status, answer["error"]["code"]) == (503, "unavailable")
    gate.set()
    assert (await asking)[0] == 200


async def test_a_second_sigterm_stops_at_once(serve):
    gate = threading.Event()
    served = await serve(gate=gate)
    asking = asyncio.create_task(served.ask())
    await until(lambda: served.supervisor.pending)
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    await served.task
    gate.set()
    with pytest.raises(aiohttp.ClientError):
        await asking


async def test_systemd_hears_ready_watchdog_and_stopping(serve, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        served = await serve(notifier=Notifier(environment))
        heard = ""
        loop = asyncio.get_running_loop()
        while "WATCHDOG=1" not in heard or "READY=1" not in heard:
            heard += (await loop.sock_recv(listener, 4096)).decode() + "\n"
        assert "STATUS=http://127.0.0.1:" in heard
        os.kill(os.getpid(), signal.SIGTERM)
        while "STOPPING=1" not in heard:
            heard += (await loop.sock_recv(listener, 4096)).decode() + "\n"
        await served.task


async def test_the_watchdog_is_not_fed_while_the_engine_is_silent(serve, tmp_path):
    gate = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "800000"}
        served = await serve(notifier=Notifier(environment), gate=gate)
        asking = asyncio.create_task(served.ask())
        await until(lambda: served.supervisor.absence > 0.6)
        loop = asyncio.get_running_loop()
        with pytest.raises(BlockingIOError):
            while True:
                listener.recv(4096)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.sock_recv(listener, 4096), 0.5)
        gate.set()
        await asking


def _listens(address: str) -> bool:
    host, port = address.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0
