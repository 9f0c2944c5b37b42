"""What the verbs about a running daemon say when they are refused, and how `cache ls` fits a narrow terminal."""

import io
import json
import urllib.error
from email.message import Message

import pytest

from qwen_edge.cli import daemon_client, main
from qwen_edge.core.errors import NotNowError, UserError


def conversation(**more) -> dict:
    counts = {"tokens": 1147, "cached": 1147, "copied": 0, "written": 1147, "file_bytes": 131_000_000}
    return {"key": "4c92e0b7d1", **counts, "pinned_until": 0.0, "ends": "and so on and on " * 10, **more}


@pytest.mark.parametrize("owner", [{}, {"owner": "kitchen"}])
def test_a_narrow_terminal_cuts_what_a_conversation_ends_in_and_never_its_key(monkeypatch, capsys, owner):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("qwen_edge.cli.cache.ask", lambda *_: {"data": [conversation(**owner)]})
    main("cache", "--url", "http://127.0.0.1:1", "ls")
    title, line = capsys.readouterr().out.splitlines()
    assert title.split()[:4] == ["key", "tokens", "cached", "copied"]
    assert line.split()[:6] == ["4c92e0b7d1", "1147", "1147", "0", "1147", "131"]
    assert "and so" in line and len(line) <= 80


@pytest.mark.parametrize("verb", ["rm", "pin"])
def test_a_key_is_sent_as_it_was_typed(monkeypatch, verb):
    asked = []
    monkeypatch.setattr("qwen_edge.cli.cache.ask", lambda method, url, *_: asked.append(url) or {"data": []})
    main("cache", "--url", "http://127.0.0.1:1", verb, "a/é ?#")
    assert asked == ["http://127.0.0.1:1/v1/cache/a%2F%C3%A9%20%3F%23" + ("/pin" if verb == "pin" else "")]


def test_a_daemon_that_is_not_there_is_told_without_the_layers_around_the_cause():
    with pytest.raises(
        NotNowError, match=r"^There is no qwen-edge at http://127\.0\.0\.1:1/x: Connection refused\. Is"
    ):
        daemon_client.ask("GET", "http://127.0.0.1:1/x")


def test_an_address_without_http_is_told_what_an_address_looks_like():
    with pytest.raises(NotNowError, match=r"unknown url type: localhost\. .* --url http://HOST:PORT"):
        daemon_client.ask("GET", "localhost:8080/v1/cache")


def test_a_key_that_is_missing_is_asked_for_where_the_command_takes_it(monkeypatch):
    def refuse(*_, **__):
        body = io.BytesIO(json.dumps({"error": {"message": "A valid API key is needed."}}).encode())
        raise urllib.error.HTTPError("http://127.0.0.1:1", 401, "Unauthorized", Message(), body)

    monkeypatch.setattr(daemon_client.urllib.request, "urlopen", refuse)
    with pytest.raises(UserError, match=r"A valid API key is needed\. .* QWEN_EDGE_API_KEY"):
        daemon_client.ask("GET", "http://127.0.0.1:1/v1/cache")
