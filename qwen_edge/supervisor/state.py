"""The states of the supervisor's engine and the transitions between them. Pure: no clock, no process, no event loop."""

from __future__ import annotations

from enum import Enum


class EngineState(str, Enum):
    """The state of the supervisor's engine. /health and /metrics show the values."""

    LOADING = "loading"  # the engine process loads the model, or is about to be started
    READY = "ready"  # the engine takes requests
    LEAVING = "leaving"  # the engine was told to end, because no request needs it
    ASLEEP = "asleep"  # there is no engine, and no request needs one
    REAPING = "reaping"  # the engine has closed its socket without being told to; its process may not have ended yet
    RESTARTING = "restarting"  # the engine has died; another one is started after a pause
    STOPPED = "stopped"  # no other engine will be started


class Event(Enum):
    """What may happen to the supervisor."""

    LOADED = "the engine has loaded the model"
    NEEDED = "a request or an inspection has come, or an engine that was too large is to be replaced"
    UNNEEDED = "there are no requests, and the engine has been idle for too long or is too large"
    DISCONNECTED = "the engine's end of the socket is closed: no message reaches the engine or comes from it"
    ENDED = "the engine's process has ended, or could not be started"
    NEVER_LOADED = "as ENDED, and no engine has ever loaded the model"
    PAUSE_OVER = "the pause after a death is over"
    STOP = "the daemon stops"


class Action(Enum):
    """What the supervisor does in a transition."""

    SEND_LIMITS = "send the engine the present limits"
    SEND_REQUESTS = "send the engine every request that it does not have yet"
    SEND_STOP = "tell the engine to end"
    RECORD_DEATH = "count the death; fail the requests that the engine had begun; keep the others for the next engine"
    FAIL_REQUESTS = "fail every request, because the daemon stops"


Transition = tuple[EngineState, tuple[Action, ...]]

TRANSITIONS: dict[tuple[EngineState, Event], Transition] = {
    (EngineState.LOADING, Event.LOADED): (EngineState.READY, (Action.SEND_LIMITS, Action.SEND_REQUESTS)),
    (EngineState.LOADING, Event.DISCONNECTED): (EngineState.REAPING, ()),
    (EngineState.LOADING, Event.ENDED): (EngineState.RESTARTING, (Action.RECORD_DEATH,)),
    (EngineState.LOADING, Event.NEVER_LOADED): (EngineState.STOPPED, (Action.RECORD_DEATH,)),
    (EngineState.READY, Event.NEEDED): (EngineState.READY, (Action.SEND_REQUESTS,)),
    (EngineState.READY, Event.UNNEEDED): (EngineState.LEAVING, (Action.SEND_STOP,)),
    (EngineState.READY, Event.DISCONNECTED): (EngineState.REAPING, ()),
    (EngineState.LEAVING, Event.ENDED): (EngineState.ASLEEP, ()),
    (EngineState.ASLEEP, Event.NEEDED): (EngineState.LOADING, ()),
    (EngineState.REAPING, Event.ENDED): (EngineState.RESTARTING, (Action.RECORD_DEATH,)),
    (EngineState.REAPING, Event.NEVER_LOADED): (EngineState.STOPPED, (Action.RECORD_DEATH,)),
    (EngineState.RESTARTING, Event.PAUSE_OVER): (EngineState.LOADING, ()),
    **{
        (state, Event.STOP): (EngineState.STOPPED, (Action.FAIL_REQUESTS,))
        for state in EngineState
        if state is not EngineState.STOPPED
    },
}


def transition(state: EngineState, event: Event) -> Transition:
    """The next state, and the actions on the way. A pair that `TRANSITIONS` does not list changes nothing: a request
    that comes while an engine loads waits, and nothing that happens after STOP matters."""
    return TRANSITIONS.get((state, event), (state, ()))
