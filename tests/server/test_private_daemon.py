"""A private daemon uses what is known of this device, disturbs nobody, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import psutil
import pytest

from qwen_edge.client.private_daemon import model_named, private_daemon
from qwen_edge.config.load import load_config
from qwen_edge.core.errors import ConfigError, NotNowError, UnservableError, UserError
from qwen_edge.models.tuning import keep, recall
from qwen_edge.protocol.messages import Tuning


class Small:
    """The command of small_daemon.py, the places of a user, and what the daemon has left to look at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home, self.model = folder / "home", folder / "some.gguf"
        self.state = self.home / "qwen-edge"
        self.model.write_bytes(b"GGUF")
        self.serve = [sys.executable, str(Path(__file__).with_name("small_daemon.py")), str(folder)]
        self.environment = {"XDG_STATE_HOME": str(self.home), "XDG_DATA_HOME": str(self.home / "data")}
        self.state.mkdir(parents=True)

    def start(self, **options):
        options = {"serve": self.serve, "environment": self.environment, **options}
        return private_daemon(self.model, **options)

    @property
    def own_folder(self):
        return Path(json.loads((self.folder / "environment.json").read_text())["XDG_STATE_HOME"])

    @property
    def config(self):
        return load_config(self.folder / "settings.yaml")

    @property
    def runs(self):
        pid = self.folder / "pid"
        return pid.exists() and psutil.pid_exists(int(pid.read_text()))


@pytest.fixture
def small(tmp_path):
    (tmp_path / "state").mkdir()
    return Small(tmp_path)


async def test_it_tells_what_is_waited_for_and_is_gone_afterwards(small):
    said = []
    async with small.start(say=said.append) as daemon:
        assert daemon.url == "http://127.0.0.1:4321"
        assert daemon.model == small.model
        assert small.runs
        assert not await daemon.has_ended()
    assert said == ["loading some.gguf and measuring what is fastest on this device", "the card is slow"]
    assert not small.runs
    assert not small.own_folder.exists()


async def test_its_settings_are_the_users_without_what_would_disturb_another_daemon(small, tmp_path):
    settings = tmp_path / "mine.yaml"
    (tmp_path / "keys").write_text("a-long-enough-key-for-this admin\n")
    settings.write_text(
        "engine: {threads: 2, flash_attention: on}\nchat: {thinking: false}\n"
        "server: {port: 8080, host: 0.0.0.0, ollama_port: 11434, answer_seconds: 77, "
        f"api_keys_file: {tmp_path}/keys}}\n"
        "device: {joules_per_hour: {'*': 1}}\n"
    )
    async with small.start(settings=settings, context=512):
        config = small.config
    assert (config.engine.threads, config.engine.flash_attention, config.engine.context) == (2, "on", 512)
    assert config.chat.thinking is False
    assert (config.server.host, config.server.ports) == ("127.0.0.1", {"server.port": 0})
    assert (config.server.api_keys_file, config.server.answer_seconds) == (None, 77)
    assert (config.remember.where, config.device.joules_per_hour) == ("off", {})


async def test_what_was_measured_is_used_again_and_what_it_measures_is_kept(small):
    known, new = Tuning(3, "off", 128, plain_from=0), Tuning(2, "on", 64, plain_from=0)
    keep(small.model, "here", known, small.state)
    key = f"{small.model.name}, 4 bytes; there"
    found = {key: {"threads": 2, "flash_attention": "on", "batch": 64, "plain_from": 0}}
    said = []
    environment = {**small.environment, "MEASURED": json.dumps(found)}
    async with small.start(environment=environment, say=said.append):
        assert recall(small.model, small.folder / "state") == {"here": known}
    assert recall(small.model, small.state) == {"here": known, "there": new}
    assert said[0] == "loading some.gguf"
    assert "2 threads" in said[-1]


async def test_it_takes_nothing_of_the_service_in_which_it_is_started(small):
    service = {"STATE_DIRECTORY": str(small.state), "NOTIFY_SOCKET": "@there", "CONFIGURATION_DIRECTORY": "/etc/no"}
    async with small.start(environment={**small.environment, **service}):
        there = json.loads((small.folder / "environment.json").read_text())
    assert not service.keys() & there.keys()


@pytest.mark.parametrize(("code", "kind"), [(2, UserError), (75, NotNowError), (78, UnservableError)])
async def test_a_daemon_that_cannot_start_says_why(small, code, kind):
    with pytest.raises(UserError, match=r"^There is no memory\. Get some\.$") as caught:
        async with small.start(environment={**small.environment, "END": str(code)}):
            raise AssertionError
    assert type(caught.value) is kind


async def test_an_interrupted_start_leaves_no_daemon(small):
    async def begin():
        async with small.start(serve=[sys.executable, "-c", "import time; time.sleep(1000)"], say=lambda _: on.set()):
            raise AssertionError

    on = asyncio.Event()
    task = asyncio.create_task(begin())
    await on.wait()
    (child,) = psutil.Process().children()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not child.is_running()


async def test_a_daemon_that_has_died_is_known_to_be_gone(small):
    async with small.start() as daemon:
        psutil.Process(int((small.folder / "pid").read_text())).kill()
        await asyncio.wait({daemon.process.ended})
        assert await daemon.has_ended()


async def test_without_room_for_its_files_it_is_a_sentence(small, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(small.folder / "nowhere"))
    with pytest.raises(NotNowError, match="TMPDIR"):
        async with small.start():
            raise AssertionError


async def test_a_wrong_settings_file_that_was_asked_for_is_an_error(small, tmp_path):
    (tmp_path / "wrong.yaml").write_text("engine: {contxt: 5}\n")
    with pytest.raises(ConfigError, match="contxt"):
        async with small.start(settings=tmp_path / "wrong.yaml"):
            raise AssertionError


def test_a_model_is_named_by_its_path_or_its_name_in_the_models_folder(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models = tmp_path / "models"
    models.mkdir()
    (models / "other.gguf").write_bytes(b"GGUF")
    assert model_named("some.gguf", models) == Path("some.gguf")
    assert model_named(small.model, models) == small.model
    assert model_named("other.gguf", models) == model_named("other", models) == models / "other.gguf"
    assert model_named(None, models) == models / "other.gguf"
    with pytest.raises(NotNowError, match=f"There is no model nothing here, nor in {models}, which has: other"):
        model_named("nothing", models)
    with pytest.raises(UserError):
        model_named("no\0thing", models)
