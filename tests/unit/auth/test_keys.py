"""Who may ask, and under which name."""

import logging
import os

import pytest

from qwen_edge.auth.keys import read_keys
from qwen_edge.config.load import parse_config
from qwen_edge.config.schema import Config, ServerConfig
from qwen_edge.core.errors import ConfigError
from qwen_edge.protocol.messages import Caller

ONE, TWO = "one-1234567890abcdef", "two-1234567890abcdef"


def config(text: str):
    return parse_config(text, "test")


@pytest.fixture
def keys_in(tmp_path):
    """Reads keys from a file with this text, of mode 600."""

    def read(text: str | bytes, mode: int = 0o600):
        file = tmp_path / "keys"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        file.chmod(mode)
        return read_keys(config(f"server: {{host: 0.0.0.0, api_keys_file: {file}}}"))

    return read


def test_without_keys_only_loopback_is_served():
    assert not read_keys(config(""))
    with pytest.raises(ConfigError, match="which other machines can reach, but no API key is configured"):
        read_keys(config("server: {host: 0.0.0.0}"))


def test_keys_come_one_a_line_from_the_file_with_the_names_of_their_owners(keys_in):
    keys = keys_in(f"# kitchen\n  # cellar\n{ONE}\n\n  {TWO}   the cellar  # since May\n")
    assert (keys.owner(TWO.encode()), keys.owner(b"secret-3")) == ("the cellar", None)
    named = keys.owner(ONE.encode())
    assert named and named.startswith("key-") and "one" not in named


def test_a_key_file_that_is_named_must_hold_a_key(keys_in, tmp_path):
    with pytest.raises(ConfigError, match="contains no key"):
        keys_in("# none yet\n")
    with pytest.raises(ConfigError, match="cannot read"):
        read_keys(config(f"server: {{api_keys_file: {tmp_path / 'none'}}}"))


def test_a_pipe_that_nobody_writes_to_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "keys")
    with pytest.raises(ConfigError, match=r"api_keys_file: cannot read .*keys: it is not a regular file\."):
        read_keys(config(f"server: {{api_keys_file: {tmp_path / 'keys'}}}"))


def test_keys_come_from_systemds_credential(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert not read_keys(config(""))
    for nothing in ("", "# none"):
        (tmp_path / "api-keys").write_text(nothing)
        assert not read_keys(config(""))
    with pytest.raises(ConfigError, match="no API key is configured"):
        read_keys(config("server: {host: 0.0.0.0}"))
    (tmp_path / "api-keys").write_text(f"{ONE}\n")
    assert read_keys(config("server: {host: 0.0.0.0}")).owner(ONE.encode())


@pytest.mark.parametrize(
    ("line", "key", "name"),
    [
        ("0123456789#abcdef kitchen", "0123456789#abcdef", "kitchen"),
        ("0123456789abcdef# kitchen", "0123456789abcdef#", "kitchen"),
        ("0123456789abcdef room#2", "0123456789abcdef", "room#2"),
        ("0123456789abcdef room #2", "0123456789abcdef", "room"),
        ("0123456789abcdef\tkitchen\t#2", "0123456789abcdef", "kitchen"),
        ("0123456789abcdef the  kitchen\r", "0123456789abcdef", "the kitchen"),
        ("schlüssel-schlüssel küche", "schlüssel-schlüssel", "küche"),
    ],
)
def test_a_number_sign_begins_a_comment_only_behind_white_space(keys_in, line, key, name):
    keys = keys_in(line + "\n")
    assert keys.owner(key.encode()) == name
    assert keys.owner(key.partition("#")[0].encode() if "#" in key else b"#") is None


def test_a_byte_order_mark_is_no_part_of_the_first_key(keys_in):
    keys = keys_in(b"\xef\xbb\xbf" + f"{ONE} kitchen\r\n{TWO}\r\n".encode())
    assert keys.owner(ONE.encode()) == "kitchen"
    assert keys.owner(TWO.encode())


def test_files_that_were_joined_have_such_marks_in_their_midst(keys_in):
    keys = keys_in("\ufeff\ufeff# ours\n\ufeff" + f"{ONE} kitchen\n\ufeff{TWO} cellar\n")
    assert (keys.owner(ONE.encode()), keys.owner(TWO.encode())) == ("kitchen", "cellar")


UNSEEN = [
    "\u200b",
    "\u200c",
    "\u200d",
    "\ufeff",
    "\u00ad",
    "\u202e",
    "\u2060",
    "\x00",
    "\x07",
    "\x1b",
    "\x1c",
    "\x7f",
    "\ufe0f",
    "\u3164",
]


@pytest.mark.parametrize("character", UNSEEN, ids=ascii)
@pytest.mark.parametrize("line", ["{}" + TWO, TWO + "{} cellar", "two-{}" + TWO])
def test_a_key_that_nobody_can_send_is_refused_by_its_line_and_not_shown(keys_in, character, line):
    if character == "\ufeff" and line.startswith("{}"):
        line = " " + line  # a mark is taken away at the start of a line only
    with pytest.raises(ConfigError, match="line 2: the line contains an invisible character") as error:
        keys_in(f"{ONE} kitchen\n{line.format(character)}\n")
    assert TWO not in str(error.value)


@pytest.mark.parametrize("name", ["bob\u200b admin", "bob ad\u200bmin", "\x1bbob"])
def test_nothing_unseen_hides_a_name_or_a_right(keys_in, name):
    with pytest.raises(ConfigError, match="line 1: the line contains an invisible character"):
        keys_in(f"{ONE} {name}\n")


@pytest.mark.parametrize("path", ["~nosuchuser/keys", "a\0b"])
def test_a_path_of_keys_that_cannot_be_one_is_a_mistake_in_the_settings(path):
    with pytest.raises(ConfigError, match=r"^server\.api_keys_file: "):
        read_keys(Config(server=ServerConfig(api_keys_file=path)))


@pytest.mark.parametrize("key", ["x", "fifteen-letters", "a#b", "ééééééééééééééé"])
def test_a_key_that_can_be_guessed_is_refused_by_its_line_and_not_shown(keys_in, key):
    with pytest.raises(ConfigError, match="line 3: the key has") as error:
        keys_in(f"# keys\n{ONE} kitchen\n{key} cellar\n")
    assert "cellar" not in str(error.value)
    assert len(key) < 2 or key not in str(error.value)


def test_sixteen_characters_are_enough(keys_in):
    assert keys_in("0123456789abcdef").owner(b"0123456789abcdef")


def test_a_key_given_twice_with_two_names_is_refused_and_not_shown(keys_in):
    with pytest.raises(ConfigError, match="line 3: the key is the same as in line 1") as error:
        keys_in(f"{ONE} kitchen\n{TWO}\n{ONE} cellar\n")
    assert ONE not in str(error.value)
    with pytest.raises(ConfigError, match="its rights differ"):
        keys_in(f"{ONE} kitchen\n{ONE} kitchen admin\n")
    assert keys_in(f"{ONE} kitchen\n{ONE} kitchen\n").owner(ONE.encode()) == "kitchen"


def test_two_keys_with_one_name_have_one_owner(keys_in):
    keys = keys_in(f"{ONE} kitchen\n{TWO} kitchen\n")
    assert keys.caller(ONE.encode()) == keys.caller(TWO.encode()) == Caller("kitchen", admin=False)


def test_admin_is_a_word_behind_the_name(keys_in, caplog):
    assert keys_in(f"{ONE} the boss admin # all of it\n").caller(ONE.encode()) == Caller("the boss", admin=True)
    assert keys_in(f"{ONE} administrator\n").caller(ONE.encode()) == Caller("administrator", admin=False)
    assert keys_in(f"{ONE} admin boss\n").caller(ONE.encode()) == Caller("admin boss", admin=False)
    for word in ("Admin", "ADMIN"):
        assert keys_in(f"{ONE} bob {word}\n").caller(ONE.encode()) == Caller("bob", admin=True)
    assert not caplog.records
    assert keys_in(f"{ONE} Admin\n").caller(ONE.encode()) == Caller("Admin", admin=False)
    assert "KEY NAME admin" in caplog.text
    caplog.clear()
    assert keys_in(f"{ONE} admin\n").caller(ONE.encode()) == Caller("admin", admin=False)
    assert "line 1" in caplog.text and "KEY NAME admin" in caplog.text and ONE not in caplog.text


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o777, True)]
)
def test_a_file_that_others_can_read_is_warned_of_once(keys_in, caplog, mode, warned):
    with caplog.at_level(logging.WARNING):
        keys_in(f"{ONE}\n", mode)
    assert [f"{mode:o}" in record.getMessage() for record in caplog.records] == [True] * warned


def test_systemds_credentials_are_guarded_by_their_folder(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    file = tmp_path / "api-keys"
    file.write_text(f"{ONE}\n")
    file.chmod(0o440)
    assert read_keys(config(""))
    assert read_keys(config(f"server: {{api_keys_file: {file}}}"))
    assert not caplog.records


def test_letting_all_pages_in_without_a_key_is_warned_of(keys_in, caplog):
    read_keys(config("server: {origins: ['*']}"))
    assert "every web page" in caplog.text
