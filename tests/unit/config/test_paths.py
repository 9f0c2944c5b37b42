"""Where models are looked for."""

from pathlib import Path

import pytest

from qwen_edge.config.paths import DEFAULT_MODEL, find_model, models_folder, state_folder
from qwen_edge.core.errors import UserError


def test_the_models_folder_is_the_one_chosen_the_services_or_the_users():
    assert models_folder({"QWEN_EDGE_MODELS": "/m", "STATE_DIRECTORY": "/s"}) == Path("/m")
    assert models_folder({"STATE_DIRECTORY": "/s", "XDG_DATA_HOME": "/d"}) == Path("/s/models")
    assert models_folder({"XDG_DATA_HOME": "/d"}) == Path("/d/qwen-edge/models")
    assert models_folder({}) == Path.home() / ".local/share/qwen-edge/models"


def test_what_the_daemon_finds_out_is_kept_with_the_service_or_the_user():
    assert state_folder({"STATE_DIRECTORY": "/s", "XDG_STATE_HOME": "/d"}) == Path("/s")
    assert state_folder({"XDG_STATE_HOME": "/d"}) == Path("/d/qwen-edge")
    assert state_folder({}) == Path.home() / ".local/state/qwen-edge"


def test_the_model_is_the_one_chosen_the_default_or_the_only_one(tmp_path):
    (tmp_path / "a.gguf").touch()
    assert find_model(None, tmp_path) == tmp_path / "a.gguf"
    (tmp_path / DEFAULT_MODEL).touch()
    assert find_model(None, tmp_path) == tmp_path / DEFAULT_MODEL
    assert find_model(str(tmp_path / "a.gguf"), tmp_path) == tmp_path / "a.gguf"


def test_no_model_and_too_many_are_told_with_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"no model in .*qwen-edge convert"):
        find_model(None, tmp_path)
    with pytest.raises(UserError, match=r"no model at .*x\.gguf"):
        find_model(str(tmp_path / "x.gguf"), tmp_path)
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"several models \(a.gguf, b.gguf\)"):
        find_model(None, tmp_path)
