"""The files of the page, as browsers get them: from memory, compressed once, each with a tag (RFC 9110, 8.8.3), so that
a browser that has a file already gets it only after it has changed.

The names are a fixed set that is read at the start: no name in a request can lead to another file.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from aiohttp import web

from qwen_edge.core.page_headers import SAFE_PAGE

INDEX = "index.html"
NAME = "[A-Za-z0-9][A-Za-z0-9._-]*"
"""A pattern that every name fits."""

TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""The content types by the ends of names. A file with another end is not served."""

_HEADERS = {
    **SAFE_PAGE,
    "Cache-Control": "no-cache",  # a browser may keep a file, and asks each time whether it has changed
    "Vary": "Accept-Encoding",
}
_STATIC = Path(__file__).with_name("static")


@dataclass(frozen=True)
class PageFile:
    """One file. Its content never changes."""

    body: bytes
    content_type: str

    @cached_property
    def tag(self) -> str:
        """Changes with the content, and with nothing else."""
        return hashlib.sha256(self.body).hexdigest()[:20]

    @cached_property
    def zipped(self) -> bytes | None:
        """The content compressed by gzip; None if that would not be shorter."""
        zipped = gzip.compress(self.body, mtime=0)
        return zipped if len(zipped) < len(self.body) else None


def read_files(folder: Path = _STATIC) -> dict[str, PageFile]:
    """All files by the names that follow `/page/`, such as `app.js`. Raises OSError."""
    return {
        file.name: PageFile(file.read_bytes(), TYPES[file.suffix])
        for file in sorted(folder.iterdir())
        if file.suffix in TYPES and re.fullmatch(NAME, file.name)
    }


def response_of(file: PageFile, request: web.Request) -> web.Response:
    """The file, or 304 if the browser has it."""
    zipped = file.zipped if accepts(request.headers.getall("Accept-Encoding", []), "gzip") else None
    tag = f"{file.tag}-gzip" if zipped else file.tag
    headers = {**_HEADERS, "ETag": f'"{tag}"'}
    if any(known.value in (tag, "*") for known in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    headers |= {"Content-Type": file.content_type, **({"Content-Encoding": "gzip"} if zipped else {})}
    return web.Response(body=zipped or file.body, headers=headers)


def accepts(headers: list[str], wanted: str) -> bool:
    """Whether an Accept or Accept-Encoding header names `wanted` itself; `*` does not count, nor does a weight of 0."""
    for part in ",".join(headers).lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if name == wanted:
            return not any(piece.startswith("q=") and not piece[2:].strip("0.") for piece in parameters)
    return False
