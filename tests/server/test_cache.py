"""What is remembered can be seen, forgotten and kept, over HTTP and from the command line."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from qwen_edge.auth.keys import Keys
from qwen_edge.cli import main
from qwen_edge.protocol.messages import InspectCache
from tests.waiting import until

LONG = "The lamp in the kitchen is on. " * 10


async def kept(served):
    async with served.http.get(f"{served.address}/v1/cache") as response:
        return (await response.json())["data"]


async def test_every_conversation_is_listed_with_its_last_words(serve):
    served = await serve(parallel=2)
    assert await kept(served) == []
    await served.ask(f"{LONG} first")
    await served.ask(f"{LONG} second")
    listed = await kept(served)
    assert len(listed) == 2
    assert any("second" in one["ends"] for one in listed)
    assert all(one["cached"] == one["tokens"] > len(LONG) for one in listed)


async def test_a_conversation_is_forgotten_and_what_others_share_stays(serve):
    served = await serve(parallel=2)
    await served.ask(f"{LONG} first")
    await served.ask(f"{LONG} second")
    (key,) = [one["key"] for one in await kept(served) if "first" in one["ends"]]
    async with served.http.delete(f"{served.address}/v1/cache/{key}") as response:
        assert response.status == 200
        (left,) = (await response.json())["data"]
    assert "second" in left["ends"]
    _, answer = await served.ask(f"{LONG} second")
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] > len(LONG)


async def test_a_pin_lasts_until_it_is_ended(serve):
    served = await serve()
    await served.ask(LONG)
    ((key,),) = [[one["key"] for one in await kept(served)]]
    url = f"{served.address}/v1/cache/{key}/pin"
    async with served.http.post(url, json={"hours": 2}) as response:
        (pinned,) = (await response.json())["data"]
    assert pinned["pinned_until"] > 0
    async with served.http.post(url, json={"hours": 0}) as response:
        (pinned,) = (await response.json())["data"]
    assert pinned["pinned_until"] == 0


async def test_a_pin_that_cannot_be_written_down_is_answered_honestly(serve):
    served = await serve()  # which keeps nothing on disk
    await served.ask(LONG)
    ((key,),) = [[one["key"] for one in await kept(served)]]
    url = f"{served.address}/v1/cache/{key}/pin"
    async with served.http.post(url, json={"hours": 2}) as response:
        assert "only as long as the engine lives" in (await response.json())["warning"]
    async with served.http.post(url, json={"hours": 0}) as response:
        assert "warning" not in await response.json()


@pytest.mark.parametrize(
    ("body", "asked"),
    [({}, [1]), ({"user": "id-1"}, [1]), ({"prompt_cache_key": "house"}, [2]), ({"user": "id-1", "n": 3}, [0, 0, 1])],
)
async def test_only_what_is_named_for_it_counts_as_asked_twice(serve, body, asked):
    served, submitted = await serve(parallel=4), []
    answer = served.supervisor.answer
    served.supervisor.answer = lambda request: submitted.append(request) or answer(request)
    assert (await served.ask(LONG, **body))[0] == 200
    assert sorted(request.asked for request in submitted) == asked


async def test_retention_of_a_day_pins_the_prompt(serve):
    served = await serve()
    await served.ask(LONG, prompt_cache_retention="24h")
    (one,) = await kept(served)
    assert one["pinned_until"] > 0


async def test_what_is_pinned_stays_when_others_have_to_go(serve):
    served = await serve(context=1000, parallel=2)
    await served.ask(LONG, prompt_cache_retention="24h")
    for number in range(20):
        await served.ask(f"{number} and other things: " * 15)
    _, answer = await served.ask(LONG)
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] > len(LONG)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("DELETE", "nonsense", None, 404, "No conversation is remembered as 'nonsense'"),
        ("POST", "nonsense/pin", {"hours": 1}, 404, "No conversation is remembered"),
        ("POST", "nonsense/pin", {"hours": -1}, 400, "hours"),
        ("POST", "nonsense/pin", {"days": 1}, 400, "days"),
        ("POST", "nonsense/pin", {"hours": "1"}, 400, "hours"),
        ("POST", "nonsense/pin", [], 400, "JSON object"),
    ],
)
async def test_what_cannot_be_done_is_told(serve, method, path, body, status, words):
    served = await serve()
    async with served.http.request(method, f"{served.address}/v1/cache/{path}", json=body) as response:
        assert response.status == status
        assert words in (await response.json())["error"]["message"]


@pytest.mark.parametrize("data", [b"", b"{}", b'{"hours": null}', b'{"hours": null, "days": null}'])
async def test_a_pin_that_does_not_say_for_how_long_is_for_a_day(serve, data):
    served = await serve()
    await served.ask(LONG)
    ((key,),) = [[one["key"] for one in await kept(served)]]
    async with served.http.post(f"{served.address}/v1/cache/{key}/pin", data=data) as response:
        assert response.status == 200, await response.text()
        (pinned,) = (await response.json())["data"]
    assert pinned["pinned_until"] - time.time() == pytest.approx(86400, abs=600)


async def test_a_pin_ignores_what_it_does_not_know_where_the_settings_say_so(serve, caplog):
    served = await serve(settings="  unknown_parameters: ignore\n")
    url = f"{served.address}/v1/cache/nonsense/pin"
    async with served.http.post(url, json={"hours": 1, "days": 1}) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (404, "not_found")
    assert "unknown parameters ignored: days" in caplog.text
    async with served.http.post(url, json={"hours": -1, "days": 1}) as response:
        assert response.status == 400


async def test_an_engine_that_sleeps_is_woken_to_tell(serve):
    served = await serve(idle=0.1)
    await until(lambda: served.supervisor.state == "asleep")
    assert await kept(served) == []
    assert len(served.engines) == 2


async def look(served) -> tuple[int, dict]:
    async with served.http.get(f"{served.address}/v1/cache") as response:
        return response.status, await response.json()


@pytest.fixture
def gate():
    """While it is closed, an engine that computes hangs."""
    gate = threading.Event()
    yield gate
    gate.set()


async def hung(serve, gate, **options):
    """A daemon whose engine computes and hears nothing, and the question it hangs at."""
    served = await serve(gate=gate, **options)
    asking = asyncio.create_task(served.ask())
    await until(lambda: served.begun == 1)
    return served, asking


def waiting_looks(served) -> int:
    return sum(isinstance(one.request, InspectCache) for one in served.supervisor._requests)


@pytest.mark.parametrize("how", ["dies", "is silent", "answers"])
async def test_who_gives_up_looking_at_an_engine_that_hangs_ends_nothing(serve, gate, how):
    served, asking = await hung(serve, gate, hang_seconds=0.8 if how == "is silent" else 30.0)
    looks = [asyncio.create_task(look(served)) for _ in range(5)]
    await until(lambda: waiting_looks(served) == 5)
    for one in looks:
        one.cancel()
    await until(lambda: waiting_looks(served) == 0)
    if how == "dies":
        served.engines[0].kill()
    if how != "is silent":
        gate.set()
    assert (await asking)[0] == (200 if how == "answers" else 503)
    gate.set()
    assert (await look(served))[0] == 200
    assert not served.task.done()
    assert (await served.ask())[0] == 200


async def test_ctrl_c_on_the_command_while_the_engine_hangs_and_dies_ends_only_the_command(serve, gate):
    served, asking = await hung(serve, gate)
    command = [sys.executable, "-m", "qwen_edge", "cache", "--url", served.address, "ls"]
    listing = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
    await until(lambda: waiting_looks(served) == 1)
    listing.send_signal(signal.SIGINT)
    assert (await listing.communicate())[1].endswith(b"qwen-edge: Interrupted.\n")
    assert listing.returncode == 130
    await until(lambda: waiting_looks(served) == 0)
    served.engines[0].kill()
    gate.set()
    assert (await asking)[0] == 503
    assert (await served.ask())[0] == 200
    assert (await served.health())[1]["restarts"] == 1


async def test_a_look_whose_engine_dies_is_answered_by_the_next(serve, gate):
    served, asking = await hung(serve, gate)
    looking = asyncio.create_task(look(served))
    await until(lambda: waiting_looks(served) == 1)
    served.engines[0].kill()
    gate.set()
    assert (await looking) == (200, {"object": "list", "data": []})
    await asking
    assert len(served.engines) == 2


async def test_a_look_that_two_engines_have_not_survived_is_told_why(serve, gate):
    served, asking = await hung(serve, gate)
    looking = asyncio.create_task(look(served))
    await until(lambda: waiting_looks(served) == 1)
    served.may_load.clear()
    served.engines[0].kill()
    gate.set()
    await until(lambda: len(served.engines) == 2)
    served.engines[1].kill()
    served.may_load.set()
    status, answer = await looking
    assert (status, answer["error"]["code"]) == (503, "engine_failed")
    assert "killed by SIGKILL" in answer["error"]["message"]
    await asking


async def test_a_look_while_the_old_engine_is_reaped_waits_for_the_next(serve):
    served = await serve()
    gone = threading.Event()
    served.engines[0].how_it_ended = lambda: "killed by SIGKILL" if gone.is_set() else None
    served.engines[0].kill()
    await until(lambda: served.supervisor.state == "reaping")
    looking = asyncio.create_task(look(served))
    await until(lambda: waiting_looks(served) == 1)
    gone.set()
    assert (await looking)[0] == 200


async def test_a_look_at_an_engine_that_leaves_is_answered_by_the_next(serve, monkeypatch):
    stays = threading.Event()
    monkeypatch.setattr("qwen_edge.engine.loop.Engine.leave", lambda *_: stays.wait())
    served = await serve(idle=0.1)
    await until(lambda: served.supervisor.state == "leaving")
    looking = asyncio.create_task(look(served))
    await until(lambda: waiting_looks(served) == 1)
    stays.set()
    assert (await looking)[0] == 200
    assert len(served.engines) == 2
    assert served.supervisor.restarts == 0


async def test_a_look_waits_for_an_engine_that_loads_and_not_for_ever(serve, monkeypatch):
    served = await serve()
    served.may_load.clear()
    served.engines[0].kill()
    await until(lambda: served.supervisor.state == "loading")
    monkeypatch.setattr("qwen_edge.supervisor.pending._INQUIRY_SECONDS", 0.1)
    status, answer = await look(served)
    assert (status, answer["error"]["code"]) == (503, "unavailable")
    monkeypatch.undo()
    looking = asyncio.create_task(look(served))
    await until(lambda: waiting_looks(served) == 1)
    served.may_load.set()
    assert (await looking)[0] == 200


async def run(capsys, *arguments: str) -> str:
    """The command, in a thread: it blocks."""
    await asyncio.to_thread(main, "cache", *arguments)
    return capsys.readouterr().out


async def test_the_command_lists_pins_and_removes(serve, capsys):
    served = await serve()
    url = ("--url", served.address)
    assert "Nothing is remembered" in await run(capsys, *url, "ls")
    await served.ask(f"{LONG} [hello]")
    listed = json.loads(await run(capsys, *url, "ls", "--json"))
    key = listed[0]["key"]
    shown = await run(capsys, *url, "ls")
    assert key in shown
    assert "[hello]" in shown
    assert "48.0 h" in await run(capsys, *url, "pin", key, "--hours", "48")
    assert "Nothing is remembered" in await run(capsys, *url, "rm", key)


async def test_the_command_sends_a_key_and_tells_when_it_is_needed(serve, capsys, monkeypatch):
    served = await serve(keys=Keys({"secret": "one"}))
    with pytest.raises(SystemExit):
        await asyncio.to_thread(main, "cache", "--url", served.address, "ls")
    assert "API key" in capsys.readouterr().err
    monkeypatch.setenv("QWEN_EDGE_API_KEY", "secret")
    assert "Nothing is remembered" in await run(capsys, "--url", served.address, "ls")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense"])
def test_without_a_daemon_the_command_says_so(capsys, url):
    with pytest.raises(SystemExit):
        main("cache", "--url", url, "ls")
    assert "There is no qwen-edge at" in capsys.readouterr().err
