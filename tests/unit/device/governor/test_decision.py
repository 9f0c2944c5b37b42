"""What the governor decides, whatever it is told."""

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qwen_edge.device.governor.decision import LEVELS, Decision, State, Work, govern
from qwen_edge.device.governor.thresholds import GovernorSettings, thresholds_of
from qwen_edge.device.telemetry import Battery, Telemetry, Trips


def sample(at: float, tj: float | None = 50.0, **more) -> Telemetry:
    return Telemetry(source="test", at=at, tj=tj, **more)


def told(*temperatures: float | None, settings: GovernorSettings | None = None, **more) -> list[Decision]:
    """The decisions over these readings, a second each, under full work."""
    state, decisions = State(), []
    for second, celsius in enumerate(temperatures):
        reading = None if celsius is None else sample(float(second), celsius, **more)
        decision, state = govern(reading, Work(1.0, 1.0), state, settings or GovernorSettings(), 1.0)
        decisions.append(decision)
    return decisions


@pytest.mark.parametrize(
    ("trips", "target", "pause"),
    [
        (Trips(), 85.0, 95.0),
        (Trips(passive=99.0, hot=103.0, critical=104.5), 85.0, 95.0),
        (Trips(passive=95.0, hot=99.0, critical=104.5), 85.0, 91.0),
        (Trips(critical=100.0), 85.0, 95.0),
        (Trips(hot=80.0), 70.0, 76.0),
        (Trips(passive=45.0, critical=104.5), 85.0, 95.0),
        (Trips(passive=0.0, hot=-273.0), 85.0, 95.0),
        (Trips(passive=66.0), 60.0, 64.0),
    ],
)
def test_set_points_follow_the_boards_own_trip_points(trips, target, pause):
    thresholds = thresholds_of(trips, GovernorSettings())
    assert (thresholds.target, thresholds.pause) == (target, pause)


@given(
    st.floats(30, 110) | st.none(),
    st.floats(30, 120) | st.none(),
    *[st.floats(65, 120) | st.none()] * 3,
)
def test_no_wish_brings_the_target_near_a_trip_or_the_pause_below_the_target(target, pause, passive, hot, critical):
    thresholds = thresholds_of(Trips(passive, hot, critical), GovernorSettings(target=target, pause=pause))
    first = min((trip for trip in (passive, hot, critical) if trip is not None), default=200.0)
    assert thresholds.target <= first - 5.0
    assert thresholds.pause > thresholds.target


def test_a_pause_that_a_user_sets_alone_stays_what_it_is_and_the_target_gives_way():
    thresholds = thresholds_of(Trips(), GovernorSettings(pause=70.0))
    assert (thresholds.target, thresholds.pause) == (66.0, 70.0)
    assert thresholds_of(Trips(), GovernorSettings(pause=95.0)).target == 85.0


READINGS = st.lists(
    st.tuples(
        st.floats(-40, 140) | st.none(),
        st.floats(0, 100) | st.none(),
        st.floats(0, 1),
        st.booleans(),
        st.floats(0.2, 5.0),
    ),
    max_size=60,
)


@given(READINGS, st.floats(1, 60) | st.none())
@example(  # a pause ends while power is not read: the pause is not what the limit in watts allowed
    [(95.0, 0.0, 0.0, False, 1.0), (0.0, 0.0, 0.0, False, 1.0), (None, None, 0.0, False, 1.0)]
    + 2 * [(0.0, None, 0.0, False, 1.0)],
    1.0,
)
def test_whatever_is_read_the_duty_is_a_share_that_rises_slowly_and_a_hot_device_rests(readings, watts):
    settings, state, now, duty = GovernorSettings(watts=watts), State(), 0.0, 1.0
    for celsius, power, ran, discharging, seconds in readings:
        now += seconds
        battery = Battery(0.5, discharging) if discharging else None
        reading = None if celsius is None and power is None else sample(now, celsius, watts=power, battery=battery)
        decision, state = govern(reading, Work(ran, 1.0), state, settings, seconds)
        assert 0.0 <= decision.limits.duty <= 1.0
        assert decision.limits.duty <= duty + 0.15 * seconds + 1e-3
        assert decision.level in LEVELS
        assert (decision.limits.duty == 0.0) == (decision.level == "critical")
        battery = battery if reading is not None else state.battery
        assert decision.limits.idle_work == (decision.level == "nominal" and battery is None)
        assert ("interactive" in decision.refused) == (decision.level == "critical")
        assert 0 < decision.retry_after <= 600
        assert (decision.because == "") == (decision.limits.duty >= 1.0)
        duty = decision.limits.duty


def test_levels_have_hysteresis():
    up = told(*[float(celsius) for celsius in range(70, 100)], *[99.0] * 10)
    down = told(*[99.0] * 30, *[float(celsius) for celsius in range(99, 60, -1)], *[60.0] * 10)
    assert list(dict.fromkeys(decision.level for decision in up)) == list(LEVELS)
    assert list(dict.fromkeys(decision.level for decision in down))[-4:] == ["critical", "hot", "warm", "nominal"]


def test_a_reading_that_swings_about_a_threshold_changes_nothing():
    levels = [decision.level for decision in told(*[80.0] * 20, *[80.4, 79.2] * 30)]
    assert set(levels[20:]) == {"warm"}


def test_a_warm_device_does_no_idle_work_and_a_hot_one_does_less_of_everything():
    warm, hot = told(*[81.0] * 20)[-1], told(*[90.0] * 20)[-1]
    assert (warm.level, warm.limits.idle_work, warm.limits.speculate, warm.refused) == ("warm", False, True, ())
    assert warm.limits.step_seconds < Decision().limits.step_seconds
    assert (hot.level, hot.limits.speculate, hot.limits.threads) == ("hot", False, 0.5)
    assert hot.limits.step_seconds < warm.limits.step_seconds
    assert hot.refused == ("background", "idle")


def test_silence_is_borne_for_a_moment_and_then_trusted_less_and_less():
    decisions = told(*[60.0] * 5, *[None] * 200)
    assert {decision.limits.duty for decision in decisions[:8]} == {1.0}
    later = [decision.limits.duty for decision in decisions[9:]]
    assert later == sorted(later, reverse=True)
    assert later[-1] == pytest.approx(0.3, abs=0.05)
    assert decisions[-1].because == "no telemetry"
    assert decisions[-1].refused == ()


def test_a_source_that_has_never_answered_is_silence_too():
    assert told(*[None] * 300)[-1].limits.duty < 0.35


def test_a_critical_device_that_falls_silent_does_not_rest_for_ever():
    decisions = told(*[99.0] * 10, *[None] * 100)
    assert decisions[20].limits.duty == 0.0
    assert (decisions[-1].level, decisions[-1].limits.duty > 0) == ("hot", True)


def test_a_board_without_temperatures_is_governed_by_its_watts_alone():
    state = State()
    for second in range(30):
        reading = sample(float(second), None, watts=5.0 + 10.0 * state.duty)
        decision, state = govern(reading, Work(state.duty, 1.0), state, GovernorSettings(watts=10.0), 1.0)
    assert decision.limits.duty == pytest.approx(0.5, abs=0.05)
    assert decision.because == "watts"


def test_on_battery_less_is_computed_and_nothing_ahead_and_at_its_end_only_for_people():
    full = told(*[50.0] * 3, battery=Battery(0.8, True))[-1]
    assert (full.limits.duty, full.because, full.limits.idle_work, full.refused) == (0.7, "battery", False, ())
    low = told(*[50.0] * 3, battery=Battery(0.05, True))[-1]
    assert low.refused == ("background", "idle")
    plugged = told(*[50.0] * 3, battery=Battery(0.05, False))[-1]
    assert (plugged.limits.duty, plugged.limits.idle_work, plugged.refused) == (1.0, True, ())


def test_the_same_sample_again_is_no_new_reading():
    one, state = sample(1.0, 60.0), State()
    for _ in range(10):
        decision, state = govern(one, Work(1.0, 1.0), state, GovernorSettings(), 1.0)
    assert decision.because == "no telemetry"


def test_decisions_can_be_told():
    assert msgspec.json.encode(told(60.0)[0].limits)


def test_a_sensor_that_is_lost_among_others_is_silence_too():
    state = State()
    for second in range(200):
        reading = sample(float(second), 84.0 if second < 60 else None, watts=10.0)
        decision, state = govern(reading, Work(1.0, 1.0), state, GovernorSettings(), 1.0)
    assert decision.because == "no telemetry"
    assert decision.limits.duty < 0.5


def test_a_low_battery_is_not_forgotten_between_two_readings():
    one, state = sample(1.0, 50.0, battery=Battery(0.05, True)), State()
    for _ in range(2):
        decision, state = govern(one, Work(), state, GovernorSettings(), 1.0)
    assert (decision.refused, decision.limits.idle_work) == (("background", "idle"), False)


def test_watts_that_only_the_battery_tells_are_no_silence_on_mains():
    """A laptop without RAPL: the limit holds on battery, and on mains nothing is known that could be kept to."""
    settings, state, duties = GovernorSettings(watts=10.0, battery_duty=1.0), State(), []
    for second in range(600):
        battery = Battery(0.8, second < 200)
        watts = 20.0 if second < 200 else None
        reading = sample(float(second), 50.0, watts=watts, battery=battery, mains=second >= 200)
        decision, state = govern(reading, Work(1.0, 1.0), state, settings, 1.0)
        duties.append(decision.limits.duty)
    assert duties[150] < 0.6
    assert duties[-1] == 1.0
    lost = sample(600.0, 50.0, mains=True, missing=("processor: not readable",))
    for at in range(600, 610):
        state = govern(sample(float(at), 50.0, watts=20.0, mains=True), Work(1.0, 1.0), state, settings, 1.0)[1]
    for at in range(610, 700):
        decision, state = govern(msgspec.structs.replace(lost, at=float(at)), Work(1.0, 1.0), state, settings, 1.0)
    assert decision.because == "no telemetry", "a sensor that should be there is silent"
