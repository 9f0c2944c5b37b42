"""What the settings mean for the engine: the message it is loaded with, its patience, and its folder. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from qwen_edge.config.paths import expand_path, memory_folder, must_be_text, state_folder
from qwen_edge.config.schema import EngineConfig, RememberConfig
from qwen_edge.core.errors import ConfigError
from qwen_edge.protocol.messages import Files, Load, Tuning
from qwen_edge.supervisor.engine_process import Patience


def files(config: RememberConfig) -> Files | None:
    """Where the engine keeps what outlives it."""
    if config.where == "off" or not config.bytes or not config.bytes_per_day:
        return None
    own = (state_folder() if config.where == "disk" else memory_folder()) / "conversations"
    folder = expand_path(config.folder, "remember.folder") if config.folder else own
    # what lies in memory wears nothing
    must_be_text(folder, "The folder of conversations")
    return Files(str(folder), config.bytes, config.bytes_per_day if config.where == "disk" else 1 << 62)


def load_message(
    config: EngineConfig,
    model: Path,
    measured: Mapping[str, Tuning] = {},
    watchdog: float | None = None,
    remembered: Files | None = None,
) -> Load:
    """The engine's orders, with what was measured of this model, by site. Its signs of life come well within the time
    after which it would be taken for dead (`watchdog` is the service manager's, in seconds).

    Raises ConfigError for settings that do not go together."""
    if config.kv_type in ("q8_0", "q4_0") and config.flash_attention in ("off", "small"):
        raise ConfigError(
            f"engine.kv_type {config.kv_type} needs flash attention: leave engine.flash_attention at auto."
        )
    if config.batch and config.parallel > config.batch:
        raise ConfigError(
            f"engine.parallel {config.parallel} is more than engine.batch {config.batch}: a batch has a token of each."
        )
    if config.require_gpu and config.gpu_layers == 0:
        raise ConfigError("engine.require_gpu is set and engine.gpu_layers is 0: no layer would run on a GPU.")
    patience = min(config.hang_seconds, watchdog or config.hang_seconds)
    return Load(
        model=str(model.resolve()),
        context=config.context,
        batch=config.batch or 0,
        threads=config.threads or 0,
        gpu_layers=config.gpu_layers,
        kv_type=config.kv_type,
        flash_attention=config.flash_attention,
        beat_seconds=min(5.0, patience / 4),
        parallel=config.parallel,
        speculate=config.speculate,
        measured=dict(measured),
        calibrate=config.calibrate,
        stash_bytes=config.stash_bytes,
        ahead_per_hour=math.inf if config.ahead_tokens_per_hour is None else config.ahead_tokens_per_hour,
        files=remembered,
    )


def patience_with(config: EngineConfig) -> Patience:
    """How long the engine may be silent or idle, and how large it may be."""
    return Patience(
        loading=config.load_seconds,
        hanging=config.hang_seconds,
        idle=math.inf if config.unload_seconds is None else config.unload_seconds,
        growth=config.memory_limit_bytes,
    )
