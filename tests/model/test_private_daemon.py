"""A private daemon with a real model answers, and does not outlive the program that needs it."""

import signal
import subprocess
import sys

import psutil

from qwen_edge.client.private_daemon import private_daemon
from qwen_edge.client.server import servers_at

_PROGRAM = """
import asyncio, sys
from qwen_edge.client.private_daemon import private_daemon

async def main():
    async with private_daemon(sys.argv[1]):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_it_answers(tiny_model):
    async with private_daemon(tiny_model) as daemon, servers_at([daemon.url]) as (server,):
        assert await server.model() == tiny_model.stem
        children = psutil.Process().children(recursive=True)
    assert children
    assert not any(child.is_running() for child in children)


def test_it_ends_when_its_program_is_killed(tiny_model):
    with subprocess.Popen([sys.executable, "-c", _PROGRAM, str(tiny_model)], stdout=subprocess.PIPE) as program:
        assert program.stdout
        assert program.stdout.readline() == b"ready\n"
        children = psutil.Process(program.pid).children(recursive=True)
        program.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(children, timeout=20)
        assert not alive
