"""API keys: who may ask, and under which name they are known."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path

from qwen_edge.config import LOOPBACK, Config
from qwen_edge.errors import ConfigError


class Keys:
    """Names by key. Empty: everybody may ask."""

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self._names = dict(names or {})

    def __bool__(self) -> bool:
        return bool(self._names)

    def owner(self, key: bytes) -> str | None:
        """The name of whoever has this key, None if nobody has. Takes as long for a wrong key as for a right one."""
        found = [name for known, name in self._names.items() if hmac.compare_digest(key, known.encode())]
        return found[0] if found else None


def read_keys(config: Config) -> Keys:
    """The keys of the configured file, or of systemd's credential `api-keys`: one a line, behind it the name of whoever
    has it, if it has one, and what follows a # is a comment. Raises ConfigError.

    Binding to anything but loopback without a key is refused: it would hand the device to the whole network.
    """
    file = config.server.api_keys_file
    credential = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / "api-keys"
    keys = _keys_in(Path(file).expanduser()) if file else _keys_in(credential) if credential.is_file() else Keys()
    if file and not keys:
        raise ConfigError(f"server.api_keys_file: {file} holds no key. Write one a line.")
    if not keys and config.server.host not in LOOPBACK:
        raise ConfigError(
            f"server.host is {config.server.host}, which others can reach, and there is no key. "
            "Set server.api_keys_file, or keep server.host (--host) at 127.0.0.1."
        )
    return keys


def _keys_in(file: Path) -> Keys:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"server.api_keys_file: cannot read {file}: {error}.") from None
    given = [line.split("#")[0].split(maxsplit=1) for line in lines]
    return Keys({words[0]: words[1].strip() if words[1:] else _name_of(words[0]) for words in given if words})


def _name_of(key: str) -> str:
    """Of a key without one: the same as long as the key is, and no help to whoever wants to guess it."""
    return f"key-{hashlib.blake2b(key.encode(), digest_size=3).hexdigest()}"
