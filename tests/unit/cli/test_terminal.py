"""What models, servers, files and errors say is shown as it is: no markup, and nothing that a terminal obeys."""

import io
import json
import socket
import threading
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from qwen_edge.bench.article_table import article_table
from qwen_edge.bench.report import Results
from qwen_edge.cli import advise, cache, doctor, main, status
from qwen_edge.cli.terminal import as_json, other_program, plain, terminal
from qwen_edge.config.paths import Place
from qwen_edge.core.errors import UserError
from qwen_edge.core.printable import clean
from qwen_edge.core.progress import on_console
from tests.unit.cli.devices import device

NASTY = "[red]x[/red][/]\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202edlo\\[b]\r:smile:"


def obeyed(text: str) -> set[str]:
    """The characters in it that a terminal would obey, but for the ends of lines."""
    return {one for one in text if unicodedata.category(one) in ("Cc", "Zl", "Zp") and one != "\n"} | (
        {"\u202e"} & {*text}
    )


def shown(what) -> str:
    console = Console(file=io.StringIO(), width=2000, force_terminal=False)
    console.print(what)
    return console.file.getvalue()


@given(st.text())
def test_no_text_leaves_a_control_character_and_readable_text_stays_as_it_is(text):
    assert not obeyed(clean(text).replace("\t", ""))
    assert not obeyed(shown(plain(text)))
    assert json.loads(as_json({"said": text}), strict=False) == {"said": text} or any(
        "\ud800" <= c <= "\udfff" for c in text
    )
    if text.isprintable():
        assert clean(text) == text


def test_what_is_hidden_is_written_out():
    assert clean("a\x1b[31m \x9b\x7f\u202e 好 👩\u200d🔬\nb\tc") == "a\\x1b[31m \\x9b\\x7f\\u202e 好 👩\u200d🔬\nb\tc"
    assert plain("a\nb").plain == "a\\nb"
    assert as_json(["\x9b\x7f\u202e好"]) == '[\n "\\u009b\\u007f\\u202e好"\n]'


def test_a_conversation_is_listed_as_it_is(monkeypatch, capsys):
    row = {"key": NASTY, "tokens": 1, "cached": 2, "copied": 3, "written": 4, "file_bytes": 5, "pinned_until": 0.0}
    monkeypatch.setattr(cache, "ask", lambda *_: {"data": [{**row, "ends": NASTY}]})
    monkeypatch.setenv("COLUMNS", "400")
    main("cache", "--url", "http://127.0.0.1:9", "ls")
    out = capsys.readouterr().out
    assert out.count("[red]x[/red][/]\\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\x7f\\u202edlo\\[b]\\r:smile:") == 2
    assert not obeyed(out)
    main("cache", "--url", "http://127.0.0.1:9", "ls", "--json")
    assert not obeyed(out := capsys.readouterr().out)
    assert json.loads(out)[0]["ends"] == NASTY


def test_a_device_is_shown_as_it_is(monkeypatch, capsys):
    nasty = device(NASTY)
    out = shown(status.render(nasty))
    assert not obeyed(out)
    assert out.count("[red]x[/red][/]") >= 8
    monkeypatch.setattr(status, "ask_device", lambda _url: nasty)
    main("status", "--url", "http://127.0.0.1:9", "--json")
    assert not obeyed(out := capsys.readouterr().out)
    assert json.loads(out) == nasty


@pytest.mark.parametrize("table", [Results.table, article_table])
def test_an_address_in_brackets_is_no_markup(table, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    results = Results(["http://[fe80::1]:8080", "http://[b]:1/:smile:"])
    for server in results.servers:
        results.add("relativity", server, {"tokens/s": 1.0})
    terminal().print(table(results))
    out = capsys.readouterr().out
    for server in results.servers:
        assert server in out


def test_a_conversion_tells_names_as_they_are():
    console = Console(file=io.StringIO(), width=2000)
    on_console(console).say(f"{NASTY}: done")
    out = console.file.getvalue()
    assert not obeyed(out)
    assert out.startswith("[red]x[/red][/]")
    assert out.endswith(":smile:: done\n")


def test_power_modes_are_shown_as_they_are():
    one = advise.Measured(NASTY, "m", 1.0, 2.0, 3.0, time.time())
    out = shown(advise._table([one], one))
    assert "[red]x[/red][/]" in out
    assert not obeyed(out)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/\x1b[31m", "\x1b[31m", f"http://{NASTY}"])
def test_errors_are_shown_as_they_are(capsys, url):
    with pytest.raises(SystemExit):
        main("cache", "--url", url, "ls")
    err = capsys.readouterr().err
    assert err.startswith("qwen-edge: ")
    assert not obeyed(err)


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-x\r\n", b"", *(b"HTTP/1.0 200 x\r\n\r\n" + it for it in (b"[]", b'{"data": [1]}', b"x"))]
)
@pytest.mark.parametrize("words", [("cache", "ls"), ("status", "--json")], ids=" ".join)
def test_something_else_that_answers_there_is_told_in_one_sentence(capsys, answer, words):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with listener.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        with pytest.raises(SystemExit):
            main(words[0], "--url", f"http://127.0.0.1:{listener.getsockname()[1]}", *words[1:])
        server.join()
    err = capsys.readouterr().err
    assert err.startswith("qwen-edge: ")
    assert err.count("\n") == 1
    assert "--url" in err


def test_a_servers_complaint_is_shown_as_it_is(monkeypatch, capsys):
    def refuse(*_arguments):
        raise UserError(f"no: {NASTY}")

    monkeypatch.setattr(cache, "ask", refuse)
    with pytest.raises(SystemExit):
        main("cache", "--url", "http://127.0.0.1:9", "rm", "key")
    assert not obeyed(err := capsys.readouterr().err)
    assert "no: [red]x[/red]" in err


def test_what_was_typed_is_shown_as_it_is(capsys):
    for words in (("serve", "--c\x1b[31mx"), ("st\x1b[31mtus",), ("serve", "--port", "\x1b[31m")):
        with pytest.raises(SystemExit) as stopped:
            main(*words)
        assert stopped.value.code == 2
        assert not obeyed(capsys.readouterr().err)


def test_the_doctor_shows_findings_as_they_are(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(doctor, "diagnose", lambda *_, **__: [doctor.Finding("bad", NASTY, NASTY)])
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    with pytest.raises(SystemExit):
        main("doctor")
    assert not obeyed(out := capsys.readouterr().out)
    assert out.count("[red]x[/red][/]") == 2


def test_another_installation_than_the_services_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.prefix", str(tmp_path / "a"))
    place = Place(None, Path("/s"), Path("/m"), True, tmp_path / "a/bin/qwen-edge")
    assert other_program(place) == ""
    monkeypatch.setattr("sys.prefix", str(tmp_path / "b"))
    assert (
        other_program(place)
        == f"The service runs {tmp_path}/a/bin/qwen-edge, but this command belongs to the installation in {tmp_path}/b."
    )
