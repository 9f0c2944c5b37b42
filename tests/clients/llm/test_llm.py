"""Simon Willison's `llm`, as typed into a terminal, with extra-openai-models.yaml."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FUNCTION = """
def set_light(room: str, state: str) -> str:
    "Switch a light on or off."
    return room + " " + state
"""


@pytest.fixture
def llm(scripted, tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    lines = [
        "- model_id: edge",
        "  model_name: qwen3-0.6b",
        f"  api_base: {scripted.v1}",
        "  api_key_name: edge",
        "  supports_tools: true",
        "  supports_schema: true",
        "- model_id: edge-completion",
        "  model_name: qwen3-0.6b",
        f"  api_base: {scripted.v1}",
        "  api_key_name: edge",
        "  completion: true",
    ]
    (tmp_path / "extra-openai-models.yaml").write_text("\n".join(lines) + "\n")
    (tmp_path / "keys.json").write_text(json.dumps({"edge": scripted.key}))

    def run(*arguments: str) -> str:
        command = [str(Path(sys.executable).with_name("llm")), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.mark.parametrize("stream", [True, False])
def test_a_prompt_is_answered(llm, stream):
    assert (
        llm("-m", "edge", *([] if stream else ["--no-stream"]), "-s", "Be brief.", "@say It is 好 🙂") == "It is 好 🙂"
    )


def test_a_conversation_goes_on(llm):
    llm("-m", "edge", "@say one\n@then\n@say two")
    assert llm("-c", "@say three") == "three"


@pytest.mark.parametrize("stream", [True, False])
def test_a_schema_is_kept(llm, stream):
    flags = [] if stream else ["--no-stream"]
    answer = llm("-m", "edge", *flags, "--schema", "room, on bool", '@say {"room":"kitchen","on":true}')
    assert json.loads(answer) == {"room": "kitchen", "on": True}


def test_a_json_object_is_json(llm):
    assert json.loads(llm("-m", "edge", "-o", "json_object", "1", '@say {"on":true}')) == {"on": True}


@pytest.mark.parametrize("stream", [True, False])
def test_a_tool_is_called_and_its_result_is_answered(llm, stream):
    script = '@call set_light {"room": "kitchen", "state": "on"}\n@then\n@say It is on.'
    flags = [] if stream else ["--no-stream"]
    assert llm("-m", "edge", *flags, "--functions", FUNCTION, script) == "It is on."
    assert "kitchen on" in llm("logs", "-n", "2")


def test_options_are_honoured(llm):
    assert llm("-m", "edge", "-o", "max_tokens", "5", "-o", "temperature", "0", "@say one two") == "one t"


def test_a_text_completion(llm):
    assert llm("-m", "edge-completion", "Once") == "Hello!"
