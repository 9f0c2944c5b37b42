"""What jtop's errors mean, and what to do about each: pure text work, by what jetson-stats 7.2 says (jtop/jtop.py)."""

from __future__ import annotations

import getpass
import re

from qwen_edge.device.telemetry import TelemetryError

_INSTALL_SAME = "Install the same release for both, and start the service again: sudo systemctl restart jtop"

# a pattern in jtop's own words, or errors that it lets through; the first that fits
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
        "User {user} is not in group jtop and may not ask jtop's service. Enable qwen-edge-jtop.socket, which asks in "
        "its own name; or sudo usermod -aG jtop {user}, and log in again",
    ),
    ("Mismatch of Python", (), f"jtop's service runs with a Python too different from this one. {_INSTALL_SAME}"),
    (
        "Mismatch version",
        (),
        f"jtop's service is of release {{service}}, and the jetson-stats here is {{client}}. {_INSTALL_SAME}",
    ),
    ("Authentication", (), f"jtop's service does not take the key of the jetson-stats here. {_INSTALL_SAME}"),
    (
        "[Cc]onnection",
        (EOFError, OSError),
        "The connection to jtop's service is lost: it was stopped, or it failed. See: systemctl status jtop",
    ),
)


def sentence(error: BaseException) -> str | None:
    """What happened and what to do; None for what is no known way of jtop to fail."""
    said = " ".join(str(error).split())
    if isinstance(error, TelemetryError):
        return said
    if isinstance(error, ImportError):
        return _not_imported(error)
    releases = [*re.findall(r"\[(.*?)\]", said), "?", "?"]
    for pattern, kinds, words in _MEANINGS:
        if re.search(pattern, said) or isinstance(error, kinds):
            return words.format(user=_user(), service=releases[0], client=releases[1])
    return None


def _not_imported(error: ImportError) -> str:
    if (error.name or "").partition(".")[0] == "jtop":
        return "jetson-stats is not installed. Install it: pip install 'qwen-edge[jetson]'"
    return f"jetson-stats cannot be imported ({error}). Install it again: pip install -U 'qwen-edge[jetson]'"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in a container
        return "of this program"
