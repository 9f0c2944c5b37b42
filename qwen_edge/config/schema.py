"""All settings of the daemon, with their types, limits and defaults. They are frozen; each component gets its part."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from qwen_edge.protocol.messages import LEAST_CONTEXT, Attention, KvType

MOST_PIN_HOURS = 24 * 366  # the longest time for which a conversation can be pinned
MOST_SECONDS = 1_000_000  # the largest value of any setting in seconds
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANY_ORIGIN = "*"

SourceKind = Literal["auto", "sysfs", "jtop", "laptop", "trace", "none"]  # of telemetry: device/sources/choice.py

_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
_Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
_Threads = Annotated[int, msgspec.Meta(ge=1, le=512)]  # with more, llama.cpp aborts the process
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=MOST_SECONDS)]
_Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]

_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(\[[0-9A-Fa-f:.]+\]|[^\s/?#@:\[\]*]+)(:[0-9]{1,5})?/?")
_PORTS = {"http": "80", "https": "443"}  # default ports, which browsers omit


def plain_origin(origin: str) -> str:
    """The origin in the form that browsers send: in lower case, without the scheme's default port."""
    plain = origin.lower().removesuffix("/")
    scheme, _, rest = plain.partition("://")
    return plain.removesuffix(f":{_PORTS[scheme]}") if scheme in _PORTS and ":" in rest else plain


class EngineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the model is run. `threads`, `batch`: None for the measured values; without a measurement, one thread for
    each physical core, and a batch of 128 (512 on a GPU). `gpu_layers`: -1 for as many as the GPU takes, 0 for no
    GPU. `unload_seconds`: None keeps the model in memory. `memory_limit_bytes`: None for the memory plan and some
    reserve."""

    context: Annotated[int, msgspec.Meta(ge=LEAST_CONTEXT, le=1 << 20)] = 8192
    threads: _Threads | None = None
    batch: Annotated[int, msgspec.Meta(ge=16, le=4096)] | None = None
    speculate: bool = True
    parallel: Annotated[int, msgspec.Meta(ge=1, le=32)] = 8
    gpu_layers: Annotated[int, msgspec.Meta(ge=-1, le=1000)] = -1
    require_gpu: bool = False
    kv_type: KvType = "auto"
    flash_attention: Attention = "auto"
    ahead_tokens_per_hour: Annotated[int, msgspec.Meta(ge=0)] | None = None
    stash_bytes: Annotated[int, msgspec.Meta(ge=0)] = 64_000_000
    calibrate: bool = True
    load_seconds: _Seconds = 600
    hang_seconds: _Seconds = 30
    unload_seconds: _Seconds | None = None
    memory_limit_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP server. `ollama_port`: a second port, for clients that look for Ollama there; None: no such port. Time
    limits: `header_seconds` for the head of a request, `body_seconds` for its body, `keepalive_seconds` for a
    connection between two requests, `stall_seconds` for a client that does not read its answer, `drain_seconds` for
    running answers when the daemon stops. A stream that is silent for `comment_seconds` gets a comment.
    `responses_hours`, `responses_bytes`: how long, and how much of them, responses of /v1/responses are stored.
    `origins`: the origins of web pages that may read the answers. With `share_cache: key`, the cached prompts of one
    key are not used for another. `page`: whether a browser that asks for `/` gets the page."""

    host: str = "127.0.0.1"
    port: _Port = 8080
    ollama_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    api_keys_file: str | None = None
    origins: tuple[str, ...] = ()
    share_cache: Literal["all", "key"] = "key"
    model_aliases: tuple[str, ...] = ()
    model_names: Literal["any", "listed"] = "any"
    unknown_parameters: Literal["reject", "ignore"] = "reject"
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 1 << 20
    max_connections: _Positive = 256
    max_waiting: Annotated[int, msgspec.Meta(ge=0)] = 16
    header_seconds: _Seconds = 10
    body_seconds: _Seconds = 30
    keepalive_seconds: _Seconds = 75
    stall_seconds: _Seconds = 30
    comment_seconds: _Seconds = 10
    wait_seconds: _Seconds = 120
    answer_seconds: _Seconds = 600
    drain_seconds: _Seconds = 60
    responses_hours: Annotated[float, msgspec.Meta(gt=0, le=24 * 3660)] = 720
    responses_bytes: Annotated[int, msgspec.Meta(ge=0)] = 64_000_000
    page: bool = True

    def __post_init__(self) -> None:
        for number, origin in enumerate(self.origins):
            if origin != ANY_ORIGIN and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"origins[{number}] must be the origin of web pages, such as https://home.example or "
                    "http://192.168.1.5:8123, without a path; or * for all pages"
                )

    @property
    def ports(self) -> dict[str, int]:
        """The ports to listen on, by the settings that name them; the first is that of `port`."""
        ports = {"server.port": self.port}
        if self.ollama_port and self.ollama_port != self.port:
            ports["server.ollama_port"] = self.ollama_port
        return ports


class RememberConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How conversations outlive the engine. `where`: on disk, only in memory outside the engine, or nowhere. `folder`:
    None for a folder in the state folder, or in memory."""

    where: Literal["disk", "memory", "off"] = "disk"
    folder: str | None = None
    bytes: Annotated[int, msgspec.Meta(ge=0)] = 1_000_000_000
    bytes_per_day: Annotated[int, msgspec.Meta(ge=0)] = 2_000_000_000


class DeviceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Heat, power and energy. `source`: where temperatures and watts are read. `target_celsius`, `pause_celsius`: None
    for values from the board's trip points. `watts`: the limit of the whole board. On battery the engine computes
    for at most `battery_duty` of the time; below the level `battery_reserve` it serves only interactive requests.
    `joules_per_hour`: by client; `*` stands for all other clients."""

    source: SourceKind = "auto"
    interval_seconds: Annotated[float, msgspec.Meta(ge=0.5, le=5)] = 1.0
    target_celsius: Annotated[float, msgspec.Meta(ge=30, le=95)] | None = None
    pause_celsius: Annotated[float, msgspec.Meta(ge=35, le=105)] | None = None
    watts: Annotated[float, msgspec.Meta(gt=0)] | None = None
    battery_duty: Annotated[float, msgspec.Meta(ge=0.05, le=1)] = 0.7
    battery_reserve: _Fraction = 0.1
    joules_per_hour: dict[str, Annotated[float, msgspec.Meta(gt=0)]] = {}
    trace: str | None = None
    trace_speed: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0


class ChatConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Defaults of requests. None leaves the choice to the model: its template, its sampling defaults."""

    thinking: bool | None = None
    thinking_budget: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    stop_loops: bool = True
    volatile: bool = False
    max_tokens: _Positive | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    top_p: _Fraction | None = None
    min_p: _Fraction | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(ge=0.01, le=2)] | None = None


# A setting that is a path, or a word that YAML may read as a bool, has a line in load.py too.


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings. `model`: None for the default model in the models folder, or the only model there."""

    model: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    engine: EngineConfig = EngineConfig()
    server: ServerConfig = ServerConfig()
    chat: ChatConfig = ChatConfig()
    remember: RememberConfig = RememberConfig()
    device: DeviceConfig = DeviceConfig()
