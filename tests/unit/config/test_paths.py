"""Where models are looked for."""

import os
from pathlib import Path

import pytest

from qwen_edge.config.paths import DEFAULT_MODEL, expand_path, find_model, models_folder, state_folder
from qwen_edge.core.errors import ConfigError, UserError


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


@pytest.mark.parametrize("place", ["file", "folder", "behind a link", "default", "the only one"])
def test_a_model_whose_path_is_not_utf_8_is_refused_before_anybody_is_told_of_it(tmp_path, place):
    odd, plain = tmp_path / os.fsdecode(b"odd\xff"), tmp_path / "plain"
    odd.mkdir(), plain.mkdir()
    chosen: Path | None = {"file": plain / f"{odd.name}.gguf", "folder": odd / "m.gguf"}.get(place)
    folder = odd if place in ("default", "the only one") else plain
    if place == "behind a link":
        (odd / "m.gguf").touch()
        chosen = plain / "m.gguf"
        chosen.symlink_to(odd / "m.gguf")
    file = chosen or folder / (DEFAULT_MODEL if place == "default" else "m.gguf")
    file.touch()
    with pytest.raises(UserError, match="its path is not UTF-8 text") as refused:
        find_model(str(chosen) if chosen else None, folder)
    assert refused.value.exit_code == 2


def test_a_model_whose_name_no_file_can_have_is_a_users_mistake(tmp_path):
    with pytest.raises(ConfigError, match="holds a NUL character"):
        find_model(f"{tmp_path}/a\0b")


def test_no_model_and_too_many_are_told_with_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"no model in .*qwen-edge convert"):
        find_model(None, tmp_path)
    with pytest.raises(UserError, match=r"no model at .*x\.gguf"):
        find_model(str(tmp_path / "x.gguf"), tmp_path)
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"several models \(a.gguf, b.gguf\)"):
        find_model(None, tmp_path)


@pytest.mark.parametrize("path", ["~nosuchuser/m.gguf", "a\0b", "a\ud800b"])
def test_what_cannot_be_a_path_is_a_mistake_that_no_restart_mends(tmp_path, path):
    for used in (lambda: find_model(path, tmp_path), lambda: expand_path(path, "model")):
        with pytest.raises(ConfigError, match=r"^model: .*[^.]\.$") as refused:
            used()
        assert refused.value.exit_code == 2


def test_a_home_folder_is_put_in_place_of_its_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_path("~/m", "model") == Path("/home/me/m")
    assert expand_path("a/~b", "model") == Path("a/~b")
    assert expand_path("caf\udce9", "model") == Path("caf\udce9"), "the bytes of a file's name need not be UTF-8"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ConfigError, match="set HOME or XDG_STATE_HOME"):
        state_folder({})
    with pytest.raises(ConfigError, match="set HOME or XDG_DATA_HOME"):
        models_folder({})
