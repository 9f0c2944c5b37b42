"""The unquantized GGUF holds the checkpoint bit for bit, with the keys llama.cpp's converter writes."""

import io
import json

import gguf
import ml_dtypes
import numpy as np
import pytest
from rich.console import Console

from qwen_edge.convert.architecture import gguf_name
from qwen_edge.convert.gguf_file import write_gguf
from qwen_edge.convert.hub import Source
from qwen_edge.convert.pipeline import make_plan
from qwen_edge.convert.tensor_table import read_tensor_table
from qwen_edge.core.errors import ConversionError
from qwen_edge.core.progress import on_console
from tests.checkpoints import save_shards, write_checkpoint


def convert(folder, target):
    write_gguf(make_plan(Source(folder, "Tiny", str(folder))), target, on_console(Console(file=io.StringIO())))
    return gguf.GGUFReader(target)


def value(reader: gguf.GGUFReader, key: str):
    return reader.fields[key].contents()


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("architecture", ["Qwen3ForCausalLM", "Qwen2ForCausalLM"])
def test_matrices_keep_their_bits_and_vectors_become_f32(tmp_path, architecture, shards):
    source = write_checkpoint(tmp_path / "in", architecture=architecture, shards=shards)
    reader = convert(tmp_path / "in", tmp_path / "out.gguf")
    stored = {tensor.name: tensor for tensor in reader.tensors}
    assert set(stored) == {gguf_name(name) for name in source}
    for name, values in source.items():
        tensor = stored[gguf_name(name)]
        if values.ndim == 1:
            assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
            assert np.array_equal(tensor.data, values.astype(np.float32))
        else:
            assert tensor.tensor_type == gguf.GGMLQuantizationType.BF16
            assert tensor.data.tobytes() == values.tobytes()


def test_the_metadata_tells_the_architecture_and_the_sampling_defaults(tmp_path):
    write_checkpoint(tmp_path / "in")
    reader = convert(tmp_path / "in", tmp_path / "out.gguf")
    assert {
        key: value(reader, key)
        for key in reader.fields
        if key.startswith(("qwen3.", "general.")) and "rms" not in key and "sampling" not in key
    } == {
        "general.architecture": "qwen3",
        "general.type": "model",
        "general.name": "Tiny",
        "general.size_label": "1.3M",
        "general.file_type": 32,
        "general.quantization_version": 2,
        "qwen3.block_count": 2,
        "qwen3.context_length": 4096,
        "qwen3.embedding_length": 256,
        "qwen3.feed_forward_length": 512,
        "qwen3.attention.head_count": 4,
        "qwen3.attention.head_count_kv": 2,
        "qwen3.attention.key_length": 64,
        "qwen3.attention.value_length": 64,
        "qwen3.rope.freq_base": 1000000.0,
    }
    assert value(reader, "general.sampling.top_k") == 20
    assert value(reader, "general.sampling.temp") == pytest.approx(0.6)
    assert value(reader, "qwen3.attention.layer_norm_rms_epsilon") == pytest.approx(1e-6)


def test_the_tokenizer_is_stored_with_kinds_and_roles(tmp_path):
    write_checkpoint(tmp_path / "in")
    reader = convert(tmp_path / "in", tmp_path / "out.gguf")
    tokens, kinds = value(reader, "tokenizer.ggml.tokens"), value(reader, "tokenizer.ggml.token_type")
    assert (value(reader, "tokenizer.ggml.model"), value(reader, "tokenizer.ggml.pre")) == ("gpt2", "qwen2")
    assert kinds[tokens.index("<|im_end|>")] == gguf.TokenType.CONTROL
    assert kinds[tokens.index("<think>")] == gguf.TokenType.USER_DEFINED
    assert (tokens[-1], kinds[-1]) == (f"[PAD{len(tokens) - 1}]", gguf.TokenType.UNUSED)
    assert value(reader, "tokenizer.ggml.eos_token_id") == tokens.index("<|im_end|>")
    assert value(reader, "tokenizer.ggml.padding_token_id") == tokens.index("<|endoftext|>")
    assert value(reader, "tokenizer.ggml.add_bos_token") is False
    assert "Ġ Ġ" in value(reader, "tokenizer.ggml.merges")
    assert value(reader, "tokenizer.chat_template").startswith("{% for m in messages %}")


def test_vocab_and_merges_files_serve_as_well_as_tokenizer_json(tmp_path):
    write_checkpoint(tmp_path / "a")
    write_checkpoint(tmp_path / "b", tokenizer_json=False)
    a, b = (convert(tmp_path / name, tmp_path / f"{name}.gguf") for name in "ab")
    for key in ("tokens", "token_type", "merges", "eos_token_id"):
        assert value(a, f"tokenizer.ggml.{key}") == value(b, f"tokenizer.ggml.{key}")


@pytest.mark.parametrize("none", [-1, 10**9])
def test_a_special_token_id_that_is_no_tokens_means_none(tmp_path, none):
    write_checkpoint(tmp_path / "in", config={"mask_token_id": none})
    reader = convert(tmp_path / "in", tmp_path / "out.gguf")
    assert "tokenizer.ggml.mask_token_id" not in reader.fields


@pytest.mark.parametrize(("dtype", "stored"), [("BF16", "BF16"), ("F16", "F16"), ("F32", "F16")])
def test_a_16_bit_checkpoint_keeps_its_type_and_f32_becomes_f16(tmp_path, dtype, stored):
    source = write_checkpoint(tmp_path / "in", dtype=dtype)
    reader = convert(tmp_path / "in", tmp_path / "out.gguf")
    embedding = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
    assert embedding.tensor_type.name == stored
    expected = source["model.embed_tokens.weight"].astype(ml_dtypes.bfloat16 if stored == "BF16" else np.float16)
    assert embedding.data.tobytes() == expected.tobytes()


def test_a_tied_head_that_is_stored_twice_is_written_once(tmp_path):
    write_checkpoint(tmp_path / "in", tied=True, head=True)
    reader = convert(tmp_path / "in", tmp_path / "out.gguf")
    assert "output.weight" not in [tensor.name for tensor in reader.tensors]


def test_a_head_of_its_own_is_kept(tmp_path):
    write_checkpoint(tmp_path / "in", tied=False)
    reader = convert(tmp_path / "in", tmp_path / "out.gguf")
    assert "output.weight" in [tensor.name for tensor in reader.tensors]


@pytest.mark.parametrize(
    "scaling",
    [
        {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 32768.0, "attention_factor": None},
        {"rope_type": "yarn", "factor": "4.0", "original_max_position_embeddings": "32768"},
    ],
)
def test_yarn_scaling_is_carried_over(tmp_path, scaling):
    write_checkpoint(tmp_path / "in", config={"rope_scaling": scaling})
    reader = convert(tmp_path / "in", tmp_path / "out.gguf")
    assert value(reader, "qwen3.rope.scaling.type") == "yarn"
    assert value(reader, "qwen3.rope.scaling.factor") == 4.0
    assert value(reader, "qwen3.rope.scaling.original_context_length") == 32768


def test_yarns_original_context_may_stand_beside_its_group(tmp_path):
    config = {"rope_scaling": {"type": "yarn", "factor": 2.0}, "original_max_position_embeddings": 2048}
    write_checkpoint(tmp_path / "in", config=config)
    reader = convert(tmp_path / "in", tmp_path / "out.gguf")
    assert value(reader, "qwen3.rope.scaling.original_context_length") == 2048


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_a_weight_that_is_no_number_is_found_and_named(tmp_path, dtype, bad):
    source = write_checkpoint(tmp_path / "in", dtype=dtype)
    source["model.layers.1.mlp.up_proj.weight"][3, 5] = bad
    save_shards(tmp_path / "in", source, 1)
    with pytest.raises(ConversionError, match=r"model\.layers\.1\.mlp\.up_proj\.weight.*not a finite number"):
        convert(tmp_path / "in", tmp_path / "out.gguf")


def test_a_weight_too_large_for_f16_is_found(tmp_path):
    source = write_checkpoint(tmp_path / "in", dtype="F32")
    source["model.layers.1.mlp.up_proj.weight"][3, 5] = 1e6
    save_shards(tmp_path / "in", source, 1)
    with pytest.warns(RuntimeWarning), pytest.raises(ConversionError, match="too large for F16"):
        convert(tmp_path / "in", tmp_path / "out.gguf")


def test_the_tensor_table_is_read_from_the_header_alone(tmp_path):
    write_checkpoint(tmp_path / "in")
    reader = convert(tmp_path / "in", tmp_path / "out.gguf")
    table = read_tensor_table(tmp_path / "out.gguf")
    assert [(row.name, row.type, list(row.shape)) for row in table] == [
        (tensor.name, tensor.tensor_type.name, tensor.shape.tolist()) for tensor in reader.tensors
    ]


def test_a_gguf_file_that_is_cut_short_is_found(tmp_path):
    write_checkpoint(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "out.gguf")
    whole = (tmp_path / "out.gguf").read_bytes()
    for keep in (0, 3, 100, 5000, len(whole) - 300):
        (tmp_path / "cut.gguf").write_bytes(whole[:keep])
        with pytest.raises(ConversionError, match=r"cut\.gguf is (not a whole GGUF file|cut short)"):
            read_tensor_table(tmp_path / "cut.gguf")


def test_the_model_cards_licence_goes_along(tmp_path):
    write_checkpoint(tmp_path / "in")
    (tmp_path / "in" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    assert value(convert(tmp_path / "in", tmp_path / "out.gguf"), "general.license") == "apache-2.0"


def test_a_repetition_penalty_is_carried_over(tmp_path):
    write_checkpoint(tmp_path / "in")
    (tmp_path / "in" / "generation_config.json").write_text(json.dumps({"repetition_penalty": 1.05}))
    reader = convert(tmp_path / "in", tmp_path / "out.gguf")
    assert value(reader, "general.sampling.penalty_repeat") == pytest.approx(1.05)


@pytest.mark.parametrize(
    "card",
    [
        b"---\nlicense: [\n---\n",
        b"---\nlicense: a: b\n---\n",
        b"---\ndate: 2024-13-45\n---\n",
        b"---\n- a\n- b\n---\n",
        b"---\nlicense: caf\xe9\n---\n",
        b"\xff\xfe\x00",
        b"---\nlicense: 5\nname: [a, b]\nversion: 1.0\nauthor: {a: b}\ntags: [1, x, null]\n"
        b"language: [no, en]\nbase_model: {a: b}\ndatasets: [{name: 5}]\n---\n",
        b"",
    ],
)
def test_a_model_card_that_is_not_as_it_should_be_is_left_out(tmp_path, card):
    write_checkpoint(tmp_path / "in")
    plain = convert(tmp_path / "in", tmp_path / "plain.gguf")
    (tmp_path / "in" / "README.md").write_bytes(card)
    assert set(convert(tmp_path / "in", tmp_path / "out.gguf").fields) <= {*plain.fields, "general.dataset.count"}


def test_what_is_sound_in_a_model_card_goes_along_with_what_is_not(tmp_path):
    write_checkpoint(tmp_path / "in")
    card = "---\nlicense: [mit, apache-2.0]\nversion: 2\nbase_model:\n- Qwen/Qwen3-0.6B\ntags: [a, b]\n---\n"
    (tmp_path / "in" / "README.md").write_text(card)
    reader = convert(tmp_path / "in", tmp_path / "out.gguf")
    assert value(reader, "general.license") == "mit,apache-2.0"
    assert value(reader, "general.base_model.0.name") == "Qwen3 0.6B"
    assert value(reader, "general.tags") == ["a", "b"]
    assert "general.version" not in reader.fields


@pytest.mark.parametrize("written", [20, 20.0, "20", "20.0"])
def test_sampling_defaults_come_in_gguf_s_types_however_they_are_written(tmp_path, written):
    write_checkpoint(tmp_path / "in")
    given = {"top_k": written, "temperature": written, "penalty_last_n": None}
    (tmp_path / "in" / "generation_config.json").write_text(json.dumps(given))
    reader = convert(tmp_path / "in", tmp_path / "out.gguf")
    assert [kind.name for kind in reader.fields["general.sampling.top_k"].types] == ["INT32"]
    assert [kind.name for kind in reader.fields["general.sampling.temp"].types] == ["FLOAT32"]
    assert value(reader, "general.sampling.top_k") == value(reader, "general.sampling.temp") == 20
    assert "general.sampling.penalty_last_n" not in reader.fields


@pytest.mark.parametrize(
    "given",
    [
        '{"top_k": 20.5}',
        '{"top_k": 3e9}',
        '{"top_p": "high"}',
        '{"top_p": [1]}',
        '{"top_p": true}',
        '{"temperature": 1e300}',
        '{"temperature": "nan"}',
    ],
)
def test_a_sampling_default_that_is_no_number_is_told(tmp_path, given):
    write_checkpoint(tmp_path / "in")
    (tmp_path / "in" / "generation_config.json").write_text(given)
    with pytest.raises(ConversionError, match=r"generation_config\.json: \w+ is .*number was expected"):
        convert(tmp_path / "in", tmp_path / "out.gguf")


def test_the_first_16_bit_matrix_decides_the_type_of_all(tmp_path):
    """A checkpoint whose embedding was kept in F32 is still a BF16 checkpoint."""
    tensors = write_checkpoint(tmp_path / "in")
    name = "model.embed_tokens.weight"
    save_shards(tmp_path / "in", {**tensors, name: tensors[name].astype(np.float32)}, 1)
    reader = convert(tmp_path / "in", tmp_path / "out.gguf")
    assert value(reader, "general.file_type") == gguf.LlamaFileType.MOSTLY_BF16
    embedding = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
    assert embedding.tensor_type == gguf.GGMLQuantizationType.BF16
    assert embedding.data.tobytes() == tensors[name].tobytes()
