"""`qwen-edge serve` as a process with a real engine: ready, killed, hung, stopped, refused."""

import itertools
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
import pytest

from tests.model.conftest import with_values
from tests.served import ServedModel

pytestmark = pytest.mark.model


def wait_for(condition) -> None:
    while not condition():
        threading.Event().wait(0.02)


@pytest.fixture(scope="module")
def served(tiny_model):
    with ServedModel(tiny_model, "--context", "1024", "--threads", "1") as served:
        yield served


def test_one_line_says_address_model_context_memory_and_time(served):
    assert "http://127.0.0.1:" in served.line
    assert "tiny" in served.line
    assert "context 1024" in served.line
    assert " MB " in served.line
    assert "CPU, 1 threads" in served.line
    assert "ready in" in served.line


def test_the_same_seed_gives_the_same_answer(served):
    one, two, other = (served.ask("hi", max_tokens=20, seed=seed)["content"] for seed in (7, 7, 8))
    assert one == two
    assert one != other


def test_a_stream_and_a_whole_answer_agree(served):
    whole = served.ask("hello", max_tokens=20, temperature=0)["content"]
    assert served.streamed("hello", ends="length", max_tokens=20, temperature=0) == ("", whole)


def test_a_warm_prefix_changes_nothing(served):
    cold = served.ask("a completely different question", max_tokens=20, temperature=0)
    served.ask("a completely different answer", max_tokens=3)
    warm = served.ask("a completely different question", max_tokens=20, temperature=0)
    assert warm["usage"]["prompt_tokens_details"]["cached_tokens"] > 20
    assert warm["content"] == cold["content"]


def test_a_killed_engine_is_replaced(tiny_model):
    with ServedModel(tiny_model, "--context", "512", "--threads", "1") as served:
        first = served.engine.pid
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: served.get("/health")[1]["restarts"] == 1 and served.get("/health")[0] == 200)
        assert served.engine.pid != first
        assert served.ask("hi", max_tokens=2)["finish_reason"] == "length"
        why = "killed by SIGKILL, as the kernel does when memory runs out"
        assert served.get("/health")[1]["last_death"] == why
        assert any(f"engine died: {why}" in line for line in served.log)


def test_an_engine_that_hangs_is_killed_and_replaced(tiny_model):
    settings = "engine: {hang_seconds: 1.0}\n"
    with ServedModel(tiny_model, "--context", "512", settings=settings) as served:
        os.kill(served.engine.pid, signal.SIGSTOP)
        wait_for(lambda: served.get("/health")[1]["restarts"] == 1 and served.get("/health")[0] == 200)
        assert re.fullmatch(r"silent for \d+ s", served.get("/health")[1]["last_death"])
        assert any("engine silent for" in line for line in served.log)


def test_a_machine_that_stands_still_loses_no_answer(tiny_model):
    """A container that is paused, a virtual machine that is copied: the daemon could not listen either."""
    settings = "engine: {hang_seconds: 1.0}\n"
    with ServedModel(tiny_model, "--context", "4096", "--threads", "1", settings=settings) as served:
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1000, "ignore_eos": True}
        chunks = served.stream(body)
        next(chunks)
        processes = [served.engine.pid, served.process.pid]
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        threading.Event().wait(2.5)
        for pid in reversed(processes):
            os.kill(pid, signal.SIGCONT)
        *_, last = chunks
        assert last["choices"][0]["finish_reason"] == "length"
        assert served.get("/health")[1]["restarts"] == 0


def test_an_engine_without_its_daemon_ends(tiny_model):
    with ServedModel(tiny_model, "--context", "512") as served:
        engine = served.engine
        served.process.kill()
        engine.wait(10)


@pytest.mark.parametrize("to_the_whole_group", [False, True])
def test_sigterm_finishes_the_running_answer(tiny_model, to_the_whole_group):
    """A service manager may send the signal to every process of the service."""
    with ServedModel(tiny_model, "--context", "4096", "--threads", "1") as served:
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 300, "seed": 1}
        chunks = served.stream(body)
        next(chunks)
        engine = served.engine
        served.process.send_signal(signal.SIGTERM)
        if to_the_whole_group:
            engine.send_signal(signal.SIGTERM)
        reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
        assert reasons[-1] in ("length", "stop")
        assert served.process.wait(10) == 0
        assert not psutil.pid_exists(engine.pid)


def refused(*arguments: str, code: int = 75) -> str:
    """What is said on stderr by a daemon that ends with `code`: 75 may mend itself, 2 and 78 do not (see errors.py)."""
    command = [sys.executable, "-m", "qwen_edge", "serve", "--port", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_a_file_that_is_no_model_ends_with_one_line(tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"nonsense" * 1000)
    assert refused("--model", str(tmp_path / "bad.gguf"), code=78).startswith("qwen-edge: The engine could not load")


def test_a_truncated_model_ends_with_one_line(tiny_model, tmp_path):
    (tmp_path / "cut.gguf").write_bytes(tiny_model.read_bytes()[:-100_000])
    assert "could not load" in refused("--model", str(tmp_path / "cut.gguf"), code=78)


@pytest.mark.parametrize("key", ["qwen3.block_count", "qwen3.rope.dimension_count"])
def test_a_model_that_llama_cpp_dies_of_is_not_loaded_again(tiny_model, tmp_path, key):
    file = with_values(tiny_model, tmp_path / "m.gguf", {key: 0})
    said = refused("--model", str(file), code=78)
    assert "died while it loaded the model: killed by SIGABRT. A restart would not help: " in said
    assert "make it again (qwen-edge convert)" in said


def test_a_context_of_no_tokens_ends_with_one_line(tiny_model, tmp_path):
    file = with_values(tiny_model, tmp_path / "m.gguf", {"qwen3.context_length": 0})
    assert "m.gguf say a context length of 0" in refused("--model", str(file), code=78)


@pytest.mark.parametrize(("fault", "code"), [(signal.SIGSEGV, 75), (signal.SIGKILL, 75)])
def test_an_engine_that_dies_over_a_sound_model_may_be_started_again(tiny_model, fault, code):
    """Of want of memory, of a driver: the file is tried on paper, and is not at fault."""
    command = [sys.executable, "-m", "qwen_edge", "serve", "--port", "0", "--model", str(tiny_model)]
    daemon = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: psutil.Process(daemon.pid).children())
    psutil.Process(daemon.pid).children()[0].send_signal(fault)
    said = daemon.communicate(timeout=60)[1].splitlines()
    assert daemon.returncode == code
    assert re.fullmatch(rf"qwen-edge: The engine died while it loaded the model: killed by {fault.name}.*\.", said[-1])
    assert "A restart would not help" not in said[-1]


def test_a_model_whose_path_is_no_text_ends_with_one_line(tiny_model, tmp_path):
    file = os.fsdecode(bytes(tmp_path) + b"/m\xff.gguf")
    Path(file).symlink_to(tiny_model)
    assert r"m\udcff.gguf cannot be used: its path is not UTF-8 text" in refused("--model", file, code=2)


def test_a_context_that_is_shorter_than_the_settings_say_is_one_line_at_the_start(tiny_model):
    with ServedModel(tiny_model, "--context", "1048576", "--threads", "1") as served:
        assert "context 4096" in served.line
        (line,) = [line for line in served.log if "engine.context" in line]
    assert "engine.context is 1048576 tokens, but the model was trained for 4096" in line


def test_a_whole_model_for_which_memory_is_short_may_be_loaded_later(tiny_model):
    code = (
        "import psutil, resource, sys\n"
        "from pathlib import Path\n"
        "from qwen_edge.llama.model import Model\n"
        "Model(Path(sys.argv[1]), simulate=True).close()\n"
        "most = psutil.Process().memory_info().vms + 100_000\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "try: Model(Path(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", code, str(tiny_model)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    assert said.startswith("EngineError llama.cpp could not load")
    assert "is there memory enough?" in said


def test_an_engine_that_hangs_while_it_loads_is_told_as_what_it_is(tiny_model):
    with tempfile.TemporaryDirectory() as folder:
        (settings := Path(folder) / "slow.yaml").write_text("engine: {load_seconds: 1.0}\nremember: {where: off}\n")
        command = [sys.executable, "-m", "qwen_edge", "serve", "--port", "0", "--model", str(tiny_model)]
        daemon = subprocess.Popen([*command, "-c", settings], stderr=subprocess.PIPE, text=True)
        wait_for(lambda: psutil.Process(daemon.pid).children())
        psutil.Process(daemon.pid).children()[0].suspend()
        said = daemon.communicate(timeout=60)[1].splitlines()
    assert daemon.returncode == 75
    assert re.fullmatch(
        r"qwen-edge: The engine died while it loaded the model: silent for \d+ s while loading\.", said[-1]
    )


def test_without_a_free_descriptor_clients_wait_and_a_dead_engine_is_replaced(tiny_model):
    with ServedModel(tiny_model, "--context", "512", "--threads", "1", descriptors=64) as served:
        assert any("64 file descriptors allow only 17 connections" in line for line in served.log)
        port = int(served.address.rpartition(":")[2])
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        taken = {int(file.name) for file in Path(f"/proc/{served.process.pid}/fd").iterdir()}
        free = next(number for number in itertools.count() if number not in taken)
        resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (free, 64))
        before = {one.pid for one in psutil.Process(served.process.pid).children()}
        os.kill(served.engine.pid, signal.SIGKILL)
        wait_for(lambda: any(one.pid not in before for one in psutil.Process(served.process.pid).children()))
        resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (64, 64))
        for one in silent:
            one.close()
        wait_for(lambda: _health(served)[0] == 200)
        assert served.get("/health")[1]["restarts"] == 1
        assert served.ask("hi", max_tokens=2)["finish_reason"] == "length"
        assert len(served.log) < 10
        assert not any("Traceback" in line for line in served.log)


def _health(served) -> tuple[int, dict]:
    try:
        return served.get("/health")
    except OSError:
        return 0, {}


def test_a_mistake_in_the_settings_ends_with_exit_code_2(tiny_model, tmp_path):
    (tmp_path / "bad.yaml").write_text("engin: {}")
    assert "there is no such setting" in refused("--model", str(tiny_model), "-c", str(tmp_path / "bad.yaml"), code=2)


def test_a_missing_model_is_named(tmp_path):
    assert "There is no model at" in refused("--model", str(tmp_path / "none.gguf"))


def test_a_port_in_use_is_named(served, tiny_model):
    port = served.address.rpartition(":")[2]
    words = refused("--model", str(tiny_model), "--port", port)
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use. Stop" in words


def test_a_gpu_that_is_required_and_not_used_is_an_error(tiny_model, tmp_path):
    (tmp_path / "gpu.yaml").write_text("engine: {require_gpu: true}")
    assert "require_gpu" in refused("--model", str(tiny_model), "-c", str(tmp_path / "gpu.yaml"), code=78)
