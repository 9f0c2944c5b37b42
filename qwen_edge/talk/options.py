"""What a question is asked with beside its text: sampling, thinking, functions, a schema."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_edge.core.errors import UserError
from qwen_edge.core.given_file import read_bytes

Json = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """None leaves the choice to the server. `schema`: the answer is held to it."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    max_tokens: int | None = None
    thinking: bool | None = None
    tools: tuple[Json, ...] = ()
    schema: Json | None = None

    def body(self) -> Json:
        """The part of a request that says so. Nothing is in it that was not asked for: strict servers refuse what they
        do not know. Thinking is a variable of the chat template, as llama-server, vLLM and SGLang have it."""
        plain = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "seed": self.seed,
            "max_tokens": self.max_tokens,
            "tools": list(self.tools) or None,
        }
        body: Json = {name: value for name, value in plain.items() if value is not None}
        if self.thinking is not None:
            body["chat_template_kwargs"] = {"enable_thinking": self.thinking}
        if self.schema is not None:
            shape = {"name": "answer", "strict": True, "schema": self.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        return body


def read_tools(file: Path) -> tuple[Json, ...]:
    """The functions in a JSON file: a list of them, in OpenAI's form or bare, or one. Raises UserError."""
    found = _json(file)
    if isinstance(found, dict) and isinstance(found.get("tools"), list):
        found = found["tools"]
    tools = [_tool(one, f"{file}, function {number}") for number, one in enumerate(_as_list(found), 1)]
    if not tools:
        raise UserError(f"{file} holds no function. It must be a JSON list of functions.")
    return tuple(tools)


def read_schema(file: Path) -> Json:
    """The JSON schema in a file: bare, or as response_format has it. Raises UserError."""
    found = _json(file)
    for name in ("response_format", "json_schema", "schema"):
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict):
        raise UserError(f"{file} is no JSON schema: it must be an object.")
    return found


def _json(file: Path) -> Any:
    try:
        return json.loads(read_bytes(file))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not JSON: {error}.") from None


def _as_list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]


def _tool(found: Any, where: str) -> Json:
    """A function in OpenAI's form."""
    bare = found.get("function", found) if isinstance(found, dict) else None
    if not isinstance(bare, dict) or not isinstance(bare.get("name"), str):
        raise UserError(
            f'{where}: a function is an object with a "name", a "description" and "parameters" (a JSON schema).'
        )
    named = {name: value for name, value in bare.items() if name != "type"}
    return {"type": "function", "function": named}
