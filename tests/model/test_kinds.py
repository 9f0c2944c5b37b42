"""What this engine cannot serve rightly is refused when it is loaded, in one sentence."""

import math
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
from msgspec.structs import replace

from qwen_edge.core.errors import EngineError, UnservableError
from qwen_edge.kv.memory_kind import FULL
from qwen_edge.llama.backend import LlamaBackend
from qwen_edge.llama.bindings import C
from qwen_edge.llama.fixed_cells import FixedCells
from qwen_edge.llama.model import Model
from qwen_edge.llama.plan import plan_memory
from qwen_edge.llama.trial import try_loading
from qwen_edge.protocol.messages import Load, Segment
from tests.model.conftest import with_values

pytestmark = pytest.mark.model

WIDTH, WORDS, INNER, STATE, RANK, CONV = 32, 64, 64, 8, 4, 4


def load(path: Path) -> Load:
    return Load(str(path), 256, 32, 1, 0, "f16", "off", 5.0)


def start(path: Path, arch: str, *, vocabulary: bool = True) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(1)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_vocab_size(WORDS)
    writer.add_layer_norm_rms_eps(1e-5)
    if vocabulary:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list([f"<{number}>" for number in range(WORDS)])
        writer.add_token_types([gguf.TokenType.NORMAL] * WORDS)
        writer.add_token_merges(["a b"])
    else:
        writer.add_tokenizer_model("none")
    return writer


def finish(writer: gguf.GGUFWriter, tensors: dict[str, tuple[int, ...]]) -> None:
    rng = np.random.default_rng(0)
    for name, shape in tensors.items():
        writer.add_tensor(name, rng.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def mamba(path: Path) -> None:
    writer = start(path, "mamba")
    writer.add_ssm_conv_kernel(CONV)
    writer.add_ssm_inner_size(INNER)
    writer.add_ssm_state_size(STATE)
    writer.add_ssm_time_step_rank(RANK)
    blk = "blk.0."
    finish(
        writer,
        {
            "token_embd.weight": (WORDS, WIDTH),
            "output_norm.weight": (WIDTH,),
            blk + "attn_norm.weight": (WIDTH,),
            blk + "ssm_in.weight": (2 * INNER, WIDTH),
            blk + "ssm_conv1d.weight": (INNER, CONV),
            blk + "ssm_conv1d.bias": (INNER,),
            blk + "ssm_x.weight": (RANK + 2 * STATE, INNER),
            blk + "ssm_dt.weight": (INNER, RANK),
            blk + "ssm_dt.bias": (INNER,),
            blk + "ssm_a": (INNER, STATE),
            blk + "ssm_d": (INNER,),
            blk + "ssm_out.weight": (WIDTH, INNER),
        },
    )


def attention(path: Path, arch: str, *, vocabulary: bool = True, more=lambda writer: None) -> None:
    """A Qwen3, or a Gemma 3, of one layer."""
    writer = start(path, arch, vocabulary=vocabulary)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_key_length(16)
    writer.add_value_length(16)
    writer.add_feed_forward_length(INNER)
    more(writer)
    blk = "blk.0."
    tensors = {
        "token_embd.weight": (WORDS, WIDTH),
        "output_norm.weight": (WIDTH,),
        blk + "attn_norm.weight": (WIDTH,),
        blk + "attn_q.weight": (32, WIDTH),
        blk + "attn_k.weight": (16, WIDTH),
        blk + "attn_v.weight": (16, WIDTH),
        blk + "attn_output.weight": (WIDTH, 32),
        blk + "attn_q_norm.weight": (16,),
        blk + "attn_k_norm.weight": (16,),
        blk + "ffn_norm.weight": (WIDTH,),
        blk + "ffn_gate.weight": (INNER, WIDTH),
        blk + "ffn_up.weight": (INNER, WIDTH),
        blk + "ffn_down.weight": (WIDTH, INNER),
    }
    if arch == "gemma3":
        tensors |= {blk + "post_attention_norm.weight": (WIDTH,), blk + "post_ffw_norm.weight": (WIDTH,)}
    finish(writer, tensors)


def window(path: Path) -> None:
    attention(path, "gemma3", more=lambda writer: writer.add_sliding_window(64))


def wide_window(path: Path) -> None:
    attention(path, "gemma3", more=lambda writer: writer.add_sliding_window(0xFFFFFFFF))


def embedding(path: Path) -> None:
    attention(path, "qwen3", more=lambda writer: writer.add_pooling_type(gguf.PoolingType.LAST))


def reader(path: Path) -> None:
    attention(path, "qwen3", more=lambda writer: writer.add_causal_attention(False))


def speechless(path: Path) -> None:
    attention(path, "qwen3", vocabulary=False)


def part(path: Path, arch: str, kind: str) -> None:
    writer = gguf.GGUFWriter(path, arch)
    writer.add_type(kind)
    finish(writer, {"x.weight": (4,)})


REFUSED = [
    (mamba, r"m\.gguf \(mamba\) is recurrent"),
    (window, r"m\.gguf \(gemma3\) has a sliding window of 64 tokens"),
    (wide_window, r"m\.gguf \(gemma3\) has a sliding window of 4294967295 tokens"),
    (embedding, r"m\.gguf \(qwen3\) makes vectors of texts"),
    (reader, r"m\.gguf \(qwen3\) reads texts and writes none"),
    (speechless, r"m\.gguf \(qwen3\) has no vocabulary"),
    (lambda path: part(path, "clip", "mmproj"), r"m\.gguf: it is a vision projector"),
    (lambda path: part(path, "llama", "adapter"), r"m\.gguf: it is a LoRA adapter"),
    (lambda path: part(path, "imatrix", "imatrix"), r"m\.gguf: it is no model but imatrix data"),
]


@pytest.mark.parametrize(("write", "why"), REFUSED)
def test_a_model_that_cannot_be_served_is_refused_in_one_sentence(tmp_path, write, why):
    write(tmp_path / "m.gguf")
    with pytest.raises(UnservableError, match=why) as refused:
        LlamaBackend(load(tmp_path / "m.gguf"), lambda _: None)
    assert refused.value.exit_code == 78
    assert "\n" not in str(refused.value)
    with pytest.raises(UnservableError, match=why):
        plan_memory(load(tmp_path / "m.gguf"), 1 << 30)


def reader_in_disguise(path: Path) -> None:
    """A BERT whose file does not say that it writes no texts."""
    writer = start(path, "bert")
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-5)
    writer.add_feed_forward_length(INNER)
    writer.add_token_type_count(2)
    blk = "blk.0."
    square = {blk + f"attn_{name}.weight": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
    biases = {blk + f"attn_{name}.bias": (WIDTH,) for name in ("q", "k", "v", "output")}
    norms = [f"{blk}{norm}.{part}" for norm in ("attn_output_norm", "layer_output_norm") for part in ("weight", "bias")]
    finish(
        writer,
        {
            "token_embd.weight": (WORDS, WIDTH),
            "token_types.weight": (2, WIDTH),
            "position_embd.weight": (256, WIDTH),
            "token_embd_norm.weight": (WIDTH,),
            "token_embd_norm.bias": (WIDTH,),
            **square,
            **biases,
            **dict.fromkeys(norms, (WIDTH,)),
            blk + "ffn_up.weight": (INNER, WIDTH),
            blk + "ffn_up.bias": (INNER,),
            blk + "ffn_down.weight": (WIDTH, INNER),
            blk + "ffn_down.bias": (WIDTH,),
        },
    )


def test_a_model_without_a_kv_cache_is_refused_even_if_its_file_does_not_say_that_it_writes_nothing(tmp_path):
    reader_in_disguise(tmp_path / "m.gguf")
    for use in (
        lambda: LlamaBackend(load(tmp_path / "m.gguf"), lambda _: None),
        lambda: try_loading(tmp_path / "m.gguf"),
    ):
        with pytest.raises(UnservableError, match=r"llama\.cpp makes no KV cache for m\.gguf"):
            use()


EPSILON, BASE = "qwen3.attention.layer_norm_rms_epsilon", "qwen3.rope.freq_base"
UNUSABLE = [
    ("qwen3.context_length", 0, "a context length of 0, and an answer takes 64 tokens"),
    ("qwen3.context_length", 1, "a context length of 1,"),
    ("qwen3.context_length", 63, "a context length of 63,"),
    (EPSILON, -1.0, f"{EPSILON} -1.000000"),
    (EPSILON, math.nan, f"{EPSILON} -?nan"),
    (EPSILON, math.inf, f"{EPSILON} inf"),
    (BASE, 0.0, f"{BASE} 0.000000"),
    (BASE, math.nan, f"{BASE} -?nan"),
    ("qwen3.rope.scaling.factor", math.inf, "qwen3.rope.scaling.factor inf"),
]


@pytest.mark.parametrize(("key", "value", "why"), UNUSABLE)
def test_a_number_that_nobody_can_compute_with_is_refused_in_one_sentence(tiny_model, tmp_path, key, value, why):
    file = with_values(tiny_model, tmp_path / "m.gguf", {key: value})
    for use in (lambda: LlamaBackend(load(file), lambda _: None), lambda: try_loading(file)):
        with pytest.raises(UnservableError, match=f"the metadata of m.gguf say {why}"):
            use()


@pytest.mark.parametrize("trained", [64, 256, 3_000_000_000, 4_294_967_295])
def test_a_context_that_is_longer_than_any_number_here_is_only_longer_than_what_is_asked_for(
    tiny_model, tmp_path, trained
):
    file = with_values(tiny_model, tmp_path / "m.gguf", {"qwen3.context_length": trained})
    with Model(file) as model:
        assert model.trained_context == trained
    backend = LlamaBackend(load(file), lambda _: None)
    assert backend.cells.size == min(256, trained)
    backend.warm_up()
    backend.close()
    assert plan_memory(load(file), 1 << 30).tokens == min(256, trained)


@pytest.mark.parametrize(
    ("named", "first"),
    [(None, None), (99_999, None), (4_294_967_295, None), (261, 261), (7, 7)],
)
def test_a_prompt_begins_with_the_token_that_the_file_names_and_with_no_comma(tiny_model, tmp_path, named, first):
    """llama.cpp takes token 11 where the file names none, or one that is not there: a comma."""
    keys = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": named}
    backend = LlamaBackend(load(with_values(tiny_model, tmp_path / "m.gguf", keys)), lambda _: None)
    plain = backend.vocabulary.tokenize([Segment("x")])
    assert plain[:-1] == ([] if first is None else [first])
    backend.close()


def test_a_kv_cache_that_llama_cpp_cannot_make_of_a_model_is_not_told_as_a_lack_of_memory(tmp_path):
    attention(tmp_path / "m.gguf", "qwen3")  # heads of 16 elements, and quantized blocks have 32
    quantized = replace(load(tmp_path / "m.gguf"), kv_type="q8_0", flash_attention="on")
    for use in (lambda: LlamaBackend(quantized, lambda _: None), lambda: plan_memory(quantized, 1 << 30)):
        with pytest.raises(UnservableError, match=r"could not make .* for m\.gguf, however much memory there is"):
            use()
    keys = replace(quantized, kv_type="q8_0_keys", flash_attention="off")  # here llama.cpp would abort the process
    for use in (lambda: LlamaBackend(keys, lambda _: None), lambda: plan_memory(keys, 1 << 30)):
        with pytest.raises(UnservableError, match=r"could not make .* for m\.gguf, however much memory there is"):
            use()
    scarce = plan_memory(replace(quantized, kv_type="auto", flash_attention="auto"), 1)
    assert scarce.kv_type == "f16"


def test_a_context_for_which_memory_is_short_may_be_made_later(tiny_model):
    with Model(tiny_model) as model, pytest.raises(EngineError, match="there is not enough memory") as refused:
        FixedCells(model, load(tiny_model), create=lambda _model, _params: None)
    assert not isinstance(refused.value, UnservableError)


def test_a_plain_model_of_one_layer_is_served(tmp_path):
    attention(tmp_path / "m.gguf", "qwen3")
    with Model(tmp_path / "m.gguf") as model:
        assert model.memory == FULL


def test_a_model_that_is_served_says_what_it_keeps(tiny_model):
    with Model(tiny_model) as model:
        assert model.memory == FULL


def test_a_damaged_file_is_not_taken_for_another_kind(tmp_path, tiny_model):
    shutil.copy(tiny_model, tmp_path / "m.gguf")
    with (tmp_path / "m.gguf").open("r+b") as file:
        file.truncate(tiny_model.stat().st_size // 2)
    with pytest.raises(UnservableError, match=r"could not load .*m\.gguf\. Is it a whole GGUF file\?"):
        Model(tmp_path / "m.gguf")


@pytest.mark.parametrize("asks", ["llama_model_has_encoder", "llama_model_is_diffusion", "llama_model_is_hybrid"])
def test_kinds_of_which_no_file_is_at_hand_are_refused_by_what_llama_cpp_says(tiny_model, monkeypatch, asks):
    monkeypatch.setattr(C, asks, lambda _model: True)
    with pytest.raises(UnservableError, match="qwen-edge cannot serve this model"):
        Model(tiny_model)
