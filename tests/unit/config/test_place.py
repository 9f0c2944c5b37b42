"""`tune`, `doctor` and the verbs that ask a daemon look where the service looks, unless they are told otherwise."""

import os
import stat
from pathlib import Path

import pytest

from qwen_edge.cli.daemon_client import DEFAULT, service_address
from qwen_edge.config.load import config_of
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
    assert place == Place(tmp_path / "etc/qwen-edge/qwen-edge.yaml", state, state / "models", True, program, tmp_path)


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
        "You may not read /var/lib/qwen-edge. The folder is the service's: "
        "sudo /opt/qwen-edge/.venv/bin/qwen-edge doctor. For a daemon that you run yourself, give its settings with -c."
    )


def test_a_state_folder_that_is_a_link_to_nowhere_or_a_file_is_told_as_what_it_is(tmp_path):
    """Root is told, too, to whom nothing is forbidden."""
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(tmp_path / "gone")
    file.touch()
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    told = {
        link: f"{link} is a link to {tmp_path}/gone, which is not there. Make that folder, or remove the link: "
        f"sudo rm {link}",
        file: f"{file} is a file, and should be a folder. Move the file away.",
        file / "qwen-edge": f"{file} is a file, and should be a folder. Move the file away.",
        circle: f"{circle} cannot be used: Too many levels of symbolic links.",
    }
    for state, words in told.items():
        for writing in (True, False):
            with pytest.raises(UserError) as error:
                Place(None, state, tmp_path, True).check("tune", writing=writing)
            assert str(error.value) == words


def test_root_is_not_sent_to_sudo_where_the_disk_is_read_only(tmp_path, monkeypatch):
    flags = (*os.statvfs(tmp_path)[:8], os.ST_RDONLY, 255)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(flags))
    with pytest.raises(UserError, match=r"mounted read-only\. Mount it for writing\.$"):
        Place(None, tmp_path, tmp_path, True).check("tune", writing=True)


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


def drop_in(root: Path, text: str, name: str = "10-mine.conf", folder: str = "etc/systemd/system") -> None:
    file = root / folder / "qwen-edge.service.d" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


SERVE = "/opt/qwen-edge/.venv/bin/qwen-edge serve"
OTHERS = [
    f"ExecStart={SERVE} -c /srv/x.yaml",
    f"ExecStart={SERVE} -c/srv/x.yaml --port 9000",
    f"ExecStart=-{SERVE} --config=/srv/x.yaml",
    f"ExecStart={SERVE} --host 0.0.0.0 \\\n  # a comment\n  --config '/srv/x.yaml'",
    f"ExecStart=/usr/bin/nice -n 5 {SERVE} --config /srv/x.yaml",
    f"WorkingDirectory=/srv\nExecStart={SERVE} -c x.yaml",
    f"Environment=WHERE=/srv\nExecStart={SERVE} -c ${{WHERE}}/x.yaml",
    f"ExecStart={SERVE} -c /srv/first.yaml -c /srv/x.yaml",
    "ConfigurationDirectory=../srv",
]


@pytest.mark.parametrize("line", OTHERS)
@pytest.mark.parametrize("dropped", [False, True])
def test_the_settings_are_those_that_the_unit_names(tmp_path, line, dropped):
    install(tmp_path, unit=UNIT if dropped else f"[Unit]\nExecStart=/no -c /no\n[Service]\n{line}\n")
    if dropped:
        drop_in(tmp_path, f"[Service]\nExecStart=\n{line}\n")
    name = "qwen-edge.yaml" if "ConfigurationDirectory" in line else "x.yaml"
    place = find_place(None, HOME, tmp_path)
    assert (place.service, place.state) == (True, tmp_path / "var/lib/qwen-edge")
    if name == "x.yaml":
        assert place.settings == tmp_path / "srv/x.yaml"
        assert place.program == Path("/opt/qwen-edge/.venv/bin/qwen-edge")
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv" / name).touch()
    settings = find_place(None, HOME, tmp_path).settings
    assert settings and settings.samefile(tmp_path / "srv" / name)
    assert find_place(tmp_path / "srv" / name, HOME, tmp_path).service
    assert not find_place(tmp_path / "etc/qwen-edge/qwen-edge.yaml", HOME, tmp_path).service


def test_drop_ins_count_by_their_names_and_the_first_folders_of_one_name(tmp_path):
    install(tmp_path)
    drop_in(tmp_path, f"[Service]\nExecStart=\nExecStart={SERVE} -c /b.yaml\n", "b.conf", "run/systemd/system")
    drop_in(tmp_path, f"[Service]\nExecStart=\nExecStart={SERVE} -c /a.yaml\n", "a.conf")
    assert find_place(None, HOME, tmp_path).settings == tmp_path / "b.yaml"
    drop_in(tmp_path, "", "b.conf")
    assert find_place(None, HOME, tmp_path).settings == tmp_path / "a.yaml"
    (tmp_path / "etc/systemd/system/qwen-edge.service.d/a.conf").unlink()
    assert find_place(None, HOME, tmp_path).settings == tmp_path / "etc/qwen-edge/qwen-edge.yaml"


def test_drop_ins_without_a_unit_are_no_service(tmp_path):
    drop_in(tmp_path, "[Service]\n")
    assert find_place(None, HOME, tmp_path) == OWN


MODELS = [
    "Environment=QWEN_EDGE_MODELS=/disk/m",
    'Environment=A=1 "QWEN_EDGE_MODELS=/disk/m" B=2',
    "Environment=QWEN_EDGE_MODELS=/no\nEnvironment=QWEN_EDGE_MODELS=/disk/m",
    "WorkingDirectory=/disk\nEnvironment=QWEN_EDGE_MODELS=m",
    "Environment=QWEN_EDGE_MODELS=/no\nEnvironmentFile=-/etc/default/qwen-edge",
]


@pytest.mark.parametrize("line", MODELS)
def test_the_models_lie_where_the_units_environment_says(tmp_path, line):
    install(tmp_path)
    (tmp_path / "etc/default").mkdir()
    (tmp_path / "etc/default/qwen-edge").write_text("# ours\nQWEN_EDGE_MODELS='/disk/m'\n")
    drop_in(tmp_path, f"[Service]\n{line}\n")
    assert find_place(None, HOME, tmp_path).models == tmp_path / "disk/m"
    drop_in(tmp_path, "[Service]\nEnvironment=\nEnvironmentFile=\n", "20.conf")
    assert find_place(None, HOME, tmp_path).models == tmp_path / "var/lib/qwen-edge/models"


def test_the_state_folder_is_the_units(tmp_path):
    drop_in(install(tmp_path), "[Service]\nStateDirectory=\nStateDirectory=%N/two\n")
    assert find_place(None, HOME, tmp_path).state == tmp_path / "var/lib/qwen-edge/two"


@pytest.mark.parametrize(
    "text", ["[Service]\nExecStart='\n", "[Service]\nExecStart=\n", "=\n[", "\0", "ExecStart=/x\n\\"]
)
def test_a_unit_that_systemd_would_not_take_is_still_a_service(tmp_path, text):
    place = find_place(None, HOME, install(tmp_path, unit=text))
    assert (place.service, place.program) == (True, None)


def test_what_the_units_command_line_says_wins_over_the_settings(tmp_path):
    unit = f"[Service]\nWorkingDirectory=/srv\nExecStart={SERVE} --model m.gguf --port=81 --context 512 --host ::1\n"
    install(tmp_path, unit=unit, settings="model: /other\nserver: {port: 80, keepalive_seconds: 9}\n")
    config = config_of(find_place(None, HOME, tmp_path))
    assert (config.model, config.engine.context) == (str(tmp_path / "srv/m.gguf"), 512)
    assert (config.server.host, config.server.port, config.server.keepalive_seconds) == ("::1", 81, 9)
    assert service_address(tmp_path) == "http://[::1]:81"


def test_a_relative_model_of_the_services_settings_is_where_the_service_finds_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    install(tmp_path, settings="model: models/m.gguf\n")
    assert config_of(find_place(None, HOME, tmp_path)).model == str(tmp_path / "models/m.gguf")
    drop_in(tmp_path, "[Service]\nWorkingDirectory=-/srv\n")
    assert config_of(find_place(None, HOME, tmp_path)).model == str(tmp_path / "srv/models/m.gguf")
    own = tmp_path / "own.yaml"
    own.write_text("model: models/m.gguf\n")
    assert config_of(find_place(own, HOME, tmp_path)).model == "models/m.gguf"


def test_settings_that_the_service_could_not_start_with_are_told(tmp_path):
    with pytest.raises(ConfigError, match=r"engin: there is no such setting.*with --url\."):
        service_address(install(tmp_path, settings="engin: {}"))
