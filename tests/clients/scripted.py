"""A daemon with a fake model that says what it is asked to say: `python -m tests.clients.scripted KEY`.

The engine's loop, the daemon and its port are real. The script of an answer is in the last message of the user that has
one, a line for each part:

    @think Hm.
    @say It is {"on": true}.
    @call set_light {"room": "kitchen"}
    @then
    @say It is on.

What stands behind `@then` is the answer to the next turn, when the conversation has one more message of the assistant.
`\\n` is a line break. `@words 500` says that many words. Without a script the answer is `Hello!`. The model thinks only
if the request says so. The process needs KEY of each request, prints one line with its address, and ends at SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from qwen_edge.auth.keys import Keys
from qwen_edge.config.load import parse_config
from qwen_edge.daemon.main import Daemon
from qwen_edge.daemon.sd_notify import Notifier
from qwen_edge.protocol.messages import Load
from qwen_edge.renderer.handle import Renderer
from qwen_edge.supervisor.limits import SupervisorLimits
from qwen_edge.supervisor.supervisor import Supervisor
from tests.fakes import FakeBackend, FakeEngineProcess

CONTEXT, BATCH, PARALLEL = 1 << 16, 1024, 4
SETTINGS = (
    "server: {port: 0, comment_seconds: 60}\nchat: {stop_loops: false, thinking: false}\nremember: {where: off}\n"
)
DEFAULT = "@say Hello!"

_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)(?=<\|im_end\|>\n|\Z)", re.DOTALL)
_LINE = re.compile(r"@(think|say|call|words|then)\b ?([^\n]*)")
_THINKS_NOT = "</think>\n\n"


def answer(prompt: str) -> str:
    """What the model answers to a rendered prompt."""
    turns = [(match[1], match[2]) for match in _TURN.finditer(prompt)] or [
        ("user", prompt)
    ]  # no template: a completion
    scripts = [number for number, (role, text) in enumerate(turns) if role == "user" and _LINE.search(text)]
    script = turns[scripts[-1]][1] if scripts else DEFAULT
    said = sum(role == "assistant" for role, _ in turns[scripts[-1] : -1]) if scripts else 0
    answers: list[list[tuple[str, str]]] = [[]]
    for what, text in _LINE.findall(script):
        if what == "then":
            answers.append([])
        else:
            answers[-1].append((what, text.replace("\\n", "\n")))
    thinks = not prompt.endswith(_THINKS_NOT)
    return "".join(_spoken(answers[min(said, len(answers) - 1)], thinks=thinks))


def _spoken(parts: list[tuple[str, str]], *, thinks: bool) -> Iterator[str]:
    for what, text in parts:
        if what == "say":
            yield text
        elif what == "words":
            yield "word " * int(text)
        elif what == "call":
            name, _, arguments = text.partition(" ")
            call = json.dumps({"name": name, "arguments": json.loads(arguments or "{}")}, ensure_ascii=False)
            yield f"<tool_call>\n{call}\n</tool_call>"
        elif thinks:
            yield f"<think>\n{text}\n</think>\n\n"


def main() -> None:
    (key,) = sys.argv[1:]
    may_load = threading.Event()
    may_load.set()

    def engine() -> FakeEngineProcess:
        return FakeEngineProcess(
            FakeBackend(answer, context=CONTEXT, batch=BATCH, parallel=PARALLEL, says_forced=True), may_load
        )

    load = Load("scripted.gguf", CONTEXT, BATCH, 1, 0, "f16", "off", 0.2, parallel=PARALLEL)
    supervisor = Supervisor(load, SupervisorLimits(load_seconds=30, hang_seconds=30), start=engine, memory=lambda _: 0)
    supervisor.spawn()
    renderer = Renderer()
    renderer.spawn()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "scripted.gguf"
        model.touch()
        daemon = Daemon(
            parse_config(SETTINGS, "scripted"),
            model,
            Keys({key: "clients"}, {key}),
            supervisor,
            Notifier({}),
            lambda: (None, "no sensors"),
            renderer=renderer,
        )
        asyncio.run(daemon.run(lambda line: print(line, flush=True)))


if __name__ == "__main__":
    main()
