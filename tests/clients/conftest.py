"""For the tests of all clients in Python: the daemons' addresses, as a user would put them into a program."""

import json
import os
import time
import urllib.request

import pytest


class Daemon:
    """A daemon that a client speaks to. `key` is one that it accepts; one that needs none ignores it."""

    def __init__(self, address: str, key: str) -> None:
        self.address, self.key = address, key
        self.v1 = f"{address}/v1"

    def get(self, path: str) -> bytes:
        request = urllib.request.Request(self.address + path, headers={"Authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request) as response:
            return response.read()

    def completed_answers(self) -> int:
        """Answers that were complete: one that was broken off does not count."""
        lines = self.get("/metrics").decode().splitlines()
        return int(next(float(line.split()[1]) for line in lines if line.startswith("qwen_edge_answer_seconds_count ")))

    def wait_until_idle(self) -> None:
        """Until the engine does nothing for anybody."""
        end = time.monotonic() + 20
        while json.loads(self.get("/health"))["pending"]:
            assert time.monotonic() < end, "the engine still computes an answer"
            time.sleep(0.02)


@pytest.fixture
def scripted() -> Daemon:
    """Its model says what the message of the user tells it to say (scripted.py)."""
    return Daemon(os.environ["SCRIPTED_URL"], os.environ["API_KEY"])


@pytest.fixture
def demo() -> Daemon:
    """With the demo model."""
    return Daemon(os.environ["DEMO_URL"], "none")


@pytest.fixture
def broken_off(scripted):
    """A check that the answer, which the client has left, was broken off and not computed to its end."""
    before = scripted.completed_answers()

    def check() -> None:
        scripted.wait_until_idle()
        assert scripted.completed_answers() == before

    return check
