"""A settings file is taken whole or refused with the line and the key."""

import os
import re
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.config.load import apply_options, load_config, parse_config
from qwen_edge.config.schema import Config
from qwen_edge.core.errors import ConfigError


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as error:
        parse_config(text, "q.yaml")
    return str(error.value)


def test_an_empty_file_is_the_defaults():
    assert parse_config("", "q.yaml") == Config()
    assert load_config(None) == Config()


def test_every_default_can_be_written_down(tmp_path):
    file = tmp_path / "q.yaml"
    file.write_bytes(msgspec.yaml.encode(Config()))
    assert load_config(file) == Config()


@pytest.mark.parametrize(
    "origin", ["https://home.example", "http://192.168.1.5:8123/", "http://[::1]:80", "*", "app://x"]
)
def test_origins_of_pages_are_taken(origin):
    assert parse_config(f"server: {{origins: ['{origin}']}}", "q.yaml").server.origins == (origin,)


@pytest.mark.parametrize(
    "origin", ["home.example", "https://home.example/path", "https://*.example", "null", "", "http://"]
)
def test_what_is_no_origin_is_refused_and_told_how_one_looks(origin):
    said = refused(f"model: x\nserver:\n  origins: ['https://a', '{origin}']\n")
    assert "line 2: server: origins[1] must be the origin of web pages, such as https://home.example" in said


def test_the_example_file_is_the_defaults():
    file = Path(__file__).parents[3] / "systemd" / "qwen-edge.yaml"
    assert load_config(file) == Config()
    every_line = re.sub(r"^( *)# (\w+:)", r"\1\2", file.read_text(), flags=re.MULTILINE)
    config = parse_config(every_line, "example")
    for group in ("engine", "server", "remember", "chat"):
        written = yaml.safe_load(every_line)[group]
        assert set(written) == set(getattr(config, group).__struct_fields__), "the example shows every setting"


def test_the_service_finds_its_file_by_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", str(tmp_path))
    assert load_config(None) == Config()
    (tmp_path / "qwen-edge.yaml").write_text("log_level: debug")
    assert load_config(None).log_level == "debug"


def test_settings_are_read():
    config = parse_config("engine:\n  context: 4096\nserver: {port: 1234, model_aliases: [a, b]}\n", "q.yaml")
    assert (config.engine.context, config.server.port, config.server.model_aliases) == (4096, 1234, ("a", "b"))
    assert config.engine.batch == Config().engine.batch


@pytest.mark.parametrize("word", ["on", "off", "auto", '"on"', "'off'"])
def test_a_switch_needs_no_quotes(word):
    config = parse_config(f"engine: {{flash_attention: {word}}}", "q.yaml")
    assert config.engine.flash_attention == word.strip("\"'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("engine:\n  contxt: 4", "q.yaml, line 2: engine.contxt: there is no such setting. Did you mean context?"),
        ("\nfoo: 1", "q.yaml, line 2: foo: there is no such setting. There are: model,"),
        ("engine:\n\n  context: many", "q.yaml, line 3: engine.context: expected a whole number, got text."),
        ("server:\n  port: 70000", "q.yaml, line 2: server.port: expected a whole number <= 65535."),
        ("server:\n  model_aliases: [a, 3]", "q.yaml, line 2: server.model_aliases[1]: expected text, got a whole"),
        ("engine: {kv_type: q5}", "q.yaml, line 1: engine.kv_type: must be one of auto, f16, q8_0_keys, q8_0, q4_0."),
        ("chat: 3", "q.yaml, line 1: chat: expected a group of settings, got a whole number."),
        ("- a", "q.yaml, line 1: the file: expected a group of settings, got a list."),
        ("5: 1", "q.yaml, line 1: the file: expected text."),
        ('"mo\\ndel": a', "q.yaml, line 1: "),
        ("a: [", "q.yaml, line 1: not valid YAML"),
        ("engine:\n  batch: 64\n  batch: 32", "q.yaml, line 3: engine.batch is given twice (first in line 2)."),
        ("model: !!python/object:os.system x", "q.yaml, line 1: not valid YAML"),
        ("model: &a [*a]", "q.yaml: not valid YAML: a value contains itself, or has too many levels."),
        ('server: {model_aliases: ["\\ud83d"]}', r"q.yaml: an escape such as \ud83d is half a character."),
        ('device: {joules_per_hour: {"\\udcff": 1}}', r"q.yaml: an escape such as \ud83d is half a character."),
        ("model: 2024-13-45", "q.yaml: not valid YAML"),
        ("engine: {context: 99999999999999999999}", "q.yaml, line 1: engine.context: expected"),
        ("server: {answer_seconds: .inf}", "q.yaml, line 1: server.answer_seconds: expected"),
        ("server: {answer_seconds: .nan}", "q.yaml, line 1: server.answer_seconds: expected"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_key(text, message):
    assert refused(text).startswith(message)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / "none.yaml"))):
        load_config(tmp_path / "none.yaml")


LAUGHS = "a: &a [x, x, x]\n" + "".join(
    f"{one}: &{one} [*{other}, *{other}, *{other}]\n"
    for other, one in zip("abcdefghijklmnopqrstuvwxy", "bcdefghijklmnopqrstuvwxyz", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        LAUGHS.replace("[", "{k: [").replace("]", "]}"),
        LAUGHS + "server: {model_aliases: *z}\n",
        "m: &a {k: 1}\n"
        + "".join(
            f"{one}: &{one} {{p: *{other}, q: *{other}}}\n"
            for other, one in zip("abcdefghijklmnopqrst", "bcdefghijklmnopqrstu", strict=True)
        ),
        f"server: {{model_aliases: [{'a, ' * 11_000}]}}",
    ],
    ids=["lists", "groups", "used", "groups of groups", "no aliases"],
)
def test_a_few_lines_that_mean_millions_of_values_are_refused_before_they_are_looked_at(text):
    """Nobody would live to see this test fail."""
    assert "more than 10000 values" in refused(text)
    assert re.match(r"q\.yaml, line \d+: ", refused(text))


def test_a_key_that_is_a_list_is_refused_before_its_aliases_are_written_out():
    assert refused(LAUGHS.split("d:")[0] + "? [*c, *c]\n: 1\n").startswith(
        "q.yaml, line 4: a name of a setting is text"
    )


def test_aliases_that_mean_little_are_taken():
    assert parse_config("server: {model_aliases: &a [x, y], origins: []}\nmodel: &m a\n", "q").model == "a"
    assert parse_config("model: &m a\nremember: {folder: *m}\n", "q").remember.folder == "a"


def test_a_file_without_an_end_is_not_read_to_it(tmp_path):
    (tmp_path / "q.yaml").touch()
    os.truncate(tmp_path / "q.yaml", 1 << 40)
    with pytest.raises(ConfigError, match=r"q\.yaml: is longer than 100000 characters"):
        load_config(tmp_path / "q.yaml")
    with pytest.raises(ConfigError, match="/dev/zero: cannot be read: it is not a regular file"):
        load_config(Path("/dev/zero"))


PATHS = ["model: {}", "server:\n  api_keys_file: {}", "remember:\n  folder: {}", "device:\n  trace: {}"]
UNUSABLE = {'"~nosuchuser/x"': "home folder of a user", '"a\\0b"': "NUL character", '"a\\ud800"': "half a character"}


@pytest.mark.parametrize("setting", PATHS, ids=lambda text: text.split()[-2].strip(":"))
@pytest.mark.parametrize("path", UNUSABLE)
def test_what_cannot_be_a_path_is_refused_with_its_line_and_key(setting, path):
    text = setting.format(path)
    lines = text.splitlines()
    key = ".".join(line.split(":")[0].strip() for line in lines)
    assert re.match(rf"q\.yaml, line {len(lines)}: {re.escape(key)}: .*{UNUSABLE[path]}.*[^.]\.$", refused(text))


def test_relative_paths_begin_where_the_caller_says():
    text = "model: a\nserver: {api_keys_file: /k}\nremember: {folder: b/c}\ndevice: {trace: ~/t}\n"
    config = parse_config(text, "q", Path("/srv"))
    assert (config.model, config.server.api_keys_file) == ("/srv/a", "/k")
    assert (config.remember.folder, config.device.trace) == ("/srv/b/c", "~/t")
    assert parse_config(text, "q").model == "a"
    assert parse_config("", "q", Path("/srv")) == Config()


def test_options_win_over_the_file():
    file = parse_config("model: a\nserver: {port: 1, model_aliases: [old]}\nengine: {threads: 1, batch: 64}", "f")
    nothing = dict.fromkeys(("host", "port", "context", "threads"))
    assert apply_options(file, None, {**nothing, "alias": ()}) == file
    given = apply_options(
        file, "b", {"host": "::1", "port": 0, "context": 64, "threads": 2, "alias": ("gpt-4o-mini", "x")}
    )
    expected = msgspec.convert(
        {
            "model": "b",
            "server": {"host": "::1", "port": 0, "model_aliases": ["gpt-4o-mini", "x"]},
            "engine": {"context": 64, "threads": 2, "batch": 64},
        },
        Config,
    )
    assert given == expected


def test_a_pipe_that_nobody_writes_to_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "q.yaml")
    with pytest.raises(ConfigError, match=r"q\.yaml: cannot be read: it is not a regular file\.$"):
        load_config(tmp_path / "q.yaml")
    assert load_config(Path(os.devnull)) == Config()


def test_a_file_that_is_closed_is_told_with_the_command_that_opens_it(tmp_path, monkeypatch):
    def closed(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", closed)
    with pytest.raises(ConfigError, match=r"q\.yaml: cannot be read: Permission denied\. .*sudo chmod a\+r /q\.yaml$"):
        load_config(Path("/q.yaml"))


@given(st.text(max_size=60))
def test_no_text_makes_anything_but_a_config_or_an_explanation(text):
    try:
        parse_config(text, "q.yaml")
    except ConfigError as error:
        assert str(error).startswith("q.yaml")
