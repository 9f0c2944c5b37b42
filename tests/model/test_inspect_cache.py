"""What the list of remembered conversations says of each."""

import pytest

from qwen_edge.engine.inspect_cache import said
from qwen_edge.llama.model import Model

pytestmark = pytest.mark.model

ANSWERED = "<|im_start|>assistant\nThe lamp is on.<|im_end|>"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (ANSWERED, ANSWERED),
        (f"{ANSWERED}\n<|im_start|>user\n", ANSWERED),
        (f"{ANSWERED}\n<|im_start|>", ANSWERED),
        (f"{ANSWERED}\n<|im_start|>user\nThanks", None),
        ("What time is it", None),
        ("", None),
    ],
)
def test_a_conversation_ends_in_what_was_said_and_not_in_the_name_of_who_speaks_next(demo_model, text, shown):
    with Model(demo_model) as model:
        tokens = model.vocab.encode_marked(text)
        assert said(tokens, model.vocab) == (tokens if shown is None else model.vocab.encode_marked(shown))
