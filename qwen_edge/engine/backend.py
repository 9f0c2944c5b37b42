"""What the engine needs of a model. `qwen_edge.llama.backend` provides it with llama.cpp, tests with a few lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from qwen_edge.kv.cell_store import CellStore
from qwen_edge.kv.model_id import ModelId
from qwen_edge.kv.slice import Slice
from qwen_edge.protocol.messages import Logprob, Sampling, Segment, Shape
from qwen_edge.protocol.sampling import NO_BIASES
from qwen_edge.structured.constraint import Constraint


class Sampler(Protocol):
    """Chooses the tokens of one sequence."""

    def sample(self, row: int, allowed: Any = None, biases: Mapping[int, float] = NO_BIASES) -> int:
        """The next token, chosen from the logits of the token at place `row` of the last batch. `allowed`: which tokens
        may be chosen, a bool each; None if all may. `biases` are added to the logits of some tokens."""

    def accept(self, token: int) -> None:
        """Note a token that was put into the answer and not sampled, as what was sampled is noted: for penalties, DRY
        and `min_tokens`. The random numbers of a seed are for the tokens that are sampled, in their order."""

    def logprob(self, row: int | None, token: int) -> Logprob:
        """The logprob of the token that was just sampled from there. `row` None: of a token that was put there, which
        is 0, since no other token could have come."""

    def close(self) -> None:
        """Free the sampler, which is not used after that."""


class Vocabulary(Protocol):
    """Turns prompts into tokens, and tokens into text. `tokenize`, `pieces` and `unread` are called by any thread, the
    other methods by the engine's thread."""

    def unread(self, prompt: tuple[Segment, ...]) -> int:
        """How many characters of a prompt have to be tokenized: texts whose tokens are still known from an earlier
        prompt cost nothing."""

    def tokenize(
        self,
        prompt: tuple[Segment, ...],
        most: float = math.inf,
        between: Callable[[], None] = lambda: None,
        *,
        begin: bool = True,
    ) -> list[int]:
        """Token ids of a prompt; with `begin`, and unless the prompt begins with tokens, with the one that every prompt
        of this model begins with. `between` is called between two pieces of a long prompt, and may raise an exception
        to end the work. Raises KeyError if a segment names no token of this model, and PromptTooLongError as soon as it
        is certain that the prompt has more than `most` tokens."""

    def pieces(self, tokens: Sequence[int], between: Callable[[], None] = lambda: None) -> list[bytes]:
        """The bytes of each token; special tokens show as their texts. `between` as above. Raises KeyError for a token
        that the model does not have."""

    @property
    def size(self) -> int:
        """How many tokens there are."""

    @property
    def ends(self) -> Sequence[int]:
        """The tokens that end the model's turn."""

    def encode_marked(self, text: str) -> list[int]:
        """Token ids of a text in which special tokens are recognised, without the one that prompts begin with."""

    def piece(self, token: int) -> bytes:
        """The bytes a token adds to the text (none for control tokens)."""

    def is_mark(self, token: int) -> bool:
        """Whether this token shows no word of an answer: it is a special token, or white space."""

    def is_end(self, token: int) -> bool:
        """Whether this token ends the model's turn."""


class Shapes(Protocol):
    """Makes constraints of the shapes that answers must keep. Thread-safe."""

    def known(self, shape: Shape) -> Constraint | None:
        """A constraint at its beginning, at once; None if the shape must be compiled first. Raises ShapeError."""

    def compile(self, shape: Shape) -> Constraint:
        """A constraint at its beginning; takes up to a second. Raises ShapeError."""


Vector = tuple[float, ...]


class Embedder(Protocol):
    """Computes embeddings, one text at a time. Used by the engine's thread."""

    def embed(self, tokens: Sequence[int]) -> Iterator[tuple[int, Vector | None]]:
        """Compute the embedding of at least one token, a piece at a time: yields how many tokens were computed, and
        with the last piece the vector, of length 1. To call it again ends the embedding before. Raises EngineError if
        memory is short."""

    def close(self) -> None:
        """Give memory back. `embed` may be called again."""


class Backend(Protocol):
    """One model with one KV cache. Used by one thread, except where a method says otherwise."""

    @property
    def cells(self) -> CellStore:
        """The cells of the KV cache, which `decode` fills."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens of the model."""

    @property
    def shapes(self) -> Shapes:
        """The compiler of shapes for this vocabulary."""

    @property
    def embedder(self) -> Embedder:
        """Embeds texts, beside the KV cache."""

    @property
    def model_id(self) -> ModelId:
        """Which model and adapter the cells are computed with."""

    @property
    def fingerprint(self) -> str:
        """Stands for all that decides what a saved cell means: the weights, the type and layout of the cells, the
        version of llama.cpp, the processor. A cell saved under another fingerprint must not be loaded. Only where
        conversations are kept in files. Waits for the checksum of the model file, half a second at the first start."""

    @property
    def batch(self) -> int:
        """The most tokens that `decode` takes at once."""

    @property
    def rows(self) -> int:
        """The most tokens whose logits one `decode` gives; no less than `parallel`."""

    @property
    def parallel(self) -> int:
        """How many requests may run at once."""

    @property
    def preempted(self) -> float:
        """How often so far other programs have taken a core away, divided by the number of cores."""

    def decode(self, slices: list[Slice]) -> None:
        """Compute one batch, a slice of tokens for each of some sequences: the tokens get new cells, and the logits
        are ready for `Sampler.sample`. Raises EngineError, after which the contents of the cells are not known."""

    @property
    def threads(self) -> int:
        """How many threads `decode` uses, unless `use_threads` lets it use fewer."""

    def use_threads(self, count: int) -> None:
        """Compute with this many threads, at least one, from the next batch on."""

    def sampler(self, settings: Sampling) -> Sampler:
        """A new sampler for one sequence. Raises ValueError for settings that this model cannot follow."""
