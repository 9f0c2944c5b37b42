"""`advise` keeps what it measures where `tune` does, and has the exit codes of the other verbs."""

import os

import pytest

from qwen_edge.cli import main
from qwen_edge.cli.advise import state_of
from qwen_edge.config.paths import state_folder
from qwen_edge.core.errors import UserError
from tests.unit.config.test_place import install

SERVICE = "http://127.0.0.1:9000"


@pytest.fixture(autouse=True)
def own(monkeypatch, tmp_path):
    for name in ("STATE_DIRECTORY", "CONFIGURATION_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))


def test_what_is_measured_of_the_service_is_kept_with_the_service(tmp_path):
    assert state_of(SERVICE, tmp_path) == state_folder()
    install(tmp_path, settings="server: {port: 9000}")
    for url in (SERVICE, f"{SERVICE}/v1/"):
        assert state_of(url, tmp_path) == tmp_path / "var/lib/qwen-edge"
    assert state_of("http://127.0.0.1:9001", tmp_path) == state_folder()


def test_a_daemon_beside_a_service_that_cannot_run_can_be_measured(tmp_path):
    assert state_of(SERVICE, install(tmp_path, settings="engin: {}")) == state_folder()


def test_who_may_not_write_there_is_told_before_anything_is_measured(tmp_path, monkeypatch):
    install(tmp_path, settings="server: {port: 9000}")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match=r"sudo /opt/qwen-edge/\.venv/bin/qwen-edge advise\."):
        state_of(SERVICE, tmp_path)


@pytest.mark.parametrize("verb", [["advise"], ["status"], ["cache"]])
def test_a_daemon_that_is_not_there_has_one_exit_code(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(*verb, "--url", "http://127.0.0.1:1", *(["ls"] if verb == ["cache"] else []))
    assert stopped.value.code == 75
    assert capsys.readouterr().err.startswith("qwen-edge: There is no qwen-edge at http://127.0.0.1:1")
