"""Vocabulary, merges and added tokens are found in whichever file has them; damage is told with the place."""

import json

import gguf
import pytest

from tests.checkpoints import ADDED, MERGES, write_checkpoint
from tests.unit.convert.editing import edited, plan_of, refused


@pytest.fixture
def folder(tmp_path):
    write_checkpoint(tmp_path / "in")
    return tmp_path / "in"


@pytest.fixture
def old(tmp_path):
    """Without tokenizer.json."""
    write_checkpoint(tmp_path / "old", tokenizer_json=False)
    return tmp_path / "old"


def move_to_added_tokens_json(folder) -> None:
    with edited(folder / "tokenizer_config.json") as settings, edited(folder / "added_tokens.json") as added:
        decoder = settings.pop("added_tokens_decoder")
        added.update({token["content"]: int(i) for i, token in decoder.items()})


def same_tokens(one, other) -> None:
    a, b = plan_of(one).tokenizer, plan_of(other).tokenizer
    assert (a.texts, a.kinds, a.added, a.end_tokens) == (b.texts, b.kinds, b.added, b.end_tokens)


def test_added_tokens_json_serves_as_well(folder, old):
    move_to_added_tokens_json(old)
    same_tokens(old, folder)


def test_added_tokens_that_tokenizer_json_lacks_are_taken_from_the_settings(folder, tmp_path):
    write_checkpoint(tmp_path / "other")
    with edited(folder / "tokenizer.json") as tokenizer:
        del tokenizer["added_tokens"]
    same_tokens(folder, tmp_path / "other")
    move_to_added_tokens_json(folder)
    same_tokens(folder, tmp_path / "other")


def test_added_tokens_json_is_left_out_where_the_settings_have_the_tokens(old):
    (old / "added_tokens.json").write_text(json.dumps({"<|old|>": 5}))
    assert "<|old|>" not in plan_of(old).tokenizer.added


def test_special_tokens_map_tells_which_of_added_tokens_json_are_special(old):
    move_to_added_tokens_json(old)
    named = {"additional_special_tokens": ["<tool_call>", {"content": "</think>"}]}
    (old / "special_tokens_map.json").write_text(json.dumps(named))
    tokenizer = plan_of(old).tokenizer
    kinds = {text: tokenizer.kinds[token] for text, token in tokenizer.added.items()}
    assert (kinds["<tool_call>"], kinds["</think>"]) == (gguf.TokenType.CONTROL, gguf.TokenType.CONTROL)
    assert kinds["<think>"] == gguf.TokenType.USER_DEFINED


def test_a_word_that_is_named_as_padding_stays_a_word(folder):
    with edited(folder / "tokenizer_config.json") as settings:
        settings["pad_token"] = "!"
    tokenizer = plan_of(folder).tokenizer
    assert tokenizer.kinds[tokenizer.texts.index("!")] == gguf.TokenType.NORMAL


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.update(model=None), "got `null` - at `$.model`"),
        (lambda t: t.update(model=[]), "got `array` - at `$.model`"),
        (lambda t: t.pop("model"), "missing required field `model`"),
        (lambda t: t["model"].update(merges=None), "at `$.model.merges`"),
        (lambda t: t["model"].update(merges={}), "at `$.model.merges`"),
        (lambda t: t["model"].update(merges=[]), "no vocabulary or no merges"),
        (lambda t: t["model"].update(merges=[["a", "b", "c"]]), "at `$.model.merges[0]`"),
        (lambda t: t["model"].update(merges=["a b c"]), "the merge 'a b c' does not make a token"),
        (lambda t: t["model"].update(merges=["ab"]), "the merge 'ab' does not make a token"),
        (lambda t: t["model"].update(merges=["h e", 5]), "at `$.model.merges[1]`"),
        (lambda t: t["model"].update(merges=[*MERGES, "q z"]), "the merge 'q z' does not make a token"),
        (lambda t: t["model"].update(merges=MERGES[:2]), "is cut short: no merge makes 3 tokens of the vocabulary"),
        (lambda t: t["model"].update(vocab=[["a", 0]]), "at `$.model.vocab`"),
        (lambda t: t["model"].update(vocab={}), "no vocabulary or no merges"),
        (lambda t: t["model"]["vocab"].update(a=-1), "at `$.model.vocab[...]`"),
        (lambda t: t["model"]["vocab"].update(a="5"), "at `$.model.vocab[...]`"),
        (lambda t: t["model"]["vocab"].update(a=True), "at `$.model.vocab[...]`"),
        (lambda t: t["model"]["vocab"].update(a=t["model"]["vocab"]["b"]), "have the id"),
        (lambda t: t.update(added_tokens=None), "at `$.added_tokens`"),
        (lambda t: t.update(added_tokens=["<x>"]), "at `$.added_tokens[0]`"),
        (lambda t: t["added_tokens"][0].update(id=-3), "at `$.added_tokens[0].id`"),
        (lambda t: t["added_tokens"][0].update(id="5"), "at `$.added_tokens[0].id`"),
        (lambda t: t["added_tokens"][0].update(content=""), "at `$.added_tokens[0].content`"),
        (lambda t: t["added_tokens"][0].update(id=t["added_tokens"][1]["id"]), "have the id"),
        (lambda t: t["added_tokens"][0].update(content="he"), "has the ids"),
        (lambda t: t.update(pre_tokenizer=None), "not Qwen's tokenizer"),
        (lambda t: t.update(pre_tokenizer=[]), "at `$.pre_tokenizer`"),
        (lambda t: t.update(pre_tokenizer={"pretokenizers": {}}), "at `$.pre_tokenizer.pretokenizers`"),
        (lambda t: t.update(post_processor={"processors": [5]}), "at `$.post_processor.processors[0]`"),
    ],
)
def test_a_tokenizer_json_of_another_shape_is_told_with_the_place(folder, change, said):
    with edited(folder / "tokenizer.json") as tokenizer:
        change(tokenizer)
    complaint = refused(folder)
    assert said in complaint
    assert "tokenizer.json" in complaint or "the tokenizer files" in complaint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#version: 0.2\n", "merges.txt is damaged: it is empty"),
        ("\n\n", "merges.txt is damaged: it is empty"),
        (
            "#version: 0.2\nh e\nl l\n",
            "merges.txt is cut short: no merge makes 3 tokens of the vocabulary, the first of them 'ĠĠ'",
        ),
        ("#version: 0.2\nh e\nl l\nĠ Ġ\nhe ll\nhell", "the merge 'hell' does not make"),
        ("#version: 0.2\nh e\nl l\nĠ Ġ\nhe l", "the merge 'he l' does not make"),
    ],
)
def test_a_merges_file_that_is_cut_short_is_told(old, text, said):
    (old / "merges.txt").write_text(text)
    assert said in refused(old)


@pytest.mark.parametrize("decoder", [[], "x", {"a": {"content": "<x>"}}, {"-1": {"content": "<x>"}}, {"5": "<x>"}])
def test_an_added_tokens_decoder_of_another_shape_is_told(old, decoder):
    with edited(old / "tokenizer_config.json") as settings:
        settings["added_tokens_decoder"] = decoder
    assert "tokenizer_config.json: added_tokens_decoder is damaged" in refused(old)


def test_ids_may_have_holes(folder):
    with edited(folder / "tokenizer.json") as tokenizer:
        tokenizer["added_tokens"][-1]["id"] += 3
    with edited(folder / "tokenizer_config.json") as settings:
        del settings["added_tokens_decoder"]
    tokenizer = plan_of(folder).tokenizer
    hole = 261 + len(ADDED) - 1
    assert (tokenizer.texts[hole], tokenizer.kinds[hole]) == (f"[PAD{hole}]", gguf.TokenType.UNUSED)
