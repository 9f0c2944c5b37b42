"""Stored responses: bounded, each for its owner, across restarts; and whatever the file is, none is refused."""

import asyncio
import logging
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from qwen_edge.config.load import parse_config
from qwen_edge.core.errors import RequestError
from qwen_edge.server.openai.responses import store as module
from qwen_edge.server.openai.responses.store import ResponseStore, Stored, store_of

HOUR = 3600.0


class Clock:
    now = 1e9

    def __call__(self) -> float:
        return self.now


def stored(text: str = "hi") -> Stored:
    return Stored({"id": "resp_1", "output": [{"text": text}]}, [{"type": "message"}])


def opened(file: Path | None, clock=None, most: int = 1_000_000, hours: float = 1) -> ResponseStore:
    return ResponseStore(file, most_bytes=most, hours=hours, clock=clock or Clock())


@pytest.mark.parametrize("on_disk", [True, False])
async def test_a_response_is_found_by_its_owner_alone(tmp_path, on_disk):
    store = opened(tmp_path / "folder" / "r.sqlite" if on_disk else None)
    await store.put("resp_1", "one", stored())
    assert await store.get("resp_1", "one") == stored()
    assert await store.get("resp_1", "two") is None
    assert not await store.delete("resp_1", "two")
    assert await store.delete("resp_1", "one")
    assert await store.get("resp_1", "one") is None
    assert not await store.delete("resp_1", "one")
    await store.close()


async def test_a_response_outlives_a_restart(tmp_path):
    file = tmp_path / "r.sqlite"
    store = opened(file)
    await store.put("resp_1", "", stored())
    await store.close()
    store = opened(file)
    assert await store.get("resp_1", "") == stored()
    await store.close()
    assert file.stat().st_mode & 0o077 == 0


async def test_a_response_is_gone_after_its_time(tmp_path):
    clock = Clock()
    store = opened(tmp_path / "r.sqlite", clock)
    await store.put("resp_1", "", stored())
    clock.now += HOUR - 1
    assert await store.get("resp_1", "")
    clock.now += 2
    assert await store.get("resp_1", "") is None
    await store.put("resp_2", "", stored())
    await store.close()
    with closing(sqlite3.connect(tmp_path / "r.sqlite")) as database, database:
        assert database.execute("SELECT id FROM responses").fetchall() == [("resp_2",)]


async def test_the_oldest_of_the_owner_with_most_goes_first():
    clock = Clock()
    store = opened(None, clock, most=10_000)
    await store.put("quiet", "two", stored("x" * 1000))
    for number in range(20):
        clock.now += 1
        await store.put(f"resp_{number}", "one", stored("x" * 1000))
    assert await store.get("quiet", "two"), "another owner's responses do not push it out"
    assert await store.get("resp_0", "one") is None
    assert await store.get("resp_19", "one")
    await store.close()


async def test_a_clock_that_goes_back_does_not_make_the_newest_responses_the_oldest(tmp_path):
    clock = Clock()
    store = opened(tmp_path / "r.sqlite", clock, most=10_000)
    for number in range(12):
        await store.put(f"before_{number}", "one", stored("x" * 1000))
    clock.now -= HOUR * 10_000
    for number in range(3):
        await store.put(f"after_{number}", "one", stored("x" * 1000))
    assert await store.get("after_0", "one")
    await store._run(lambda: store._table._database.execute("PRAGMA max_page_count = 1"))  # from now on in memory
    for number in range(3, 6):
        await store.put(f"after_{number}", "one", stored("x" * 1000))
    assert [bool(await store.get(f"after_{number}", "one")) for number in range(6)] == [True] * 6
    assert await store.get("before_5", "one") is None
    await store.close()


async def test_there_are_not_more_than_a_number_of_responses(monkeypatch):
    monkeypatch.setattr(module, "_MOST", 3)
    clock = Clock()
    store = opened(None, clock)
    for number in range(5):
        clock.now += 1
        await store.put(f"resp_{number}", "", stored())
    assert [bool(await store.get(f"resp_{number}", "")) for number in range(5)] == [False, False, True, True, True]
    await store.close()


async def test_a_response_that_takes_too_much_room_pushes_out_no_other(caplog):
    store = opened(None, most=10_000)
    await store.put("small", "", stored())
    await store.put("large", "", stored("x" * 5000))
    assert await store.get("small", "")
    assert await store.get("large", "") is None
    assert "server.responses_bytes" in caplog.text
    await store.close()


async def test_with_no_room_nothing_is_stored(tmp_path):
    store = opened(tmp_path / "r.sqlite", most=0)
    await store.put("resp_1", "", stored())
    assert await store.get("resp_1", "") is None
    await store.close()


@pytest.mark.parametrize("damage", [b"this is no database at all, but text" * 100, None])
async def test_a_damaged_file_is_replaced(tmp_path, caplog, damage):
    file = tmp_path / "r.sqlite"
    store = opened(file)
    for number in range(50):
        await store.put(f"old_{number}", "", stored("x" * 2000))
    await store.close()
    data = bytearray(file.read_bytes())
    data[200:] = os.urandom(len(data) - 200)
    file.write_bytes(damage or bytes(data))
    store = opened(file)
    assert await store.get("old_1", "") is None
    await store.put("resp_1", "", stored())
    assert await store.get("resp_1", "") == stored()
    await store.close()
    assert caplog.text.count("is damaged") == 1
    store = opened(file)
    assert await store.get("resp_1", "") == stored(), "the new file is on disk"
    await store.close()


async def test_a_damaged_row_is_a_response_that_is_not_there(tmp_path):
    file = tmp_path / "r.sqlite"
    store = opened(file)
    await store.put("resp_1", "", stored())
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE responses SET stored = ?", (b'{"response": 3}',))
    assert await store.get("resp_1", "") is None
    await store.close()


async def test_on_a_full_disk_responses_are_kept_in_memory_with_those_of_the_file(tmp_path, caplog):
    file = tmp_path / "r.sqlite"
    store = opened(file)
    await store.put("old", "", stored("old"))
    await store._run(lambda: store._table._database.execute("PRAGMA max_page_count = 1"))
    for number in range(20):
        await store.put(f"resp_{number}", "", stored("x" * 1000))
    assert await store.get("old", "") == stored("old")
    assert await store.get("resp_19", "") == stored("x" * 1000)
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert "in memory only" in lines[0].getMessage()
    await store.close()


@pytest.mark.parametrize("where", ["a file/r.sqlite", "folder"])
async def test_a_place_that_cannot_be_used_means_memory(tmp_path, caplog, where):
    (tmp_path / "a file").touch()
    (tmp_path / "folder").mkdir()
    store = opened(tmp_path / where)
    await store.put("resp_1", "", stored())
    assert await store.get("resp_1", "") == stored()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    await store.close()


async def test_a_file_that_cannot_be_written_means_memory(tmp_path, caplog):
    file = tmp_path / "r.sqlite"
    store = opened(file)
    await store.put("old", "", stored("old"))
    await store._run(lambda: store._table._database.execute("PRAGMA query_only = ON"))
    await store.put("resp_1", "", stored())
    assert await store.get("resp_1", "") == stored()
    assert await store.get("old", "") == stored("old")
    assert caplog.text.count("in memory only") == 1
    await store.close()


async def test_a_disk_that_hangs_delays_no_answer_for_long_and_stores_nothing(caplog):
    store = ResponseStore(None, most_bytes=1000, hours=1, slowest=0.05)
    hangs = threading.Event()
    store._thread.submit(hangs.wait)
    await store.put("resp_1", "", stored())
    assert "is not stored" in caplog.text
    with pytest.raises(RequestError) as refused:
        await store.get("resp_1", "")
    assert refused.value.kind == "unavailable"
    hangs.set()
    await asyncio.wrap_future(store._thread.submit(lambda: None))
    await store.put("resp_2", "", stored())
    assert await store.get("resp_2", "") == stored()
    await store.close()


async def test_a_file_with_another_form_of_table_is_begun_anew(tmp_path):
    file = tmp_path / "r.sqlite"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE responses (other)")
        database.execute("PRAGMA user_version = 99")
    store = opened(file)
    await store.put("resp_1", "", stored())
    assert await store.get("resp_1", "") == stored()
    await store.close()


@pytest.mark.parametrize(("where", "on_disk"), [("disk", True), ("memory", False), ("off", False)])
async def test_only_where_conversations_are_remembered_on_disk_responses_are(tmp_path, monkeypatch, where, on_disk):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    store = store_of(parse_config(f"remember: {{where: {where}}}", "test"))
    await store.put("resp_1", "", stored())
    assert await store.get("resp_1", "") == stored()
    await store.close()
    assert (tmp_path / "responses.sqlite").exists() is on_disk
