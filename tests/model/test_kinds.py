"""What this engine cannot serve rightly is refused when it is loaded, in one sentence."""

import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest

from qwen_edge.core.errors import UnservableError
from qwen_edge.llama.backend import LlamaBackend
from qwen_edge.llama.bindings import C
from qwen_edge.llama.model import Model
from qwen_edge.llama.plan import plan_memory
from qwen_edge.protocol.messages import Load

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


def test_a_plain_model_of_one_layer_is_served(tmp_path):
    attention(tmp_path / "m.gguf", "qwen3")
    with Model(tmp_path / "m.gguf") as model:
        assert model.memory == "full"


def test_a_model_that_is_served_says_what_it_keeps(tiny_model):
    with Model(tiny_model) as model:
        assert model.memory == "full"


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
