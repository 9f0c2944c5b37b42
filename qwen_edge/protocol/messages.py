"""All messages between the daemon and the engine process, to be imported from here (framing.py sends them).

To the engine:   Load | Submit | Abort | Warm | InspectCache | Limits | Stop
From the engine: Loading | Ready | Started | StepStats | Tokens | Done | Failed | CacheReport | Beat

A frame is a list of messages; the engine sends one frame a step. Values are frozen. The daemon gives ids to requests,
and uses none again.
"""

from __future__ import annotations

from qwen_edge.protocol.events import (
    Beat,
    CacheReport,
    Conversation,
    Done,
    Failed,
    Mark,
    MissReason,
    Part,
    Region,
    Share,
    Started,
    Steered,
    StepStats,
    StoppedBy,
    Tokens,
)
from qwen_edge.protocol.loading import (
    LEAST_CONTEXT,
    Attention,
    Files,
    KvType,
    Load,
    Loading,
    ModelFacts,
    Ready,
    Tuning,
)
from qwen_edge.protocol.requests import (
    EVERYBODY,
    PRIORITIES,
    Abort,
    Caller,
    InspectCache,
    Limits,
    Markers,
    Priority,
    Segment,
    Shape,
    ShapeKind,
    Stop,
    Submit,
    Warm,
)
from qwen_edge.protocol.sampling import (
    Alternative,
    Logprob,
    Sampling,
)

Inbound = Load | Submit | Abort | Warm | InspectCache | Limits | Stop
Outbound = Loading | Ready | Started | CacheReport | StepStats | Tokens | Done | Failed | Beat

__all__ = [
    "EVERYBODY",
    "LEAST_CONTEXT",
    "PRIORITIES",
    "Abort",
    "Alternative",
    "Attention",
    "Beat",
    "CacheReport",
    "Caller",
    "Conversation",
    "Done",
    "Failed",
    "Files",
    "Inbound",
    "InspectCache",
    "KvType",
    "Limits",
    "Load",
    "Loading",
    "Logprob",
    "Mark",
    "Markers",
    "MissReason",
    "ModelFacts",
    "Outbound",
    "Part",
    "Priority",
    "Ready",
    "Region",
    "Sampling",
    "Segment",
    "Shape",
    "ShapeKind",
    "Share",
    "Started",
    "Steered",
    "StepStats",
    "Stop",
    "StoppedBy",
    "Submit",
    "Tokens",
    "Tuning",
    "Warm",
]
