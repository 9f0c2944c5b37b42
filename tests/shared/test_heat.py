"""The loop closed for real: a simulated plant writes into an emulated board, the real jtop reads it, the real daemon
under real load slows down, and the plant cools.

The plant warms up by the processor time that the engine really takes. Its heat sink is a third of a real one, and warm
already, so that it is over soon; the chip is as slow as a real one.
"""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from scripts.heat.draw import Line, Panel, draw
from scripts.heat.plant import PLANTS, Body
from tests.model.conftest import DEMO, converted
from tests.shared.board import RAILS, TJ, Board
from tests.shared.served import Served

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "build" / "heat-end-to-end.svg"
AMBIENT, WARM_UP, STEADY, COOL_DOWN = 45.0, 45.0, 30.0, 12.0
TICK = 0.1  # seconds
_REAL = PLANTS["nx, fan"]
PLANT = replace(_REAL, c2=_REAL.c2 / 3)


def warm_body() -> Body:
    body = Body(PLANT, AMBIENT)
    body.chip, body.sink = body.chip + 18.0, body.sink + 18.0
    return body


class Heated(threading.Thread):
    """The plant, in real time: warmed by what `engine` computes, telling the board's sensors."""

    def __init__(self, board: Board, engine: psutil.Process) -> None:
        super().__init__()
        self.body = warm_body()
        self.course: list[tuple[float, float, float]] = []  # seconds, Celsius, share of the time computed
        self._board, self._engine, self._over = board, engine, threading.Event()
        self.began = time.monotonic()

    def run(self) -> None:
        before, then = self._computed(), time.monotonic()
        while not self._over.wait(TICK):
            after, now = self._computed(), time.monotonic()
            work = min(1.0, (after - before) / (now - then))
            watts = self.body.work(work, now - then)
            before, then = after, now
            self.course.append((now - self.began, self.body.chip, work))
            self._board.set(TJ, round(1000 * self.body.chip))
            self._board.set(f"{RAILS}/curr1_input", round(1e6 * watts / 5080))

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _computed(self) -> float:
        times = self._engine.cpu_times()
        return times.user + times.system

    def mean(self, begin: float, end: float, column: int) -> float:
        return statistics.mean(point[column] for point in self.course if begin <= point[0] < end)


@pytest.mark.timeout(240)
def test_under_real_load_the_real_jtop_and_the_daemon_hold_a_simulated_board_at_its_target(board, tmp_path):
    assert PLANT.settled(1.0, AMBIENT) > 100, "it would be destroyed"
    board.set(TJ, round(1000 * warm_body().chip))
    board.start()
    daemon = Served(board, converted(DEMO, tmp_path / "demo.gguf"))
    heated, busy = Heated(board, daemon.engine), threading.Event()
    busy.set()
    answers: list[int] = []
    seen: list[tuple[float, dict[str, Any]]] = []

    def ask() -> None:
        while busy.is_set():
            answers.append(daemon.stream(500))

    def watch(seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            seen.append((time.monotonic() - heated.began, daemon.device()))
            threading.Event().wait(0.5)

    clients = [threading.Thread(target=ask) for _ in range(2)]
    heated.start()
    try:
        for client in clients:
            client.start()
        watch(WARM_UP + STEADY)
        busy.clear()
        for client in clients:
            client.join()
        loaded = heated.course[-1][0]
        watch(COOL_DOWN)
    finally:
        busy.clear()
        heated.stop()
        daemon.end()
    _picture(heated, seen)

    assert {found["governor"]["target"] for _, found in seen} == {85.0}, "from the board's own trip points"
    assert max(chip for _, chip, _ in heated.course) < 95.0, "no pause was needed"
    steady = (WARM_UP, WARM_UP + STEADY)
    assert heated.mean(*steady, column=1) == pytest.approx(85.0, abs=2.0)
    assert heated.mean(*steady, column=2) == pytest.approx(PLANT.best_duty(85.0, AMBIENT), abs=0.1)
    late = [found["governor"] for at, found in seen if steady[0] <= at < steady[1]]
    assert all(one["duty_ran"] == pytest.approx(one["duty_asked"], rel=0.03) for one in late)
    assert heated.mean(*steady, column=2) == pytest.approx(statistics.mean(one["duty"] for one in late), rel=0.06)
    assert set(answers) == {500}
    assert heated.course[-1][1] < heated.mean(*steady, column=1) - 5.0, "it cools when nobody asks"
    assert heated.mean(loaded + 3, loaded + COOL_DOWN, column=2) < 0.05


def _picture(heated: Heated, seen: list[tuple[float, dict[str, Any]]]) -> None:
    read = [(at, found["telemetry"]["tj"]) for at, found in seen if found["telemetry"]]
    allowed = [(at, found["governor"]["duty"]) for at, found in seen]
    chip = [(at, celsius) for at, celsius, _ in heated.course]
    seconds = [heated.course[at : at + 10] for at in range(0, len(heated.course), 10)]
    work = [(points[0][0], statistics.mean(point[2] for point in points)) for points in seconds]
    levels = [("target", 85.0), ("pause", 95.0)]
    panels = [
        Panel("°C", 60.0, 100.0, [Line("the plant's chip", chip), Line("what was read", read)], levels),
        Panel("of the time", 0.0, 1.0, [Line("computed", work), Line("allowed", allowed)]),
    ]
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw("The real daemon on a simulated board, read by the real jtop", panels), encoding="utf-8")
