"""Every token that any file of the checkpoint names as an end ends a turn in the GGUF."""

import io

import gguf
import pytest
from rich.console import Console

from qwen_edge.convert.gguf_file import write_gguf
from qwen_edge.core.progress import on_console
from tests.checkpoints import ADDED, write_checkpoint
from tests.unit.convert.editing import edited, plan_of, refused

FIRST = 261  # the id of ADDED[0]
END_OF_TEXT, IM_START, IM_END, TOOL_CALL = (FIRST + i for i in range(4))
WORD = 257  # "ll", an ordinary token


def ids(folder, target, *keys):
    plan = plan_of(folder)
    write_gguf(plan, target, on_console(Console(file=io.StringIO())))
    fields = gguf.GGUFReader(target).fields
    return plan, [fields[key].contents() if key in fields else None for key in keys]


def name_ends(folder, *, tokenizer=None, config=None, generation=None) -> None:
    for file, key, value in (
        ("tokenizer_config.json", "eos_token", tokenizer),
        ("config.json", "eos_token_id", config),
        ("generation_config.json", "eos_token_id", generation),
    ):
        with edited(folder / file) as values:
            values[key] = value


@pytest.fixture
def folder(tmp_path):
    write_checkpoint(tmp_path / "in")
    return tmp_path / "in"


def test_the_ids_are_where_these_tests_think(folder):
    assert plan_of(folder).tokenizer.added == {text: FIRST + i for i, text in enumerate(ADDED)}


@pytest.mark.parametrize("tokenizer", ["<|im_end|>", {"content": "<|im_end|>", "lstrip": False}])
def test_an_end_token_is_named_as_text_or_as_an_object(folder, tokenizer):
    name_ends(folder, tokenizer=tokenizer)
    assert plan_of(folder).tokenizer.end_tokens == [IM_END]


@pytest.mark.parametrize(
    ("named", "ends"),
    [
        ({"config": [IM_END, END_OF_TEXT]}, [IM_END, END_OF_TEXT]),
        ({"generation": IM_END}, [IM_END]),
        ({"generation": [IM_END, TOOL_CALL]}, [IM_END, TOOL_CALL]),
        ({"tokenizer": "<|endoftext|>", "config": END_OF_TEXT, "generation": [IM_END]}, [END_OF_TEXT, IM_END]),
        ({"tokenizer": "<|im_end|>", "config": -1, "generation": None}, [IM_END]),
        ({"tokenizer": "</s>", "config": [-1, IM_END]}, [IM_END]),
    ],
)
def test_ends_are_taken_from_all_three_files(folder, named, ends):
    name_ends(folder, **named)
    assert plan_of(folder).tokenizer.end_tokens == ends


def test_ends_that_llama_cpp_does_not_know_go_into_its_keys_and_what_is_left_into_ours(folder, tmp_path):
    name_ends(
        folder, tokenizer="<|im_end|>", generation=[END_OF_TEXT, IM_START, TOOL_CALL, TOOL_CALL + 1, TOOL_CALL + 2]
    )
    keys = [f"tokenizer.ggml.{role}_token_id" for role in ("eos", "eot", "eom")]
    plan, found = ids(folder, tmp_path / "out.gguf", *keys, "qwen_edge.end_token_ids")
    assert found == [IM_END, IM_START, TOOL_CALL, f"{TOOL_CALL + 1},{TOOL_CALL + 2}"]
    assert plan.notes == []


def test_ends_that_llama_cpp_knows_by_their_text_need_no_key(folder, tmp_path):
    name_ends(folder, tokenizer="<|im_end|>", config=IM_END, generation=[IM_END, END_OF_TEXT])
    keys = "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id", "qwen_edge.end_token_ids"
    assert ids(folder, tmp_path / "out.gguf", *keys)[1] == [None] * 3


@pytest.mark.parametrize(
    "named", [{}, {"config": -1}, {"config": []}, {"tokenizer": "</s>"}, {"tokenizer": {"content": 5}}]
)
def test_a_checkpoint_without_an_end_token_is_refused(folder, named):
    name_ends(folder, **named)
    assert "no token would end an answer" in refused(folder)


def test_a_checkpoint_that_only_a_word_would_end_is_refused_with_the_word(folder):
    name_ends(folder, config=WORD)
    assert "only the ordinary 'll' would end an answer" in refused(folder)


def test_a_word_beside_a_proper_end_token_is_told(folder):
    name_ends(folder, tokenizer="<|im_end|>", generation=[IM_END, WORD])
    assert plan_of(folder).notes == [f"token {WORD}, the ordinary word 'll', ends every answer: eos_token_id names it"]


@pytest.mark.parametrize("bad", [10**9, FIRST + len(ADDED), "<|im_end|>", True, 2.5, [IM_END, -2], {"id": 5}, [[5]]])
@pytest.mark.parametrize("file", ["config", "generation"])
def test_an_id_that_is_no_tokens_is_refused_with_the_file(folder, file, bad):
    name_ends(folder, tokenizer="<|im_end|>", **{file: bad})
    assert f"{file}{'_config' if file == 'generation' else ''}.json: eos_token_id" in refused(folder)


def test_a_special_token_that_the_vocabulary_holds_as_a_word_ends_a_turn(folder):
    """Some tools write the added tokens into the vocabulary and name them in the settings only."""
    with edited(folder / "tokenizer.json") as tokenizer:
        tokenizer["model"]["vocab"] |= {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
        tokenizer["added_tokens"] = []
    with edited(folder / "tokenizer_config.json") as settings:
        del settings["added_tokens_decoder"]
    plan = plan_of(folder)
    assert (plan.tokenizer.end_tokens, plan.tokenizer.kinds[IM_END]) == ([IM_END], gguf.TokenType.CONTROL)
    assert plan.notes == []
