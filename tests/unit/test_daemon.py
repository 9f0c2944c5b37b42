"""What the daemon refuses before it starts anything."""

import pytest

from qwen_edge.config import EngineConfig, parse_config
from qwen_edge.daemon import load_message, read_keys
from qwen_edge.errors import ConfigError


def config(text: str):
    return parse_config(text, "test")


def test_without_keys_only_loopback_is_served():
    assert read_keys(config("")) == frozenset()
    with pytest.raises(ConfigError, match="which others can reach, and there is no key"):
        read_keys(config("server: {host: 0.0.0.0}"))


def test_keys_come_one_a_line_from_the_file(tmp_path):
    (tmp_path / "keys").write_text("# kitchen\n  # cellar\nsecret-1\n\n  secret-2 \n")
    settings = config(f"server: {{host: 0.0.0.0, api_keys_file: {tmp_path / 'keys'}}}")
    assert read_keys(settings) == {"secret-1", "secret-2"}


def test_a_key_file_that_is_named_must_hold_a_key(tmp_path):
    (tmp_path / "keys").write_text("# none yet\n")
    with pytest.raises(ConfigError, match="holds no key"):
        read_keys(config(f"server: {{api_keys_file: {tmp_path / 'keys'}}}"))
    with pytest.raises(ConfigError, match="cannot read"):
        read_keys(config(f"server: {{api_keys_file: {tmp_path / 'none'}}}"))


def test_keys_come_from_systemds_credential(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_keys(config("")) == frozenset()
    (tmp_path / "api-keys").write_text("")
    assert read_keys(config("")) == frozenset()
    with pytest.raises(ConfigError, match="there is no key"):
        read_keys(config("server: {host: 0.0.0.0}"))
    (tmp_path / "api-keys").write_text("secret\n")
    assert read_keys(config("server: {host: 0.0.0.0}")) == {"secret"}


def test_more_at_once_than_a_batch_holds_is_refused_in_words(tmp_path):
    with pytest.raises(ConfigError, match=r"engine\.parallel 32 is more than engine\.batch 16"):
        load_message(EngineConfig(parallel=32, batch=16), tmp_path / "m.gguf")


def test_a_quantized_cache_without_flash_attention_is_refused_in_words(tmp_path):
    with pytest.raises(ConfigError, match="q8_0 needs flash attention"):
        load_message(config("engine: {kv_type: q8_0, flash_attention: 'off'}").engine, tmp_path / "m")
    assert load_message(config("engine: {kv_type: q8_0}").engine, tmp_path / "m").flash_attention == "auto"


def test_the_engine_is_heard_of_well_within_anybodys_patience(tmp_path):
    assert load_message(config("").engine, tmp_path / "m").beat_seconds == 5.0
    assert load_message(config("engine: {hang_seconds: 8}").engine, tmp_path / "m").beat_seconds == 2.0
    assert load_message(config("").engine, tmp_path / "m", watchdog=4.0).beat_seconds == 1.0
