"""Whatever the files of a checkpoint hold: it converts, or one sentence says why not."""

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_edge.convert.gguf_file import _write_header
from qwen_edge.convert.hub import Source
from qwen_edge.convert.pipeline import make_plan
from qwen_edge.core.errors import ConversionError
from tests.checkpoints import write_checkpoint

FILES = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.json",
    "model.safetensors.index.json",
]
SCALARS = st.sampled_from(
    [None, True, False, 0, 1, -1, 2, 11, 5.5, -0.0, 1e300, 10**30, 10**400, 1 << 31, 1 << 63, "", "a", "a b", "\0", "é",
     "<|im_end|>", "../x", "/etc/passwd", "model.safetensors", "yarn", "default", "[PAD3]", "\n", "\ud800", "x" * 5000]
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module", params=[True, False], ids=["tokenizer.json", "vocab and merges"])
def whole(request, tmp_path_factory):
    """A sound checkpoint in which every file is that may be there."""
    folder = tmp_path_factory.mktemp("whole") / "tiny"
    write_checkpoint(folder, tokenizer_json=request.param, shards=2)
    named = {"eos_token": "<|im_end|>", "pad_token": {"content": "<|endoftext|>"}}
    (folder / "special_tokens_map.json").write_text(json.dumps(named))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    added = {token["content"]: int(i) for i, token in settings["added_tokens_decoder"].items()}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    assert make_plan(Source(folder, "tiny", str(folder)))
    return folder


def converts_or_says_why(folder) -> None:
    try:
        plan = make_plan(Source(folder, "tiny", str(folder)))
        _write_header(plan, folder / "out.gguf")
    except ConversionError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 2000


def mutated(data, value):
    """The same with one place somewhere inside changed, taken away or put in."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 4)):
        key = data.draw(st.sampled_from(sorted(value)))
        deed = data.draw(st.sampled_from(["into", "into", "into", "drop", "rename"]))
        if deed == "into":
            return {**value, key: mutated(data, value[key])}
        rest = {name: one for name, one in value.items() if name != key}
        return rest if deed == "drop" else {**rest, data.draw(st.text(max_size=5)): value[key]}
    if isinstance(value, list) and value and data.draw(st.integers(0, 4)):
        i = data.draw(st.integers(0, len(value) - 1))
        return [*value[:i], mutated(data, value[i]), *value[i + data.draw(st.integers(0, 1)) :]]
    return data.draw(VALUES)


@settings(max_examples=400)
@given(st.data())
def test_a_checkpoint_with_a_strange_value_anywhere_converts_or_is_told_in_one_sentence(whole, data):
    name = data.draw(st.sampled_from([name for name in FILES if (whole / name).is_file()]))
    before = (whole / name).read_text()
    configured = (whole / "tokenizer_config.json").read_text()
    changed = json.dumps(mutated(data, json.loads(before)))
    try:
        (whole / name).write_text(changed)
        if name.startswith("added_tokens"):
            take_away(whole, "tokenizer_config.json", "added_tokens_decoder")
        converts_or_says_why(whole)
    finally:
        (whole / "tokenizer_config.json").write_text(configured)
        (whole / name).write_text(before)


@settings(max_examples=150)
@given(st.data())
def test_a_file_with_bytes_changed_or_cut_converts_or_is_told_in_one_sentence(whole, data):
    name = data.draw(st.sampled_from([name for name in (*FILES, "merges.txt") if (whole / name).is_file()]))
    before = (whole / name).read_bytes()
    cut = data.draw(st.integers(0, len(before)))
    changed = before[:cut] + data.draw(st.binary(max_size=3)) + before[cut + data.draw(st.integers(0, len(before))) :]
    try:
        (whole / name).write_bytes(changed)
        converts_or_says_why(whole)
    finally:
        (whole / name).write_bytes(before)


def take_away(folder, name: str, key: str) -> None:
    settings = json.loads((folder / name).read_text())
    settings.pop(key, None)
    (folder / name).write_text(json.dumps(settings))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"[]", "Expected `object`, got `array`"),
        (b"5", "Expected `object`, got `int`"),
        (b'{"eos_token_id": NaN}', "JSON is malformed"),
        (b'{"model": 1e999}', "is damaged"),
        (b'{"model": "\xff"}', "is damaged"),
        (b'{"a": ' + b"[" * 100_000, "is damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "is a git-lfs pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html>\n<html>Access denied</html>", "is a web page"),
    ],
)
def test_a_file_that_is_something_else_is_told_as_that(whole, tmp_path, name, content, said):
    if name == "vocab.json" and (whole / "tokenizer.json").exists():
        pytest.skip("tokenizer.json holds the vocabulary")
    folder = tmp_path / "in"
    shutil.copytree(whole, folder)
    if name == "added_tokens.json":  # read only where newer files do not have it
        take_away(folder, "tokenizer_config.json", "added_tokens_decoder")
    if name == "chat_template.json":
        take_away(folder, "tokenizer_config.json", "chat_template")
    (folder / name).write_bytes(content)
    with pytest.raises(ConversionError, match=f"{name}.*{said}") as error:
        make_plan(Source(folder, "tiny", "tiny"))
    assert "\n" not in str(error.value)
