"""A Hub of one repository on loopback: the endpoints that huggingface_hub asks, and a connection that may break."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer(ThreadingHTTPServer):
    """Serves `folder` as `name`. `requests` are "METHOD path" with the byte range; `break_after` bytes of a large
    file the connection is cut, once; `status` is answered to everything, if set."""

    def __init__(
        self, folder: Path, *, token: str | None = None, name: str = "acme/tiny", commit: str = COMMIT
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.token = token
        self.name = name
        self.commit = commit
        self.requests: list[tuple[str, str, str | None]] = []
        self.break_after: int | None = None
        self.status: int | None = None
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_arguments: object) -> None:
        pass

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append((self.command, path, self.headers.get("Range")))
        if self.server.status:
            self._send(self.server.status, b"{}")
        elif self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self._send(401, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif not path.startswith((f"/api/models/{self.server.name}", f"/{self.server.name}/resolve/")):
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif "/resolve/" in path:
            self._file(path.rpartition("/")[2])
        elif "no-such-revision" in path:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        elif "/tree/" in path:
            self._send(200, json.dumps([self._entry(file) for file in self._files()]).encode())
        else:
            siblings = [{"rfilename": file.name} for file in self._files()]
            info = {
                "id": self.server.name,
                "sha": self.server.commit,
                "siblings": siblings,
                "private": False,
                "tags": [],
            }
            self._send(200, json.dumps({**info, "downloads": 0, "likes": 0}).encode())

    def _files(self) -> list[Path]:
        return sorted(self.server.folder.iterdir())

    def _entry(self, file: Path) -> dict[str, object]:
        return {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _digest(file)[:40]}

    def _file(self, name: str) -> None:
        file = self.server.folder / name
        data = file.read_bytes()
        begin = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        headers = {"ETag": f'"{_digest(file)}"', "X-Repo-Commit": self.server.commit, "Accept-Ranges": "bytes"}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        self._send(206 if begin else 200, data[begin:], headers)

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.server.break_after
        if cut is not None and len(data) > cut:
            self.server.break_after = None
            self.wfile.write(data[:cut])
            self.close_connection = True
        else:
            self.wfile.write(data)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
