"""A long text, cut into slices, has the tokens of the whole; and what cannot fit is not read to its end."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_edge.chat.raw import marked
from qwen_edge.core.errors import PromptTooLongError
from qwen_edge.llama import cuts
from qwen_edge.llama.backend import LlamaBackend
from qwen_edge.llama.bindings import C
from qwen_edge.llama.model import Model
from qwen_edge.llama.vocab import Vocab
from qwen_edge.protocol.messages import Load, Segment
from tests.checkpoints import write_checkpoint
from tests.model.conftest import converted
from tests.shared.conftest import SHARED

pytestmark = pytest.mark.model

QWEN = SHARED / "data" / "ggml-vocab-qwen2.gguf"
WORDS = ["the lamp", " is on.\n", "It's 21.5 °C\n\n", "    return x\n", "\t", "  ", "漢字", "😀", "i'll", "\r\n"]
WORDS += ["a b", "\na", "ab\nb", "<think>"]
texts = (
    st.lists(st.sampled_from(WORDS) | st.text(max_size=8), max_size=60)
    .map("".join)
    .filter(lambda text: not any(0xD800 <= ord(one) < 0xE000 for one in text))
)


@pytest.fixture(scope="module")
def tiny(tiny_model):
    with Model(tiny_model) as model:
        yield model.vocab


@pytest.fixture(scope="module")
def demo(demo_model):
    with Model(demo_model) as model:
        yield model.vocab


@pytest.fixture(scope="module")
def qwen():
    """The real vocabulary, without a model."""
    if not QWEN.is_file():
        pytest.skip(f"{QWEN} is not there")
    params = C.llama_model_default_params()
    params.vocab_only = True
    model = C.llama_model_load_from_file(bytes(QWEN), params)
    yield Vocab(C.llama_model_get_vocab(model))
    C.llama_model_free(model)


@pytest.mark.parametrize("name", ["tiny", "demo", "qwen"])
@given(data=st.data())
@settings(max_examples=150)
def test_a_text_that_is_cut_has_the_tokens_of_the_whole(name, request, data):
    vocab, text = request.getfixturevalue(name), data.draw(texts)
    whole = vocab._encode_plain(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuts, "_SLICE", data.draw(st.integers(1, 30)))
        assert vocab._encode_slices(text, 1e9, lambda: None) == whole
    assert vocab.least([text]) <= len(whole)


def test_real_text_is_cut_into_many_slices(demo):
    seen = []
    text = "The lamp in the kitchen is on, and so it has been since six.\n" * 5000
    tokens = demo.encode_some(text, 1e9, lambda: seen.append(1))
    assert tokens == demo._encode_plain(text)
    assert len(seen) == len(text) // cuts._SLICE + 1


def test_where_a_token_reaches_across_words_a_text_is_not_cut(demo, monkeypatch):
    monkeypatch.setattr(cuts, "_ACROSS", cuts.re.compile("^a$"))  # as if this were one
    assert cuts.Cuts(demo.handle, demo.size).end_of_slice("a word " * 10_000, 0) == 70_000


@pytest.mark.parametrize("letter", [" ", "a", "\n", ".", "漢", "7", " \n"])
def test_what_cannot_fit_is_refused_without_being_read_or_soon(demo, letter):
    read = []
    with pytest.raises(PromptTooLongError) as refused:
        for part in (letter * 1_000_000, "the lamp is on " * 60_000):
            demo.encode_some(part, 4095, lambda: read.append(1))
    assert 4095 < refused.value.tokens <= len(demo.encode(letter * 1_000_000))


@pytest.fixture(scope="module")
def backend(tiny_model):
    backend = LlamaBackend(Load(str(tiny_model), 256, 32, 1, 0, "f16", "off", 5.0), lambda _: None)
    yield backend
    backend.close()


def test_a_prompt_that_is_too_long_by_its_length_alone_is_not_read_at_all(backend, monkeypatch):
    monkeypatch.setattr(backend.vocabulary, "encode_some", None)
    with pytest.raises(PromptTooLongError) as refused:
        backend.vocabulary.tokenize([Segment(" " * 100_000)], 255)
    assert refused.value.tokens > 255


def test_a_prompt_is_counted_over_all_its_segments(backend):
    parts = [Segment(f"part {number} of many") for number in range(100)]
    whole = backend.vocabulary.tokenize(parts)
    assert backend.vocabulary.tokenize(parts, len(whole)) == whole
    with pytest.raises(PromptTooLongError):
        backend.vocabulary.tokenize(parts, len(whole) - 20)


def test_what_was_read_before_costs_nothing_when_it_comes_again(backend):
    prompt = [Segment("<|im_start|>", True), Segment("a text of some length")]
    backend.vocabulary.tokenize(prompt)
    assert backend.vocabulary.unread(prompt) == 0
    assert backend.vocabulary.unread([*prompt, Segment("more")]) == 4


@pytest.mark.parametrize("begins", [True, False])
def test_a_prompt_begins_with_the_token_that_the_model_wants_there_once(tmp_path, begins):
    write_checkpoint(tmp_path / "m", layers=1, tokenizer_json=False)
    config = tmp_path / "m" / "tokenizer_config.json"
    described = {**json.loads(config.read_text()), "add_bos_token": begins, "bos_token": "<|endoftext|>"}
    config.write_text(json.dumps(described))
    path = converted(tmp_path / "m", tmp_path / "m.gguf")
    backend = LlamaBackend(Load(str(path), 256, 32, 1, 0, "f16", "off", 5.0), lambda _: None)
    try:
        begin = backend.vocabulary.specials["<|endoftext|>"]
        plain = backend.vocabulary.encode("hello")
        assert backend.vocabulary.tokenize([Segment("hello")]) == ([begin, *plain] if begins else plain)
        written = [Segment("<|endoftext|>", True), Segment("hello")]
        assert backend.vocabulary.tokenize(written) == [begin, *plain], "the template has written it"
        assert backend.vocabulary.tokenize([]) == []
    finally:
        backend.close()


@pytest.mark.parametrize("text", ["hi <|im_end|>\n<think>", "<|im_start|>user\nhi 漢字 😀<|im_end|>", "", "a<b|>"])
def test_marked_text_has_llama_cpps_tokens_and_its_pieces_are_the_text(demo, text):
    tokens = demo.tokenize(marked(text, tuple(demo.specials)), begin=False)
    assert tokens == demo.encode_marked(text)
    assert b"".join(demo.pieces(tokens)).decode() == text
    assert demo.tokenize((Segment(tokens=tuple(tokens)), Segment("x")), begin=False) == [*tokens, *demo.encode("x")]


@pytest.mark.parametrize("token", [-1, 1 << 31, 10**12])
def test_tokens_that_a_model_does_not_have_are_named(demo, token):
    for ask in (lambda: demo.pieces([0, token]), lambda: demo.tokenize((Segment(tokens=(0, token)),))):
        with pytest.raises(KeyError, match=str(token)):
            ask()
