"""How the verbs that are about a running daemon ask it."""

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

from qwen_edge.config.paths import find_place
from qwen_edge.config.schema import load_config
from qwen_edge.core.errors import ConfigError, NotNowError, UserError

_Command = TypeVar("_Command", bound=Callable[..., Any])

DEFAULT = "http://127.0.0.1:8080"
_SECONDS = 120.0  # an engine that sleeps has to load its model

_WHERE_KEYS_GO = "For this command put the key into the environment as QWEN_EDGE_API_KEY."

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - the other way round


def url_option(explained: str) -> Callable[[_Command], _Command]:
    """`--url` of a verb that is about a running daemon."""
    return click.option("--url", default=service_address, help=f"{explained}  [default: the service's, else {DEFAULT}]")


def service_address(root: Path = Path("/")) -> str:
    """Where the service of this machine listens by its settings, else where a daemon without settings does.

    Raises ConfigError for settings that the service could not start with either."""
    place = find_place(None, root=root)
    try:
        server = load_config(place.settings).server if place.service and place.settings else None
    except ConfigError as error:
        raise ConfigError(f"{error} Mend that, or say where the daemon is with --url.") from None
    if server is None or not server.port:  # 0: any free port, which only its log names
        return DEFAULT
    host = _EVERYWHERE.get(server.host, server.host)
    return f"http://[{host}]:{server.port}" if ":" in host else f"http://{host}:{server.port}"


def path_at(url: str, path: str) -> str:
    """A path of the daemon whose address is `url`, with or without /v1."""
    return url.rstrip("/").removesuffix("/v1") + path


def ask(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    """The daemon's JSON; the key is taken from the environment (QWEN_EDGE_API_KEY). Raises NotNowError without a
    daemon, UserError when it refuses."""
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
            f"There is no qwen-edge at {url}: {_cause(error)}. Is it running? Say where with --url http://HOST:PORT."
        ) from None


def ask_device(url: str) -> dict[str, Any]:
    """How the daemon at `url` and its device are. Raises as `ask` does, and UserError for something else's answer."""
    found = ask("GET", path_at(url, "/v1/device"))
    if not isinstance(found, dict) or found.get("object") != "device":
        raise another_answer(url)
    return found


def another_answer(url: str) -> UserError:
    """For an answer that a daemon of this release does not give."""
    return UserError(f"{url} does not answer as a qwen-edge of this release does. Say where it is with --url.")


def _cause(error: Exception) -> str:
    """What went wrong, without the layers of urllib around it."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return (getattr(reason, "strerror", None) or str(reason)).strip()


def _complaint(error: urllib.error.HTTPError) -> str:
    try:
        message = str(json.load(error)["error"]["message"])
        return f"{message} {_WHERE_KEYS_GO}" if error.code == http.HTTPStatus.UNAUTHORIZED else message
    except (ValueError, KeyError, TypeError):
        return f"{error.url} answers {error.code}. Is this a qwen-edge? Say where it is with --url."
