"""`qwen-edge chat` in a terminal, with a daemon, and with servers that behave badly."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from tests.pseudo_terminal import PseudoTerminal

Answering = Callable[[web.StreamResponse, dict[str, Any]], Awaitable[None]]


def event(value: Any) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def says(text: str = "", reason: str | None = None, **delta: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text, **delta}, "finish_reason": reason}]})


def saying(*pieces: bytes) -> Answering:
    async def answer(response: web.StreamResponse, _body: dict[str, Any]) -> None:
        for piece in pieces:
            await response.write(piece)
        await response.write(says(reason="stop") + b"data: [DONE]\n\n")

    return answer


class Stub:
    """A server of OpenAI's API whose answers are given one by one; `asked` are the bodies of the requests."""

    def __init__(self) -> None:
        self.answers: list[Answering | web.Response] = []
        self.asked: list[dict[str, Any]] = []
        self.url = ""
        self.dropped = asyncio.Event()  # a client has gone in the middle
        self.port = 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.url = f"http://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def hang(self, response: web.StreamResponse, _body: dict[str, Any]) -> None:
        await response.write(says("one two ") + says("three"))
        try:
            await asyncio.Event().wait()
        finally:
            self.dropped.set()

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "stub", "context_length": 100}, {"id": "other"}]})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        answer = self.answers.pop(0)
        if isinstance(answer, web.Response):
            return answer
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await answer(response, self.asked[-1])
        return response


@pytest.fixture
async def stub():
    server = Stub()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def chat(tmp_path):
    def start(*arguments: str, **environment: str) -> PseudoTerminal:
        state = {"XDG_STATE_HOME": str(tmp_path / "state")}
        return PseudoTerminal("chat", *arguments, environment={**state, **environment})

    return start


async def test_a_conversation_with_a_daemon_streams_goes_on_and_is_left(serve, chat):
    served = await serve(lambda prompt: "<think>\nso so\n</think>\n\n你好, I am well." if "how" in prompt else "Hello!")
    with chat(served.address) as terminal:
        assert "fake" in await terminal.prompt()
        terminal.send("hi\r")
        await terminal.until("Hello!")
        await terminal.prompt()
        terminal.send("how are you?\r")
        await terminal.until("thought for")
        await terminal.until("你好, I am well.")
        await terminal.prompt()
        terminal.send("/think show\r")
        await terminal.until("so so")
        terminal.send("/stats\r")
        await terminal.until("tokens/s")
        await terminal.until("of 4096 tokens")
        await terminal.prompt()
        terminal.send("\x04")
        assert await terminal.ended() == 0


async def test_ctrl_c_stops_the_answer_and_twice_leaves(stub, chat):
    stub.answers = [stub.hang, saying(says("fine"))]
    with chat(stub.url) as terminal:
        await terminal.prompt()
        terminal.send("count\r")
        await terminal.until("one two")
        terminal.send("\x03")
        await terminal.until("Stopped.")
        await stub.dropped.wait()
        await terminal.prompt()
        terminal.send("and?\r")
        await terminal.until("fine")
        said = [message["content"] for message in stub.asked[-1]["messages"]]
        assert said == ["count", "one two three", "and?"]  # what was answered stays
        await terminal.prompt()
        terminal.send("\x03")
        await terminal.until("Ctrl-C again leaves")
        await terminal.prompt()
        terminal.send("\x03")
        assert await terminal.ended() == 0


async def test_ctrl_c_stops_an_answer_that_comes_in_one_large_piece(stub, chat):
    stub.answers = [saying(says("begin " + "yes " * 1_000_000))]
    with chat(stub.url) as terminal:
        await terminal.prompt()
        terminal.send("much\r")
        await terminal.until("begin")
        terminal.send("\x03")
        await terminal.until("Stopped.")
        assert terminal.shown.count("yes") < 1_000_000


async def test_a_stopped_answer_counts_as_the_first_ctrl_c(stub, chat):
    stub.answers = [stub.hang]
    with chat(stub.url) as terminal:
        await terminal.prompt()
        terminal.send("count\r")
        await terminal.until("one two")
        terminal.send("\x03")
        await terminal.until("Ctrl-C again leaves")
        await terminal.prompt()
        terminal.send("\x03")
        assert await terminal.ended() == 0


async def test_a_server_that_dies_and_comes_again_costs_a_sentence(stub, chat):
    async def break_off(response: web.StreamResponse, _body: dict[str, Any]) -> None:
        await response.write(says("half an "))
        assert response._req  # type: ignore[attr-defined]
        response._req.transport.abort()  # type: ignore[attr-defined]

    stub.answers = [saying(says("Yes.")), break_off]
    with chat(stub.url) as terminal:
        await terminal.prompt()
        terminal.send("one?\r")
        await terminal.until("Yes.")
        await terminal.prompt()
        terminal.send("two?\r")
        await terminal.until("half an")
        await terminal.until(stub.url)
        await terminal.until(">>> two?")  # the question stands there again
        await stub.stop()
        terminal.send("\r")
        await terminal.until("Is the server running?")
        await terminal.until(">>> two?")
        stub.answers = [saying(says("Both."))]
        await stub.start()
        terminal.send("\r")
        await terminal.until("Both.")
        assert [message["content"] for message in stub.asked[-1]["messages"]] == ["one?", "Yes.", "two?"]


async def test_what_a_model_writes_never_controls_the_terminal(stub, chat):
    hostile = "\x1b]0;owned\x07 \x1b[2J\x9b31m\x1b[6n \r\u202eabc\b\x1bP1$r\x1b\\ "
    calls = [{"index": 0, "function": {"name": "f\x1b[1m", "arguments": '{"a":"\x1b[0m"}'}}]
    for_thinking = [says(reasoning_content=one) for one in hostile]
    stub.answers = [
        saying(*for_thinking, *map(says, hostile), says("```c\n\x1b[5m\n```\n"), says("safe", tool_calls=calls))
    ]
    stub.answers += [web.json_response({"error": {"message": f"no {hostile} good"}}, status=400)]
    with chat(stub.url) as terminal:
        await terminal.prompt()
        before = len(terminal.raw)
        terminal.send("go\r")
        await terminal.until("safe")
        await terminal.prompt()
        terminal.send("/think show\r")
        await terminal.prompt()
        terminal.send("again\r")
        await terminal.until("good")
        came = terminal.raw[before:].decode()
        for sequence in ("\x1b]", "\x1b[2J", "\x9b", "\x1b[6n", "\u202e", "\x1bP", "\x1b[5m", "\x07", "\x1b[1m"):
            assert sequence not in came
        assert "\\x1b]0;owned\\x07" in came
        assert "\\x1b[5m" in came


async def test_commands_change_what_is_asked(stub, chat, tmp_path):
    (tmp_path / "tools.json").write_text('[{"name": "light", "parameters": {"type": "object"}}]')
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    call = {"index": 0, "id": "c1", "function": {"name": "light", "arguments": '{"on": true}'}}
    stub.answers = [saying(says(tool_calls=[call])), saying(says("B")), saying(says("C")), saying(says("D"))]
    with chat(stub.url, "--temp", "0.5", "-n", "512", "-sys", "be short") as terminal:
        await terminal.prompt()
        for line, told in [
            (f"/tools {tmp_path}/tools.json", "may call: light"),
            ("/think off", "Thinking is off"),
            ("light on", 'light({"on": true})'),
            (f"/schema {tmp_path}/schema.json", "held to the schema"),
            ("and?", "B"),
            ("/retry", "C"),
            ("/tools off", "no functions"),
            ("/schema off", "no schema"),
            ("/system be long", "is set"),
            ("//slash", "D"),
            ("/hlep", "Did you mean /help?"),
            ("/schema /nothing", "cannot be read"),
        ]:
            terminal.send(line + "\r")
            await terminal.until("\n" + told if len(told) == 1 else told)
            await terminal.prompt()
    first, second, third, fourth = stub.asked
    assert (first["temperature"], first["max_tokens"]) == (0.5, 512)
    assert first["chat_template_kwargs"] == {"enable_thinking": False}
    assert first["tools"][0]["function"]["name"] == "light"
    assert first["messages"] == [{"role": "system", "content": "be short"}, {"role": "user", "content": "light on"}]
    assert [message["role"] for message in second["messages"]] == ["system", "user", "assistant", "tool", "user"]
    assert second["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert third == second
    assert not fourth.keys() & {"tools", "response_format"}
    assert (fourth["messages"][0]["content"], fourth["messages"][-1]["content"]) == ("be long", "/slash")


async def test_a_conversation_is_saved_and_loaded_and_no_file_is_overwritten_unasked(stub, chat, tmp_path):
    file = tmp_path / "talk.json"
    stub.answers = [saying(says(reasoning_content="hm"), says("Yes.")), saying(says("Indeed."))]
    with chat(stub.url) as terminal:
        await terminal.prompt()
        terminal.send("really?\r")
        await terminal.until("Yes.")
        await terminal.prompt()
        terminal.send(f"/save {file}\r")
        await terminal.until("2 messages are in")
        await terminal.prompt()
        file.write_text("mine")
        terminal.send(f"/save {file}\r")
        await terminal.until("Write over it?")
        terminal.send("n\r")
        await terminal.until("Nothing is written")
        assert file.read_text() == "mine"
        await terminal.prompt()
        terminal.send(f"/save {file}\r")
        await terminal.until("Write over it?")
        terminal.send("y\r")
        await terminal.until("2 messages are in")
        await terminal.prompt()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        terminal.send("/clear\r")
        await terminal.until("A new conversation")
        await terminal.prompt()
        terminal.send("/stats\r")
        await terminal.until("There is no answer yet")
        await terminal.prompt()
        terminal.send(f"/load {file}\r")
        await terminal.until("2 messages from")
        await terminal.prompt()
        terminal.send("sure?\r")
        await terminal.until("Indeed.")
    assert [message["content"] for message in stub.asked[-1]["messages"]] == ["really?", "Yes.", "sure?"]


async def test_several_lines_are_one_message_and_history_is_private(stub, chat, tmp_path):
    stub.answers = [saying(says(f"Answer {number}.")) for number in range(4)]
    with chat(stub.url) as terminal:
        await terminal.prompt()
        for number, keys in enumerate(("a\\\rb\r", "c\x1b\rd\r", "\x1b[200~e\nf\x1b[201~\r", "\x1b[A\r")):
            terminal.send(keys)
            await terminal.until(f"Answer {number}.")
            await terminal.prompt()
        terminal.send("\x04")
        await terminal.ended()
    assert [asked["messages"][-1]["content"] for asked in stub.asked] == ["a\nb", "c\nd", "e\nf", "e\nf"]
    history = tmp_path / "state" / "qwen-edge" / "chat_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


async def test_undo_gives_the_question_back_to_be_changed(stub, chat):
    stub.answers = [saying(says("One.")), saying(says("Two.")), saying(says("Three."))]
    with chat(stub.url, "-p", "/etc is a folder?", "-i") as terminal:
        await terminal.until("One.")
        await terminal.prompt()
        terminal.send("/retry\r")
        await terminal.until("Two.")
        await terminal.prompt()
        terminal.send("/undo\r")
        await terminal.until(">>> //etc is a folder?")
        terminal.send(" Really?\r")
        await terminal.until("Three.")
    asked = [[message["content"] for message in asked["messages"]] for asked in stub.asked]
    assert asked == [["/etc is a folder?"]] * 2 + [["/etc is a folder? Really?"]]


async def test_a_closed_terminal_ends_the_conversation(stub, chat):
    with chat(stub.url) as terminal:
        await terminal.prompt()
        terminal.process.send_signal(signal.SIGHUP)
        assert await terminal.ended() == 130


async def test_without_colours_there_are_none(stub, chat):
    stub.answers = [saying(says("```python\nimport os\n```\n"))]
    with chat(stub.url, NO_COLOR="1") as terminal:
        await terminal.prompt()
        terminal.send("code\r")
        await terminal.until("import os")
        await terminal.prompt()
        assert b"\x1b[3" not in terminal.raw
        assert b"38;5" not in terminal.raw


async def test_the_articles_command_asks_and_goes_on(stub, chat):
    stub.answers = [saying(says("我是小助手。")), saying(says("好。"))]
    with chat(stub.url, "-p", "你是谁?", "--temp", "0.5", "-n", "512", "--interactive") as terminal:
        await terminal.until("我是小助手。")
        await terminal.prompt()
        terminal.send("好吗\r")
        await terminal.until("好。")
    assert [message["content"] for message in stub.asked[-1]["messages"]] == ["你是谁?", "我是小助手。", "好吗"]


async def once(*arguments: str, asked: bytes = b"", **environment: str) -> tuple[int, str, str]:
    """Run `qwen-edge chat` as a script does; exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "qwen_edge",
        "chat",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    out, err = await process.communicate(asked)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_script_gets_the_answer_and_nothing_else(stub):
    stub.answers = [saying(says(reasoning_content="hm"), says("Yes\x1b[31m\u200f."))] * 3
    assert await once(stub.url, "-p", asked=b"is it?\n") == (0, "Yes\\x1b[31m\u200f.\n", "")
    assert await once(stub.url, asked="是吗?".encode()) == (0, "Yes\\x1b[31m\u200f.\n", "")
    assert (await once(stub.url, "-p", "Shorten:", "--no-think", asked=b"a text\n"))[0] == 0
    said = [asked["messages"] for asked in stub.asked]
    assert said == [[{"role": "user", "content": text}] for text in ("is it?", "是吗?", "Shorten:\n\na text")]


async def test_a_script_gets_one_json_object(stub):
    call = {"index": 0, "id": "c1", "function": {"name": "light", "arguments": "{}"}}
    usage = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}, "timings": {"predicted_n": 1}})
    stub.answers = [saying(says(reasoning_content="hm"), says("Yes\x1b."), says(tool_calls=[call]), usage)]
    code, out, err = await once(stub.url, "-p", "light", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert "\x1b" not in out
    assert (found["content"], found["reasoning"], found["finish_reason"]) == ("Yes\x1b.", "hm", "stop")
    assert found["tool_calls"] == [{"id": "c1", "type": "function", "function": {"name": "light", "arguments": "{}"}}]
    assert found["usage"] == {"prompt_tokens": 3, "completion_tokens": 1}
    assert found["timings"]["predicted_n"] == 1
    assert found["timings"]["seconds"] >= found["timings"]["first_token_seconds"]


@pytest.mark.parametrize(("status", "code"), [(400, 1), (401, 1), (404, 1), (500, 1), (503, 75), (429, 75)], ids=str)
async def test_the_exit_code_says_whether_to_ask_again(stub, status, code):
    stub.answers = [web.json_response({"error": {"message": "Not so."}}, status=status)]
    ended, out, err = await once(stub.url, "-p", "hi")
    assert (ended, out) == (code, "")
    assert err.startswith("qwen-edge: The server refuses: Not so.")
    assert ("QWEN_EDGE_API_KEY" in err) == (status == 401)


async def test_an_answer_that_breaks_off_is_no_success(stub):
    async def break_off(response: web.StreamResponse, _body: dict[str, Any]) -> None:
        await response.write(says("half"))

    fails = saying(says("half"), event({"error": {"message": "It died.", "code": "engine_failed"}}))
    stub.answers = [break_off, fails]
    assert (await once(stub.url, "-p", "hi"))[0] == 75
    code, out, err = await once(stub.url, "-p", "hi")
    assert (code, out) == (75, "half\n")
    assert "It died." in err


async def test_nobody_there_is_75_and_a_mistake_2():
    assert (await once("http://127.0.0.1:1", "-p", "hi"))[0] == 75
    for mistake in (
        ["-p"],
        ["-i", "-p", "hi"],
        ["--json", "-i"],
        ["-p", "x", "--temp", "9"],
        ["a", "-m", "b", "-p", "x"],
    ):
        code, out, err = await once(*mistake)
        assert (code, out) == (2, "")
        assert "Error: " in err
    assert (await once("-p", "x", "--schema", "/nothing"))[0] == 2
    assert (await once("http://127.0.0.1:1", asked=b"\xff"))[0] == 2


async def test_an_interrupted_script_ends_with_130(stub):
    stub.answers = [stub.hang]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "qwen_edge", "chat", stub.url, "-p", "hi"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    await process.stdout.readexactly(len("one two three"))
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130
    await stub.dropped.wait()


async def test_a_reader_that_has_enough_ends_the_script_quietly(stub):
    async def endless(response: web.StreamResponse, _body: dict[str, Any]) -> None:
        try:
            while True:
                await response.write(says("word\n" * 1000))
                await asyncio.sleep(0)
        finally:
            stub.dropped.set()

    stub.answers = [endless]
    command = f"{sys.executable} -m qwen_edge chat {stub.url} -p hi < /dev/null | head -n 1; echo ${{PIPESTATUS[0]}}"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert await process.communicate() == (b"word\n141\n", b"")
    await stub.dropped.wait()


@pytest.mark.parametrize(
    "nonsense",
    [b"data: {no json}\n\n", event({"choices": 5}), event({"choices": [{"delta": {"content": 7.5, "tool_calls": 3}}]})],
)
async def test_nonsense_from_a_server_is_a_sentence_and_the_conversation_goes_on(stub, chat, nonsense):
    stub.answers = [saying(says("so"), nonsense), saying(says("Fine."))]
    with chat(stub.url) as terminal:
        await terminal.prompt()
        terminal.send("hm?\r")
        await terminal.until("has sent")
        await terminal.until(">>> hm?")
        terminal.send("\r")
        await terminal.until("Fine.")
    assert [message["content"] for message in stub.asked[-1]["messages"]] == ["hm?"]
