"""All messages between the daemon and the engine process, to be imported from here (framing.py sends them).

To the engine:   Load | Submit | Abort | Warm | InspectCache | Tokenize | Pieces | Embed | Limits | Stop
From the engine: Loading | Ready | Started | StepStats | Tokens | Done | Failed | CacheReport | TokenIds | TokenPieces |
                 Embedded | Beat

An inquiry is a question that has one message as its reply, or Failed; it needs no place in the KV cache.

A frame is a list of messages; the engine sends one frame a step. Values are frozen. The daemon gives ids to requests,
and uses none again.
"""

from __future__ import annotations

from qwen_edge.protocol.events import (
    Beat,
    CacheReport,
    Conversation,
    Done,
    Embedded,
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
    TokenIds,
    TokenPieces,
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
    Embed,
    InspectCache,
    Limits,
    Markers,
    Pieces,
    Priority,
    Segment,
    Shape,
    ShapeKind,
    Stop,
    Submit,
    Tokenize,
    Warm,
)
from qwen_edge.protocol.sampling import (
    Alternative,
    Logprob,
    Sampling,
)

Inquiry = InspectCache | Tokenize | Pieces | Embed
Reply = CacheReport | TokenIds | TokenPieces | Embedded

Inbound = Load | Submit | Abort | Warm | Inquiry | Limits | Stop
Outbound = Loading | Ready | Started | Reply | StepStats | Tokens | Done | Failed | Beat

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
    "Embed",
    "Embedded",
    "Failed",
    "Files",
    "Inbound",
    "Inquiry",
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
    "Pieces",
    "Priority",
    "Ready",
    "Region",
    "Reply",
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
    "TokenIds",
    "TokenPieces",
    "Tokenize",
    "Tokens",
    "Tuning",
    "Warm",
]
