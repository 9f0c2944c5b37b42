"""The engine on an asynchronous device: an RPC server of llama.cpp beside the process (../shared/tools/rpc_device).

Runs where QE_RPC_PYTHON names a Python whose llama-cpp-python has RPC compiled in, with the folder's sitecustomize.py.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.model.conftest import DEMO, converted

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("QE_RPC_PYTHON", "")

pytestmark = pytest.mark.skipif(not PYTHON, reason="QE_RPC_PYTHON names no Python with an RPC device")

BEGIN = """
import json, sys, time
from qwen_edge.llama.backend import LlamaBackend
from qwen_edge.llama.bindings import C
from qwen_edge.llama.devices import list_devices
from qwen_edge.engine.loop import Engine
from qwen_edge.kv.slice import Slice
from qwen_edge.protocol.messages import *
def load(layers, **changes):
    fields = dict(context=2048, batch=128, threads=1, kv_type="f16", flash_attention="off", parallel=4)
    return Load(model=sys.argv[1], gpu_layers=layers, beat_seconds=5.0, **{**fields, **changes})
"""

DECODES = """
backend = LlamaBackend(load(-1), lambda _: None)
backend.warm_up()
def left(count, logits):
    # of the time of a decode, what the device needs after it: it answers when all before has been done
    began = time.perf_counter()
    backend.decode([Slice(0, 0, list(range(5, 5 + count)), logits)])
    between = time.perf_counter()
    list_devices()
    answered = time.perf_counter()
    list_devices()
    idle = time.perf_counter() - answered
    backend.cells.forget(0, 0, -1)
    return (answered - between - idle) / (between - began)
left = [min(left(count, logits) for _ in range(5)) for count, logits in ((100, 1), (100, 0), (1, 1))]
print(json.dumps({"layers": backend.ready().gpu_layers, "left": left}))
"""

ANSWERS = """
said = {}
for layers in (0, -1):
    backend = LlamaBackend(load(layers, batch=0), lambda _: None)
    engine = Engine(backend)
    words = "The lamp in the kitchen is on and the door of the garage is closed. "
    for number in range(1, 5):
        prompt = (Segment("<|im_start|>", True), Segment(f"user {number}. " + words * 8 * number))
        engine.submit(Submit(number, prompt, Sampling(temperature=0.0, ignore_eos=True), 40, 1e9))
    texts = {}
    while engine.busy:
        for event in engine.step():
            if isinstance(event, Tokens):
                texts[event.id] = texts.get(event.id, "") + event.text
    ready = backend.ready()
    said[layers] = {"texts": texts, "layers": ready.gpu_layers, "batch": backend.batch, "room": backend.cells.room}
    backend.close()
print(json.dumps(said))
"""

SHORT = """
import resource
backend = LlamaBackend(load(-1, context=8192), lambda _: None)
context = backend.cells
context.decode([Slice(0, 0, list(range(5, 105)), 1)])
before = context.logits(99).copy()
pid = C._qe_device.pid
size = next(int(line.split()[1]) for line in open(f"/proc/{pid}/status") if line.startswith("VmSize")) << 10
resource.prlimit(pid, resource.RLIMIT_AS, (size + (1 << 20),) * 2)
grown = context.make_room(8192)
context.forget(0, 99, -1)
context.decode([Slice(0, 99, [104], 1)])
same = int(context.logits(0).argmax()) == int(before.argmax())
print(json.dumps({"grown": grown, "room": context.room, "same": same}))
"""


def run(model: Path, code: str) -> dict:
    environment = {**os.environ, "QE_RPC": "1", "PYTHONPATH": str(ROOT)}
    command = [PYTHON, "-c", BEGIN + code, str(model)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return converted(DEMO, tmp_path_factory.mktemp("models") / "demo.gguf")


def test_when_a_decode_returns_the_device_has_nothing_left_to_do(model):
    seen = run(model, DECODES)
    assert seen["layers"] > 0
    assert max(seen["left"]) < 0.5, "as long again and more, where nobody waits for it"


def test_a_gpu_says_what_the_cpu_says_also_when_its_cache_grows(model):
    said = run(model, ANSWERS)
    assert said["0"]["texts"] == said["-1"]["texts"]
    assert (said["0"]["layers"], said["0"]["batch"], said["-1"]["batch"]) == (0, 128, 512)
    assert said["-1"]["layers"] > 0
    assert said["-1"]["room"] > 512


def test_a_device_without_memory_keeps_the_cache_it_has(model):
    seen = run(model, SHORT)
    assert seen == {"grown": False, "room": 512, "same": True}
