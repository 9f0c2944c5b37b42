"""Stand-ins that are small enough to be right: a model that says what a script tells it, and an engine in a thread."""

from __future__ import annotations

import contextlib
import math
import re
import socket
import threading
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from llguidance import LLTokenizer
from llguidance._tokenizer import TokenizerWrapper

from qwen_edge.core.errors import EngineError, PromptTooLongError
from qwen_edge.engine.huge_pages import HugePages
from qwen_edge.engine.main import Channel, serve
from qwen_edge.kv.memory_kind import FULL, MemoryKind
from qwen_edge.kv.model_id import ModelId
from qwen_edge.kv.slice import Slice
from qwen_edge.protocol.messages import Alternative, Load, Logprob, Ready, Sampling, Segment, Tuning
from qwen_edge.protocol.sampling import NO_BIASES
from qwen_edge.structured.compiler import Compiler

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


def ticking(step: float) -> Callable[[], float]:
    """A clock that goes on by so many seconds whenever it is looked at."""
    times = count(1)
    return lambda: step * next(times)


class FakeCells:
    """Cells as llama.cpp's unified cache has them: a cell belongs to every sequence that shares it. Each knows its
    token; a wrong call (a gap, an overlap, a cell that is not there) fails at once."""

    def __init__(
        self,
        size: int = 4096,
        sequences: int = 8,
        *,
        spare: int | None = None,
        host_tier_cells: int | None = None,
        memory: MemoryKind = FULL,
    ) -> None:
        """`spare` and `host_tier_cells` are `size` if they are None. What `memory` cannot do fails at once."""
        self.memory = memory
        self.size, self.sequences = size, sequences
        self.spare = size if spare is None else spare
        self.host_tier_cells = size if host_tier_cells is None else host_tier_cells
        self.cell_bytes = 4
        self.room = 1 << 20
        self.of: dict[int, dict[int, list[int]]] = {}  # sequence -> position -> the cell: a list of one token
        self.fitted: list[int] = []
        self.expected: list[tuple[int, int]] = []  # cells soon, and after a while
        self.streams: list[int] = []  # for how many requests at once

    @property
    def used(self) -> int:
        return len({id(cell) for held in self.of.values() for cell in held.values()})

    def held(self, sequence: int) -> list[int]:
        held = self.of.get(sequence, {})
        return [held[position][0] for position in range(len(held))]  # a gap is a KeyError

    def write(self, sequence: int, position: int, tokens: Sequence[int]) -> None:
        held = self.of.setdefault(sequence, {})
        assert position == len(held), "a gap or an overlap in the cache"
        for i, token in enumerate(tokens, position):
            held[i] = [token]

    def share(self, source: int, target: int, start: int, end: int) -> None:
        assert self.memory.shares_prefixes
        held = self.of.setdefault(target, {})
        for position in range(start, end):
            assert position not in held, "two cells for one position"
            held[position] = self.of[source][position]

    def forget(self, sequence: int, start: int, end: int) -> None:
        held = self.of.get(sequence, {})
        assert self.memory.cuts_anywhere or end - start in (0, len(held)), "only whole sequences can be forgotten"
        for position in range(start, end):
            del held[position]
        if not held:
            self.of.pop(sequence, None)

    def save(self, sequence: int, start: int, end: int) -> bytes:
        assert self.memory.saves_parts
        return array("i", [start, *self.held(sequence)[start:end]]).tobytes()

    def load(self, saved: bytes, sequence: int, start: int, end: int) -> None:
        assert self.memory.saves_parts
        first, *tokens = array("i", bytes(saved))
        self.write(sequence, start, tokens[start - first : end - first])

    def make_room(self, cells: int) -> bool:
        assert self.used <= cells
        return cells <= self.room

    def expect(self, staying: int, leaving: int, soon: int, later: int, streams: int) -> None:
        assert self.used == staying + leaving
        assert soon <= later
        self.expected.append((staying + soon, staying + later))
        self.streams.append(streams)

    def fit(self, cells: int) -> None:
        assert cells == self.used
        self.fitted.append(cells)


class FakeVocabulary:
    """A token is a byte, or one of a few special tokens."""

    def unread(self, prompt: Sequence[Segment]) -> int:
        return sum(len(segment.text) for segment in prompt)

    def tokenize(
        self,
        prompt: Sequence[Segment],
        most: float = math.inf,
        between: Callable[[], None] = lambda: None,
        *,
        begin: bool = True,
    ) -> list[int]:
        """No prompt begins with a token of its own."""
        ids: list[int] = []
        for segment in prompt:
            between()
            if len(ids) > most:
                raise PromptTooLongError(len(ids))
            if segment.tokens:
                ids += map(self._known, segment.tokens)
            else:
                ids += [SPECIALS[segment.text]] if segment.special else list(segment.text.encode())
        return ids

    def pieces(self, tokens: Sequence[int], between: Callable[[], None] = lambda: None) -> list[bytes]:
        between()
        return [self.piece(self._known(token)) for token in tokens]

    def _known(self, token: int) -> int:
        if not 0 <= token < self.size:
            raise KeyError(token)
        return token

    @property
    def size(self) -> int:
        return END + len(SPECIALS)

    @property
    def ends(self) -> Sequence[int]:
        return (END,)

    def encode_marked(self, text: str) -> list[int]:
        parts = re.split("(" + "|".join(map(re.escape, SPECIALS)) + ")", text)
        return [token for part in parts for token in ([SPECIALS[part]] if part in SPECIALS else part.encode())]

    def piece(self, token: int) -> bytes:
        return bytes([token]) if token < END else _NAMES[token].encode()

    def is_mark(self, token: int) -> bool:
        return token >= END or bytes([token]).isspace()

    def is_end(self, token: int) -> bool:
        return token == END


class _Bytes:
    """The vocabulary as llguidance has it."""

    eos_token_id, bos_token_id = END, None
    tokens = (*(bytes([one]) for one in range(END)), *(b"\xff" + name.encode() for name in SPECIALS))
    special_token_ids = tuple(SPECIALS.values())

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


def byte_tokenizer() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Bytes()))


class FakeEmbedder:
    """Counts the bytes of a text, in pieces of four tokens."""

    def __init__(self) -> None:
        self.open = False

    def embed(self, tokens: Sequence[int]) -> Iterator[tuple[int, tuple[float, ...] | None]]:
        self.open = True
        counts = np.bincount(np.array(tokens) % 8, minlength=8) / 1.0
        vector = tuple((counts / np.linalg.norm(counts)).tolist())
        for start in range(0, len(tokens), 4):
            yield len(tokens[start : start + 4]), vector if start + 4 >= len(tokens) else None

    def close(self) -> None:
        self.open = False


class FakeBackend:
    """A model whose tokens are bytes. What it says depends only on the cells of its KV cache, so that an engine that
    loses, repeats or misplaces a token makes it say something else."""

    def __init__(
        self,
        script: Script,
        *,
        context: int = 4096,
        batch: int = 16,
        parallel: int = 4,
        gate: threading.Event | None = None,
        cells: Callable[..., FakeCells] = FakeCells,
        vocabulary: FakeVocabulary | None = None,
        spare: int | None = None,
        host_tier_cells: int | None = None,
        template: str | None = TEMPLATE,
        says_forced: bool = False,
    ) -> None:
        """`script` gets the prompt as text and returns the answer; with `gate`, no decode goes on until it is set.
        `cells` makes the cell store, of `context` cells. `says_forced`: the script has the tokens that a shape forces,
        too, so they are not said again."""
        self.cells = cells(context, 2 * parallel, spare=spare, host_tier_cells=host_tier_cells)
        self.vocabulary = vocabulary or FakeVocabulary()
        self.shapes = Compiler(byte_tokenizer, self.vocabulary.size, self.vocabulary.ends)
        self.embedder = FakeEmbedder()
        self.script = script
        self.says_forced = says_forced
        self.template = template
        self.batch = batch
        self.parallel = parallel
        self.rows = 2 * parallel
        self.preempted = 0.0
        self.fingerprint = "fake"
        self.model_id = ModelId("fake")
        self.gate = gate
        self.decodes: list[list[tuple[int, int]]] = []  # position and length of each slice of each batch
        self.open_samplers = 0
        self.failing = False
        self.tuning: Tuning | None = None  # what it says that it has measured
        self.threads, self.used_threads = 4, 4
        self.logits: dict[int, tuple[int, int]] = {}  # place in the last batch -> sequence, and its length there

    def decode(self, slices: Sequence[Slice]) -> None:
        if self.gate:
            self.gate.wait()
        assert 0 < sum(len(one.tokens) for one in slices) <= self.batch
        assert len({one.sequence for one in slices}) == len(slices) <= self.parallel
        self.logits, end = {}, 0
        for one in slices:
            self.cells.write(one.sequence, one.position, one.tokens)
            end += len(one.tokens)
            for back in range(one.logits):
                self.logits[end - 1 - back] = one.sequence, one.position + len(one.tokens) - back
        assert len(self.logits) <= self.rows
        assert self.cells.used <= self.cells.size, "more cells than there are"
        if self.failing:  # as llama.cpp does: what was computed before it failed stays
            raise EngineError("the GPU has fallen off the bus")
        self.decodes.append([(one.position, len(one.tokens)) for one in slices])

    def use_threads(self, count: int) -> None:
        self.used_threads = count

    def sampler(self, settings: Sampling) -> FakeSampler:
        self.open_samplers += 1
        return FakeSampler(self, settings)


class FakeSampler:
    """Goes on with the script behind tokens that were put into the answer."""

    def __init__(self, backend: FakeBackend, settings: Sampling) -> None:
        self._backend = backend
        self._settings = settings
        self._prompt: list[int] = []
        self._said: list[int] = []
        self._script: list[int] = []  # what is still to be said

    def sample(self, row: int, allowed: Any = None, biases: Mapping[int, float] = NO_BIASES) -> int:
        """The next token of the script, if it is allowed; else the first that is."""
        sequence, length = self._backend.logits[row]
        cells = self._backend.cells.held(sequence)[:length]
        if not self._prompt:
            self._prompt = cells[: length - len(self._said)]
            text = b"".join(self._backend.vocabulary.piece(token) for token in self._prompt).decode()
            self._script = [*self._backend.script(text).encode(), END]
            for token in self._said:
                self._pass(token)
        assert cells == self._prompt + self._said, "the cache does not hold what was said"
        if allowed is None or allowed[self._script[0]]:
            self._said.append(self._script.pop(0))
        else:
            self._said.append(int(np.flatnonzero(allowed)[0]))
        return self._said[-1]

    def accept(self, token: int) -> None:
        self._said.append(token)
        if self._script:
            self._pass(token)

    def _pass(self, forced: int) -> None:
        text = [*self._backend.vocabulary.piece(forced)]
        if self._backend.says_forced and self._script[: len(text)] == text:
            del self._script[: len(text)]

    def logprob(self, row: int | None, token: int) -> Logprob:
        certain = row is None or self._settings.logprobs is None
        chosen = Alternative(self._backend.vocabulary.piece(token), 0.0 if certain else -0.5, token)
        return Logprob(chosen, (chosen, Alternative(b"?", -1.0, ord("?")))[: self._settings.logprobs or 0])

    def close(self) -> None:
        self._backend.open_samplers -= 1


def ready(backend: FakeBackend) -> Ready:
    return Ready(
        name="fake",
        context=backend.cells.size,
        bytes_to_come=0,
        specials=tuple(SPECIALS),
        chat_template=backend.template,
        defaults=Sampling(temperature=0.6, top_k=20, top_p=0.95),
        gpu_layers=0,
        layers=1,
        threads=1,
        tuning=backend.tuning,
        site="here" if backend.tuning else "",
    )


class FakeEngineProcess:
    """The engine's own loop over a real socket pair, in a thread instead of a process."""

    def __init__(self, backend: FakeBackend, may_load: threading.Event) -> None:
        self._may_load = may_load
        self.socket, self._theirs = socket.socketpair()
        self.socket.setblocking(False)
        self.process = SimpleNamespace(pid=0)
        self.killed = False
        self.load: Load | None = None  # what it was told to load
        self.backend = backend
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        def load(load: Load, _channel: Channel) -> tuple[FakeBackend, Ready]:
            self.load = load
            self._may_load.wait()
            return self.backend, ready(self.backend)

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
