"""What is said once the model is loaded: where and what is served, and what may surprise the user."""

from __future__ import annotations

import logging

import psutil

from qwen_edge.config.schema import EngineConfig
from qwen_edge.core.errors import EngineError, UnservableError
from qwen_edge.device.host.gpu import Gpu, find_gpu, rebuild_command
from qwen_edge.protocol.messages import Ready

log = logging.getLogger(__name__)


def tell_surprises(config: EngineConfig, model: Ready) -> None:
    """Log what a user would not expect of the model that was loaded. Raises UnservableError or EngineError if a GPU is
    required and not used."""
    check_gpu(config, model, find_gpu())
    tell_of_shorter_context(config, model)
    warn_of_ordinary_ends(model)


def check_gpu(config: EngineConfig, model: Ready, gpu: Gpu | None) -> None:
    """A GPU that is here, or required, and not used is told: it is the best-known trap on a Jetson.

    Raises UnservableError if it is required and llama.cpp is not built for one, EngineError if it was not found."""
    if model.gpu_layers or not (gpu or config.require_gpu):
        return
    if gpu and config.gpu_layers == 0:
        log.info("%s is not used: engine.gpu_layers is 0", gpu.name)
        return
    here = f"{gpu.name} is here, but" if gpu else "engine.require_gpu is set, but"
    if model.gpu_build:
        trap = (
            f"{here} llama.cpp, which is built for a GPU, finds none: is its driver loaded? "
            "`qwen-edge doctor` tells more."
        )
    else:
        trap = f"{here} llama.cpp runs on the CPU. Build it with CUDA: {rebuild_command(gpu or Gpu('', 'native'))}"
    if config.require_gpu:
        raise (EngineError if model.gpu_build else UnservableError)(trap)
    log.warning("%s", trap)


def tell_of_shorter_context(config: EngineConfig, model: Ready) -> None:
    """One line where the context is not what the settings say."""
    if model.context < config.context:
        log.info(
            "engine.context is %d tokens, but the model was trained for %d: the context has %d",
            config.context,
            model.context,
            model.context,
        )


def warn_of_ordinary_ends(model: Ready) -> None:
    """One warning for each ordinary word at which answers end."""
    for word in model.ordinary_ends:
        log.warning(
            "answers end where the model writes token %s, an ordinary word: the model file names no end "
            "token, or a wrong one. Convert the model again, or set tokenizer.ggml.eos_token_id in the file.",
            word,
        )


def status_line(model: Ready, name: str, address: str) -> str:
    """Where, what and on what it is served, for a terminal and for systemctl status."""
    where = f"{model.gpu_layers}/{model.layers + 1} layers on the GPU" if model.gpu_layers else "CPU"
    return f"{address}  {name}  context {model.context}  {_memory(model)}{where}, {model.threads} threads"


def _memory(model: Ready) -> str:
    """How much memory would be free without daemon and engine, now and once the context is full; empty if the system
    does not tell."""
    try:
        processes = [psutil.Process(), *psutil.Process().children()]
        now = sum(process.memory_full_info().pss for process in processes)
    except psutil.Error:
        return ""
    full = f" ({(now + model.bytes_to_come) / 1e6:.0f} when it is full)" if model.bytes_to_come else ""
    return f"{now / 1e6:.0f} MB{full}  "
