"""HTTP client of the verbs that query a running daemon."""

from __future__ import annotations

import http
import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from qwen_edge.config.load import config_of
from qwen_edge.config.paths import find_place
from qwen_edge.core.errors import ConfigError, NotNowError, UserError

_Command = TypeVar("_Command", bound=Callable[..., Any])

DEFAULT = "http://127.0.0.1:8080"
_SECONDS = 120.0  # a sleeping engine has to load its model

_WHERE_KEYS_GO = "For this command, set the environment variable QWEN_EDGE_API_KEY to the key."

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - addresses to listen on, mapped to addresses to connect to


def url_option(explained: str) -> Callable[[_Command], _Command]:
    """The option `--url` of a verb that queries a running daemon."""
    return click.option(
        "--url", default=service_address, help=f"{explained}  [default: that of the installed service, else {DEFAULT}]"
    )


def service_address(root: Path = Path("/")) -> str:
    """The address on which the service of this machine listens by its settings; without a service, the default one.

    Raises ConfigError for settings with which the service could not start."""
    place = find_place(None, root=root)
    try:
        server = config_of(place).server if place.service else None
    except ConfigError as error:
        raise ConfigError(f"{error} Correct that, or give the address of the daemon with --url.") from None
    if server is None or not server.port:  # 0 means any free port, which only the log of the daemon shows
        return DEFAULT
    host = _EVERYWHERE.get(server.host, server.host)
    return f"http://[{host}]:{server.port}" if ":" in host else f"http://{host}:{server.port}"


def path_at(url: str, path: str) -> str:
    """The URL of `path` on the daemon at `url`, which may end in /v1."""
    return url.rstrip("/").removesuffix("/v1") + path


def ask(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    """Send a request with the key in QWEN_EDGE_API_KEY; return the JSON of the answer. Raises NotNowError if the daemon
    cannot be reached, UserError if it refuses."""
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("QWEN_EDGE_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    data = json.dumps(body).encode() if body is not None else None
    try:
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - the user's own address
        with urllib.request.urlopen(request, timeout=_SECONDS) as response:  # noqa: S310
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            raise UserError(_complaint(error)) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NotNowError(
            f"There is no qwen-edge at {url}: {_cause(error)}. Is it running? Give its address with --url http://HOST:PORT."
        ) from None


def ask_device(url: str) -> dict[str, Any]:
    """The state of the daemon at `url` and of its device. Raises as `ask`, and UserError if it is no qwen-edge."""
    found = ask("GET", path_at(url, "/v1/device"))
    if not isinstance(found, dict) or found.get("object") != "device" or "restarts" not in found:
        raise another_answer(url)
    return found


def another_answer(url: str) -> UserError:
    """The error for an answer that a daemon of this release would not give."""
    return UserError(f"The server at {url} is not a qwen-edge of this release. Give the daemon's address with --url.")


def _cause(error: Exception) -> str:
    """The cause of an error, without the wrappers of urllib."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return (getattr(reason, "strerror", None) or str(reason)).strip()


def _complaint(error: urllib.error.HTTPError) -> str:
    try:
        message = str(json.load(error)["error"]["message"])
        return f"{message} {_WHERE_KEYS_GO}" if error.code == http.HTTPStatus.UNAUTHORIZED else message
    except (ValueError, KeyError, TypeError):
        return f"{error.url} answers {error.code}. Is it a qwen-edge? Give the daemon's address with --url."
