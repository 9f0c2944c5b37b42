"""Fields that answers of several dialects have are the same in all of them."""

import pytest

from qwen_edge.chat.messages import Finish, Usage
from qwen_edge.protocol.messages import Alternative, Logprob
from qwen_edge.server.answer_fields import energy, logprob, stopped, token

HALF = Alternative(b"\xc3", -0.5, 7)
SHOWN = {"token": "\ufffd", "logprob": -0.5, "bytes": [0xC3]}


def test_a_part_of_a_character_is_found_in_its_bytes():
    assert token(HALF) == SHOWN


def test_a_token_is_shown_with_those_that_might_have_stood_in_its_place():
    assert logprob(Logprob(HALF, (HALF,))) == {**SHOWN, "top_logprobs": [SHOWN]}
    assert logprob(Logprob(HALF, ()))["top_logprobs"] == []


@pytest.mark.parametrize(("joules", "fields"), [
    (None, {}), (0.0, {}), (4.0, {"energy_joules": 4.0, "tokens_per_joule": 2.0})
])  # fmt: skip
def test_energy_is_told_where_it_is_measured(joules, fields):
    assert energy(Usage(1, 8, joules=joules)) == fields


def test_what_stopped_an_answer_is_told_if_neither_the_model_nor_a_limit_did():
    assert stopped(Finish("stop", Usage(1, 1))) == {}
    assert stopped(Finish("length", Usage(1, 1), stopped_by="loop")) == {"x_stopped": "loop"}
