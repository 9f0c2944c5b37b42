"""Draws what `qwen-edge tune` has measured: speed over the depth of the context, a line for each setting. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from qwen_edge.core.svg import Line, Panel, draw_lines
from qwen_edge.protocol.messages import Tuning

if TYPE_CHECKING:
    from qwen_edge.llama.tune import Speed, Try


def draw(tries: Sequence[Try], chosen: Tuning, words: Callable[[Tuning], str], model: str) -> str:
    """The drawing as SVG. `chosen`: the settings that were found best; they are marked. With flash attention for small
    contexts only, these are two of the tries. `words` describes the setting of a try."""

    def lines(speed: Callable[[Speed], float]) -> list[Line]:
        return [
            Line(words(one.tuning) + mark, [(at.depth, speed(at)) for at in one.speeds], marked=bool(mark))
            for one, mark in ((one, _mark(one.tuning, chosen)) for one in tries)
        ]

    return draw_lines(
        f"Speed of {model} on this device",
        [
            Panel("prompt, tokens per second", lines(lambda speed: speed.prompt), zero=True),
            Panel("answer, tokens per second", lines(lambda speed: speed.answer), zero=True),
        ],
        about="Speed of prompt and answer over the tokens in the cache, a line for each setting that was tried.",
        x_title="tokens in the cache",
    )


def _mark(tried: Tuning, chosen: Tuning) -> str:
    """What is written after the setting of a try; empty if it was not chosen."""
    if (tried.threads, tried.batch) != (chosen.threads, chosen.batch):
        return ""
    if chosen.flash_attention == "small":
        where = "up to" if tried.flash_attention == "on" else "beyond"
        return f" (chosen {where} {chosen.flash_cells:,} tokens)"
    return " (chosen)" if tried.flash_attention == chosen.flash_attention else ""
