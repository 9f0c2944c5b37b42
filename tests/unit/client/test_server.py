"""A server is named by its URL or by HOST:PORT; what keeps it from answering is told with a remedy."""

import pytest

from qwen_edge.client.server import RefusedError, UnreachableError, server_url, servers_at


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("HTTPS://home.example/v1", "HTTPS://home.example/v1"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("[::1]:8080/v1", "http://[::1]:8080/v1"),
        ("jetson.local:80", "http://jetson.local:80"),
        ("qwen3", None),
        ("models/a.gguf", None),
        ("name=http://127.0.0.1:8080", None),
        ("name=127.0.0.1:8080", None),
    ],
)
def test_a_server_is_named_by_its_url_or_by_host_and_port(text, url):
    assert server_url(text) == url


def test_a_file_with_the_name_of_an_address_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model:1").touch()
    assert server_url("model:1") is None


async def test_a_server_that_is_not_there_is_told_in_plain_words():
    async with servers_at(["http://127.0.0.1:1"]) as (server,):
        with pytest.raises(UnreachableError, match=r"cannot be reached: Connection refused\. Is the server running\?"):
            await server.models()


def test_a_refusal_is_told_in_the_servers_words_and_a_missing_key_with_its_place():
    body = '{"error": {"message": "A key is needed."}}'
    assert str(RefusedError("http://h/v1", 401, body)) == (
        "http://h/v1 answers 401: A key is needed. Set the environment variable QWEN_EDGE_API_KEY to the key."
    )
    assert str(RefusedError("http://h/v1", 500, "oops")) == "http://h/v1 answers 500: oops"
