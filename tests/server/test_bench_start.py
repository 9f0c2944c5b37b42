"""The benchmark starts servers, measures how long they load, and leaves none behind."""

import asyncio
import json
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import psutil
import pytest

from qwen_edge.bench.measure import Plan, WaitTimes, measure
from qwen_edge.cli import main
from qwen_edge.client.server import Server
from qwen_edge.client.start_server import running
from qwen_edge.core.errors import UserError
from tests.waiting import until


class Small:
    """A command for small_server.py, and what can be known of it from outside."""

    def __init__(self, folder: Path, *options: object) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.command = [sys.executable, str(Path(__file__).with_name("small_server.py")), str(port), str(folder)]
        self.command += map(str, options)
        self.asked = folder / f"{port}.asked"
        self.pid = folder / f"{port}.pid"

    @property
    def runs(self) -> bool:
        try:
            return psutil.Process(int(self.pid.read_text())).status() != psutil.STATUS_ZOMBIE
        except (FileNotFoundError, psutil.NoSuchProcess):
            return False


@pytest.fixture
def small(tmp_path):
    return lambda *options: Small(tmp_path, *options)


async def load(server, *, work=(), load_seconds=60.0):
    plan = Plan(work, 1, 1, WaitTimes(load_seconds))
    return await measure([server.url], plan, lambda said: None, start=[server.command])


async def test_servers_load_one_after_the_other_and_are_gone_when_the_bench_ends(small):
    one, other = small(), small()

    def say(said):
        if said == f"start: {other.url}":
            assert one.asked.exists()
        if said.startswith("relativity"):
            assert one.runs
            assert other.runs

    urls = [one.url, other.url]
    results = await measure(urls, Plan(["relativity"], 1, 1), say, start=[one.command, other.command])
    row = results.rows[0]
    assert (row.workload, row.figure, set(row.runs)) == ("start", "load time, s", set(urls))
    assert not one.runs
    assert not other.runs


async def test_a_server_that_answers_503_while_it_loads_is_asked_again(small):
    server = small("--loading", 3)
    assert (await load(server)).median("start", "load time, s", server.url)


async def test_a_server_that_refuses_for_another_reason_is_not_waited_for(small):
    server = small("--broken")
    with pytest.raises(UserError, match=r"answers 500: .*not now"):
        await load(server)
    assert not server.runs


async def test_a_command_that_ends_early_is_told_with_its_status_and_its_last_lines(small):
    server = small()
    server.command = ["sh", "-c", "seq 100; echo no such model >&2; exit 3"]
    with pytest.raises(UserError, match=r"(?s)sh -c .* ended with exit code 3.*  100\n  no such model$") as error:
        await load(server)
    assert "  90\n" not in str(error.value)


async def test_a_command_that_goes_to_the_background_is_told_not_to(small):
    server = small()
    server.command = ["true"]
    with pytest.raises(UserError, match=r"true ended with exit code 0\. The command must stay in the foreground\."):
        await load(server)


async def test_a_command_that_is_killed_in_silence_is_told_as_that(small):
    server = small()
    server.command = ["sh", "-c", "kill -KILL $$"]
    with pytest.raises(UserError, match=r"killed by SIGKILL.* printed nothing"):
        await load(server)


async def test_a_server_that_never_gets_ready_is_given_up_and_stopped(small):
    server = small("--loading", 1 << 30)
    with pytest.raises(UserError, match=r"not answered within 0\.5 s.*--load-seconds"):
        await load(server, load_seconds=0.5)
    assert not server.runs


async def test_a_server_that_dies_at_its_work_is_told_with_its_last_lines(small):
    server = small("--dies-at", 1000)
    with pytest.raises(UserError, match=r"(?s)cannot be reached.*exit code 9.*out of memory, alas"):
        await load(server, work=["8K context"])


async def test_a_program_that_is_not_there_is_named(small):
    server = small()
    server.command = ["/no/such/program", "--port", "1"]
    with pytest.raises(UserError, match=r"^/no/such/program --port 1 cannot be started: No such file"):
        await load(server)


async def test_nothing_is_started_where_something_answers_already(small, serve):
    served, server = await serve(), small()
    with pytest.raises(UserError, match="answers before its server is started"):
        await measure([served.address], Plan([], 1, 1), lambda said: None, start=[server.command])
    assert not server.pid.exists()


async def test_a_url_that_is_none_is_not_waited_for(small):
    server = small()
    server.url = server.url.removeprefix("http://")
    with pytest.raises(UserError, match="is not the address of a server"):
        await load(server)
    assert not server.pid.exists()


async def test_what_takes_no_notice_of_sigterm_is_killed(small):
    server = small("--stubborn")
    async with aiohttp.ClientSession() as http:
        asked = Server(server.url, http)
        async with running(asked, server.command, grace=0.1) as child:
            await child.load(asked, 60)
            assert server.runs
    assert not server.runs


async def test_a_stop_that_is_interrupted_kills_at_once(small):
    server = small("--stubborn")
    async with aiohttp.ClientSession() as http:
        asked = Server(server.url, http)
        async with running(asked, server.command) as child:
            await child.load(asked, 60)
            stop = asyncio.create_task(child.stop(grace=1e6))
            await asyncio.sleep(0)
            stop.cancel()
            assert await child.ended == -signal.SIGKILL


async def test_what_a_command_leaves_behind_goes_with_it(small):
    server = small("--stubborn")
    server.command = ["sh", "-c", f"{shlex.join(server.command)} & wait"]
    await load(server)
    await until(lambda: not server.runs)


async def test_a_prompt_that_is_cut_is_no_support_of_8k(small):
    server = small("--cut", 4096)
    results = await load(server, work=["8K context"])
    assert results.median("8K context", "8K supported", server.url) == 0.0


async def test_a_server_that_counts_no_tokens_is_told_so(small):
    server = small("--cut", 0)
    with pytest.raises(UserError, match=r"does not report the length of a prompt in usage\.prompt_tokens"):
        await load(server, work=["8K context"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_an_interrupted_bench_leaves_no_server_behind(small, number):
    server = small("--loading", 1 << 30)
    command = [
        sys.executable,
        "-m",
        "qwen_edge",
        "bench",
        server.url,
        "--rest",
        "0",
        "--start",
        shlex.join(server.command),
    ]
    heard = signal.signal(number, signal.SIG_DFL)  # under nohup the bench would inherit that SIGHUP is ignored
    try:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(number, heard)
    with process as bench:
        asyncio.run(until(server.pid.exists))
        bench.send_signal(number)
        assert bench.stderr.read().splitlines()[-1] == "qwen-edge: Interrupted."
    assert bench.returncode == 130
    assert not server.runs


def test_the_articles_question_is_asked_ten_times_and_8k_once(small, capsys):
    server = small()
    main("bench", server.url, "--rest", "0", "--article", "--json", "--start", shlex.join(server.command))
    figures = json.loads(capsys.readouterr().out)["figures"]
    runs = {(one["workload"], one["figure"]): len(one["runs"][server.url]) for one in figures}
    assert runs[("relativity", "tokens/s")] == 10
    assert runs[("8K context", "8K supported")] == runs[("start", "load time, s")] == 1


def test_the_articles_table_is_printed(small, capsys):
    server = small()
    main("bench", server.url, "--rest", "0", "--article", "--repeat", "2", "--start", shlex.join(server.command))
    printed = capsys.readouterr()
    assert "yes" in printed.out.split(), "8K supported; the server's name may be folded into further lines"
    assert "relativity, 2 of 2" in printed.err
    assert "relativity, 3" not in printed.err


def test_8k_is_measured_only_where_it_is_asked_for(small, capsys):
    server = small()
    main("bench", server.url, "--rest", "0", "--repeat", "1", "--start", shlex.join(server.command))
    assert "8K" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--start", "a", "--start", "b"], "There are 2 --start commands and 1 URLs: give one command"),
        (["--start", "a 'b"], "No closing quotation; quote words as in a shell."),
        (["--start", ""], "the command is empty"),
        (["--load-seconds", "5"], "--load-seconds only applies to servers started with --start."),
        (["--article", "--work", "relativity"], "--article has its own workloads"),
    ],
    ids=["count", "quotation", "empty", "load-seconds alone", "article and work"],
)
def test_options_that_do_not_go_together_are_told_in_a_sentence(options, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        main("bench", "http://127.0.0.1:1", *options)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err
