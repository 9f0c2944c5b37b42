"""`tune`, `doctor` and the verbs that ask a daemon look where the service looks, unless they are told otherwise."""

import os
import stat
from pathlib import Path

import pytest

from qwen_edge.cli.daemon_client import DEFAULT, service_address
from qwen_edge.config.paths import Place, find_place, hand_over
from qwen_edge.core.errors import ConfigError, UserError
from qwen_edge.models.json_store import JsonStore

HOME = {"XDG_STATE_HOME": "/home/me/state", "XDG_DATA_HOME": "/home/me/data"}
OWN = Place(None, Path("/home/me/state/qwen-edge"), Path("/home/me/data/qwen-edge/models"))
UNIT = "[Service]\nType=notify\nExecStart=/opt/qwen-edge/.venv/bin/qwen-edge serve\n"
NOBODY = 65534


def install(root: Path, *, unit: str | None = UNIT, settings: str | None = "", state: bool = True) -> Path:
    """A service as the README's steps leave it, or a part of one."""
    for folder in ("etc/systemd/system", "etc/qwen-edge", "var/lib"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    if unit is not None:
        (root / "etc/systemd/system/qwen-edge.service").write_text(unit)
    if settings is not None:
        (root / "etc/qwen-edge/qwen-edge.yaml").write_text(settings)
    if state:
        (root / "var/lib/qwen-edge").mkdir()
    return root


def test_without_a_service_it_is_the_daemon_that_a_person_runs(tmp_path):
    assert find_place(None, HOME, tmp_path) == OWN


def test_with_a_service_it_is_the_services_settings_state_and_models(tmp_path):
    place = find_place(None, HOME, install(tmp_path))
    state = tmp_path / "var/lib/qwen-edge"
    program = Path("/opt/qwen-edge/.venv/bin/qwen-edge")
    assert place == Place(tmp_path / "etc/qwen-edge/qwen-edge.yaml", state, state / "models", True, program)


@pytest.mark.parametrize(
    ("parts", "service"),
    [
        ({"settings": None, "state": False}, True),  # before the first start, without settings
        ({"unit": None}, True),  # the unit lies where we do not look
        ({"unit": None, "settings": None}, False),  # what an uninstalled service has left
        ({"unit": None, "state": False}, False),
        ({"unit": "[Service]\n"}, True),
    ],
)
def test_a_unit_or_both_of_its_folders_are_a_service(tmp_path, parts, service):
    assert find_place(None, HOME, install(tmp_path, **parts)).service == service


@pytest.mark.parametrize("folder", ["run/systemd/system", "usr/lib/systemd/system", "usr/local/lib/systemd/system"])
def test_a_unit_may_come_with_a_package(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "qwen-edge.service").write_text(UNIT)
    assert find_place(None, HOME, tmp_path).service


def test_a_state_folder_that_only_root_may_follow_is_there(tmp_path):
    """DynamicUser= leaves a link into /var/lib/private, which is closed."""
    install(tmp_path, unit=None, state=False)
    (tmp_path / "var/lib/qwen-edge").symlink_to(tmp_path / "var/lib/private/qwen-edge")
    assert find_place(None, HOME, tmp_path).service


def test_other_settings_are_another_daemons_and_the_services_are_the_services(tmp_path):
    install(tmp_path)
    other = tmp_path / "mine.yaml"
    other.write_text("")
    assert find_place(other, HOME, tmp_path) == Place(other, OWN.state, OWN.models)
    assert find_place(tmp_path / "nowhere.yaml", HOME, tmp_path).service is False
    assert find_place(tmp_path / "etc/qwen-edge/qwen-edge.yaml", HOME, tmp_path).service
    assert find_place(tmp_path / "etc/../etc/qwen-edge/qwen-edge.yaml", HOME, tmp_path).service


def test_the_environment_says_otherwise(tmp_path):
    install(tmp_path)
    (tmp_path / "c").mkdir()
    (tmp_path / "c/qwen-edge.yaml").write_text("")
    inside = {"STATE_DIRECTORY": "/s", "CONFIGURATION_DIRECTORY": str(tmp_path / "c")}
    assert find_place(None, inside, tmp_path) == Place(tmp_path / "c/qwen-edge.yaml", Path("/s"), Path("/s/models"))
    assert find_place(None, {"QWEN_EDGE_MODELS": "/m"}, tmp_path).models == Path("/m")


def test_it_says_in_one_line_whose_things_it_uses(tmp_path):
    place = find_place(None, HOME, install(tmp_path))
    assert place.words(Path("/m.gguf")) == (
        f"the service: settings {tmp_path}/etc/qwen-edge/qwen-edge.yaml, state folder {tmp_path}/var/lib/qwen-edge, "
        "model /m.gguf"
    )
    assert OWN.words() == "a daemon that you run yourself: default settings, state folder /home/me/state/qwen-edge"


class Closed(type(Path())):
    """A folder that this process may not read: tests run as root, whom nothing is closed to."""

    def iterdir(self):
        raise PermissionError(13, "Permission denied")


def test_who_may_not_read_the_services_folder_is_told_what_to_do():
    place = Place(None, Closed("/var/lib/qwen-edge"), Path("/m"), True, Path("/opt/qwen-edge/.venv/bin/qwen-edge"))
    with pytest.raises(UserError) as told:
        place.check("doctor")
    assert str(told.value) == (
        "You may not read /var/lib/qwen-edge. It is the service's: sudo /opt/qwen-edge/.venv/bin/qwen-edge doctor. "
        "For a daemon that you run yourself, give its settings with -c."
    )


def test_who_may_not_write_is_told_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != tmp_path)
    for service, advice in ((True, "sudo qwen-edge tune"), (False, "XDG_STATE_HOME")):
        with pytest.raises(UserError, match=rf"You may not write to {tmp_path}/state\. .*{advice}"):
            Place(None, tmp_path / "state", tmp_path, service).check("tune", writing=True)
    Place(None, tmp_path / "state", tmp_path).check("doctor")  # reads only what is there


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose files these are")
def test_what_root_measures_is_the_services_to_read_and_to_replace(tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, NOBODY, NOBODY)
    before = os.umask(0o077)
    try:
        JsonStore("tuning.json", int, state).keep("model", 1)
    finally:
        os.umask(before)
    kept = (state / "tuning.json").stat()
    assert (kept.st_uid, kept.st_gid) == (NOBODY, NOBODY)
    assert kept.st_mode & stat.S_IRUSR
    assert [file.name for file in state.iterdir()] == ["tuning.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_root_makes_in_its_own_folders_stays_roots(tmp_path):
    (tmp_path / "file").touch()
    hand_over(tmp_path / "file")
    assert (tmp_path / "file").stat().st_uid == 0


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ("", DEFAULT),
        ("server: {port: 9000}", "http://127.0.0.1:9000"),
        ("server: {host: 0.0.0.0}", "http://127.0.0.1:8080"),
        ("server: {host: '::', port: 81}", "http://[::1]:81"),
        ("server: {host: 192.0.2.7}", "http://192.0.2.7:8080"),
        ("server: {port: 0}", DEFAULT),
    ],
)
def test_a_daemon_is_asked_where_the_service_listens(tmp_path, monkeypatch, settings, address):
    for name in ("STATE_DIRECTORY", "CONFIGURATION_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    assert service_address(tmp_path) == DEFAULT
    assert service_address(install(tmp_path, settings=settings)) == address


def test_settings_that_the_service_could_not_start_with_are_told(tmp_path):
    with pytest.raises(ConfigError, match=r"engin: there is no such setting.*with --url\."):
        service_address(install(tmp_path, settings="engin: {}"))
