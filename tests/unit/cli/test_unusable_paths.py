"""A path that cannot be one ends every verb with one sentence and exit code 2, which systemd does not try again."""

import pytest

from qwen_edge.cli import main

SETTINGS = [
    "model: {}",
    "server: {{api_keys_file: {}}}",
    "remember: {{folder: {}}}",
    "device: {{source: trace, trace: {}}}",
]
VERBS = ["serve", "doctor", "tune"]


@pytest.fixture
def said(capsys, monkeypatch, tmp_path):
    """What a command that is refused says."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def run(*command: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(*command)
        assert stopped.value.code == 2
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("path", ['"~nosuchuser/x"', '"a\\0b"'])
def test_of_the_settings(said, tmp_path, verb, setting, path):
    file = tmp_path / "q.yaml"
    file.write_text(setting.format(path))
    lines = said(verb, "-c", str(file)).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"qwen-edge: {file}, line 1: ")


@pytest.mark.parametrize("verb", ["serve", "tune"])
def test_of_the_command_line(said, tmp_path, verb):
    assert said(verb, "--model", "~nosuchuser/m.gguf").startswith("qwen-edge: model: ~nosuchuser/m.gguf begins with")
