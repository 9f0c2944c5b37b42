"""A client that comes from another server is told by which name and on which path the same thing is here."""

import pytest

from qwen_edge.core.errors import RequestError
from qwen_edge.server.app import ALL_DIALECTS, ROUTES
from qwen_edge.server.parameters import read_group
from qwen_edge.server.spelling import advice, other_path

BODIES = {route.path: route.body for route in ROUTES}
PATHS = {path for route in ROUTES for path in (route.path, *route.also)}
HI = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("path", "values", "name", "meant"),
    [
        ("/v1/chat/completions", {"messages": HI}, "max_output_tokens", "max_tokens"),
        ("/v1/chat/completions", {"messages": HI}, "num_predict", "n_predict"),
        ("/v1/chat/completions", {"messages": HI}, "stop_sequences", "stop"),
        ("/v1/chat/completions", {}, "prompt", "messages"),
        ("/v1/chat/completions", {}, "input", "messages"),
        ("/v1/chat/completions", {"messages": HI}, "format", "response_format"),
        ("/v1/completions", {}, "messages", "prompt"),
        ("/v1/embeddings", {}, "prompt", "input"),
        ("/v1/responses", {}, "messages", "input"),
        ("/v1/messages", {"messages": HI, "max_tokens": 5}, "stop", "stop_sequences"),
        ("/v1/messages", {"messages": HI}, "num_predict", "max_tokens"),
        ("/v1/messages", {"messages": HI, "max_tokens": 5}, "response_format", "output_config.format"),
        ("/api/chat", {"messages": HI}, "max_tokens", "options.num_predict"),
        ("/api/chat", {"messages": HI}, "stop", "options.stop"),
        ("/api/chat", {"messages": HI}, "enable_thinking", "think"),
        ("/api/chat", {"messages": HI}, "response_format", "format"),
        ("/api/chat", {}, "prompt", "messages"),
        ("/tokenize", {}, "text", "content"),
    ],
)
def test_a_name_from_another_api_comes_with_the_name_that_it_has_here(path, values, name, meant):
    with pytest.raises(RequestError) as refused:
        read_group(BODIES[path], {**values, name: 1}, ignore_unknown=False)
    assert (refused.value.code, refused.value.parameter) == ("unknown_parameter", name)
    assert f"Did you mean {meant}?" in str(refused.value)


def test_a_name_that_means_nothing_here_is_to_be_left_out():
    assert advice("colour", ["messages", "stop"]) == "Leave the parameter out."
    assert advice("num_predict", ["messages", "stop"]) == "Leave the parameter out."


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/chat/completions", "/chat/completions"),
        ("/openai/v1/responses/", "/v1/responses"),
        ("/v1/v1/messages", "/v1/messages"),
        ("/v1/api/chat", "/api/chat"),
        ("/v1/health", "/health"),
    ],
)
def test_a_base_url_that_is_too_long_is_told(path, there):
    assert other_path(path, PATHS) == f"There is {there}: the client's base URL is too long."


def test_a_misspelled_path_is_told_and_no_other_is_guessed():
    assert other_path("/v1/chat/completion", PATHS) == "Did you mean /v1/chat/completions?"
    assert other_path("/api/tag", PATHS) == "Did you mean /api/tags?"
    for path in ("/v1/files", "/", "//", "/infill", "/" + "x" * 100_000):
        assert other_path(path, PATHS) == ""


@pytest.mark.parametrize(
    ("path", "questions"),
    [
        ("/v1/files", "POST /v1/chat/completions; docs/api.md"),
        ("/v1/messages/batches", "POST /v1/messages; docs/anthropic.md"),
        ("/api/foo", "POST /api/chat; docs/ollama.md"),
    ],
)
def test_a_path_that_is_not_there_names_the_one_of_its_api(path, questions):
    assert ALL_DIALECTS.at(path).what_there_is == f"Questions go to {questions} has all paths."


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/v1/chat/completions", "messages"),
        ("/v1/embeddings", "input"),
        ("/v1/messages", "max_tokens"),
        ("/api/embed", "input"),
        ("/tokenize", "content"),
    ],
)
def test_a_missing_parameter_is_named(path, parameter):
    others = {"messages": HI} if path == "/v1/messages" else {}
    with pytest.raises(RequestError) as refused:
        read_group(BODIES[path], others, ignore_unknown=False)
    assert refused.value.parameter == parameter
    assert str(refused.value) == f"Missing required parameter: {parameter!r}. Send it."


def test_the_words_that_a_format_of_ollama_may_be_are_told_without_the_empty_one():
    with pytest.raises(RequestError, match=r"'xml': must be one of json, or an object\."):
        read_group(BODIES["/api/chat"], {"model": "a", "format": "xml"}, ignore_unknown=False)
