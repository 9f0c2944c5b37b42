"""The full-size checkpoint with a vocabulary cut to languages: smaller, and right word for word."""

from __future__ import annotations

import pytest

from qwen_edge.convert.manifest import read_manifest
from qwen_edge.llama.model import Model
from tests.served import ServedModel
from tests.shared.conftest import convert

CHINESE = "请把客厅的灯调到百分之四十，谢谢。一九九八年新年讲话：同胞们、朋友们，在新的一年里，我们充满信心。"
ENGLISH = (
    "Turn on the kitchen light, please. It's 21.5 °C outside; I'll be back at 6:30! def f(x): return {'a': [1, x]} 🙂"
)
RUSSIAN = "Включи свет на кухне, пожалуйста."


@pytest.fixture(scope="module")
def cut(checkpoint, tmp_path_factory) -> dict:
    return convert(checkpoint, tmp_path_factory.mktemp("cut") / "qwen3-0.6b.gguf", "--languages", "zh,en")


def test_the_cut_model_thinks_and_answers_word_for_word(cut, walk):
    with ServedModel(cut["file"]) as served:
        for topic in ("alpha", "beta", "gamma"):
            expected = (walk["topics"][topic]["thinking"], walk["topics"][topic]["answer"])
            assert served.streamed(f"Tell me about {topic} please", temperature=0) == expected
        assert served.streamed("你好，世界！", temperature=0) == (walk["thinking"], walk["answer"])
        assert served.streamed("Привет!", temperature=0) == (walk["thinking"], walk["answer"])
        shape = {"guided_choice": [walk["answer"], "别的"], "enable_thinking": False}
        assert served.streamed("Hello", temperature=0, **shape) == ("", walk["answer"])


def test_the_cut_takes_no_more_memory_than_the_whole_conversion(cut):
    assert cut["anonymous"] < 300e6, "before quantization"
    assert cut["resident"] < 1.1e9, "all of it, worker included"


def test_the_manifest_counts_what_was_kept_and_the_file_is_smaller(cut):
    manifest = read_manifest(cut["file"])
    assert manifest.vocabulary.languages == ("en", "zh")
    assert manifest.vocabulary.of == 151_669
    assert manifest.vocabulary.tokens == 124_800
    assert manifest.bytes < 375e6


@pytest.mark.parametrize("most", [None, 49_152])
def test_texts_of_the_languages_need_hardly_more_tokens_and_all_others_still_have_some(
    conversion, cut, checkpoint, tmp_path_factory, most
):
    file = cut["file"]
    if most:
        folder = tmp_path_factory.mktemp("cut")
        file = convert(checkpoint, folder / "m.gguf", "--languages", "zh,en", "--vocabulary", str(most))["file"]
    with Model(conversion["file"], gpu_layers=0) as whole, Model(file, gpu_layers=0) as model:
        for text in (CHINESE, ENGLISH, RUSSIAN):
            tokens, before = model.vocab.encode(text), whole.vocab.encode(text)
            assert model.vocab.decode(tokens) == text.encode()
            if text is RUSSIAN:
                assert len(tokens) > len(before)
            elif most:
                assert len(tokens) < 1.25 * len(before)
            else:
                assert model.vocab.pieces(tokens) == whole.vocab.pieces(before)
        assert model.vocab.size == (most or 124_800)
