"""Turns the settings into the engine's load message, its conversation folder and the supervisor's limits. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from qwen_edge.config.paths import expand_path, memory_folder, must_be_text, state_folder
from qwen_edge.config.schema import EngineConfig, RememberConfig
from qwen_edge.core.errors import ConfigError
from qwen_edge.protocol.loading import FLASH_ONLY, SILENT_BEATS
from qwen_edge.protocol.messages import Files, Load, Tuning
from qwen_edge.supervisor.limits import SupervisorLimits

_UNLIMITED = 1 << 62  # bytes a day


def conversation_files(config: RememberConfig) -> Files | None:
    """Where the engine keeps conversations on disk, and how much; None if it keeps none. Raises ConfigError."""
    if config.where == "off" or not config.bytes or not config.bytes_per_day:
        return None
    own = (state_folder() if config.where == "disk" else memory_folder()) / "conversations"
    folder = expand_path(config.folder, "remember.folder") if config.folder else own
    must_be_text(folder, "The folder of conversations")
    # a folder in memory has no daily limit: writing to it wears out no flash memory
    return Files(str(folder), config.bytes, config.bytes_per_day if config.where == "disk" else _UNLIMITED)


def load_message(
    config: EngineConfig,
    model: Path,
    measured: Mapping[str, Tuning] = {},
    watchdog: float | None = None,
    remembered: Files | None = None,
) -> Load:
    """The message with which the engine loads the model. `measured`: what was measured of this model, by site.
    `watchdog`: the service manager's limit in seconds. The engine sends a sign of life several times within
    engine.hang_seconds and within `watchdog`.

    Raises ConfigError for settings that contradict each other."""
    if config.kv_type in FLASH_ONLY and config.flash_attention in ("off", "small"):
        raise ConfigError(
            f"engine.kv_type {config.kv_type} needs flash attention: leave engine.flash_attention at auto, or choose "
            "q8_0_keys, which does not."
        )
    if config.batch and config.parallel > config.batch:
        raise ConfigError(
            f"engine.parallel {config.parallel} is more than engine.batch {config.batch}, and a batch holds one token "
            "of each running answer. Lower engine.parallel, or raise engine.batch."
        )
    if config.require_gpu and config.gpu_layers == 0:
        raise ConfigError(
            "engine.require_gpu is set and engine.gpu_layers is 0: no layer would run on a GPU. Change one of them."
        )
    silence = min(config.hang_seconds, watchdog or config.hang_seconds)
    return Load(
        model=str(model.resolve()),
        context=config.context,
        batch=config.batch or 0,
        threads=config.threads or 0,
        gpu_layers=config.gpu_layers,
        kv_type=config.kv_type,
        flash_attention=config.flash_attention,
        beat_seconds=min(5.0, silence / SILENT_BEATS),
        parallel=config.parallel,
        speculate=config.speculate,
        measured=dict(measured),
        calibrate=config.calibrate,
        stash_bytes=config.stash_bytes,
        ahead_per_hour=math.inf if config.ahead_tokens_per_hour is None else config.ahead_tokens_per_hour,
        files=remembered,
    )


def supervisor_limits(config: EngineConfig) -> SupervisorLimits:
    """How long the engine may be silent or idle, and how much memory it may have."""
    return SupervisorLimits(
        load_seconds=config.load_seconds,
        hang_seconds=config.hang_seconds,
        idle_seconds=math.inf if config.unload_seconds is None else config.unload_seconds,
        memory_bytes=config.memory_limit_bytes,
    )
