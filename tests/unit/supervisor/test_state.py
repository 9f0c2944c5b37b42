"""The transitions of the supervisor: what the table says, and that the docstring says the same."""

import re

import pytest

from qwen_edge.supervisor.state import TRANSITIONS, Action, EngineState, Event, transition
from qwen_edge.supervisor.supervisor import Supervisor

PAIRS = [(state, event) for state in EngineState for event in Event]
RUNNING = [state for state in EngineState if state is not EngineState.STOPPED]


def table() -> dict[tuple[EngineState, Event], tuple[EngineState, tuple[Action, ...]]]:
    """The transitions in the docstring of Supervisor."""
    rows = re.findall(r"^ *\| (.*?) \| ([A-Z_]+) \| ([A-Z]+) \| (.*?) ?\|$", Supervisor.__doc__ or "", re.MULTILINE)
    found = {}
    for before, event, after, actions in rows:
        states = (
            [EngineState[before]]
            if before in EngineState.__members__
            else [one for one in EngineState if one is not EngineState.STOPPED]
        )
        assert len(states) == 1 or before == "every state but STOPPED"
        for state in states:
            found[state, Event[event]] = EngineState[after], tuple(Action[name] for name in actions.split())
    return found


def test_the_docstring_lists_exactly_the_transitions_that_there_are():
    assert table() == TRANSITIONS


@pytest.mark.parametrize(("state", "event"), [pair for pair in PAIRS if pair not in TRANSITIONS])
def test_an_event_that_is_not_listed_changes_nothing(state, event):
    assert transition(state, event) == (state, ())


@pytest.mark.parametrize("event", Event)
def test_nothing_leads_out_of_the_stop(event):
    assert transition(EngineState.STOPPED, event) == (EngineState.STOPPED, ())


@pytest.mark.parametrize("state", RUNNING)
def test_the_stop_fails_all_requests_whatever_the_engine_does(state):
    assert transition(state, Event.STOP) == (EngineState.STOPPED, (Action.FAIL_REQUESTS,))


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_an_engine_is_told_to_end_only_when_it_is_ready_and_not_needed(state, event):
    told = Action.SEND_STOP in transition(state, event)[1]
    assert told == ((state, event) == (EngineState.READY, Event.UNNEEDED))


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_whenever_an_engine_becomes_ready_it_gets_what_has_waited_for_it(state, event):
    after, actions = transition(state, event)
    if after is EngineState.READY and state is not EngineState.READY:
        assert Action.SEND_REQUESTS in actions


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_every_death_is_counted_and_no_departure_is(state, event):
    after, actions = transition(state, event)
    died = event in (Event.ENDED, Event.NEVER_LOADED) and after is not state and state is not EngineState.LEAVING
    assert (Action.RECORD_DEATH in actions) == died


@pytest.mark.parametrize("state", EngineState)
def test_a_way_leads_from_every_state_back_to_an_engine_that_is_ready_except_from_the_stop(state):
    reached = {state}
    while more := {transition(one, event)[0] for one in reached for event in Event} - reached:
        reached |= more
    assert (EngineState.READY in reached) == (state is not EngineState.STOPPED)
