"""API keys: which keys are valid, their owners' names, and which keys are admin keys."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from qwen_edge.config.paths import expand_path
from qwen_edge.config.schema import ANY_ORIGIN, LOOPBACK, Config
from qwen_edge.core.errors import ConfigError
from qwen_edge.core.printable import is_hidden
from qwen_edge.core.regular_file import regular_only
from qwen_edge.protocol.messages import Caller

log = logging.getLogger(__name__)

_SHORTEST = 16  # characters: a shorter key can be guessed
_COMMENT = re.compile(r"(^|\s)#.*")
_ADMIN = "admin"
_MARK = "\ufeff"  # the byte order mark of Windows editors; in concatenated files it may be at the start of any line
# invisible characters that Unicode classifies as letters or accents: fillers and variation selectors
_SHAPELESS = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")


class Keys:
    """The valid keys, the name of each key's owner, and the admin keys. Keys with the same name have the same owner.
    Without keys, every client may use the server, and sees everything."""

    def __init__(self, names: Mapping[str, str] | None = None, admins: Collection[str] = ()) -> None:
        self._names = dict(names or {})
        self._admins = frozenset(admins)

    def __bool__(self) -> bool:
        return bool(self._names)

    def owner(self, key: bytes) -> str | None:
        """The name of the key's owner; None for an invalid key. Takes the same time for a valid and an invalid key."""
        found = self._find(key)
        return None if found is None else self._names[found]

    def caller(self, key: bytes) -> Caller | None:
        """The key's owner and rights; None for an invalid key."""
        found = self._find(key)
        return None if found is None else Caller(self._names[found], found in self._admins)

    def _find(self, key: bytes) -> str | None:
        found = [known for known in self._names if hmac.compare_digest(key, known.encode())]
        return found[0] if found else None


def read_keys(config: Config) -> Keys:
    """Read the keys from the configured file, or from systemd's credential `api-keys`. Each line has a key, then the
    owner's name (optional), then the word admin (optional; also Admin, ADMIN) for a key that sees everything. A # at
    the start of a line or after white space begins a comment. Raises ConfigError.

    Without a key, any address except loopback is refused: it would open the device to the whole network.
    """
    file = config.server.api_keys_file
    credential = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / "api-keys"
    named = expand_path(file, "server.api_keys_file") if file else None
    keys = _keys_in(named) if named else _keys_in(credential) if credential.is_file() else Keys()
    if named and not keys:
        raise ConfigError(f"server.api_keys_file: {file} contains no key. Write one key on each line: KEY NAME")
    if not keys and config.server.host not in LOOPBACK:
        raise ConfigError(
            f"server.host is {config.server.host}, which other machines can reach, but no API key is configured. "
            "Set server.api_keys_file, or set server.host (--host) to 127.0.0.1."
        )
    if named:
        _warn_if_others_read(named)
    if not keys and ANY_ORIGIN in config.server.origins:
        log.warning(
            "server.origins is * and no API key is configured, so every web page that a browser on this machine opens "
            "can use the server: list the origins, or set server.api_keys_file"
        )
    return keys


def _keys_in(file: Path) -> Keys:
    try:
        with open(file, encoding="utf-8", opener=regular_only) as opened:
            text = opened.read()
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else f"it is not UTF-8 ({error})"
        raise ConfigError(
            f"server.api_keys_file: cannot read {file}: {cause}. The file must be text with one key on each line, "
            "and the daemon's user must be able to read it."
        ) from None
    names, admins, lines = dict[str, str](), set[str](), dict[str, int]()
    for number, written in enumerate(text.split("\n"), 1):
        line = _COMMENT.sub("", written.lstrip(_MARK))
        words = line.split()
        if not words:
            continue
        key, name, is_admin = words[0], " ".join(words[1:]), len(words) > 2 and words[-1].casefold() == _ADMIN
        if any(map(is_hidden, line)) or not key.isprintable() or _SHAPELESS.search(key):
            raise ConfigError(
                f"server.api_keys_file: {file}, line {number}: the line contains an invisible character (a control "
                "character, or one without width), so no client could send this key. Type the line again."
            )
        if is_admin:
            name = " ".join(words[1:-1])
        elif name.casefold() == _ADMIN:
            log.warning(
                "%s, line %d: a key whose owner is named admin is no admin key. For one, write: KEY NAME admin",
                file,
                number,
            )
        if len(key) < _SHORTEST:
            raise ConfigError(
                f"server.api_keys_file: {file}, line {number}: the key has {len(key)} characters, but needs at "
                f"least {_SHORTEST}, so that it cannot be guessed. Make a key: openssl rand -hex 16"
            )
        name = name or _name_of(key)
        if key in names and (names[key], key in admins) != (name, is_admin):
            raise ConfigError(
                f"server.api_keys_file: {file}, line {number}: the key is the same as in line {lines[key]}, but its "
                "owner or its rights differ. Remove one of the two lines."
            )
        names[key] = name
        lines.setdefault(key, number)
        if is_admin:
            admins.add(key)
    return Keys(names, admins)


def _warn_if_others_read(file: Path) -> None:
    """Warn if other users can read the file. systemd's credentials are exempt: their folder protects them."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder and file.resolve().is_relative_to(Path(folder).resolve()):
        return
    status = file.stat()
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        mode = status.st_mode & 0o777
        log.warning(
            "%s contains API keys, and its mode %03o lets other users read them: chmod 600 %s", file, mode, file
        )


def _name_of(key: str) -> str:
    """The owner's name for a key without a name. It depends only on the key, and does not help to guess the key."""
    return f"key-{hashlib.blake2b(key.encode(), digest_size=3).hexdigest()}"
