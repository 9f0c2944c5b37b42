"""Downloads from a Hub on loopback, by the command itself: what is fetched, resumed, and told when it cannot be."""

import errno
import importlib
import io
import os
import subprocess
import sys

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError
from rich.console import Console

from qwen_edge.convert.hub import fetch as fetch_here
from qwen_edge.core.errors import ConversionError
from qwen_edge.core.progress import on_console
from tests.checkpoints import write_checkpoint
from tests.unit.convert.hub_server import COMMIT, HubServer

_FETCH = """
import io, sys
from rich.console import Console
from qwen_edge.convert.hub import fetch
from qwen_edge.core.progress import on_console
from qwen_edge.core.errors import ConversionError
try:
    source = fetch(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None, on_console(Console(width=300)))
    print("FETCHED", source.name, source.origin, source.revision, *sorted(f.name for f in source.folder.iterdir()))
except ConversionError as error:
    print("REFUSED", error)
"""


@pytest.fixture
def hub(tmp_path):
    write_checkpoint(tmp_path / "repo")
    for name in ("README.md", "pytorch_model.bin", "onnx.onnx"):
        (tmp_path / "repo" / name).write_bytes(b"x" * 100)
    server = HubServer(tmp_path / "repo")
    yield server
    server.shutdown()
    server.server_close()


def fetch(hub, tmp_path, *arguments, **environment) -> str:
    """In a process of its own: the Hub library reads its environment when it is imported."""
    settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", _FETCH, *arguments],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_a_repository_is_fetched_with_only_the_files_needed(hub, tmp_path):
    line = fetch(hub, tmp_path, "acme/tiny")
    assert line.startswith(f"FETCHED tiny acme/tiny {COMMIT} ")
    names = line.split()[4:]
    assert "model.safetensors" in names
    assert "README.md" in names
    assert not {"pytorch_model.bin", "onnx.onnx"} & set(names)


def test_a_second_fetch_downloads_nothing(hub, tmp_path):
    fetch(hub, tmp_path, "acme/tiny")
    hub.requests.clear()
    fetch(hub, tmp_path, "acme/tiny")
    assert not [path for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path]


def test_a_broken_download_goes_on_where_it_stopped(hub, tmp_path):
    large = os.urandom(24 << 20)  # the Hub library keeps what it got in blocks of 10 MB
    (tmp_path / "repo" / "model-large.safetensors").write_bytes(large)
    hub.break_after = 15 << 20
    assert fetch(hub, tmp_path, "acme/tiny").startswith("FETCHED")
    asked = [given for method, path, given in hub.requests if method == "GET" and path.endswith("large.safetensors")]
    assert asked[0] is None
    assert asked[-1].startswith("bytes=") and asked[-1] != "bytes=0-", "the rest was asked for, not the whole"
    folder = next((tmp_path / "hf").glob("hub/models--acme--tiny/snapshots/*"))
    assert (folder / "model-large.safetensors").read_bytes() == large


def test_what_was_fetched_is_found_offline(hub, tmp_path):
    fetch(hub, tmp_path, "acme/tiny")
    assert fetch(hub, tmp_path, "acme/tiny", HF_HUB_OFFLINE="1").startswith("FETCHED tiny")


def test_what_was_not_fetched_is_told_offline(hub, tmp_path):
    line = fetch(hub, tmp_path, "acme/tiny", HF_HUB_OFFLINE="1")
    assert line.startswith("REFUSED acme/tiny is not (completely) in the local Hub cache")


def test_a_hub_that_is_not_there_is_told(hub, tmp_path):
    line = fetch(hub, tmp_path, "acme/tiny", HF_ENDPOINT="http://127.0.0.1:9")
    assert line.startswith(
        "REFUSED acme/tiny is not (completely) in the local Hub cache, and the Hub cannot be reached"
    )


def test_a_repository_that_does_not_exist_is_told(hub, tmp_path):
    assert fetch(hub, tmp_path, "acme/none").startswith("REFUSED There is no repository acme/none on the Hub")


def test_a_revision_that_does_not_exist_is_told(hub, tmp_path):
    line = fetch(hub, tmp_path, "acme/tiny", "no-such-revision")
    assert line.startswith("REFUSED acme/tiny has no revision 'no-such-revision'")


def test_a_private_repository_opens_with_the_token(hub, tmp_path):
    hub.token = "hf_secret"
    assert fetch(hub, tmp_path, "acme/tiny").startswith("REFUSED There is no repository acme/tiny")
    assert fetch(hub, tmp_path, "acme/tiny", HF_TOKEN="hf_secret").startswith("FETCHED")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "The Hub refuses access to acme/tiny (HTTP 401). Check that HF_TOKEN is valid and may read it."),
        (403, "The Hub refuses access to acme/tiny (HTTP 403). Check that HF_TOKEN is valid and may read it."),
        (404, "The Hub answered HTTP 404 for acme/tiny. Try again later"),
        (500, "The Hub answered HTTP 500 for acme/tiny. Try again later"),
    ],
)
def test_what_the_hub_answers_instead_is_told(hub, tmp_path, status, message):
    hub.status = status
    assert fetch(hub, tmp_path, "acme/tiny").startswith(f"REFUSED {message}")


@pytest.mark.parametrize("name", ["acme/-tiny", "acme/tiny.git", "acme/ti--ny", "acme/" + "x" * 100])
def test_a_name_the_hub_would_not_give_is_told(name):
    with pytest.raises(ConversionError, match=f"^{name} is not a valid Hub name"):
        fetch_here(name, None, on_console(Console(file=io.StringIO())))


def test_a_proxy_that_is_none_is_told(hub, tmp_path):
    line = fetch(hub, tmp_path, "acme/tiny", HTTP_PROXY="gopher://nowhere", NO_PROXY="", no_proxy="")
    assert line.startswith("REFUSED Downloading acme/tiny failed: ")
    assert "Check the network, the proxy and HF_ENDPOINT, and try again" in line


def test_a_cache_that_cannot_be_written_is_told(hub, tmp_path):
    (tmp_path / "file").write_text("")
    line = fetch(hub, tmp_path, "acme/tiny", HF_HOME=str(tmp_path / "file"))
    assert line.startswith(f"REFUSED Cannot write to the Hub cache: {tmp_path}/file")
    assert line.endswith("Set HF_HOME to a folder you may write to.")


def refused_by(monkeypatch, error: Exception) -> str:
    def fails(*_arguments, **_options):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(ConversionError) as refusal:
        fetch_here("acme/tiny", None, on_console(Console(file=io.StringIO())))
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize(
    "name", ["ConnectError", "ConnectTimeout", "ReadTimeout", "ReadError", "ProxyError", "InvalidURL"]
)
def test_trouble_of_the_connection_is_told(monkeypatch, name):
    """In the words of the HTTP library the Hub library stands on: httpx, or httpx2 in its later releases."""
    (transport,) = {kind.__module__.partition(".")[0] for kind in HfHubHTTPError.__mro__} & {"httpx", "httpx2"}
    error = getattr(importlib.import_module(transport), name)("[Errno 104] reset\nby peer")
    told = refused_by(monkeypatch, error)
    assert told.startswith(f"Downloading acme/tiny failed: {name}: [Errno 104] reset. Check the network")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_under_the_cache_is_told(monkeypatch, number):
    told = refused_by(monkeypatch, OSError(number, os.strerror(number)))
    assert told.startswith("The disk of the Hub cache ")
    assert "Make room, or set HF_HOME" in told


def test_trouble_in_the_hubs_own_transfer_is_told(monkeypatch):
    assert "RuntimeError: Data processing error" in refused_by(monkeypatch, RuntimeError("Data processing error: x"))
