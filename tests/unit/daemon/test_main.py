"""What the daemon refuses before it starts anything."""

import pytest

from qwen_edge.config.load import parse_config
from qwen_edge.config.schema import EngineConfig
from qwen_edge.core.errors import ConfigError
from qwen_edge.supervisor.engine_settings import load_message


def config(text: str):
    return parse_config(text, "test")


def test_more_at_once_than_a_batch_holds_is_refused_in_words(tmp_path):
    with pytest.raises(ConfigError, match=r"engine\.parallel 32 is more than engine\.batch 16"):
        load_message(EngineConfig(parallel=32, batch=16), tmp_path / "m.gguf")


def test_a_quantized_cache_without_flash_attention_is_refused_in_words(tmp_path):
    with pytest.raises(ConfigError, match="q8_0 needs flash attention"):
        load_message(config("engine: {kv_type: q8_0, flash_attention: 'off'}").engine, tmp_path / "m")
    assert load_message(config("engine: {kv_type: q8_0}").engine, tmp_path / "m").flash_attention == "auto"


@pytest.mark.parametrize("attention", ["on", "off", "small", "auto"])
def test_quantized_keys_alone_need_no_flash_attention(tmp_path, attention):
    asked = config(f"engine: {{kv_type: q8_0_keys, flash_attention: {attention}}}").engine
    load = load_message(asked, tmp_path / "m")
    assert (load.kv_type, load.flash_attention) == ("q8_0_keys", attention)


def test_the_engine_is_heard_of_well_within_anybodys_patience(tmp_path):
    assert load_message(config("").engine, tmp_path / "m").beat_seconds == 5.0
    assert load_message(config("engine: {hang_seconds: 8}").engine, tmp_path / "m").beat_seconds == 2.0
    assert load_message(config("").engine, tmp_path / "m", watchdog=4.0).beat_seconds == 1.0


def test_a_gpu_that_is_required_and_switched_off_is_a_mistake_in_the_settings(tmp_path):
    with pytest.raises(ConfigError, match=r"require_gpu is set and engine\.gpu_layers is 0"):
        load_message(EngineConfig(require_gpu=True, gpu_layers=0), tmp_path / "m")
