"""Prompts that no template renders, as the paths for completions take them: one, or several in one request."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from qwen_edge.core.errors import RequestError
from qwen_edge.service.pipeline import ChatService

Raw = tuple[str | tuple[int, ...], ...]
"""ChatRequest's `raw`."""

MixedPrompt = list[str | int]
PromptValue = str | list[str | int | MixedPrompt]
"""A text, a list of tokens, or (llama-server's) texts and tokens in one list; or a list of these."""

_MOST = 128  # prompts in one request
_MOST_TEXTS = 1024  # in lists that hold tokens, too: each is searched for special tokens on the event loop


def raw_prompts(value: PromptValue, parameter: str = "prompt") -> list[Raw]:
    """The prompts of a request. A list that holds a number is one prompt. Raises RequestError."""
    if isinstance(value, str):
        return [_filled((value,), parameter)]
    if any(isinstance(part, int) for part in value):
        refuse_many_texts(value, parameter)
        return [_mixed(value, parameter)]
    if not 1 <= len(value) <= _MOST:
        raise RequestError(f"{parameter} must hold 1 to {_MOST} prompts, or tokens.", parameter=parameter)
    refuse_many_texts([part for one in value if isinstance(one, list) for part in one], parameter)
    return [
        _filled((one,), f"{parameter}[{number}]") if isinstance(one, str) else _mixed(one, f"{parameter}[{number}]")
        for number, one in enumerate(value)
        if not isinstance(one, int)
    ]


def refuse_many_texts(parts: Sequence[Any], parameter: str) -> None:
    """Raises RequestError if there are more texts among the parts than one request may have."""
    if sum(isinstance(part, str) for part in parts) > _MOST_TEXTS:
        raise RequestError(f"{parameter} has more than {_MOST_TEXTS} texts. Join some of them.", parameter=parameter)


async def prompt_text(service: ChatService, prompt: Raw) -> str:
    """The prompt as text. Raises RequestError for tokens that the model does not have."""
    tokens = [token for part in prompt if not isinstance(part, str) for token in part]
    pieces = iter(await service.pieces(tokens) if tokens else ())
    texts = [
        part if isinstance(part, str) else b"".join(islice(pieces, len(part))).decode("utf-8", "replace")
        for part in prompt
    ]
    return "".join(texts)


def _mixed(parts: Sequence[str | int | MixedPrompt], parameter: str) -> Raw:
    raw = list[str | tuple[int, ...]]()
    tokens = list[int]()
    for number, part in enumerate(parts):
        if isinstance(part, list):
            raise RequestError(
                f"{parameter}[{number}]: a list that holds tokens is one prompt, in which no list can stand.",
                parameter=f"{parameter}[{number}]",
            )
        if isinstance(part, str):
            raw += [tuple(tokens), part] if tokens else [part]
            tokens = []
        elif not 0 <= part < 2**31:
            raise RequestError(f"{parameter}[{number}]: there is no token {part}.", parameter=f"{parameter}[{number}]")
        else:
            tokens.append(part)
    return _filled((*raw, tuple(tokens)) if tokens else tuple(raw), parameter)


def _filled(raw: Raw, parameter: str) -> Raw:
    if not any(raw):
        raise RequestError(f"{parameter} is empty.", parameter=parameter)
    return raw
