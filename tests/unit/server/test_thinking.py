"""However a request says that the model is to think, or how long, the one meaning comes out."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.chat.abilities import TemplateAbilities
from qwen_edge.config.schema import ChatConfig
from qwen_edge.core.errors import RequestError
from qwen_edge.server.thinking import EFFORTS, Thinking, thinking

OPTIONAL, ALWAYS, NEVER = (TemplateAbilities(thinking=kind) for kind in ("optional", "always", "never"))


def of(*texts, can=OPTIONAL, settings=None, **asked):
    messages = [{"role": "user", "content": text} for text in texts]
    return thinking(messages=messages, can=can, defaults=settings or ChatConfig(), **asked)


def test_without_a_wish_the_settings_decide_and_without_them_the_template():
    assert of("hi") == Thinking()
    for on in (True, False):
        assert of("hi", settings=ChatConfig(thinking=on)).on is on


@pytest.mark.parametrize("on", [True, False])
def test_a_switch_counts_more_than_efforts_words_and_settings(on):
    for effort, text, default in itertools.product(EFFORTS, ("/think", "/no_think", ""), (True, False, None)):
        assert of(text, switch=on, effort=effort, settings=ChatConfig(thinking=default)).on is on


@pytest.mark.parametrize("effort", EFFORTS)
def test_an_effort_counts_more_than_words_and_settings(effort):
    for text, default in itertools.product(("/think", "/no_think", ""), (True, False, None)):
        assert of(text, effort=effort, settings=ChatConfig(thinking=default)).on is (effort != "none")


@pytest.mark.parametrize(("text", "on"), [("/think", True), ("/no_think", False)])
def test_words_count_more_than_settings(text, on):
    assert of(text, settings=ChatConfig(thinking=not on)).on is on


@pytest.mark.parametrize(
    ("effort", "budget"),
    [("minimal", 128), ("low", 512), ("medium", 2048), ("high", None), ("xhigh", None), ("max", None)],
)
def test_an_effort_is_a_budget(effort, budget):
    assert of(effort=effort) == Thinking(True, budget)


def test_a_budget_counts_more_than_an_effort_and_an_effort_more_than_the_settings():
    assert of(effort="low", budget=7).budget == 7
    assert of(effort="low", settings=ChatConfig(thinking_budget=9)).budget == 512
    assert of(settings=ChatConfig(thinking_budget=9)).budget == 9
    assert of(effort="high", settings=ChatConfig(thinking_budget=9)).budget == 9


@pytest.mark.parametrize("switch", [True, False, None])
@pytest.mark.parametrize("effort", [*EFFORTS, None])
def test_a_budget_of_nothing_is_no_thinking(switch, effort):
    assert of("/think", switch=switch, effort=effort, budget=0).on is False


@pytest.mark.parametrize("can", [NEVER, ALWAYS])
def test_words_and_efforts_ask_nothing_of_a_model_that_has_no_choice(can):
    for text in ("/think", "/no_think"):
        assert of(text, can=can).on is None
    for effort in EFFORTS[1:]:
        assert of(effort=effort, can=can).on is None
    for default in (True, False):
        assert of("hi", can=can, settings=ChatConfig(thinking=default)).on is None


@pytest.mark.parametrize("switch", [True, None])
def test_a_budget_of_nothing_ends_the_thinking_of_a_model_that_always_thinks(switch):
    assert of(switch=switch, budget=0, can=ALWAYS) == Thinking(None, 0)
    assert of(switch=switch, settings=ChatConfig(thinking_budget=0), can=ALWAYS) == Thinking(None, 0)


def test_no_effort_is_refused_where_the_model_always_thinks_and_natural_where_it_never_does():
    assert of(effort="none", can=NEVER).on is None
    with pytest.raises(RequestError, match="always thinks") as refused:
        of(effort="none", can=ALWAYS, effort_parameter="reasoning.effort")
    assert refused.value.parameter == "reasoning.effort"


@given(
    st.sampled_from([None, True, False]),
    st.sampled_from([None, *EFFORTS]),
    st.none() | st.integers(0, 5000),
    st.sampled_from([OPTIONAL, NEVER]),
)
def test_a_budget_is_kept_whatever_else_is_asked(switch, effort, budget, can):
    found = of(switch=switch, effort=effort, budget=budget, can=can)
    assert budget is None or found.budget == budget
