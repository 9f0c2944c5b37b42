"""llama.cpp as the engine's backend: owns the model, its KV cache and its samplers."""

from __future__ import annotations

import platform
import re
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from qwen_edge.core.errors import EngineError
from qwen_edge.core.progress import Stage
from qwen_edge.device.host.cpu import preempted
from qwen_edge.kv.model_id import ModelId
from qwen_edge.kv.slice import Slice
from qwen_edge.llama.bindings import ERROR, send_log_to, versions
from qwen_edge.llama.devices import built_for_gpu
from qwen_edge.llama.embedder import Embedder
from qwen_edge.llama.fixed_cells import FixedCells
from qwen_edge.llama.growing_cells import FIRST_ROOM, GrowingCells
from qwen_edge.llama.identity import model_sha256
from qwen_edge.llama.model import Model
from qwen_edge.llama.resolve import on_gpu, resolve
from qwen_edge.llama.sampler import Sampler
from qwen_edge.llama.shape_tokenizer import shape_tokenizer
from qwen_edge.llama.site import site, with_measured
from qwen_edge.llama.trial import ordinary_ends
from qwen_edge.llama.tune import Effort, completed, tune
from qwen_edge.protocol.loading import FLASH_ONLY
from qwen_edge.protocol.messages import Load, Loading, ModelFacts, Ready, Sampling, Tuning
from qwen_edge.structured.compiler import Compiler

_SMALL, _LARGE = 1e-6, 1e6  # the least positive, and the largest, value of a sampling parameter
_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")


class LlamaBackend:
    """Implements engine.backend.Backend. Loading blocks for seconds and calls `on_progress`."""

    def __init__(self, load: Load, on_progress: Callable[[Loading], None]) -> None:
        """Raises EngineError, with llama.cpp's error messages, if the model or its context cannot be created."""
        self._gpu_layers = 0
        self._sha256 = _hash_beside(load)
        self._complaints: deque[str] = deque(maxlen=2)
        send_log_to(self._on_log)
        try:
            self._model = Model(
                Path(load.model),
                gpu_layers=load.gpu_layers,
                on_progress=lambda fraction: on_progress(Loading(fraction)),
            )
            load = with_measured(load)
            self._tuning = self._calibrate(load, on_progress)
            self._load = resolve(self._model, replace(load, tuning=self._tuning or load.tuning))
            self._model.use_plain_weights(self._load.plain_from)
            self.cells = _cells(self._model, self._load)
        except EngineError as error:
            raise type(error)(" ".join([str(error), *self._complaints])) from None
        vocabulary = self.vocabulary = self._model.vocab
        self.shapes = Compiler(partial(shape_tokenizer, vocabulary), vocabulary.size, vocabulary.ends)
        self.embedder = Embedder(self._model, threads=self._load.threads, on_device=on_gpu(load))
        if not on_gpu(load):
            self._gpu_layers = 0  # llama.cpp reports offloaded layers even if it finds no GPU

    @property
    def batch(self) -> int:
        return self.cells.batch

    @property
    def parallel(self) -> int:
        return self._load.parallel

    @property
    def rows(self) -> int:
        return self.cells.sequences

    @property
    def model_id(self) -> ModelId:
        return ModelId(self._load.model)

    @property
    def fingerprint(self) -> str:
        assert self._sha256, "only used if conversations are kept in files"
        # the layout of saved values depends on the kind of attention; `Context.load` converts it if the kind is known
        layout = "as llama.cpp likes" if self._load.flash_attention == "auto" else "known"
        parts = [
            f"model {self._sha256.result()}",
            f"adapter {self.model_id.adapter}",
            f"KV {self._load.kv_type}, {layout}",
        ]
        return "; ".join([*parts, *(f"{name} {number}" for name, number in versions().items()), platform.machine()])

    @property
    def preempted(self) -> float:
        return preempted()

    def decode(self, slices: Sequence[Slice]) -> None:
        self.cells.decode(slices)

    @property
    def threads(self) -> int:
        return self._load.threads

    def use_threads(self, count: int) -> None:
        self.cells.use_threads(count)
        self.embedder.use_threads(count)

    def sampler(self, settings: Sampling) -> Sampler:
        return Sampler(settings, self.cells, self.vocabulary)

    def warm_up(self) -> None:
        """Decode one token, so that llama.cpp does its deferred initialisation now."""
        self.cells.decode([Slice(0, 0, [0], logits=True)])
        sampler = self.sampler(Sampling(temperature=0.0))
        sampler.sample(0)
        sampler.close()
        self.cells.forget(0, 0, 1)

    def ready(self) -> Ready:
        """What the daemon must know about the loaded model."""
        return Ready(
            name=self._model.meta("general.name") or self._model.path.stem,
            context=self.cells.size,
            bytes_to_come=self.cells.bytes_to_come + self.cells.cell_bytes * self.cells.host_tier_cells,
            specials=tuple(self.vocabulary.specials),
            chat_template=self._model.chat_template,
            defaults=_sampling_defaults(self._model),
            gpu_layers=self._gpu_layers,
            layers=self._model.layers,
            threads=self._load.threads,
            kv_type=self._load.kv_type,
            tuning=self._tuning,
            tool_template=self._model.tool_template,
            bos_token=self._model.token_text("bos"),
            eos_token=self._model.token_text("eos"),
            ordinary_ends=tuple(ordinary_ends(self._model)),
            site=site(self._load.gpu_layers) if self._tuning else "",
            gpu_build=built_for_gpu(),
            facts=_facts(self._model),
        )

    def close(self) -> None:
        self.embedder.close()
        self.cells.close()
        self._model.close()

    def _calibrate(self, load: Load, on_progress: Callable[[Loading], None]) -> Tuning | None:
        """Measure what is neither measured nor configured of the fastest settings, if `load.calibrate` asks for it;
        None if there is nothing to measure. Raises EngineError."""
        known = load.tuning or Tuning()
        if not load.calibrate:
            return None
        is_open = load.flash_attention == "auto" and resolve(self._model, load).kv_type not in FLASH_ONLY
        if is_open and known.flash_attention == "auto":  # quantized values leave no choice
            stage = Stage()
            stage.changed = lambda stage: on_progress(Loading(stage.share, "measure"))
            found = tune(self._model, load, Effort.brief(), stage=stage)
            return replace(found, threads=known.threads, batch=known.batch)
        found = completed(self._model, resolve(self._model, load), known, Effort.brief().seconds, crowds=is_open)
        return None if found == known else found

    def _on_log(self, level: int, text: str) -> None:
        if match := _OFFLOADED.search(text):
            self._gpu_layers = int(match[1])
        if level == ERROR:
            self._complaints.append(text.strip())
            sys.stderr.write(f"llama.cpp: {text}")


def _sampling_defaults(model: Model) -> Sampling:
    """The sampling parameters of the checkpoint's generation_config, which the converter stores. llama.cpp's default
    replaces a missing value, and one that no sampler can use: a repetition penalty of 0 makes every answer one
    letter."""
    plain = Sampling()

    def number(key: str, default: float, most: float, least: float = 0.0) -> float:
        try:
            value = float(model.meta(f"general.sampling.{key}") or default)
        except ValueError:
            return default
        return value if least <= value <= most else default

    return Sampling(
        temperature=number("temp", plain.temperature, _LARGE),
        top_k=int(number("top_k", plain.top_k, _LARGE)),
        top_p=number("top_p", plain.top_p, 1.0, _SMALL),
        min_p=number("min_p", plain.min_p, 1.0),
        repetition_penalty=number("penalty_repeat", plain.repetition_penalty, _LARGE, _SMALL),
    )


def _facts(model: Model) -> ModelFacts:
    file = model.path.stat()
    return ModelFacts(
        architecture=model.meta("general.architecture") or "",
        quantization=model.file_type,
        parameters=model.parameters,
        trained_context=model.trained_context,
        embedding_length=model.embedding_length,
        bytes=file.st_size,
        modified=file.st_mtime,
    )


def _hash_beside(load: Load) -> Future[str] | None:
    """Hash the model file in a thread while it is loaded. Saved conversations carry the hash of their model."""
    if load.files is None:
        return None
    hasher = ThreadPoolExecutor(1, "sha256")
    future = hasher.submit(model_sha256, Path(load.model), Path(load.files.folder) / "models.json")
    hasher.shutdown(wait=False)
    return future


def _cells(model: Model, load: Load) -> FixedCells:
    """A growing cache, unless the configured context is no larger than the first size of a growing cache."""
    return FixedCells(model, load) if load.context <= FIRST_ROOM else GrowingCells(model, load)
