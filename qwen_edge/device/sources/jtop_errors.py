"""Turns jtop's errors into sentences that say what to do (by the messages of jetson-stats 7.2, jtop/jtop.py). Pure."""

from __future__ import annotations

import getpass
import re

from qwen_edge.device.telemetry import TelemetryError

_INSTALL_SAME = "Install the same release for both, and start the service again: sudo systemctl restart jtop"

# a pattern in jtop's message, exception types, what to say; the first match counts
_MEANINGS: tuple[tuple[str, tuple[type[BaseException], ...], str], ...] = (
    (
        "not active",
        (FileNotFoundError, ConnectionRefusedError),
        "jtop's service does not run. Start it: sudo systemctl enable --now jtop "
        "(or install it: sudo pip3 install -U jetson-stats)",
    ),
    (
        "can't access",
        (PermissionError,),
        "User {user} is not in group jtop and may not connect to jtop's service. Enable qwen-edge-jtop.socket, whose "
        "process is in that group; or run sudo usermod -aG jtop {user}, and log in again",
    ),
    ("Mismatch of Python", (), f"jtop's service runs with an incompatible Python version. {_INSTALL_SAME}"),
    (
        "Mismatch version",
        (),
        f"jtop's service is of release {{service}}, the jetson-stats installed here is {{client}}. {_INSTALL_SAME}",
    ),
    ("Authentication", (), f"jtop's service rejects the key of the jetson-stats installed here. {_INSTALL_SAME}"),
    (
        "[Cc]onnection",
        (EOFError, OSError),
        "The connection to jtop's service is lost: the service was stopped or failed. See: systemctl status jtop",
    ),
)


def sentence(error: BaseException) -> str | None:
    """What happened and what to do; None for an error that jtop is not known to raise."""
    said = " ".join(str(error).split())
    if isinstance(error, TelemetryError):
        return said
    if isinstance(error, ImportError):
        return _not_imported(error)
    releases = [*re.findall(r"\[(.*?)\]", said), "?", "?"]
    for pattern, kinds, meaning in _MEANINGS:
        if re.search(pattern, said) or isinstance(error, kinds):
            return meaning.format(user=_user(), service=releases[0], client=releases[1])
    return None


def _not_imported(error: ImportError) -> str:
    if (error.name or "").partition(".")[0] == "jtop":
        return "jetson-stats is not installed. Install it: pip install 'qwen-edge[jetson]'"
    return f"jetson-stats cannot be imported ({error}). Install it again: pip install -U 'qwen-edge[jetson]'"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in a container
        return "of this program"
