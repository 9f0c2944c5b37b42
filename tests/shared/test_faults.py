"""The daemon serves on, whatever happens to jtop: the real service on an emulated board, stopped, killed and misled."""

from __future__ import annotations

import signal
import threading
import urllib.error
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.model.conftest import DEMO, converted
from tests.shared.board import RAILS, TJ
from tests.shared.served import Served


class Client(threading.Thread):
    """Asks again and again, as long as it is answered whole."""

    def __init__(self, daemon: Served) -> None:
        super().__init__()
        self.answers, self.failure = 0, ""
        self._daemon, self._over = daemon, threading.Event()

    def run(self) -> None:
        try:
            while not self._over.is_set():
                assert self._daemon.stream(20) == 20
                self.answers += 1
        except (AssertionError, OSError, urllib.error.URLError) as error:
            self.failure = repr(error)

    def stop(self) -> None:
        self._over.set()
        self.join()


@pytest.mark.timeout(240)
def test_the_daemon_answers_through_all_that_befalls_jtop_and_says_what_it_is(board, tmp_path):
    board.start()
    daemon = Served(board, converted(DEMO, tmp_path / "demo.gguf"))
    client = Client(daemon)
    client.start()

    def becomes(condition: Callable[[dict[str, Any]], object]) -> None:
        """Soon the device is so, and an answer has been given since."""
        answers = client.answers
        while not (condition(daemon.device()) and client.answers > answers + 1):
            assert not client.failure, client.failure
            threading.Event().wait(0.1)

    def says(words: str) -> None:
        becomes(lambda found: words in (found["trouble"] or ""))

    def is_well() -> None:
        becomes(lambda found: not found["trouble"] and found["telemetry"] and found["telemetry"]["watts"] == 6.096)

    try:
        is_well()
        board.send(signal.SIGTERM)
        says("jtop's service does not run")
        board.start()
        is_well()
        board.collector.suspend()
        says("jtop's service hangs")
        board.collector.resume()
        is_well()
        board.end()
        says("jtop's service does not run")
        board.start()
        is_well()
        current = board.folder / "sys" / RAILS / "curr1_input"
        current.rename(current.with_name("away"))
        becomes(lambda found: found["telemetry"]["watts"] is None)
        current.with_name("away").rename(current)
        is_well()
        board.set(TJ, "warm")
        becomes(lambda found: "tj" in " ".join(found["telemetry"]["missing"]))
        board.set(TJ, 48_500)
        becomes(lambda found: not found["telemetry"]["missing"])
        board.set(f"{RAILS}/curr2_input", "")
        says("jtop's service hangs")
        board.set(f"{RAILS}/curr2_input", 300)
        board.end()
        board.start()
        is_well()
        for process in psutil.Process(daemon.process.pid).children():
            if any("jtop_helper" in part for part in process.cmdline()):
                process.kill()
        becomes(lambda found: found["trouble"])
        is_well()
    finally:
        client.stop()
        daemon.end()
    assert not client.failure
    assert client.answers > 20
