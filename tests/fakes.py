"""Stand-ins that are small enough to be right: a model that says what a script tells it, and an engine in a thread."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

from qwen_edge.engine.huge_pages import HugePages
from qwen_edge.engine.main import Channel, serve
from qwen_edge.errors import EngineError
from qwen_edge.messages import Load, Ready, Sampling, Segment

END = 256
SPECIALS = {
    text: END + i
    for i, text in enumerate(
        ["<|im_end|>", "<|im_start|>", "<think>", "</think>", "<tool_call>", "</tool_call>", "<|endoftext|>"]
    )
}
_NAMES = {token: text for text, token in SPECIALS.items()}

# a template with the shape of Qwen3's, in a few lines
TEMPLATE = """
{%- if tools %}<|im_start|>tools
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>
{% endfor %}<|im_start|>assistant
{% if enable_thinking is false %}<think>

</think>

{% endif %}"""

Script = Callable[[str], str]


class FakeBackend:
    """A model whose tokens are bytes. What it says depends only on the cells of its KV cache, so that an engine that
    loses, repeats or misplaces a token makes it say something else."""

    def __init__(self, script: Script, *, context: int = 4096, batch: int = 16, gate: threading.Event | None = None):
        """`script` gets the prompt as text and returns the answer; with `gate`, no decode goes on until it is set."""
        self.script = script
        self.context = context
        self.batch = batch
        self.gate = gate
        self.cells: list[int] = []
        self.decodes: list[tuple[int, int]] = []  # position and length of each
        self.open_samplers = 0
        self.failing = False

    def tokenize(self, prompt: Sequence[Segment]) -> list[int]:
        ids: list[int] = []
        for segment in prompt:
            ids += [SPECIALS[segment.text]] if segment.special else list(segment.text.encode())
        return ids

    def decode(self, tokens: Sequence[int], position: int, *, logits: bool) -> None:
        if self.gate:
            self.gate.wait()
        assert 0 < len(tokens) <= self.batch
        assert position == len(self.cells), "a gap or an overlap in the cache"
        assert position + len(tokens) <= self.context, "more cells than there are"
        self.cells += tokens
        if self.failing:  # as llama.cpp does: what was computed before it failed stays
            raise EngineError("the GPU has fallen off the bus")
        self.decodes.append((position, len(tokens)))
        self.logits = logits

    def keep(self, length: int) -> None:
        del self.cells[length:]

    def sampler(self, settings: Sampling) -> FakeSampler:
        self.open_samplers += 1
        return FakeSampler(self)

    def piece(self, token: int) -> bytes:
        return bytes([token]) if token < END else _NAMES[token].encode()

    def is_end(self, token: int) -> bool:
        return token == END


class FakeSampler:
    def __init__(self, backend: FakeBackend) -> None:
        self._backend = backend
        self._prompt: int | None = None

    def sample(self) -> int:
        assert self._backend.logits, "sampled without logits"
        cells = self._backend.cells
        if self._prompt is None:
            self._prompt = len(cells)
        prompt = b"".join(self._backend.piece(token) for token in cells[: self._prompt]).decode()
        answer = list(self._backend.script(prompt).encode())
        said = len(cells) - self._prompt
        assert cells[self._prompt :] == answer[:said], "the cache does not hold what was said"
        return answer[said] if said < len(answer) else END

    def close(self) -> None:
        self._backend.open_samplers -= 1


def ready(backend: FakeBackend) -> Ready:
    return Ready(
        name="fake",
        context=backend.context,
        bytes_to_come=0,
        specials=tuple(SPECIALS),
        chat_template=TEMPLATE,
        defaults=Sampling(temperature=0.6, top_k=20, top_p=0.95),
        gpu_layers=0,
        layers=1,
        threads=1,
    )


class FakeEngineProcess:
    """The engine's own loop over a real socket pair, in a thread instead of a process."""

    def __init__(self, backend: FakeBackend) -> None:
        self.socket, self._theirs = socket.socketpair()
        self.socket.setblocking(False)
        self.process = SimpleNamespace(pid=0)
        self.killed = False
        self._backend = backend
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        def load(_load: Load, channel: Channel) -> FakeBackend:
            channel.send([ready(self._backend)])
            return self._backend

        try:
            serve(Channel(self._theirs), load, HugePages(root=Path("/nonexistent")))
        except OSError:
            pass  # the daemon's end is gone
        except EOFError:
            pass
        finally:
            self._theirs.close()

    def kill(self) -> None:
        """As SIGKILL: the socket breaks in the middle of whatever happens."""
        self.killed = True
        with contextlib.suppress(OSError):  # it may be ending by itself right now
            self._theirs.shutdown(socket.SHUT_RDWR)

    def how_it_ended(self) -> str:
        return "killed by SIGKILL" if self.killed else "exit code 0"
