"""Every joule is accounted for, once, and to whom it belongs."""

import datetime
from collections import deque
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.device.energy.accounts import Accounts
from qwen_edge.device.energy.joules import Ledger
from qwen_edge.protocol.messages import Share, StepStats
from scripts.heat.plant import PLANTS, Body


def step(began: float, seconds: float, *shares: tuple[int, int, int], chosen: int = 0) -> StepStats:
    return StepStats(began, seconds, 0.0, chosen, tuple(Share(*share) for share in shares))


def client_of(request: int) -> str:
    return f"client {request}"


def test_a_request_alone_gets_what_is_drawn_beyond_the_floor():
    ledger = Ledger()
    for second in range(5):
        ledger.add_power(float(second), 5.0)
    ledger.add_step(step(4.0, 1.0, (1, 100, 0)), client_of)
    ledger.add_power(4.001, 15.0)
    ledger.add_power(5.0, 15.0)
    assert ledger.idle_watts == 5.0
    assert ledger.finish_request(1) == pytest.approx(10.0, rel=0.01)
    assert ledger.joules["prefill"] == pytest.approx(10.0, rel=0.01)
    assert ledger.clients["client 1"] == ledger.joules["prefill"]


def test_a_step_is_shared_by_tokens_and_told_by_phase():
    ledger = Ledger()
    ledger.add_power(0.0, 0.0)
    ledger.add_power(1.0, 0.0)
    ledger.add_step(step(1.0, 1.0, (1, 30, 0), (2, 0, 1), (0, 9, 0)), client_of)
    ledger.add_power(1.0001, 40.0)
    ledger.add_power(2.0, 40.0)
    assert ledger.joules["prefill"] == pytest.approx(30.0, rel=0.01)
    assert ledger.joules["decode"] == pytest.approx(1.0, rel=0.01)
    assert ledger.joules["ahead"] == pytest.approx(9.0, rel=0.01)
    assert ledger.finish_request(2) == pytest.approx(1.0, rel=0.01)
    assert "" not in ledger.clients


def test_what_is_not_sampled_yet_is_estimated_from_what_computing_took_before():
    ledger = Ledger()
    for second in range(3):
        ledger.add_power(float(second), 5.0)
    ledger.add_step(step(2.0, 2.0, (1, 1, 0)), client_of)
    ledger.add_power(2.001, 15.0)
    ledger.add_power(4.0, 15.0)
    ledger.add_step(step(4.0, 0.5, (2, 1, 0)), client_of)
    assert ledger.finish_request(2) == pytest.approx(5.0, rel=0.02)
    ledger.add_power(5.0, 15.0)
    ledger.idle_until(5.0)
    assert ledger.clients["client 2"] > 0, "it is settled all the same"


def test_without_samples_nothing_is_claimed():
    ledger = Ledger()
    ledger.add_step(step(0.0, 1.0, (1, 1, 0)), client_of)
    assert ledger.finish_request(1) is None
    assert ledger.finish_request(7) is None
    ledger.add_power(2.0, 5.0)
    ledger.add_step(step(2.0, 0.1, (2, 1, 0)), client_of)
    assert ledger.finish_request(2) is None, "nothing is known of what computing takes"


def test_of_a_request_that_was_not_measured_throughout_nothing_is_claimed():
    ledger, now = Ledger(), 0.0
    for measured in (True, False, True):
        for _ in range(60):
            now += 1.0
            if measured:
                ledger.add_power(now, 10.0)
            counted = ledger.add_step(step(now, 1.0, (1, 0, 1)), client_of)
        assert counted == measured
    assert ledger.finish_request(1) is None
    ledger.add_step(step(now + 1.0, 1.0, (2, 0, 1)), client_of)
    ledger.add_power(now + 2.0, 10.0)
    assert ledger.finish_request(2) == pytest.approx(10.0, rel=0.1)


def test_tokens_that_were_not_measured_make_none_cheaper():
    to = accounts({}, [datetime.date(2026, 1, 1)])
    spend(to, "one", 10.0, 1.0)
    before = to.energy
    for second in range(100, 700):
        to.add_step(step(float(second), 1.0, (2, 0, 1), chosen=1), lambda _: "one")
    assert before is not None
    assert to.energy is not None
    assert to.energy.joules_per_token == before.joules_per_token


def test_a_gap_in_the_samples_is_no_guess():
    ledger = Ledger()
    ledger.add_power(0.0, 1000.0)
    ledger.add_power(60.0, 1000.0)
    assert sum(ledger.joules.values()) == 0.0


def test_requests_that_nobody_asks_about_are_forgotten_in_the_end():
    ledger = Ledger()
    for request in range(1, 3000):
        ledger.add_step(step(float(request), 0.5, (request, 1, 0)), client_of)
        ledger.add_power(float(request) + 0.9, 10.0)
    assert len(ledger._requests) <= 512


@given(
    st.lists(
        st.tuples(st.floats(0.05, 3.0), st.floats(0.0, 60.0), st.booleans(), st.integers(1, 4)), min_size=2, max_size=60
    )
)
def test_all_parts_together_are_the_integral(samples):
    ledger, now, last, integral = Ledger(), 0.0, None, 0.0
    for seconds, watts, busy, requests in samples:
        if busy:
            ledger.add_step(step(now, seconds, *((number, 3, 1) for number in range(1, requests + 1))), client_of)
        now += seconds
        ledger.add_power(now, watts)
        if last is not None:
            integral += (last + watts) / 2 * seconds
        last = watts
    ledger.idle_until(now)
    assert sum(ledger.joules.values()) == pytest.approx(integral, abs=1e-6)
    assert sum(ledger.clients.values()) == pytest.approx(ledger.joules["prefill"] + ledger.joules["decode"], abs=1e-6)
    assert min(ledger.joules.values()) >= 0


@pytest.mark.parametrize("length", [0.05, 0.5, 3.0])
def test_a_short_answers_joules_are_all_there_where_power_is_the_mean_since_the_last_reading(length):
    """As of a processor that counts its own joules: each reading is what it has used since the one before."""
    ledger, tick, idle, busy, began = Ledger(), 0.2, 5.0, 30.0, 20.03
    for number in range(1, 200):
        now = number * tick
        if now - tick < began + length <= now:
            ledger.add_step(step(began, length, (1, 0, 1)), client_of)
        if not began < now < began + length:
            ledger.idle_until(now)
        overlap = max(0.0, min(now, began + length) - max(now - tick, began))
        ledger.add_power(now, idle + (busy - idle) * overlap / tick, mean=True)
    assert ledger.joules["decode"] == pytest.approx((busy - idle) * length, rel=0.02)


@pytest.mark.parametrize("length", [0.04, 0.4, 2.0], ids=["a token", "a slice", "a long prompt"])
@pytest.mark.parametrize("interval", [0.2, 1.0])
@pytest.mark.parametrize("name", ["nano, no fan", "laptop"])
def test_the_sum_is_the_plants_own_within_three_percent(name, interval, length):
    """Steps and rests between, bursts of requests, a chip that leaks the warmer it is; a sensor that averages over a
    tenth of a second, as Jetsons' do, and is asked now and then. Steps are told when they have ended."""
    body, ledger, rng, tick = Body(PLANTS[name], 25.0), Ledger(), Random(1), 0.01
    seen, due, until, rests, began, request, work = deque([0.0], maxlen=11), 0.0, 0.0, True, 0.0, 0, 0.0
    for number in range(60_000):
        now = number * tick
        if now >= until - 1e-9:
            if not rests:
                ledger.add_step(step(began, until - began, (request, 0, 1)), client_of)
            busy = now % 50.0 < 30.0
            rests, request = not busy or not rests, int(now // 50.0) + 1
            until, began = now + (rng.choice((0.01, 0.02, 0.03)) if rests else length), now
        if rests and not busy:
            ledger.idle_until(now)
        before = body.joules
        watts = body.work(float(not rests), tick)
        work += 0.0 if rests else (watts - PLANTS[name].watts(0.0, body.chip)) * tick
        seen.append(body.joules)
        if now >= due:
            ledger.add_power(now, (seen[-1] - seen[0]) / (tick * (len(seen) - 1)))
            due += interval
        assert body.joules > before
    assert sum(ledger.joules.values()) == pytest.approx(body.joules, rel=0.03)
    assert ledger.joules["decode"] == pytest.approx(work, rel=0.1), "and so is the part that is ours"
    settled = [ledger.clients[f"client {one}"] for one in range(2, 12)]
    assert min(settled) == pytest.approx(max(settled), rel=0.35), "of requests that are alike"


def accounts(budget: dict[str, float], days: list[datetime.date]) -> Accounts:
    return Accounts(budget, lambda: days[0])


def spend(to: Accounts, client: str, joules: float, at: float) -> None:
    """So much in a second from then on, without a floor."""
    to.add_power(at, 0.0)
    to.add_power(at + 1e-6, joules)
    to.add_power(at + 1.0, joules)
    to.add_power(at + 1.0 + 1e-6, 0.0)
    to.add_step(step(at, 1.0, (1, 1, 0), chosen=2), lambda _: client)
    to.update(at + 1.0, idle=True)


def test_who_is_over_its_hour_waits_behind_others_and_then_is_turned_away_until_it_has_drained():
    to = accounts({"sensor-7": 3600.0}, [datetime.date(2026, 1, 1)])
    spend(to, "sensor-7", 3000.0, 1.0)
    assert not to.is_over("sensor-7", 2.0)
    spend(to, "sensor-7", 1000.0, 3.0)
    assert to.is_over("sensor-7", 4.0)
    assert to.wait("sensor-7", 4.0) == 0.0
    spend(to, "sensor-7", 2000.0, 5.0)
    wait = to.wait("sensor-7", 6.0)
    assert wait == pytest.approx(2400.0, rel=0.02)
    assert to.wait("sensor-7", 6.0 + wait) == 0.0
    assert not to.is_over("sensor-7", 6.0 + wait + 1.0)
    assert not to.is_over("anybody else", 6.0)


def test_a_star_is_for_all_others_each_for_itself():
    to = accounts({"*": 10.0, "big": 1e9}, [datetime.date(2026, 1, 1)])
    for number, client in enumerate(("one", "two", "big")):
        spend(to, client, 11.0, 1.0 + 2 * number)
    assert [to.is_over(client, 6.0) for client in ("one", "two", "big", "three")] == [True, True, False, False]


def test_today_begins_at_midnight():
    days = [datetime.date(2026, 1, 1)]
    to = accounts({}, days)
    assert to.energy is None
    spend(to, "one", 10.0, 1.0)
    assert to.energy is not None
    assert to.energy.today["prefill"] == to.energy.clients_today["one"] == pytest.approx(10.0, rel=0.01)
    assert to.energy.joules_per_token == pytest.approx(to.energy.joules["prefill"] / 2)
    days[0] = datetime.date(2026, 1, 2)
    to.update(3.0, idle=True)
    assert to.energy.today["prefill"] == to.energy.clients_today["one"] == 0.0
    assert to.energy.joules["prefill"] == pytest.approx(10.0, rel=0.01)


def test_a_step_that_is_told_after_samples_of_its_time_is_charged_all_the_same():
    ledger = Ledger()
    for second in range(11):
        ledger.add_power(float(second), 5.0)
    ledger.idle_until(10.0)
    for tenth in range(1, 31):
        ledger.add_power(10.0 + tenth / 10, 25.0)
    ledger.add_step(step(10.0, 3.0, (1, 128, 0)), client_of)
    assert ledger.idle_watts == 5.0
    assert ledger.finish_request(1) == pytest.approx(59.0, rel=0.01), "the first tenth rises"


def test_nothing_is_kept_where_nothing_is_measured():
    ledger = Ledger()
    for number in range(5000):
        ledger.add_step(step(number * 0.01, 0.01, (1, 1, 0)), client_of)
    assert not ledger._steps
    ledger.add_power(50.0, 5.0)  # and then never again
    for number in range(5000, 20_000):
        ledger.add_step(step(number * 0.01, 0.01, (2, 1, 0)), client_of)
    assert len(ledger._steps) <= 1001
    assert ledger.finish_request(2) is None


def test_a_sample_that_is_not_later_counts_nothing():
    ledger = Ledger()
    for at in (1.0, 2.0, 1.5, 2.0, 3.0):
        ledger.add_power(at, 10.0)
    ledger.idle_until(3.0)
    assert sum(ledger.joules.values()) == pytest.approx(20.0)
