"""Every number on the command line has limits: those of the setting it stands for, where it stands for one."""

import math
import os
from collections.abc import Iterator
from importlib.metadata import version

import click
import pytest

from qwen_edge.cli import _cli, main
from qwen_edge.config.load import parse_config
from qwen_edge.config.schema import MOST_PIN_HOURS, RememberConfig
from qwen_edge.core.errors import ConfigError, UserError
from qwen_edge.supervisor.engine_settings import conversation_files

ODD = os.fsdecode(b"odd\xff")
SETTINGS = {"--port": "server.port", "--context": "engine.context", "--threads": "engine.threads"}


def numbers() -> Iterator[tuple[tuple[str, ...], click.Option]]:
    """Every option that takes a number, with the words that lead to it."""

    def within(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Option]]:
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                yield from within(command.get_command(context, name), (*words, name))
        for option in command.params:
            if isinstance(option, click.Option) and isinstance(
                option.type, click.IntRange | click.FloatRange | type(click.INT) | type(click.FLOAT)
            ):
                yield words, option

    return within(_cli, ())


ALL = list(numbers())
IDS = [" ".join((*words, option.opts[-1])) for words, option in ALL]
BOUNDED = [(words, option) for words, option in ALL if option.name != "seed"]  # any seed is as good


def refused(capsys, words: tuple[str, ...], option: click.Option, value: str) -> str:
    arguments = {"bench": ("http://127.0.0.1:9",), "pin": ("key",)}.get(words[-1], ())
    with pytest.raises(SystemExit) as stopped:
        main(*words, *arguments, option.opts[-1], value)
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(("words", "option"), ALL, ids=IDS)
@pytest.mark.parametrize("value", ["many", "nan", "inf", "1e999", ""])
def test_what_is_no_number_is_refused_with_the_flags_name(capsys, words, option, value):
    assert f"Invalid value for '{option.opts[0]}'" in refused(capsys, words, option, value)


@pytest.mark.parametrize(("words", "option"), BOUNDED, ids=[" ".join((*w, o.opts[-1])) for w, o in BOUNDED])
def test_every_number_has_a_least_and_a_most_and_they_hold(capsys, words, option):
    assert option.type.min is not None
    assert option.type.max is not None
    for value in (option.type.min - 1, option.type.max + 1):
        said = refused(capsys, words, option, str(value))
        assert f"Invalid value for '{option.opts[0]}'" in said
        assert "is not in the range" in said


@pytest.mark.parametrize("flag", SETTINGS)
def test_a_flag_takes_what_the_file_takes_and_nothing_else(flag):
    group, key = SETTINGS[flag].split(".")
    option = next(option for words, option in ALL if words == ("serve",) and flag in option.opts)
    for limit, beyond in ((option.type.min, -1), (option.type.max, 1)):
        assert option.type.convert(str(limit), None, None) == limit
        assert getattr(getattr(parse_config(f"{group}: {{{key}: {limit}}}", "f"), group), key) == limit
        with pytest.raises(click.BadParameter):
            option.type.convert(str(limit + beyond), None, None)
        with pytest.raises(ConfigError):
            parse_config(f"{group}: {{{key}: {limit + beyond}}}", "f")


def test_every_number_of_serve_is_a_setting():
    assert {option.opts[-1] for words, option in ALL if words == ("serve",)} == set(SETTINGS)


def test_a_pin_is_no_longer_than_the_daemon_takes():
    option = next(option for words, option in ALL if words == ("cache", "pin"))
    assert option.type.max == MOST_PIN_HOURS
    assert math.isfinite(option.default)


def test_the_list_of_verbs_is_whole_sentences_that_fit_a_terminal(capsys):
    main("--help")
    main("cache", "--help")
    out = capsys.readouterr().out
    assert not [line for line in out.splitlines() if line.endswith("...") and not line.startswith("Usage")]
    assert max(map(len, out.splitlines())) <= 80


def test_the_version_is_told(capsys):
    main("--version")
    assert capsys.readouterr().out == f"qwen-edge, version {version('qwen-edge')}\n"


@pytest.mark.parametrize(
    "options",
    [
        ("serve", "--model", ODD),
        ("serve", "--alias", ODD, "--alias", "b"),
        ("serve", "--host", ODD),
        ("doctor", "-c", ODD),
        ("tune", "--model", ODD),
        ("convert", ODD),
        ("convert", "-o", ODD),
        ("convert", "--imatrix", ODD),
    ],
)
def test_what_is_not_utf_8_on_the_command_line_is_one_sentence(options, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN_EDGE_MODELS", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        main(*options)
    (said,) = capsys.readouterr().err.splitlines()
    assert (ended.value.code, said.startswith("qwen-edge: "), r"\udcff" in said) == (2, True, True)


def test_conversations_are_kept_in_no_folder_that_the_engine_cannot_be_told_of(monkeypatch):
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", f"/tmp/{ODD}")
    with pytest.raises(UserError, match=r"The folder of conversations .* its path is not UTF-8 text"):
        conversation_files(RememberConfig())
    assert conversation_files(RememberConfig(where="off")) is None
