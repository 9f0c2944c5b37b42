"""The dialogues that the demo model learns from and is measured on."""

import json
import re
from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.demo_model.answers import is_right, read
from scripts.demo_model.dialogue.dialogues import Dialogue, write_dialogue
from scripts.demo_model.dialogue.names import made_up_room, rare_room
from scripts.demo_model.dialogue.scene import draw_scene
from scripts.demo_model.dialogue.split import Split
from scripts.demo_model.dialogue.words import LANGS, WORDS
from scripts.demo_model.samples import sample_at
from scripts.demo_model.tree import grow

_JSON_TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


def dialogues(split: Split, seed: int) -> Iterator[Dialogue]:
    rng = Random(seed)
    while True:
        yield write_dialogue(rng, draw_scene(rng, split), rng.choice(LANGS))


def commands(split: Split, count: int) -> set[tuple[str, str]]:
    """What was said, without case and marks, with the calls that are right."""
    found = set()
    for dialogue in islice(dialogues(split, 11), count):
        for index, mark in dialogue.marks.items():
            if mark.kind == "first":
                said = re.sub(r"\W", "", dialogue.messages[index - 1]["content"].lower())
                calls = [call["function"]["arguments"] for call in dialogue.messages[index]["tool_calls"]]
                found.add((said, json.dumps(calls, ensure_ascii=False)))
    return found


def fits(call: dict[str, Any], tools: dict[str, Any]) -> bool:
    """Whether a JSON-schema validator would take the call."""
    schema = tools[call["name"]]["parameters"]
    given = call["arguments"]
    return set(schema.get("required", ())) <= set(given) <= set(schema["properties"]) and all(
        isinstance(value, _JSON_TYPES[schema["properties"][name]["type"]])
        and value in schema["properties"][name].get("enum", [value])
        for name, value in given.items()
    )


def test_a_seed_is_a_corpus():
    one, two, other = ([d.messages for d in islice(dialogues(Split.TRAIN, seed), 20)] for seed in (3, 3, 4))
    assert one == two
    assert one != other


def test_no_command_that_is_measured_was_trained():
    held_out = commands(Split.HELD_OUT, 150)
    assert len(held_out) > 80
    assert not held_out & commands(Split.TRAIN, 1000)


@given(st.integers(0, 2**32), st.sampled_from((made_up_room, rare_room)))
def test_no_room_that_is_made_up_or_rare_is_one_that_is_kept_from_training(seed, draw):
    room = draw(Random(seed))
    kept = {form for word in WORDS["unseen room"] for form in (*word.en, *word.zh)}
    assert not kept & {*room.en, *room.zh}


@given(st.integers(0, 2**32), st.sampled_from(Split))
def test_every_right_call_is_one_that_its_tool_takes(seed, split):
    dialogue = next(dialogues(split, seed))
    tools = {tool.name: tool.schema()["function"] for tool in dialogue.scene.tools}
    for message in dialogue.messages:
        for call in message.get("tool_calls", ()):
            assert fits(call["function"], tools), call


@given(st.integers(0, 2**32), st.booleans())
def test_the_answer_to_learn_is_the_answer_that_counts_as_right(seed, thinking):
    dialogue = next(dialogues(Split.TRAIN, seed))
    for index in dialogue.marks:
        said = read(sample_at(dialogue, index, thinking=thinking).target.removesuffix("<|im_end|>"))
        message = dialogue.messages[index]
        assert is_right(said, [call["function"] for call in message.get("tool_calls", ())], message["content"])
        assert bool(said.thought) == thinking


@pytest.mark.parametrize(
    "wrong", ["", "<tool_call>{</tool_call>", '<tool_call>{"name": "x", "arguments": {}}</tool_call>']
)
def test_what_is_no_right_call_counts_as_wrong(wrong):
    assert not is_right(read(wrong), [{"name": "x", "arguments": {"room": "kitchen"}}], "")


@given(st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=8), st.integers(1, 8)), min_size=1))
def test_a_tree_holds_every_sequence_as_a_path_and_no_token_twice(sequences):
    tree = grow(sequences)
    paths = {}
    for node, (token, parent) in enumerate(zip(tree.tokens, tree.parent, strict=True)):
        paths[node] = (*paths.get(parent, ()), token)
        assert tree.depth[node] == len(paths[node]) - 1
        inside = {other for other in paths if paths[other][: len(paths[node])] == paths[node]}
        assert inside == set(range(node, max(inside) + 1))
        assert max(inside) < tree.end[node]
    prefixes = {tuple(tokens[:end]) for tokens, _ in sequences for end in range(1, len(tokens) + 1)}
    assert sorted(paths.values()) == sorted(prefixes)
    targets = {tuple(tokens[:end]) for tokens, answer in sequences for end in range(answer + 1, len(tokens) + 1)}
    assert {paths[node] for node, wanted in enumerate(tree.target) if wanted} == targets
