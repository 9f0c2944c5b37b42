"""A target is a server or a model file, with a name of its own or of ours."""

import pytest

from qwen_edge.core.errors import UserError
from qwen_edge.rate.collect import Target, parse_targets


@pytest.mark.parametrize(
    ("text", "name", "url"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("127.0.0.1:8080", "127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("Qwen3=127.0.0.1:8080", "Qwen3", "http://127.0.0.1:8080"),
        ("Qwen3=http://127.0.0.1:8080", "Qwen3", "http://127.0.0.1:8080"),
        ("Q=http://host/?a=b", "Q", "http://host/?a=b"),
    ],
)
def test_a_server_may_have_a_name_and_needs_no_http(text, name, url):
    assert Target.parse(text) == Target(name, url)


@pytest.mark.parametrize("text", ["nothing", "N=nothing.gguf", "ftp://host/x", "N=ftp://host"])
def test_what_is_neither_a_server_nor_a_file_is_refused(text):
    with pytest.raises(UserError, match="is neither the address of a server"):
        parse_targets([text])
