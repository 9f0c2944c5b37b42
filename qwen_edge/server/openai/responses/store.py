"""Stored responses: kept for a time, within a number of bytes, across restarts, each for the owner of its key.

An SQLite file in the state folder, or a database in memory. Whatever is wrong with the file, responses are answered: a
damaged file is replaced, and a file that cannot be read or written is left for a database in memory, with one line in
the log. SQLite runs on a thread of its own, so that a slow card does not stop the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from qwen_edge.config.paths import state_folder
from qwen_edge.config.schema import Config
from qwen_edge.core.errors import ConfigError, RequestError, unavailable

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_NAME = "responses.sqlite"
_FORM = 1  # of the table; a file with another one is replaced
_MOST = 10_000  # responses
_MOST_IN_MEMORY = 16_000_000  # bytes
_SHARE = 4  # a response may take the 4th part of the room
_SLOWEST = 10.0  # seconds that a request waits for the file
_TABLE = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, created REAL NOT NULL, bytes INTEGER NOT NULL, stored BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS by_owner ON responses (owner, created, bytes);
CREATE INDEX IF NOT EXISTS by_time ON responses (created);
"""
_COPIED = "SELECT rowid, id, owner, created, bytes, stored FROM responses ORDER BY rowid DESC"
_COPY = "INSERT INTO responses (rowid, id, owner, created, bytes, stored) VALUES (?, ?, ?, ?, ?, ?)"

# The oldest has the lowest rowid: a clock that has gone back (a board without a battery boots in the past) would make
# the newest responses the oldest.
_DROP = """
DELETE FROM responses WHERE id IN (
    SELECT id FROM responses WHERE owner = (SELECT owner FROM responses GROUP BY owner ORDER BY %s DESC LIMIT 1)
    ORDER BY rowid LIMIT 1
)
"""
_DROP_MOST_COUNT, _DROP_MOST_BYTES = _DROP % "count(*)", _DROP % "sum(bytes)"


class Stored(msgspec.Struct, frozen=True):
    """A response, and all items of which it was made: those of its conversation before, and its input."""

    response: dict[str, Any]
    input: list[dict[str, Any]]


def store_of(config: Config) -> ResponseStore:
    """The store that the settings describe: on disk if conversations are remembered there, else in memory."""
    server, file = config.server, None
    if config.remember.where == "disk":
        with contextlib.suppress(ConfigError):  # this user has no home folder
            file = state_folder() / _NAME
    return ResponseStore(file, most_bytes=server.responses_bytes, hours=server.responses_hours)


class ResponseStore:
    """Used on the event loop. Its methods end within seconds, whatever the disk does."""

    def __init__(
        self,
        file: Path | None,
        *,
        most_bytes: int,
        hours: float,
        clock: Callable[[], float] = time.time,
        slowest: float = _SLOWEST,
    ) -> None:
        """`file`: None keeps the responses in memory only. Nothing is opened before the first use. A `most_bytes` of 0
        stores nothing. `slowest`: seconds that a request waits for the disk."""
        self._table = _Table(file, most_bytes, hours * 3600, clock)
        self._slowest = slowest
        self._thread = ThreadPoolExecutor(1, "responses")
        self._late: Future[Any] | None = None  # what the disk has not done in time

    async def get(self, id_: str, owner: str) -> Stored | None:
        """The response, if this owner has stored it. Raises RequestError if the disk does not answer."""
        return await self._run(lambda: self._table.get(id_, owner))

    async def put(self, id_: str, owner: str, stored: Stored) -> None:
        """Store the response. One that cannot be stored is a line in the log: its answer has been computed."""
        try:
            await self._run(lambda: self._table.put(id_, owner, msgspec.json.encode(stored)))
        except Exception as error:
            log.warning("a response is not stored: %s", error)

    async def delete(self, id_: str, owner: str) -> bool:
        """Whether there was such a response. Raises RequestError if the disk does not answer."""
        return await self._run(lambda: self._table.delete(id_, owner))

    async def close(self) -> None:
        """Finish what is being written, and close the file."""
        with contextlib.suppress(RequestError):
            await self._run(self._table.close)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, do: Callable[[], _T]) -> _T:
        """Do it on the thread. While the disk hangs, nothing is queued behind what hangs."""
        if self._late and not self._late.done():
            raise _hangs()
        done = self._thread.submit(do)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(done), self._slowest)
        except asyncio.TimeoutError:
            self._late = done
            raise _hangs() from None


RESPONSES = web.AppKey("responses", ResponseStore)


def _hangs() -> RequestError:
    return unavailable("The disk with the stored responses does not answer.", retry_after=10)


class _Table:
    """The database. Used on one thread."""

    def __init__(self, file: Path | None, most_bytes: int, seconds: float, clock: Callable[[], float]) -> None:
        self._file, self._seconds, self._clock = file, seconds, clock
        self._most_bytes = most_bytes if file else min(most_bytes, _MOST_IN_MEMORY)
        self._replaced = False  # whether the file was damaged
        self._database: sqlite3.Connection | None = None

    def get(self, id_: str, owner: str) -> Stored | None:
        oldest = self._clock() - self._seconds
        found = self._do(
            lambda database: database.execute(
                "SELECT stored FROM responses WHERE id = ? AND owner = ? AND created > ?", (id_, owner, oldest)
            ).fetchone()
        )
        try:
            return msgspec.json.decode(found[0], type=Stored) if found else None
        except msgspec.DecodeError:
            log.warning("the stored response %s is damaged", id_)
            return None

    def put(self, id_: str, owner: str, data: bytes) -> None:
        if not self._most_bytes:
            return
        if len(data) > self._most_bytes // _SHARE:
            log.warning(
                "a response with its input takes %d bytes, and is not stored: one may take the %dth part of "
                "server.responses_bytes",
                len(data),
                _SHARE,
            )
            return
        self._do(lambda database: self._put(database, (id_, owner, self._clock(), len(data), data)))

    def delete(self, id_: str, owner: str) -> bool:
        def delete(database: sqlite3.Connection) -> bool:
            with database:
                return database.execute("DELETE FROM responses WHERE id = ? AND owner = ?", (id_, owner)).rowcount > 0

        return self._do(delete)

    def close(self) -> None:
        if self._database:
            self._database.close()
            self._database = None

    def _put(self, database: sqlite3.Connection, row: tuple[str, str, float, int, bytes]) -> None:
        with database:
            database.execute("DELETE FROM responses WHERE created <= ?", (self._clock() - self._seconds,))
            database.execute("INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?)", row)
            self._make_room(database)

    def _make_room(self, database: sqlite3.Connection) -> None:
        """Delete the oldest responses, of the owner who has the most of what is too much: no owner can push out what
        another has stored."""
        while True:
            count, total = database.execute("SELECT count(*), coalesce(sum(bytes), 0) FROM responses").fetchone()
            if count <= _MOST and total <= self._most_bytes:
                return
            database.execute(_DROP_MOST_COUNT if count > _MOST else _DROP_MOST_BYTES)

    def _do(self, do: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do it in the file. If the file is damaged, in a new file; if that fails, in memory from now on."""
        while True:
            try:
                if self._database is None:
                    self._database = _connected(self._file) if self._file else _prepared(sqlite3.connect(":memory:"))
                return do(self._database)
            except (sqlite3.Error, OSError) as error:
                if self._file is None:
                    raise
                self._mend(self._file, error)

    def _mend(self, file: Path, error: Exception) -> None:
        # SQLite's errors of a damaged file have no class of their own before Python 3.11's error codes
        if type(error) is sqlite3.DatabaseError and not self._replaced:
            log.warning("%s is damaged (%s), and replaced by a new file: stored responses are lost", file, error)
            self._replaced = True
            self.close()
            with contextlib.suppress(OSError):  # then the next try fails, too
                for suffix in ("", "-wal", "-shm"):
                    file.with_name(file.name + suffix).unlink(missing_ok=True)
            return
        log.warning("stored responses are kept in memory only from now on: %s: %s", file, error)
        self._go_on_in_memory()

    def _go_on_in_memory(self) -> None:
        """With the newest of what the file holds, if it can be read."""
        old, self._file = self._database, None
        self._most_bytes = min(self._most_bytes, _MOST_IN_MEMORY)
        self._database = memory = _prepared(sqlite3.connect(":memory:"))
        if old is None:
            return
        total = 0
        with contextlib.suppress(sqlite3.Error), contextlib.closing(old), memory:
            for row in old.execute(_COPIED):
                if (total := total + row[4]) > self._most_bytes:
                    break
                memory.execute(_COPY, row)


def _connected(file: Path) -> sqlite3.Connection:
    """Raises sqlite3.Error and OSError."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))  # only this user reads it, whatever the umask is
    return _prepared(sqlite3.connect(file))


def _prepared(database: sqlite3.Connection) -> sqlite3.Connection:
    """With the table, and so that a commit costs a flash card little: after a power cut the last ones may be lost."""
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA secure_delete = ON")
        [form] = database.execute("PRAGMA user_version").fetchone()
        if form != _FORM:
            database.executescript(f"DROP TABLE IF EXISTS responses; {_TABLE} PRAGMA user_version = {_FORM};")
        database.execute("SELECT count(*) FROM responses").fetchone()
    except sqlite3.Error:
        database.close()
        raise
    return database
