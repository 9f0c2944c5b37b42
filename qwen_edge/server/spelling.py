"""What a client may have meant by a parameter or a path that does not exist. Pure."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

_NAMED = "response_format.json_schema"
_ALIKE = 0.8  # of 1: one or two letters of a name differ
_LONGEST = 60  # characters of a name that is worth comparing
_PATHS_ALIKE = 0.9  # of 1: as _ALIKE, for paths, which have much in common anyway
# what the APIs call the same thing, each by a name of its own
_SAME = (
    ("max_tokens", "max_completion_tokens", "max_output_tokens", "options.num_predict", "num_predict", "n_predict"),
    ("stop", "stop_sequences", "options.stop"),
    ("messages", "input", "prompt", "content"),
    ("text", "content"),
    ("response_format", "text.format", "output_config.format", "format"),
    ("enable_thinking", "think", "thinking"),
)


def advice(name: str, known: Collection[str]) -> str:
    """What to do about the unknown parameter. `known`: the full names of all parameters, such as
    stream_options.include_usage."""
    place, _, last = name.rpartition(".")
    beside = [one.rpartition(".")[2] for one in known if one.rpartition(".")[0] == place]
    if len(last) <= _LONGEST and (alike := get_close_matches(last, beside, 1, _ALIKE)):
        return f"Did you mean {place}{'.' if place else ''}{alike[0]}?"
    if place == _NAMED:
        return f"The schema itself stands in {_NAMED}.schema."
    if found := sorted(one for one in known if one.rpartition(".")[2] == last):
        return f"Did you mean {found[0]}?"
    others = next((names for names in _SAME if name in names), ())
    if meant := next((one for one in others if one in known), None):
        return f"Did you mean {meant}?"
    return "Leave the parameter out."


def other_path(path: str, paths: Collection[str]) -> str:
    """What to do about the unknown path, or an empty text. `paths`: those that exist."""
    path = path.rstrip("/")
    paths = [one for one in paths if not one.endswith("/")]
    as_long = [one for one in paths if one.count("/") == path.count("/")]
    if len(path) <= _LONGEST and (alike := get_close_matches(path, as_long, 1, _PATHS_ALIKE)):
        return f"Did you mean {alike[0]}?"
    if found := [one for one in paths if path.endswith(one)]:
        return f"There is {max(found, key=len)}: the client's base URL is too long."
    return ""
