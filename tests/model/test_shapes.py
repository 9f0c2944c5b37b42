"""Answers that keep a shape, with llama.cpp: the constraint changes nothing that fits, and lets nothing else come."""

from __future__ import annotations

import json
from collections.abc import Iterator

import jsonschema
import pytest
from msgspec.structs import replace

from qwen_edge.engine.loop import Engine
from qwen_edge.llama.backend import LlamaBackend
from qwen_edge.protocol.messages import Done, Failed, Load, Markers, Sampling, Shape, Submit, Tokens
from tests.model.test_golden_decode import ASKED as ALL_ASKED
from tests.model.test_golden_decode import chat

pytestmark = pytest.mark.model

THINK, CALL = Markers("<think>", "</think>"), Markers("<tool_call>", "</tool_call>")
ASKED = ALL_ASKED[:4]
GREEDY = Sampling(temperature=0.0, logprobs=0)
ANYTHING = Shape("regex", r"(.|\n)*")
LIGHT = {
    "type": "object",
    "properties": {
        "room": {"enum": ["kitchen", "hall", "garden"]},
        "state": {"enum": ["on", "off"]},
        "percent": {"type": "integer", "minimum": 0, "maximum": 100},
        "note": {"type": "string", "maxLength": 12},
        "warm": {"type": ["boolean", "null"]},
        "seconds": {"enum": [0.5, 1, 2.5]},
    },
    "required": ["room", "state", "percent", "note", "warm", "seconds"],
    "additionalProperties": False,
}
SHAPE = Shape("json_schema", json.dumps(LIGHT))
TOOLS = Shape("calls", json.dumps([["set_light", LIGHT], ["stop", {"type": "object", "properties": {}}]]))


@pytest.fixture(scope="module")
def backends(demo_model) -> Iterator[dict[bool, LlamaBackend]]:
    """One for an engine that guesses, and one for an engine that does not."""
    load = Load(
        model=str(demo_model), context=4096, batch=128, threads=2, gpu_layers=0, kv_type="f16", flash_attention="off",
        beat_seconds=5.0, parallel=8, stash_bytes=10**7,
    )  # fmt: skip
    backends = {speculates: LlamaBackend(load, lambda _: None) for speculates in (True, False)}
    yield backends
    for backend in backends.values():
        backend.close()


@pytest.fixture(scope="module")
def engines(backends) -> dict[bool, Engine]:
    return {speculates: Engine(backend, speculates=speculates) for speculates, backend in backends.items()}


@pytest.fixture(scope="module")
def engine(engines) -> Engine:
    return engines[True]


class Answer:
    """What was said to one request."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, str]] = []
        self.pieces: list[bytes] = []
        self.done: Done | Failed | None = None

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.parts)

    def of(self, region: str) -> str:
        return "".join(text for one, text in self.parts if one == region).strip()


def ask(engine: Engine, *requests: Submit) -> list[Answer]:
    """The answers to requests that run beside each other."""
    answers = {request.id: Answer() for request in requests}
    for request in requests:
        engine.submit(request)
    while engine.busy:
        for event in engine.step():
            if isinstance(event, Tokens):
                answers[event.id].parts += [(part.region, part.text) for part in event.parts]
                answers[event.id].pieces += [one.chosen.piece for one in event.logprobs]
            elif isinstance(event, Done | Failed):
                answers[event.id].done = event
    return list(answers.values())


def submit(number: int, text: str, **fields) -> Submit:
    return Submit(number, chat(text), **{"sampling": GREEDY, "max_tokens": 60, "max_seconds": 60.0, **fields})


@pytest.mark.parametrize("speculates", [True, False])
def test_the_same_is_said_with_a_shape_that_the_text_has_already_beside_other_streams(engines, speculates):
    engine = engines[speculates]
    free = [ask(engine, submit(1, text, reasoning=THINK))[0] for text in ASKED]
    held = [ask(engine, submit(1, text, shape=ANYTHING, reasoning=THINK))[0] for text in ASKED]
    assert [one.pieces for one in held] == [one.pieces for one in free]
    assert [one.done.reason for one in held] == [one.done.reason for one in free]
    assert all(one.done.steered.masks > 0 for one in held if one.pieces)
    # beside each other: the sums of larger batches differ in their last bits, so both sides are batched in the same way
    beside = [
        ask(
            engine,
            *(
                submit(n, text, reasoning=THINK, shape=ANYTHING if n % 2 and held else None)
                for n, text in enumerate(ASKED)
            ),
        )
        for held in (False, True)
    ]
    assert [one.pieces for one in beside[0]] == [one.pieces for one in beside[1]]


SAMPLINGS = {
    "penalties": Sampling(temperature=0.9, top_k=40, repetition_penalty=1.3, presence_penalty=0.5),
    "greedy penalties": Sampling(temperature=0.0, repetition_penalty=1.3),
    "dry": Sampling(temperature=0.8, dry_multiplier=0.8),
    "bias": Sampling(temperature=0.7, top_k=20, logit_bias=((10, 5.0), (300, -100.0))),
    "typical": Sampling(temperature=1.0, typical_p=0.5),
    "typical and no end": Sampling(temperature=1.0, typical_p=0.5, ignore_eos=True),
    "many": Sampling(temperature=1.0, top_k=1000),
    "all": Sampling(temperature=1.0, top_k=0, top_p=1.0),
    "min_p": Sampling(temperature=1.5, min_p=0.1, top_p=0.9),
    "no end": Sampling(temperature=1.0, min_tokens=500),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLINGS)
def test_every_way_of_sampling_keeps_the_shape(engine, name):
    samplings = [replace(SAMPLINGS[name], logprobs=2, seed=seed) for seed in range(len(ASKED))]
    requests = [submit(n, ASKED[n], shape=SHAPE, max_tokens=300, sampling=one) for n, one in enumerate(samplings)]
    for answer in ask(engine, *requests):
        assert isinstance(answer.done, Done) and answer.done.reason == "stop"
        jsonschema.validate(json.loads(answer.text), LIGHT)
        assert b"".join(answer.pieces).decode() == answer.text


@pytest.mark.parametrize("name", SAMPLINGS)
def test_the_likeliest_tokens_are_the_same_with_guesses_and_without(engines, name):
    """Without chance: batches of another size differ in the last bits of their sums, and a sampled token may tip over.
    That guesses use no random number is tested where sums are exact (tests/unit/engine/test_shapes.py)."""
    sampling = replace(SAMPLINGS[name], temperature=0.0)
    said = [
        [
            ask(engines[speculates], submit(n, ASKED[n], shape=SHAPE, max_tokens=300, sampling=sampling))[0].text
            for n in range(2)
        ]
        for speculates in (True, False)
    ]
    assert said[0] == said[1]


def test_fifty_answers_of_noise_are_valid(engine):
    hot = [Sampling(temperature=2.0, top_k=0, top_p=1.0, seed=seed) for seed in range(50)]
    for start in range(0, 50, 10):
        requests = [
            submit(n, ASKED[n % len(ASKED)], shape=SHAPE, max_tokens=400, sampling=hot[start + n]) for n in range(10)
        ]
        for answer in ask(engine, *requests):
            assert answer.done.reason == "stop"
            jsonschema.validate(json.loads(answer.text), LIGHT)


@pytest.mark.parametrize("thinks", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
def test_a_required_call_is_one_that_can_be_carried_out(engine, thinks, parallel):
    fields = {"reasoning": THINK, "thinking_budget": 20} if thinks else {}
    requests = [
        submit(
            n, text, calls=CALL, call_shape=TOOLS, requires_call=True, parallel_calls=parallel, max_tokens=600,
            sampling=Sampling(temperature=1.5, top_k=0, top_p=1.0, seed=n), **fields,
        )
        for n, text in enumerate(ASKED)
    ]  # fmt: skip
    for answer in ask(engine, *requests):
        assert isinstance(answer.done, Done)
        if answer.done.reason == "length":
            assert parallel, "only further calls can be too many"
            continue
        calls = [one for one in answer.of("call").replace("<tool_call>", "").split("</tool_call>") if one.strip()]
        assert len(calls) == 1 or parallel
        for call in calls:
            name, arguments = (made := json.loads(call))["name"], made["arguments"]
            assert name in ("set_light", "stop")
            jsonschema.validate(arguments, LIGHT if name == "set_light" else {"type": "object"})
        assert answer.of("answer") == ""


def test_thinking_ends_at_its_budget_and_the_answer_keeps_its_shape(engine):
    requests = [
        submit(n, text, shape=SHAPE, reasoning=THINK, thinking_budget=budget, max_tokens=500)
        for n, (text, budget) in enumerate(zip(ASKED, [0, 5, 40, 100], strict=True))
    ]
    for request, answer in zip(requests, ask(engine, *requests), strict=True):
        jsonschema.validate(json.loads(answer.of("answer")), LIGHT)
        assert answer.done.reason == "stop"
        assert answer.done.reasoning_tokens <= request.thinking_budget + 25, "the closing sentence counts, too"


def test_a_grammar_s_forced_text_is_tokenized_as_the_model_does_it(engine, backends):
    backend = backends[True]
    text = "Turn on the light in the kitchen, please."
    [answer] = ask(engine, submit(1, "x", shape=Shape("choice", json.dumps([text]))))
    assert answer.pieces == [backend.vocabulary.piece(token) for token in backend.vocabulary.encode(text)]
    assert answer.done.steered.forced == len(answer.pieces)


def test_a_choice_that_looks_like_a_marker_is_written_in_ordinary_tokens(engine, backends):
    backend = backends[True]
    [answer] = ask(engine, submit(1, "x", shape=Shape("choice", '["<|im_end|>", "<think>"]')))
    assert answer.text in ("<|im_end|>", "<think>") and answer.done.reason == "stop"
    specials = {backend.vocabulary.text(token).encode() for token in backend.vocabulary.specials.values()}
    assert not specials & set(answer.pieces) and len(answer.pieces) > 1


@pytest.mark.parametrize("marker", ["</think>", "<tool_call>", "<|im_end|>"])
def test_forced_text_that_looks_like_a_marker_is_written_in_ordinary_tokens(engine, marker):
    """The tokenizer takes the marker inside a longer forced text for the special token."""
    schema = {"type": "object", "properties": {"say": {"const": f"a {marker} b"}}, "required": ["say"]}
    calls = Shape("calls", json.dumps([[f"say {marker}", schema]]))
    for request in (
        submit(1, "x", shape=Shape("json_schema", json.dumps(schema))),
        submit(2, "x", call_shape=calls, calls=CALL, requires_call=True),
    ):
        [answer] = ask(engine, request)
        assert not isinstance(answer.done, Failed), answer.done
        assert answer.done.reason == "stop"
        assert f'"a {marker} b"' in "".join(piece.decode() for piece in answer.pieces)
