"""Who may ask, and under which name."""

import pytest

from qwen_edge.config import parse_config
from qwen_edge.errors import ConfigError
from qwen_edge.keys import read_keys


def config(text: str):
    return parse_config(text, "test")


def test_without_keys_only_loopback_is_served():
    assert not read_keys(config(""))
    with pytest.raises(ConfigError, match="which others can reach, and there is no key"):
        read_keys(config("server: {host: 0.0.0.0}"))


def test_keys_come_one_a_line_from_the_file_with_the_names_of_their_owners(tmp_path):
    (tmp_path / "keys").write_text("# kitchen\n  # cellar\nsecret-1\n\n  secret-2   the cellar  # since May\n")
    settings = config(f"server: {{host: 0.0.0.0, api_keys_file: {tmp_path / 'keys'}}}")
    keys = read_keys(settings)
    assert (keys.owner(b"secret-2"), keys.owner(b"secret-3")) == ("the cellar", None)
    named = keys.owner(b"secret-1")
    assert named and named.startswith("key-") and "secret" not in named


def test_a_key_file_that_is_named_must_hold_a_key(tmp_path):
    (tmp_path / "keys").write_text("# none yet\n")
    with pytest.raises(ConfigError, match="holds no key"):
        read_keys(config(f"server: {{api_keys_file: {tmp_path / 'keys'}}}"))
    with pytest.raises(ConfigError, match="cannot read"):
        read_keys(config(f"server: {{api_keys_file: {tmp_path / 'none'}}}"))


def test_keys_come_from_systemds_credential(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert not read_keys(config(""))
    (tmp_path / "api-keys").write_text("")
    assert not read_keys(config(""))
    with pytest.raises(ConfigError, match="there is no key"):
        read_keys(config("server: {host: 0.0.0.0}"))
    (tmp_path / "api-keys").write_text("secret\n")
    assert read_keys(config("server: {host: 0.0.0.0}")).owner(b"secret")
