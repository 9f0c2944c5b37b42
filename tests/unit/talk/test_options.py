"""Options become parameters that any server of OpenAI's API knows, and files of functions are read in any form."""

import json

import pytest

from qwen_edge.core.errors import UserError
from qwen_edge.talk.options import Options, read_schema, read_tools

_BARE = {"name": "on", "description": "light", "parameters": {"type": "object"}}
_WHOLE = {"type": "function", "function": _BARE}


@pytest.fixture
def written(tmp_path):
    def write(value):
        file = tmp_path / "file.json"
        file.write_text(value if isinstance(value, str) else json.dumps(value))
        return file

    return write


def test_what_is_not_asked_for_is_not_sent():
    assert Options().body() == {}
    assert Options(temperature=0.0, top_k=0, seed=0).body() == {"temperature": 0.0, "top_k": 0, "seed": 0}


def test_thinking_and_schema_are_sent_as_other_servers_know_them():
    body = Options(thinking=False, schema={"type": "integer"}, tools=(_WHOLE,), max_tokens=5, top_p=0.5).body()
    assert body == {
        "chat_template_kwargs": {"enable_thinking": False},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": {"type": "integer"}},
        },
        "tools": [_WHOLE],
        "max_tokens": 5,
        "top_p": 0.5,
    }


@pytest.mark.parametrize(
    "value", [[_WHOLE], [_BARE], _BARE, _WHOLE, {"tools": [_WHOLE]}, [{"type": "function", **_BARE}]]
)
def test_functions_may_have_any_form(written, value):
    assert read_tools(written(value)) == (_WHOLE,)


@pytest.mark.parametrize("value", [[], {}, [5], ["on"], [{"name": 5}], "no json", "[" * 100_000])
def test_a_file_without_functions_is_an_error_that_names_it(written, value):
    with pytest.raises(UserError, match=r"file\.json"):
        read_tools(written(value))


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"schema": x}, lambda x: {"json_schema": {"schema": x}}])
def test_a_schema_may_be_bare_or_wrapped(written, wrap):
    assert read_schema(written(wrap({"type": "object"}))) == {"type": "object"}


@pytest.mark.parametrize("value", [5, [], "nope"])
def test_what_is_no_schema_is_an_error(written, value):
    with pytest.raises(UserError, match=r"file\.json"):
        read_schema(written(value))


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    for file in (tmp_path / "none", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(UserError, match="cannot be read"):
            read_schema(file)
