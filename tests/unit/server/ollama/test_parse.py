"""Ollama's bodies become chat requests, and every mistake is told by its name."""

import json
from typing import get_type_hints

import pytest

from qwen_edge.chat.abilities import TemplateAbilities
from qwen_edge.config.schema import ChatConfig
from qwen_edge.core.errors import RequestError
from qwen_edge.protocol.messages import Sampling, Shape
from qwen_edge.server.answering import Asked
from qwen_edge.server.ollama.bodies import OllamaChatBody, OllamaGenerateBody, OllamaOptions
from qwen_edge.server.ollama.parse import chat_request, generate_request, read_question
from qwen_edge.server.parameters import treatment_of
from qwen_edge.service.pipeline import ModelInfo

ABLE = TemplateAbilities(system=True, tools=True, calls=True, thinking="optional")
MODEL = ModelInfo(Sampling(temperature=0.6, top_k=20, top_p=0.95), 4096, ABLE)
HI = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"percent": {"type": "integer"}}, "required": ["percent"]}

# what ollama-python, ollama-js and Open WebUI send as options, with values that ask for what happens anyway
OPTIONS = {
    "numa": False, "num_ctx": 2048, "num_batch": 512, "num_gpu": 99, "main_gpu": 0, "low_vram": False, "f16_kv": True,
    "logits_all": False, "vocab_only": False, "use_mmap": True, "use_mlock": False, "embedding_only": False,
    "num_thread": 8, "num_keep": 24, "seed": 7, "num_predict": 100, "top_k": 40, "top_p": 0.9, "min_p": 0.05,
    "tfs_z": 1.0, "typical_p": 0.7, "repeat_last_n": 33, "temperature": 0.8, "repeat_penalty": 1.2,
    "presence_penalty": 1.5, "frequency_penalty": 1.0, "mirostat": 0, "mirostat_tau": 0.8, "mirostat_eta": 0.6,
    "penalize_newline": True, "stop": ["\n", "user:"],
}  # fmt: skip


def asked(model=MODEL, defaults=None, **body):
    data = json.dumps({"model": "m", "messages": HI, **body}).encode()
    return chat_request(
        read_question(OllamaChatBody, data, ignore_unknown=False), Asked(model, defaults or ChatConfig())
    )


def generated(**body):
    data = json.dumps({"model": "m", "prompt": "hi", **body}).encode()
    return generate_request(read_question(OllamaGenerateBody, data, ignore_unknown=False), Asked(MODEL, ChatConfig()))


def refused(ask=asked, **body):
    with pytest.raises(RequestError) as error:
        ask(**body)
    return error.value


def test_every_option_of_ollama_is_known_and_those_of_sampling_arrive():
    request = asked(options=OPTIONS)
    assert (request.max_tokens, request.stop) == (100, ("\n", "user:"))
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) == (0.8, 40, 0.9, 0.05)
    assert (sampling.typical_p, sampling.repetition_penalty, sampling.penalty_window) == (0.7, 1.2, 33)
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.seed) == (1.5, 1.0, 7)


@pytest.mark.parametrize("written", [-2, -1, 0, None])
def test_num_predict_without_a_limit_asks_for_all_there_is_room_for(written):
    assert asked(options={"num_predict": written}).max_tokens is None


def test_without_num_predict_the_settings_limit_holds_and_minus_one_lifts_it():
    defaults = ChatConfig(max_tokens=50)
    assert asked(defaults=defaults).max_tokens == 50
    assert asked(defaults=defaults, options={"num_predict": -1}).max_tokens is None


def test_a_seed_of_minus_one_is_any_seed():
    assert len({asked(options={"seed": -1}).sampling.seed for _ in range(20)}) > 1


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"num_ctx": 4097}, "options.num_ctx"),
        ({"mirostat": 1}, "options.mirostat"),
        ({"tfs_z": 0.5}, "options.tfs_z"),
        ({"penalize_newline": False}, "options.penalize_newline"),
        ({"embedding_only": True}, "options.embedding_only"),
        ({"num_predict": -3}, "options.num_predict"),
        ({"temperature": "hot"}, "options.temperature"),
        ({"top_p": 1.5}, "options.top_p"),
        ({"stop": [5]}, "options.stop[0]"),
        ({"seed": 1.5}, "options.seed"),
        ({"nonsense": 1}, "options.nonsense"),
    ],
)
@pytest.mark.parametrize("ask", [asked, generated])
def test_an_option_that_cannot_be_honoured_is_named(ask, options, parameter):
    assert refused(ask, options=options).parameter == parameter


def test_the_servers_own_context_is_no_more_than_there_is():
    assert asked(options={"num_ctx": 4096.0})


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"messages": [{"role": "user", "content": "hi", "images": ["aGk="]}]}, "messages[0].images"),
        ({"messages": [*HI, {"role": "robot", "content": "x"}]}, "messages[1].role"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "hi"}]}, "messages[0]"),
        ({"format": "xml"}, "format"),
        ({"format": 5}, "format"),
        ({"think": "deeply"}, "think"),
        ({"think": 5}, "think"),
        ({"tools": [{"function": {}}]}, "tools[0].function"),
        ({"tools": [{"type": "web", "function": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": "f"}, "tools"),
        ({"truncate": True}, "truncate"),
        ({"shift": True}, "shift"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"options": [1]}, "options"),
        ({"stream": "yes"}, "stream"),
        ({"keep_alive": [1]}, "keep_alive"),
        ({"max_tokens": 5}, "max_tokens"),
    ],
)
def test_a_mistake_in_a_chat_is_named(body, parameter):
    assert refused(**body).parameter == parameter


@pytest.mark.parametrize(
    "body",
    [
        {"suffix": "}"},
        {"template": "{{ .Prompt }}"},
        {"context": [1, 2]},
        {"images": ["aGk="]},
        {"width": 512},
        {"prompt": 5},
    ],
)
def test_what_a_prompt_cannot_have_is_named(body):
    assert refused(generated, **body).parameter == next(iter(body))


def test_empty_values_ask_for_nothing():
    request = generated(suffix="", template="", context=[], raw=False, images=[], system="", format="", think=None)
    assert request.messages == ({"role": "user", "content": "hi"},)
    assert request.shape is None


def test_a_system_text_stands_before_the_prompt():
    assert [one["role"] for one in generated(system="Be brief.").messages] == ["system", "user"]


@pytest.mark.parametrize("ask", [asked, generated])
def test_a_format_holds_the_answer_to_a_schema(ask):
    request = ask(format=SCHEMA)
    assert (request.shape, request.shape_parameter) == (
        Shape("json_schema", json.dumps(SCHEMA, separators=(",", ":"))),
        "format",
    )
    assert request.shown_schema
    assert ask(format="json").shape == Shape("json_schema", '{"type":"object"}')
    assert not ask(format="json").shown_schema


def test_a_keyword_of_a_schema_that_is_not_enforced_is_named():
    error = refused(format={"type": "object", "properties": {"a": {"not": {"type": "null"}}}})
    assert error.parameter == "format"
    assert '"strict"' not in error.message


@pytest.mark.parametrize(
    ("think", "on", "budget"),
    [(True, True, None), (False, False, None), ("low", True, 512), ("medium", True, 2048), ("high", True, None),
     ("none", False, None), (None, None, None)],
)  # fmt: skip
@pytest.mark.parametrize("ask", [asked, generated])
def test_think_is_a_switch_or_an_effort(ask, think, on, budget):
    request = ask(think=think)
    assert (request.thinking, request.thinking_budget) == (on, budget)


def thinker(ability):
    return ModelInfo(Sampling(), 4096, TemplateAbilities(thinking=ability))


def test_a_model_that_cannot_think_is_asked_for_no_effort_and_may_be_told_not_to():
    assert asked(thinker("never"), think="high").thinking is None
    assert asked(thinker("never"), think=False).thinking is False


@pytest.mark.parametrize(("think", "ability"), [(True, "never"), (False, "always"), ("none", "always")])
def test_a_switch_of_thinking_that_a_model_lacks_is_named(think, ability):
    error = refused(model=thinker(ability), think=think)
    assert (error.parameter, "think: this model" in error.message) == ("think", True)


def test_a_history_with_calls_and_results_is_in_the_templates_form():
    call = {"function": {"name": "f", "arguments": {"x": 1}}}
    request = asked(
        messages=[
            *HI,
            {"role": "assistant", "content": None, "thinking": "I call f.", "tool_calls": [call]},
            {"role": "tool", "tool_name": "f", "content": '{"data": 5}', "images": None},
        ]
    )
    assert request.messages[1:] == (
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "I call f.",
            "tool_calls": [{"type": "function", "function": call["function"]}],
        },
        {"role": "tool", "content": '{"data": 5}', "name": "f"},
    )


def test_tools_reach_the_model_as_they_were_written():
    function = {"name": "f", "parameters": SCHEMA, "returns": "something"}
    request = asked(tools=[{"function": function}])
    assert request.tools == ({"type": "function", "function": function},)
    assert request.call_shape
    assert not request.requires_call


def test_a_last_message_of_the_assistant_begins_the_answer():
    request = asked(messages=[*HI, {"role": "assistant", "content": "The answer"}])
    assert (len(request.messages), request.begun, request.thinking) == (1, "The answer", False)
    messages = [*HI, {"role": "assistant", "content": "The"}]
    assert refused(messages=messages, think=True).parameter == "think"
    assert asked(messages=messages, think=False).begun == "The"


def test_what_only_says_how_to_run_the_model_is_a_hint():
    types = get_type_hints(OllamaOptions, include_extras=True)
    hints = ("num_ctx", "num_keep", "num_gpu", "num_thread", "num_batch", "use_mmap")
    assert {treatment_of(types[name]) for name in hints} == {"hint"}


def test_a_raw_prompt_is_rendered_by_no_template():
    request = generated(raw=True, prompt="<|im_start|>user\nhi", think=False, format=SCHEMA)
    assert (request.raw, request.messages, request.thinking) == (("<|im_start|>user\nhi",), (), None)
    assert not request.stops_loops  # as in /v1/completions
    assert request.shape
    assert not request.shown_schema


@pytest.mark.parametrize("body", [{"system": "Be brief."}, {"think": True}, {"think": "low"}])
def test_what_a_template_would_do_is_refused_with_a_raw_prompt(body):
    assert refused(generated, raw=True, **body).parameter == next(iter(body))
