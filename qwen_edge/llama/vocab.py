"""Converts text to tokens and back with llama.cpp's tokenizer: a `Vocabulary`."""

from __future__ import annotations

import ctypes
import math
import re
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import repeat
from threading import Lock
from typing import Any

from qwen_edge.core.errors import PromptTooLongError
from qwen_edge.llama.bindings import C
from qwen_edge.llama.cuts import Cuts
from qwen_edge.protocol.messages import Segment

_CONTROL, _USER_DEFINED = C.LLAMA_TOKEN_ATTR_CONTROL, C.LLAMA_TOKEN_ATTR_USER_DEFINED
_PIECES = 4096  # tokens that are turned into text without a pause: some milliseconds
_MOST_CACHED = 65_536  # tokens of recent texts that are cached: 0.5 MB
_TOKENIZE = ctypes.CFUNCTYPE(  # llama_tokenize
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool,
    ctypes.c_bool,
)  # fmt: skip


class Vocab:
    """Implements engine.backend.Vocabulary for one model; valid as long as the model is open. Any thread may turn texts
    into tokens, which llama.cpp does without the interpreter lock; all else belongs to one thread."""

    def __init__(
        self, handle: Any, most_cached: int = _MOST_CACHED, ends: Collection[int] = (), *, names_begin: bool = True
    ) -> None:
        """The tokens of the latest texts are cached, up to `most_cached` tokens. `ends` end a turn, beside those that
        llama.cpp knows of. `names_begin`: the file names the token that every prompt begins with, rightly."""
        self._vocab = handle
        self._named_ends = frozenset(ends)
        self._most_cached = most_cached
        self._pieces: dict[int, bytes] = {}
        self._encoded: dict[str, array[int]] = {}  # the most recent last
        self._cached = 0  # number of tokens in _encoded
        self._lock = Lock()  # of _encoded and _cached
        self.dry: tuple[tuple[float, ...], Any] | None = None  # settings of a DRY sampler, and the sampler
        self.size = int(C.llama_vocab_n_tokens(handle))
        self.begin = self._first_token(names_begin)
        self.cuts = Cuts(handle, self.size)

    @property
    def handle(self) -> Any:
        return self._vocab

    @cached_property
    def ends(self) -> list[int]:
        """The tokens that end the model's turn: special tokens, and those that the file names as end tokens."""
        named = {C.llama_vocab_eos(self._vocab), C.llama_vocab_eot(self._vocab), *self._named_ends}
        return sorted(token for token in {*self._steering, *named} if 0 <= token < self.size and self.is_end(token))

    @property
    def ordinary_ends(self) -> list[int]:
        """The end tokens that are ordinary text. In a file without an end token llama.cpp uses the comma."""
        return [token for token in self.ends if token not in self._steering]

    @cached_property
    def specials(self) -> Mapping[str, int]:
        """The control and user-defined tokens, which the text of a template may contain, by text."""
        return {self.text(token): token for token in self._steering}

    def unread(self, prompt: Sequence[Segment]) -> int:
        return sum(len(one.text) for one in prompt if not (one.special or self.knows(one.text)))

    def tokenize(
        self,
        prompt: Sequence[Segment],
        most: float = math.inf,
        between: Callable[[], None] = lambda: None,
        *,
        begin: bool = True,
    ) -> list[int]:
        """Adds no end token, even if the vocabulary asks for one: the model must continue the prompt."""
        if most < math.inf:
            least = self.least(one.text for one in prompt if not one.special)
            if least > most:
                raise PromptTooLongError(least)
        ids: list[int] = []
        for segment in prompt:
            if segment.tokens:
                ids += map(self._known, segment.tokens)
            elif segment.special:
                ids.append(self.specials[segment.text])
            else:
                ids += self.encode_some(segment.text, most - len(ids), between)
            if len(ids) > most:
                raise PromptTooLongError(len(ids))
        # the template may have written the begin token; a client that sends tokens has decided about it
        begins = begin and ids and self.begin not in (-1, ids[0]) and not prompt[0].tokens
        return [self.begin, *ids] if begins else ids

    def pieces(self, tokens: Sequence[int], between: Callable[[], None] = lambda: None) -> list[bytes]:
        found = list[bytes]()
        for start in range(0, len(tokens), _PIECES):
            found += (self._read_piece(self._known(token), special=True) for token in tokens[start : start + _PIECES])
            between()
        return found

    def _known(self, token: int) -> int:
        if not 0 <= token < self.size:
            raise KeyError(token)
        return token

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, in which nothing is a special token. The tokens of recent texts are cached: each
        turn of a conversation repeats all earlier texts."""
        return self.encode_some(text, math.inf, lambda: None)

    def _first_token(self, named: bool) -> int:
        """With which every prompt begins; -1 for none. Where the file names none llama.cpp takes one by its number: in
        a vocabulary of another family that is an ordinary word, which belongs before no prompt."""
        token = int(C.llama_vocab_bos(self._vocab)) if C.llama_vocab_get_add_bos(self._vocab) else -1
        if not 0 <= token < self.size:
            return -1
        return token if named or C.llama_vocab_get_attr(self._vocab, token) & _CONTROL else -1

    def knows(self, text: str) -> bool:
        """Whether the tokens of this text are cached."""
        return text in self._encoded

    def encode_some(self, text: str, most: float, between: Callable[[], None]) -> list[int]:
        """As `encode`, slice by slice. `between` is called after each slice, and may raise an exception to stop. Raises
        PromptTooLongError as soon as it is certain that there are more than `most` tokens."""
        with self._lock:
            known = self._encoded.get(text)
        if known is None:
            known = array("i", self._encode_slices(text, most, between))
        with self._lock:
            self._cached += len(known) - len(self._encoded.pop(text, ()))
            self._encoded[text] = known
            while self._cached > self._most_cached:
                self._cached -= len(self._encoded.pop(next(iter(self._encoded))))
        return known.tolist()

    def least(self, texts: Iterable[str]) -> int:
        """A lower bound of the number of tokens, computed from the lengths of the texts only."""
        longest = self.cuts.longest
        return sum(-(-len(text.encode("utf-8")) // longest) for text in texts) if longest else 0

    def _encode_slices(self, text: str, most: float, between: Callable[[], None]) -> list[int]:
        ids: list[int] = []
        begin = 0
        while begin < len(text):
            end = self.cuts.end_of_slice(text, begin)
            ids += self._encode_plain(text[begin:end])
            begin = end
            if len(ids) > most:
                raise PromptTooLongError(len(ids) + self.least([text[begin:]]))
            between()
        return ids

    def _encode_plain(self, text: str) -> list[int]:
        """llama.cpp matches user-defined tokens (<think>, <tool_call>) in any text, so the text is cut within them."""
        ids: list[int] = []
        begin = 0
        while match := self._user_defined.search(text, begin):
            ids += self._encode(text[begin : match.start() + 1], special=False)
            begin = match.start() + 1
        return ids + self._encode(text[begin:], special=False)

    @cached_property
    def tokenize_plain(self) -> Any:
        """A function of C like llama_tokenize, for other libraries, as long as this object lives. It finds user-defined
        tokens only where special ones are asked for."""

        def plain(_: int, address: int, length: int, ids: int, room: int, *flags: bool) -> int:
            begin, special = flags
            data = ctypes.string_at(address, length)
            if special or not self._user_defined.search(text := data.decode("utf-8", "replace")):
                place = ctypes.cast(ids, ctypes.POINTER(C.llama_token))
                return int(C.llama_tokenize(self._vocab, data, length, place, room, begin, special))
            found = self._encode_plain(text)
            if len(found) > room:
                return -len(found)
            ctypes.memmove(ids, (C.llama_token * len(found))(*found), len(found) * ctypes.sizeof(C.llama_token))
            return len(found)

        return _TOKENIZE(plain)

    def encode_marked(self, text: str) -> list[int]:
        """Token ids of text in which special tokens such as <|im_end|> are recognised."""
        return self._encode(text, special=True)

    def piece(self, token: int) -> bytes:
        """The bytes of a token, which may be a part of a character; b"" for control tokens."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._read_piece(token, special=False)
        return known

    def text(self, token: int) -> str:
        """The text of a special token, e.g. <|im_end|>."""
        return self._read_piece(token, special=True).decode("utf-8", "replace")

    def decode(self, tokens: list[int], *, special: bool = False) -> bytes:
        return b"".join(self._read_piece(token, special=special) for token in tokens)

    def is_mark(self, token: int) -> bool:
        """Whether the token is special, or white space."""
        return token in self._steering or self.piece(token).isspace()

    def is_end(self, token: int) -> bool:
        """Whether the model ends its turn with this token."""
        return bool(C.llama_vocab_is_eog(self._vocab, token)) or token in self._named_ends

    @cached_property
    def _steering(self) -> dict[int, int]:
        """Attributes of the control and user-defined tokens. It takes a call for each token: 0.05 s in all, and twice
        that if each call released the interpreter lock."""
        address = ctypes.cast(C.llama_vocab_get_attr, ctypes.c_void_p).value or 0
        attribute = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int32)(address)
        known = enumerate(map(attribute, repeat(ctypes.cast(self._vocab, ctypes.c_void_p)), range(self.size)))
        return {token: flags for token, flags in known if flags & (_CONTROL | _USER_DEFINED)}

    @cached_property
    def _user_defined(self) -> re.Pattern[str]:
        texts = [self.text(token) for token, flags in self._steering.items() if flags & _USER_DEFINED]
        return re.compile("|".join(re.escape(text) for text in texts) or "(?!)")

    def _encode(self, text: str, *, special: bool) -> list[int]:
        data = text.encode("utf-8")
        room = len(data) + 2
        ids = (C.llama_token * room)()
        count = C.llama_tokenize(self._vocab, data, len(data), ids, room, False, special)
        assert count >= 0, "a byte-level tokenizer never makes more tokens than bytes"
        return list(ids[:count])

    def _read_piece(self, token: int, *, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(256)
        length = C.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, special)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = C.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, special)
        return buffer.raw[:length]
