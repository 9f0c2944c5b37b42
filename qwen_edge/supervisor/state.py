"""The states of the supervisor and the transitions between them. Pure: no clock, no process, no event loop."""

from __future__ import annotations

from enum import Enum


class State(str, Enum):
    """What the supervisor's engine does now. The values are shown by /health and /metrics."""

    LOADING = "loading"  # the engine process loads the model, or is about to be started
    READY = "ready"  # the engine takes requests
    LEAVING = "leaving"  # the engine was told to end, since nobody needs it
    ASLEEP = "asleep"  # there is no engine, and none is needed
    REAPING = "reaping"  # the engine has closed its socket without being told to; its process may not have ended yet
    RESTARTING = "restarting"  # the engine has died; another one is started after a pause
    STOPPED = "stopped"  # no other engine will be started


class Event(Enum):
    """What may happen to the supervisor."""

    LOADED = "the engine has loaded the model"
    NEEDED = "a request or an inspection has come, or an engine that was too large is to be replaced"
    UNNEEDED = "nobody waits for the engine, and it has been idle for long or is too large"
    CLOSED = "the engine's end of the socket is closed: it hears and says nothing more"
    ENDED = "the engine's process has ended, or could not be started"
    HOPELESS = "the same, and no engine has ever loaded the model"
    PAUSED = "the pause after a death is over"
    STOP = "the daemon stops"


class Action(Enum):
    """What the supervisor does in a transition."""

    SEND_LIMITS = "send the engine the limits that hold now"
    SEND_REQUESTS = "send the engine every request that it has not got"
    SEND_STOP = "tell the engine to end"
    BURY = "count the death; fail the requests that the engine had begun; keep the others for the next engine"
    FAIL_REQUESTS = "fail every request, since the daemon stops"


Transition = tuple[State, tuple[Action, ...]]

TRANSITIONS: dict[tuple[State, Event], Transition] = {
    (State.LOADING, Event.LOADED): (State.READY, (Action.SEND_LIMITS, Action.SEND_REQUESTS)),
    (State.LOADING, Event.CLOSED): (State.REAPING, ()),
    (State.LOADING, Event.ENDED): (State.RESTARTING, (Action.BURY,)),
    (State.LOADING, Event.HOPELESS): (State.STOPPED, (Action.BURY,)),
    (State.READY, Event.NEEDED): (State.READY, (Action.SEND_REQUESTS,)),
    (State.READY, Event.UNNEEDED): (State.LEAVING, (Action.SEND_STOP,)),
    (State.READY, Event.CLOSED): (State.REAPING, ()),
    (State.LEAVING, Event.ENDED): (State.ASLEEP, ()),
    (State.ASLEEP, Event.NEEDED): (State.LOADING, ()),
    (State.REAPING, Event.ENDED): (State.RESTARTING, (Action.BURY,)),
    (State.REAPING, Event.HOPELESS): (State.STOPPED, (Action.BURY,)),
    (State.RESTARTING, Event.PAUSED): (State.LOADING, ()),
    **{(state, Event.STOP): (State.STOPPED, (Action.FAIL_REQUESTS,)) for state in State if state is not State.STOPPED},
}


def transition(state: State, event: Event) -> Transition:
    """The next state, and what is done on the way. A pair that `TRANSITIONS` does not list changes nothing: a request
    that comes while an engine loads waits, and whatever happens after the stop is of no interest."""
    return TRANSITIONS.get((state, event), (state, ()))
