"""A loaded model: its weights, its metadata and its vocabulary."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from qwen_edge.core.errors import EngineError, UnservableError
from qwen_edge.llama.bindings import C
from qwen_edge.llama.header import END_TOKENS, what_is_wrong
from qwen_edge.llama.kinds import memory_of, refuse_unservable, refuse_unusable_numbers, why_not_loaded
from qwen_edge.llama.mapped_file import identity_of
from qwen_edge.llama.plain_weights import PlainWeights, plain_bytes
from qwen_edge.llama.tied_head import second_head_bytes
from qwen_edge.llama.vocab import Vocab

_EOM = "tokenizer.ggml.eom_token_id"  # the key of an end token that llama.cpp's API does not report
_NO_DEVICES = (ctypes.c_void_p * 1)(None)
_UINT32 = 0xFFFF_FFFF
_KEY_BYTES = 256  # the longest key that is read; no key of interest is longer


class Model:
    """Weights in memory until `close()`. Not thread-safe."""

    def __init__(
        self,
        path: Path,
        *,
        gpu_layers: int = -1,
        repack: bool = True,
        check_tensors: bool = False,
        simulate: bool = False,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        """Load a GGUF file. `gpu_layers`: -1 offloads as many layers as the GPU takes, 0 uses no GPU. `repack` reorders
        weights for the CPU's vector units. `check_tensors` validates every quantized block. With `simulate`, llama.cpp
        only computes what it would allocate. `on_progress` gets 0..1 while loading. Raises EngineError;
        UnservableError if the file is at fault, or its kind of model is one that this engine does not serve."""
        if not path.is_file():
            raise EngineError(f"There is no model at {path}. Make one: qwen-edge convert")
        if wrong := what_is_wrong(path):
            raise UnservableError(f"The engine could not load {path}: it {wrong}. Make it again: qwen-edge convert")
        self._file = identity_of(path)
        params = C.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        if gpu_layers == 0:  # an empty list of devices; without it, large batches would still be sent to a GPU
            params.devices = ctypes.cast(_NO_DEVICES, ctypes.c_void_p)
        params.use_extra_bufts = repack
        params.check_tensors = check_tensors
        params.no_alloc = simulate
        # Repacking copies the weights, so a mapped file would be in memory a second time.
        params.load_mode = C.LLAMA_LOAD_MODE_NONE if repack else C.LLAMA_LOAD_MODE_MMAP
        progress = C.llama_progress_callback(lambda fraction, _: on_progress is None or on_progress(fraction) is None)
        params.progress_callback = progress
        self._model = C.llama_model_load_from_file(bytes(path), params)
        if not self._model:
            raise _why_not(path, simulated=simulate)
        self.path, self.simulated = path, simulate
        self._plain: PlainWeights | None = None
        self._plain_from = 0
        try:
            self.memory = memory_of(self._model)
            refuse_unservable(self._model, self.memory, path.name, self._generates)
            refuse_unusable_numbers(path.name, self.trained_context, dict(self._own_scalars()))
        except UnservableError:
            self.close()
            raise
        vocab = C.llama_model_get_vocab(self._model)
        self.vocab = Vocab(vocab, ends=self._named_ends(), names_begin=self._named_token("bos") is not None)

    @property
    def handle(self) -> Any:
        return self._model

    @property
    def weights_bytes(self) -> int:
        """Bytes of the weights in memory. llama.cpp reports those of the file. If the file has one tensor for embedding
        and head, and the head is repacked, or on a GPU, then llama.cpp holds this tensor twice."""
        return int(C.llama_model_size(self._model)) + second_head_bytes(self._model, self.path)

    @property
    def parameters(self) -> int:
        return int(C.llama_model_n_params(self._model))

    @property
    def trained_context(self) -> int:
        """Tokens. llama.cpp returns the file's unsigned number as a signed one."""
        return int(C.llama_model_n_ctx_train(self._model)) & _UINT32

    @property
    def layers(self) -> int:
        return int(C.llama_model_n_layer(self._model))

    @property
    def embedding_length(self) -> int:
        """Elements of the vector that stands for a token inside the model."""
        return int(C.llama_model_n_embd(self._model))

    @property
    def file_type(self) -> str:
        """llama.cpp's name of the mix of tensor types, such as Q4_K_M; empty if the file names none that is known."""
        number, start = self.meta("general.file_type"), "LLAMA_FTYPE_MOSTLY_"
        names = (name for name in dir(C) if name.startswith(start) and str(getattr(C, name)) == number)
        return "F32" if number == "0" else next(names, "").removeprefix(start)

    @property
    def chat_template(self) -> str | None:
        """The default chat template, in jinja2. Raises UnservableError if it is not UTF-8 text."""
        return self._chat_template(None)

    @property
    def tool_template(self) -> str | None:
        """The chat template for conversations with tools, if the model has a separate one. Raises UnservableError."""
        return self._chat_template(b"tool_use")

    def _chat_template(self, name: bytes | None) -> str | None:
        template = C.llama_model_chat_template(self._model, name)
        try:
            return template.decode("utf-8") if template else None
        except UnicodeDecodeError:
            raise UnservableError(
                f"The chat template in {self.path} is not UTF-8 text. Convert the model again: qwen-edge convert"
            ) from None

    def use_plain_weights(self, least: int) -> bool:
        """From now on, compute batches of at least `least` tokens with the weights as the file has them, and smaller
        ones with the repacked weights; with 0, compute all with the repacked weights. False if there are no such two
        kinds of weights (`PlainWeights`): then all batches use the one kind that there is."""
        if least and not self._plain:
            try:
                self._plain = PlainWeights(self._model, self.path, self._file)
            except EngineError:
                return False
        self._plain_from = least
        self.arrange(0)
        return True

    def arrange(self, tokens: int) -> bool:
        """Before each batch: let it use the weights with which so many tokens are computed fastest. Returns whether
        these are the plain ones."""
        return self._plain is not None and self._plain.use(0 < self._plain_from <= tokens)

    def check(self) -> None:
        """After each batch. Raises EngineError if the weights that it was computed with may have been changed."""
        if self._plain:
            self._plain.check()

    @property
    def plain_bytes(self) -> int:
        """How many bytes of the file are mapped when plain weights are used: those of the weights that llama.cpp has
        repacked. Call it before the first batch."""
        return plain_bytes(self._model, self.path)

    def token_text(self, role: str) -> str:
        """The text of the token with this role (`bos`, `eos`); empty if the file names none. llama.cpp's own function
        would then return an arbitrary token."""
        token = self._named_token(role)
        return self.vocab.text(token) if token is not None else ""

    def meta(self, key: str) -> str | None:
        """A scalar of the file's metadata as text (numbers too); None if it has no such key."""
        size = C.llama_model_meta_val_str(self._model, key.encode(), None, 0)
        if size < 0:
            return None
        buffer = ctypes.create_string_buffer(size + 1)
        C.llama_model_meta_val_str(self._model, key.encode(), buffer, size + 1)
        return buffer.value.decode("utf-8", "replace")

    def _named_token(self, role: str) -> int | None:
        """The token with this role, if the file names one and the vocabulary contains it."""
        named = self.meta(f"tokenizer.ggml.{role}_token_id")
        size = int(C.llama_vocab_n_tokens(C.llama_model_get_vocab(self._model)))
        return int(named) if named and named.isdecimal() and int(named) < size else None

    def _own_scalars(self) -> Iterator[tuple[str, str]]:
        """Keys and values (numbers as text) of the architecture's metadata, such as `qwen3.block_count`."""
        own = f"{self.meta('general.architecture')}."
        buffer = ctypes.create_string_buffer(_KEY_BYTES)
        for number in range(C.llama_model_meta_count(self._model)):
            C.llama_model_meta_key_by_index(self._model, number, buffer, _KEY_BYTES)
            key = buffer.value.decode("utf-8", "replace")
            if key.startswith(own) and (value := self.meta(key)) is not None:
                yield key, value

    def _named_ends(self) -> list[int]:
        """End tokens that are named in the metadata only."""
        named = ",".join(self.meta(key) or "" for key in (_EOM, END_TOKENS))
        return [int(token) for token in re.findall(r"(?<![^,])[0-9]{1,9}(?![^,])", named)]

    @property
    def _generates(self) -> dict[str, str | None]:
        """The metadata that tell whether the model generates text."""
        arch = self.meta("general.architecture")
        keys = {"causal": f"{arch}.attention.causal", "pooling": f"{arch}.pooling_type"}
        return {"architecture": arch, **{name: self.meta(key) for name, key in keys.items()}}

    def kv_bytes_per_token(self, key_bytes: float = 2.0, value_bytes: float = 2.0) -> int:
        """Bytes that one token takes in the KV cache. The arguments are bytes per element (f16: 2)."""
        heads = int(C.llama_model_n_head_kv(self._model))
        key_length, value_length = self.head_lengths
        return int(self.layers * heads * (key_length * key_bytes + value_length * value_bytes))

    @property
    def head_lengths(self) -> tuple[int, int]:
        """How many elements the key and the value of one head have."""
        arch = self.meta("general.architecture")
        default = int(C.llama_model_n_embd(self._model)) // int(C.llama_model_n_head(self._model))
        key_length = int(self.meta(f"{arch}.attention.key_length") or default)
        return key_length, int(self.meta(f"{arch}.attention.value_length") or default)

    def close(self) -> None:
        """Free the weights. Close all contexts of this model first."""
        if self._plain:
            self._plain.close()
            self._plain = None
        if self._model:
            C.llama_model_free(self._model)
            self._model = None

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _why_not(path: Path, *, simulated: bool) -> EngineError:
    """Why llama.cpp did not load the file; it gives no reason itself. If a simulated load, which needs neither memory
    nor a device, fails too, the file is at fault. Otherwise the next attempt may succeed."""
    try:
        with path.open("rb") as file:
            file.read(4096)
    except OSError as error:
        return EngineError(f"{path} cannot be read: {error.strerror}.")
    if why := why_not_loaded(path):
        return UnservableError(f"qwen-edge cannot serve {path}: it {why}.")
    try:
        if not simulated:
            Model(path, gpu_layers=0, simulate=True).close()
            return EngineError(f"llama.cpp could not load {path}: is there memory enough? qwen-edge doctor tells more.")
    except UnservableError:
        pass
    return UnservableError(f"llama.cpp could not load {path}. Is it a whole GGUF file? qwen-edge doctor tells more.")
