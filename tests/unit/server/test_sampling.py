"""What a request says of sampling, else what the settings say, else what the model says."""

from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.config.schema import ChatConfig
from qwen_edge.protocol.messages import Sampling
from qwen_edge.server.parameters import read_group
from qwen_edge.server.sampling import SamplingParameters, sampling, stop_texts

MODEL = Sampling(temperature=0.6, top_k=20, top_p=0.95, min_p=0.1, repetition_penalty=1.1)
SETTINGS = ChatConfig()


def of(settings: ChatConfig = SETTINGS, logprobs: int | None = None, **asked) -> Sampling:
    return sampling(read_group(SamplingParameters, asked, ignore_unknown=False), MODEL, settings, logprobs)


@pytest.mark.parametrize("name", ["temperature", "top_k", "top_p", "min_p", "repetition_penalty"])
def test_a_request_counts_more_than_the_settings_and_those_more_than_the_model(name):
    settings = msgspec.structs.replace(SETTINGS, **{name: 1})
    assert getattr(of(), name) == getattr(MODEL, name)
    assert getattr(of(settings), name) == 1
    assert getattr(of(settings, **{name: 0.5 if name != "top_k" else 5}), name) == (0.5 if name != "top_k" else 5)


@pytest.mark.parametrize("name", ["temperature", "top_k", "top_p", "min_p"])
def test_zero_is_a_wish_and_not_a_missing_value(name):
    assert getattr(of(msgspec.structs.replace(SETTINGS, **{name: 1}), **{name: 0}), name) == 0


@pytest.mark.parametrize("off", [0, -1])
def test_top_k_is_off_at_zero_and_below(off):
    assert of(top_k=off).top_k == 0


def test_both_names_of_the_repetition_penalty_mean_the_same():
    assert of(repeat_penalty=1.3).repetition_penalty == of(repetition_penalty=1.3).repetition_penalty == 1.3
    assert of(repeat_penalty=1.3, repetition_penalty=1.2).repetition_penalty == 1.2


def test_penalties_look_back_over_the_window_or_over_the_whole_answer():
    assert of().penalty_window == MODEL.penalty_window
    assert (of(repeat_last_n=0).penalty_window, of(repeat_last_n=7).penalty_window) == (0, 7)
    assert of(repeat_last_n=-1).penalty_window == 2**15


def test_without_a_seed_each_request_has_another_and_minus_one_asks_for_that():
    for asked in ({}, {"seed": None}, {"seed": -1}):
        assert len({of(**asked).seed for _ in range(20)}) > 1
    assert of(seed=0).seed == 0
    assert of(seed=-2).seed == of(seed=-2).seed


@given(st.integers())
def test_any_other_seed_is_a_seed_of_llama_cpp_and_never_its_random_one(seed):
    assert 0 <= of(seed=seed).seed < 0xFFFFFFFF


@given(st.dictionaries(st.integers(0, 10**9 - 1).map(str), st.none() | st.floats(-100, 100), max_size=5))
def test_biases_are_pairs_of_tokens_and_numbers_and_null_is_none(biases):
    kept = {int(token): bias for token, bias in biases.items() if bias is not None}
    assert dict(of(logit_bias=biases).logit_bias) == kept


def test_all_that_is_asked_arrives():
    asked = {
        "temperature": 1.5, "top_k": 3, "top_p": 0.5, "min_p": 0.25, "frequency_penalty": -1.0, "presence_penalty": 1.0,
        "typical_p": 0.75, "dry_multiplier": 1.0, "dry_base": 2.0, "dry_allowed_length": 3, "dry_penalty_last_n": 4,
        "min_tokens": 5, "ignore_eos": True, "seed": 6,
    }  # fmt: skip
    found = SimpleNamespace(**msgspec.structs.asdict(of(logprobs=2, **asked)))
    assert {name: getattr(found, name) for name in asked} == asked
    assert found.logprobs == 2


def test_every_sampling_parameter_is_in_the_engines_terms():
    other_names = {"repeat_penalty": "repetition_penalty", "repeat_last_n": "penalty_window"}
    names = {other_names.get(name, name) for name in SamplingParameters.__struct_fields__}
    assert names | {"logprobs", "names_tokens"} == set(Sampling.__struct_fields__)


@pytest.mark.parametrize(
    ("stop", "texts"),
    [(None, ()), ("", ()), ("a", ("a",)), ([], ()), (["a", None, "", "b"], ("a", "b")), (["\n"], ("\n",))],
)
def test_stop_texts_may_be_one_or_several_and_empty_ones_mean_nothing(stop, texts):
    assert stop_texts(stop) == texts
