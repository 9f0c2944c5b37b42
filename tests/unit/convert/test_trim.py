"""A vocabulary cut to languages: closed, with all bytes and special tokens, under new ids that mean the same."""

import io
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tokenizers import Tokenizer as Reference

from qwen_edge.convert.end_tokens import NORMAL, UNUSED
from qwen_edge.convert.gguf_file import Plan, write_gguf
from qwen_edge.convert.hub import Source
from qwen_edge.convert.pipeline import make_plan
from qwen_edge.convert.safetensors import read_header, read_pieces, take_rows
from qwen_edge.convert.tokenizer import Tokenizer
from qwen_edge.convert.trim import MULTIPLE, choose_rows, trim_tokenizer
from qwen_edge.core.errors import ConversionError
from qwen_edge.core.progress import on_console
from qwen_edge.llama.header import END_TOKENS
from tests.checkpoints import MERGES, merges_of, save_shards, write_checkpoint
from tests.unit.convert.editing import edited

DEMO = Path(__file__).parents[3] / "models" / "demo"  # its tokens are of Chinese, English and code
CYRILLIC = "".join(map(chr, range(0x400, 0x500)))
CUTS = [(("en",), None), (("zh",), None), (("zh", "en"), 1024), (("en",), 640), (("ru",), 1280)]


def plan_of(folder: Path, languages: Sequence[str] = (), most: int | None = None) -> Plan:
    return make_plan(Source(folder, "tiny", str(folder)), languages, most)


@lru_cache
def demo(languages: tuple[str, ...] = (), most: int | None = None) -> Plan:
    return plan_of(DEMO, languages, most)


@lru_cache
def reference(languages: tuple[str, ...] = (), most: int | None = None) -> Reference:
    """Hugging Face's tokenizer with the vocabulary and the merges of the plan."""
    tokenizer = demo(languages, most).tokenizer
    described = json.loads((DEMO / "tokenizer.json").read_text())
    kinds = enumerate(tokenizer.kinds)
    vocab = {tokenizer.texts[token]: token for token, kind in kinds if kind == NORMAL}
    described["model"] |= {"vocab": vocab, "merges": [merge.split(" ") for merge in tokenizer.merges]}
    described["normalizer"], described["added_tokens"] = None, []
    return Reference.from_str(json.dumps(described))


def tokens_of(text: str, *cut) -> list[str]:
    return reference(*cut).encode(text).tokens


@pytest.fixture
def mixed(tmp_path) -> Path:
    """A checkpoint with tokens of Latin letters, then of 256 Cyrillic letters."""
    write_checkpoint(tmp_path / "mixed", merges=[*MERGES, *merges_of(CYRILLIC)], tied=False)
    return tmp_path / "mixed"


@pytest.mark.parametrize("cut", CUTS)
@given(text=st.text())
@settings(deadline=None, max_examples=60)
def test_any_text_in_any_language_comes_back(cut, text):
    tokenizer = reference(*cut)
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


_words = st.sampled_from([text for text, kind in zip(demo().tokenizer.texts, demo().tokenizer.kinds) if kind == NORMAL])  # noqa: B905


@pytest.mark.parametrize("cut", CUTS)
@given(words=st.lists(_words, max_size=12))
@settings(deadline=None, max_examples=300)
def test_a_text_whose_tokens_are_all_kept_is_split_as_before(cut, words):
    text = reference().decoder.decode(words)
    before, after = tokens_of(text), tokens_of(text, *cut)
    kept = set(demo(*cut).tokenizer.texts)
    if kept.issuperset(before):
        assert after == before
    else:
        assert kept.issuperset(after), "what was cut falls back to kept tokens"


@pytest.mark.parametrize("cut", CUTS)
def test_texts_of_the_languages_keep_their_tokens_and_others_fall_back(cut):
    languages, most = cut
    english, chinese = "Turn on the kitchen light, please: 40 %", "请把客厅的灯调到百分之四十，谢谢。"
    for text, language in ((english, "en"), (chinese, "zh")):
        if language in languages and most is None:
            assert tokens_of(text, *cut) == tokens_of(text)
    if languages == ("en",):
        assert len(tokens_of(chinese, *cut)) > len(tokens_of(chinese))


@pytest.mark.parametrize("cut", CUTS)
def test_every_kept_token_keeps_its_merges_and_their_parts_in_order(cut):
    whole, tokenizer = demo().tokenizer, demo(*cut).tokenizer
    kept = set(tokenizer.texts)
    assert tokenizer.merges == [merge for merge in whole.merges if merge.replace(" ", "") in kept]
    assert {part for merge in tokenizer.merges for part in merge.split(" ")} <= kept


@pytest.mark.parametrize("cut", CUTS)
def test_bytes_and_special_tokens_stay_and_every_id_names_the_same_text(cut):
    whole, tokenizer = demo().tokenizer, demo(*cut).tokenizer
    assert sum(len(text) == 1 for text in tokenizer.texts) == 256
    assert tokenizer.added.keys() == whole.added.keys()
    assert all(tokenizer.texts[token] == text for text, token in tokenizer.added.items())
    assert {role: tokenizer.texts[token] for role, token in tokenizer.roles.items()} == {
        role: whole.texts[token] for role, token in whole.roles.items()
    }
    assert [tokenizer.texts[token] for token in tokenizer.end_tokens] == [whole.texts[i] for i in whole.end_tokens]
    kinds = dict(zip(whole.texts, whole.kinds, strict=True))
    assert all(
        kind == (kinds[text] if kind != UNUSED else UNUSED)
        for text, kind in zip(tokenizer.texts, tokenizer.kinds, strict=True)
    )


@pytest.mark.parametrize("cut", CUTS)
def test_the_rows_are_a_multiple_within_the_bound_and_the_old_ids_of_the_tokens(cut):
    plan = demo(*cut)
    assert plan.trim is not None
    rows = plan.trim.rows
    assert len(rows) % MULTIPLE == 0
    assert len(rows) <= (cut[1] or len(demo().tokenizer.texts))
    assert list(rows) == sorted(set(rows))
    old = demo().tokenizer
    assert [old.texts[row] for row in rows if old.kinds[row] != UNUSED] == [
        text
        for text, kind in zip(plan.tokenizer.texts, plan.tokenizer.kinds, strict=True)
        if kind != UNUSED
    ]  # fmt: skip
    assert plan.trim.tokens == sum(kind != UNUSED for kind in plan.tokenizer.kinds)
    assert plan.trim.of == sum(kind != UNUSED for kind in old.kinds)
    assert plan.tensors["token_embd.weight"].shape[0] == len(rows) == plan.architecture.vocabulary


def made_up(merges: Sequence[str]) -> Tokenizer:
    """A tokenizer of bytes and merges, and an end token."""
    letters = [chr(c) for c in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100), *range(0x100, 0x144))]
    texts = [*letters, *dict.fromkeys(merge.replace(" ", "") for merge in merges), "<|im_end|>"]
    return Tokenizer(
        texts=texts,
        kinds=[NORMAL] * (len(texts) - 1) + [3],
        merges=merges,
        roles={"eos": len(texts) - 1},
        adds={},
        chat_templates={},
        added={"<|im_end|>": len(texts) - 1},
        end_tokens=[len(texts) - 1],
    )


def test_a_script_whose_tokens_have_the_highest_numbers_keeps_the_same_share():
    """Qwen's Chinese words are numbered above nearly all English ones: by number alone none of them would be left."""
    latin = [f"{a} {b}" for a in "abcdefghijklmnopqrst" for b in "abcdefghijklmnopqrst"]
    tokenizer = made_up([*latin, *merges_of(CYRILLIC[:200])])
    trim = choose_rows(tokenizer, ["en", "ru"], 640)
    kept = trim_tokenizer(tokenizer, trim).merges
    assert len(kept) == 640 - 257
    assert sum(merge.isascii() for merge in kept) / 400 == pytest.approx(len(kept) / 600, abs=0.005)
    assert kept == [*latin[:255], *merges_of(CYRILLIC[:128])], "the first of each script"


def test_a_token_that_two_merges_make_keeps_the_parts_of_both():
    tokenizer = made_up(["a b", "c d", "b c", "ab c", "a bc", *(f"{x} {x}" for x in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 10)])
    trim = choose_rows(tokenizer, ["en"], None)
    kept = trim_tokenizer(tokenizer, trim)
    assert {"ab c", "a bc", "a b", "b c"} <= set(kept.merges)


def test_merges_that_come_before_those_of_their_parts_stay_closed():
    chain = ["abcd e", "abc d", "ab c", "a b"]  # the longest first
    tokenizer = made_up([*chain, *(f"{x} {y}" for x in "ABCDEFGHIJKLMNO" for y in "ABCDEFGHIJKLMNO")])
    kept = trim_tokenizer(tokenizer, choose_rows(tokenizer, ["en"], 384))
    assert kept.merges[:4] == chain
    assert len(kept.texts) == 384


def test_a_vocabulary_smaller_than_its_bytes_and_special_tokens_is_refused_with_the_least(mixed):
    with pytest.raises(ConversionError, match=r"--vocabulary 256: .* alone are 263, .* Give at least 384\."):
        plan_of(mixed, ["en"], 256)


def test_a_bound_above_the_vocabulary_and_languages_that_need_all_of_it_cut_nothing(mixed):
    whole = plan_of(mixed)
    for languages, most in ((["ru", "en"], None), (["ru", "en"], 10**6)):
        cut = plan_of(mixed, languages, most)
        assert len(cut.tokenizer.texts) == len(whole.tokenizer.texts)
        assert (cut.tokenizer.merges, cut.tokenizer.end_tokens) == (whole.tokenizer.merges, whole.tokenizer.end_tokens)


def written(plan: Plan, file: Path) -> gguf.GGUFReader:
    write_gguf(plan, file, on_console(Console(file=io.StringIO())))
    return gguf.GGUFReader(file)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("tied", [True, False])
def test_embedding_and_head_keep_the_rows_of_the_kept_tokens_and_all_else_is_as_before(tmp_path, tied, dtype):
    merges = [*MERGES, *merges_of(CYRILLIC)]
    write_checkpoint(tmp_path / "in", merges=merges, tied=tied, head=True, dtype=dtype)
    whole = written(plan_of(tmp_path / "in"), tmp_path / "whole.gguf")
    plan = plan_of(tmp_path / "in", ["en"])
    cut = written(plan, tmp_path / "cut.gguf")
    assert plan.trim is not None
    assert len(plan.trim.rows) == 384
    tables = {"token_embd.weight"} | (set() if tied else {"output.weight"})
    assert {tensor.name for tensor in cut.tensors} == {tensor.name for tensor in whole.tensors} >= tables
    before = {tensor.name: tensor.data for tensor in whole.tensors}
    for tensor in cut.tensors:
        rows = list(plan.trim.rows) if tensor.name in tables else slice(None)
        assert np.array_equal(tensor.data, before[tensor.name][rows]), tensor.name
    assert cut.fields["general.languages"].contents() == ["en"]


def test_end_tokens_of_every_file_and_kind_name_the_same_texts(mixed, tmp_path):
    first = 256 + len(MERGES) + len(CYRILLIC)
    word = 256  # "he"
    far = 256 + len(MERGES)  # a Cyrillic letter, which "en" alone would not keep
    named = [first + 2, *range(first, first + 7), word, far]
    with edited(mixed / "generation_config.json") as generation:
        generation["eos_token_id"] = named
    with edited(mixed / "config.json") as config:
        config["pad_token_id"], config["mask_token_id"] = far, -1
    whole, cut = plan_of(mixed), plan_of(mixed, ["en"])
    texts = [whole.tokenizer.texts[token] for token in whole.tokenizer.end_tokens]
    assert [cut.tokenizer.texts[token] for token in cut.tokenizer.end_tokens] == texts
    reader = written(cut, tmp_path / "cut.gguf")
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    assert tokens[reader.fields["tokenizer.ggml.eos_token_id"].contents()] == "<|im_end|>"
    rest = [tokens[int(token)] for token in reader.fields[END_TOKENS].contents().split(",")]
    assert set(rest) <= set(texts)
    assert {"he", whole.tokenizer.texts[far]} <= set(rest)


@pytest.mark.parametrize("rows", [[0], [4999], [0, 1, 2, 4997, 4998, 4999], list(range(0, 5000, 2)), list(range(5000))])
def test_rows_are_read_wherever_they_lie_between_pieces(tmp_path, rows):
    """A row of 1,798 bytes divides no piece of 4 MiB; the tensor has more than two pieces."""
    table = np.arange(5000 * 899, dtype=np.uint32).astype(np.uint16).reshape(5000, 899).view(np.float16)
    tmp_path.mkdir(exist_ok=True)
    save_shards(tmp_path, {"other": table[:3], "table": table}, 1)
    tensor = take_rows(read_header(tmp_path / "model.safetensors")["table"], rows)
    assert b"".join(map(bytes, read_pieces(tensor))) == table[rows].tobytes()
    assert (tensor.shape, tensor.nbytes) == ((len(rows), 899), len(rows) * 1798)
