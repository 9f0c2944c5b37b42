"""The benchmark measures real servers over HTTP, and says what it has seen."""

import asyncio
import json
import sys
import xml.etree.ElementTree as ET

import aiohttp
import pytest

from qwen_edge.bench import workloads
from qwen_edge.bench.article_table import article_table
from qwen_edge.bench.measure import Plan, measure
from qwen_edge.bench.plot import draw
from qwen_edge.bench.report import Results
from qwen_edge.bench.server_processes import wait_until_idle
from qwen_edge.bench.smart_home_prompt import QUESTIONS, ROOMS, home_prompt
from qwen_edge.bench.workloads import WORKLOADS
from qwen_edge.client.server import Answer, Server
from qwen_edge.core.errors import UserError


async def test_every_workload_gives_its_figures_for_every_server(serve, monkeypatch):
    monkeypatch.setattr(workloads, "_READING", 0.0)
    served = await serve(lambda prompt: "some words " * 5, context=1 << 16, parallel=4)
    served.backend.batch = 4096
    done: list[str] = []
    results = await measure([served.address, served.address + "/"], Plan(list(WORKLOADS), 1, 1), done.append)
    assert len(done) == 2 * len(WORKLOADS)
    for row in results.rows:
        assert set(row.runs) == {served.address, served.address + "/"}
        assert all(value > 0 for runs in row.runs.values() for value in runs), row
    assert {row.workload for row in results.rows} == {*WORKLOADS, "after all of it"}
    assert json.loads(json.dumps(results.as_json()))["servers"] == results.servers
    ET.fromstring(draw(results))


async def test_what_a_server_refuses_is_told_in_its_own_words(serve):
    served = await serve(context=64)
    with pytest.raises(UserError, match=r"answers 400.*context holds 64 tokens"):
        await measure([served.address], Plan(["one question"], 1, 1), lambda said: None)


async def test_8k_is_a_prompt_that_nearly_fills_8192_tokens_with_its_answer(serve):
    served = await serve(lambda prompt: "some words " * 5, context=8192)
    served.backend.batch = 4096
    results = await measure([served.address], Plan(["8K context"], 3, 1), lambda said: None)
    longest = max(position + length for batch in served.backend.decodes for position, length in batch)
    assert 8192 - 150 < longest <= 8192
    assert results.median("8K context", "8K supported", served.address) == 1.0
    assert [len(row.runs[served.address]) for row in results.rows if row.workload == "8K context"] == [1, 1]


@pytest.mark.parametrize("context", [8000, 512], ids=["the 8K", "even what is counted before"])
async def test_a_server_that_refuses_8k_does_not_end_the_bench(serve, context):
    served = await serve(lambda prompt: "some words " * 5, context=context)
    served.backend.batch = 4096
    results = await measure([served.address], Plan(["8K context", "relativity"], 1, 1), lambda said: None)
    assert results.median("8K context", "8K supported", served.address) == 0.0
    assert results.median("8K context", "first token, s", served.address) is None
    assert results.median("relativity", "tokens/s", served.address)
    ET.fromstring(draw(results))


async def test_nothing_of_a_question_in_a_row_is_in_the_cache(serve):
    prompts: list[str] = []

    def answer(prompt: str) -> str:
        prompts.append(prompt)
        return "some words"

    served = await serve(answer, context=1 << 16)
    served.backend.batch = 4096
    results = await measure([served.address], Plan(["questions in a row"], 3, 1), lambda said: None)
    asked = [prompt for prompt in prompts if len(prompt) > 500]
    assert len(asked) == len(set(asked)) == 30
    computed = sum(length for batch in served.backend.decodes for _, length in batch)
    assert computed > 0.95 * sum(len(prompt.encode()) for prompt in asked)
    figures = {row.figure for row in results.rows if row.workload == "questions in a row"}
    assert figures == {"first token, s", "the same of the first 8, s", "95 % / median"}


@pytest.mark.parametrize(("work", "again"), [("home, clock on top", 3), ("home, volatile", 0)])
async def test_a_home_whose_clock_is_marked_is_computed_once(serve, monkeypatch, work, again):
    monkeypatch.setattr(workloads, "_READING", 0.0)
    served = await serve(lambda prompt: "some words", context=1 << 16)
    served.backend.batch = 4096
    results = await measure([served.address], Plan([work], 1, 1), lambda said: None)
    assert results.median(work, "later questions: first token, s", served.address) is not None
    computed = sum(length for batch in served.backend.decodes for _, length in batch)
    home = len(home_prompt(list(ROOMS), 0, marked=False).encode())
    assert (1 + again) * home < computed < (1 + again) * home + 4096


def test_a_home_differs_from_minute_to_minute_between_its_marks_only():
    rooms = list(ROOMS)
    assert 1400 < len(home_prompt(rooms, 0, marked=False).split()) < 1600
    moments = [home_prompt(rooms, minute, marked=True).split("\n</volatile>\n") for minute in range(len(QUESTIONS))]
    assert len({now for now, _ in moments}) == len(QUESTIONS)
    assert len({home for _, home in moments}) == 1
    for minute, (now, home) in enumerate(moments):
        assert home_prompt(rooms, minute, marked=False) == now.removeprefix("<volatile>\n") + "\n" + home


async def test_memory_that_is_known_of_one_server_only_is_left_out(serve, monkeypatch):
    served = await serve(lambda prompt: "some words " * 5)
    urls = [served.address, served.address + "/"]
    sizes = iter([1 << 20, None])
    monkeypatch.setattr("qwen_edge.bench.measure.memory_bytes", lambda url: next(sizes))
    results = await measure(urls, Plan(["relativity"], 1, 1), lambda said: None)
    assert {row.workload for row in results.rows} == {"relativity"}
    assert results.table().row_count == 2
    ET.fromstring(draw(results))


BURNING = """
import socket, sys, threading
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
told = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), told.set()), daemon=True).start()
while not told.is_set():
    sum(range(10_000))
told.clear()
told.wait()
"""


async def test_no_server_is_asked_while_another_one_computes():
    pipe = asyncio.subprocess.PIPE
    busy = await asyncio.create_subprocess_exec(sys.executable, "-c", BURNING, stdin=pipe, stdout=pipe)
    assert busy.stdin and busy.stdout
    try:
        url = f"http://127.0.0.1:{int(await busy.stdout.readline())}"
        await asyncio.wait_for(wait_until_idle([url]), 1.0)  # alone it disturbs nobody
        waiting = asyncio.create_task(wait_until_idle([url, "http://127.0.0.1:9"]))
        done, _ = await asyncio.wait([waiting], timeout=2.0)
        assert not done
        busy.stdin.write(b"enough\n")
        await busy.stdin.drain()
        await waiting
    finally:
        busy.kill()
        await busy.wait()


async def test_who_waits_for_the_beginning_of_an_answer_that_fails_goes_on(serve):
    served = await serve(context=64)
    begun = asyncio.Event()
    async with aiohttp.ClientSession() as http:
        with pytest.raises(UserError):
            await Server(served.address, http).ask("x" * 100, begun=begun)
    assert begun.is_set()


async def test_one_token_without_text_is_an_answer_whose_prompt_is_counted(serve):
    served = await serve(lambda prompt: "<think>\nHm.\n</think>\n\nYes.")
    async with aiohttp.ClientSession() as http:
        server = Server(served.address, http)
        assert await server.prompt_tokens("hello") == await server.prompt_tokens("hi") + 3


async def test_a_server_that_is_not_there_is_named():
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:1/v1/models"):
        await measure(["http://127.0.0.1:1"], Plan(["relativity"], 1, 1), lambda said: None)


async def test_an_answer_is_counted_in_the_servers_own_tokens(serve):
    served = await serve(lambda prompt: "x" * 20)
    async with aiohttp.ClientSession() as http:
        answer = await Server(served.address, http).ask("hi", max_tokens=10)
    assert (answer.tokens, len(answer.at)) == (10, 10)
    assert answer.first <= answer.at[-1]


def test_speed_and_gap_are_those_of_the_stream():
    answer = Answer((1.0, 1.1, 1.6, 1.7), tokens=8, prompt_tokens=5)
    assert answer.first == 1.0
    assert answer.speed == pytest.approx(10.0)
    assert answer.longest_gap == pytest.approx(0.5)


def test_ratios_are_taken_run_by_run():
    results = Results(["ours", "theirs"])
    for mine, theirs in ((10.0, 5.0), (20.0, 10.0), (9.0, 3.0)):
        results.add("work", "ours", {"tokens/s": mine})
        results.add("work", "theirs", {"tokens/s": theirs})
    (row,) = results.rows
    assert row.median("ours") == 10.0
    assert row.ratio("ours", "theirs") == 2.0
    assert row.more_is_better


def test_a_figure_that_one_server_lacks_is_left_out_of_rows_and_told_where_it_is_known():
    results = Results(["ours", "theirs"])
    results.add("8K context", "ours", {"8K supported": 1.0, "first token, s": 60.0})
    results.add("8K context", "theirs", {"8K supported": 0.0})
    assert [(row.workload, row.figure) for row in results.rows] == [("8K context", "8K supported")]
    assert results.table().row_count == 1
    assert results.median("8K context", "first token, s", "ours") == 60.0
    assert results.median("8K context", "first token, s", "theirs") is None


def test_two_zeroes_are_equal():
    results = Results(["ours", "theirs"])
    for server in results.servers:
        results.add("8K context", server, {"8K supported": 0.0})
    assert results.rows[0].ratio("ours", "theirs") == 1.0


def test_the_articles_table_has_a_line_for_each_server_and_a_dash_for_what_is_not_known():
    results = Results(["ours", "theirs"])
    for first in (0.1, 0.3, 0.2):
        results.add("relativity", "ours", {"first token, s": first, "tokens/s": 25.0})
    results.add("start", "ours", {"load time, s": 1.8})
    results.add("8K context", "ours", {"8K supported": 1.0})
    results.add("8K context", "theirs", {"8K supported": 0.0})
    cells = [list(column.cells) for column in article_table(results).columns]
    assert list(zip(*cells, strict=True)) == [
        ("ours", "1.80", "200", "25.00", "-", "yes"),
        ("theirs", "-", "-", "-", "-", "no"),
    ]
