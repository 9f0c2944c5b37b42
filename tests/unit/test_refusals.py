"""What a request or a settings file is refused with says what to do instead."""

import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from qwen_edge.auth.keys import read_keys
from qwen_edge.config.load import parse_config
from qwen_edge.core.errors import ConfigError, RequestError
from qwen_edge.server.app import ALL_DIALECTS
from qwen_edge.server.dialects import DIALECTS
from qwen_edge.server.middleware import errors_as_responses
from qwen_edge.server.openai.chat_body import read_body


@pytest.mark.parametrize(
    ("name", "value", "supported"),
    [
        ("echo", True, "only false"),
        ("best_of", 2, "only 1"),
        ("mirostat", 2, "only 0"),
    ],
)
def test_a_value_that_is_not_supported_is_refused_with_those_that_are(name, value, supported):
    body = {"messages": [{"role": "user", "content": "hi"}], name: value}
    with pytest.raises(RequestError) as refused:
        read_body(json.dumps(body).encode(), ignore_unknown=False)
    assert supported in str(refused.value)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"priority": "high"},
            "Invalid priority: Invalid enum value 'high': must be one of interactive, background, idle.",
        ),
        (
            {"messages": [{"role": "usr", "content": ""}]},
            "'usr': must be one of system, developer, user, assistant, tool, function.",
        ),
        ({"tools": [{"type": "f", "function": {"name": "f"}}]}, "'f': must be one of function."),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "'image_url': content is text here, or"),
        ({"prompt_cache_retention": "1h"}, "'1h': must be one of in_memory, in-memory, 24h."),
    ],
)
def test_a_word_that_is_not_known_is_refused_with_those_that_are(more, words):
    body = {"messages": [{"role": "user", "content": "hi"}], **more}
    with pytest.raises(RequestError) as refused:
        read_body(json.dumps(body).encode(), ignore_unknown=False)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("POST", "/v1/completions", "POST /v1/completions: Not Found. Questions go to POST /v1/chat/completions"),
        ("GET", "/v1/chat/completions", "GET /v1/chat/completions: Method Not Allowed. Send POST."),
        ("POST", "/v1/chat/completion", "Not Found. Did you mean /v1/chat/completions?"),
        ("POST", "/v1/v1/chat/completions", "There is /v1/chat/completions: the client's base URL is too long."),
    ],
)
async def test_a_path_or_method_that_is_not_there_is_told_what_is(method, path, words):
    async def answer(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application(middlewares=[errors_as_responses])
    app[DIALECTS] = ALL_DIALECTS
    app.router.add_post("/v1/chat/completions", answer)
    async with TestClient(TestServer(app)) as client:
        response = await client.request(method, path)
        assert words in (await response.json())["error"]["message"]


def test_a_key_file_that_cannot_be_read_is_told_once_and_what_it_should_hold(tmp_path):
    missing = tmp_path / "keys"
    config = parse_config(f"server: {{api_keys_file: {missing}}}", "test")
    with pytest.raises(
        ConfigError,
        match=r"cannot read .*keys: No such file or directory\. The file must be text with one key on each line",
    ):
        read_keys(config)
