"""Threads that wait for each other let other programs have the cores soon, unless the user wants otherwise."""

import os
import platform
import subprocess
import sys

import pytest

from qwen_edge.llama.bindings import limit_spinning


def spins(**environment: str) -> str:
    """How often OpenMP says that its threads look before they sleep, in a process that loads what the engine does."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "OMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", "import qwen_edge.engine.main, qwen_edge.llama.backend"],
        env={**own, "OMP_DISPLAY_ENV": "VERBOSE", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.partition("=")[2].strip(" '") for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    if not lines:
        pytest.skip("this llama.cpp does not use GCC's OpenMP")
    return lines[0]


def test_the_engine_s_threads_sleep_soon_while_they_wait_for_each_other():
    assert spins() == ("3000" if platform.machine() == "x86_64" else "30000")


def test_how_threads_wait_is_the_user_s_decision_if_there_is_one():
    assert spins(GOMP_SPINCOUNT="77") == "77"
    assert spins(OMP_WAIT_POLICY="PASSIVE") == "0"
    assert int(spins(OMP_WAIT_POLICY="ACTIVE")) > 1_000_000


@pytest.mark.parametrize("said", [{"GOMP_SPINCOUNT": ""}, {"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "5"}])
def test_what_the_user_has_said_stays_as_it_is(said):
    environment = {**said, "HOME": "/root"}
    limit_spinning(environment)
    assert environment == {**said, "HOME": "/root"}
