"""Of several sets of weights the one that transformers would load is converted, and what is left out is said."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.checkpoints import save_shards, write_checkpoint
from tests.unit.convert.editing import edited, plan_of, refused

INDEX = "model.safetensors.index.json"


@pytest.fixture
def merged(tmp_path):
    """A whole model.safetensors beside the index and the shards of the base model."""
    folder = tmp_path / "in"
    tensors = write_checkpoint(folder, seed=1, shards=3)
    save_shards(folder, {name: values * np.float32(0.5) for name, values in tensors.items()}, 1)
    write_checkpoint(folder, seed=2)
    return folder


def files_of(folder) -> list[str]:
    return [file.name for file in plan_of(folder).checkpoint.weight_files]


def test_a_whole_model_comes_before_an_index_with_its_shards_and_that_is_said(merged):
    assert files_of(merged) == ["model.safetensors"]
    (note,) = plan_of(merged).notes
    assert "model.safetensors is converted, as transformers would load it" in note
    assert "model-00001-of-00003.safetensors, model-00002-of-00003.safetensors, model-00003" in note


def test_a_whole_model_with_an_index_of_shards_that_are_gone_is_told_as_such(merged):
    for shard in merged.glob("model-*.safetensors"):
        shard.unlink()
    (note,) = plan_of(merged).notes
    assert files_of(merged) == ["model.safetensors"]
    assert "it names model-00001-of-00003.safetensors" in note
    assert "which do not exist" in note


def test_an_index_that_names_the_whole_model_is_no_news(tmp_path):
    tensors = write_checkpoint(tmp_path)
    weight_map = dict.fromkeys(tensors, "model.safetensors")
    (tmp_path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert (files_of(tmp_path), plan_of(tmp_path).notes) == (["model.safetensors"], [])


def test_shards_that_the_index_does_not_name_are_left_out_and_named(tmp_path):
    write_checkpoint(tmp_path, shards=2)
    shard = tmp_path / "model-00001-of-00002.safetensors"
    (tmp_path / "model-00001-of-00009.safetensors").write_bytes(shard.read_bytes())
    assert len(files_of(tmp_path)) == 2
    (note,) = plan_of(tmp_path).notes
    assert "model-00001-of-00009.safetensors in" in note
    assert "left out" in note


def test_numbered_parts_without_an_index_are_taken_if_all_are_there(tmp_path):
    write_checkpoint(tmp_path, shards=3)
    (tmp_path / INDEX).unlink()
    assert len(files_of(tmp_path)) == 3
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    assert "is incomplete: model-00002-of-00003.safetensors missing" in refused(tmp_path)


def test_two_numberings_without_an_index_are_refused(tmp_path):
    write_checkpoint(tmp_path, shards=3)
    (tmp_path / INDEX).unlink()
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"x")
    assert "two sets of weights" in refused(tmp_path)


def test_a_whole_model_and_parts_without_an_index_are_refused(merged):
    (merged / INDEX).unlink()
    assert "two sets of weights" in refused(merged)


@pytest.mark.parametrize(
    "place",
    ["../m.safetensors", "/etc/m.safetensors", "a/m.safetensors", "", "..", "m.bin", "a\0.safetensors", 5, None, ["m"]],
)
def test_a_weight_map_that_leads_elsewhere_is_told(tmp_path, place):
    write_checkpoint(tmp_path, shards=2)
    with edited(tmp_path / INDEX) as index:
        index["weight_map"]["model.norm.weight"] = place
    assert f"{INDEX} is damaged: weight_map says that 'model.norm.weight' is in" in refused(tmp_path)


@pytest.mark.parametrize("weight_map", [None, [], {}, "model.safetensors", 5])
def test_an_index_without_a_weight_map_is_told(tmp_path, weight_map):
    write_checkpoint(tmp_path, shards=2)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    assert f"{INDEX} is damaged: it has no weight_map" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pytorch_model.bin", "save_pretrained(..., safe_serialization=True)"),
        ("pytorch_model-00001-of-00002.bin", "save_pretrained(..., safe_serialization=True)"),
        ("consolidated.safetensors", "in the layout of the model's maker"),
        ("consolidated.00.pth", "in the layout of the model's maker"),
        ("tiny-q4_k_m.gguf", "GGUF files need no conversion"),
        ("tf_model.h5", "TensorFlow"),
        ("model.onnx", "ONNX"),
    ],
)
def test_weights_in_another_form_are_named_with_what_to_do(tmp_path, name, said):
    write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / name)
    complaint = refused(tmp_path)
    assert f"no model.safetensors, but {name}. " in complaint
    assert said in complaint


def test_a_lora_folder_is_told_as_one_with_its_base_and_what_to_do(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "Qwen/Qwen3-0.6B", "peft_type": "LORA"}')
    save_file({"base_model.model.x.lora_A.weight": np.ones(4, np.float32)}, tmp_path / "adapter_model.safetensors")
    complaint = refused(tmp_path)
    assert "holds a LoRA adapter for Qwen/Qwen3-0.6B, not a whole model" in complaint
    assert "merge_and_unload()" in complaint


@pytest.mark.parametrize("config", ["{}", '{"base_model_name_or_path": null}', '{"base_model_name_or_path": [5]}'])
def test_a_lora_folder_with_the_base_models_files_is_told_as_one(tmp_path, config):
    write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "adapter_config.json").write_text(config)
    assert "holds a LoRA adapter, not a whole model" in refused(tmp_path)


def test_an_adapter_beside_a_whole_model_is_said_not_to_be_applied(tmp_path):
    write_checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "is not applied" in plan_of(tmp_path).notes[0]


@pytest.mark.parametrize(
    ("rename", "said"),
    [
        (lambda name: f"base_model.model.{name}", "named by PEFT"),
        (lambda name: name.replace("q_proj.", "q_proj.base_layer."), "named by PEFT"),
        (lambda name: name.replace("q_proj.weight", "q_proj.lora_A.default.weight"), "named by PEFT"),
        (lambda name: f"module.{name}", "data-parallel wrapper"),
        (lambda name: f"_orig_mod.{name}", "torch.compile"),
    ],
)
def test_names_of_training_tools_are_told_as_theirs(tmp_path, rename, said):
    write_checkpoint(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_shards(tmp_path, {rename(name): values for name, values in tensors.items()}, 1)
    assert said in refused(tmp_path)


def test_a_pointer_in_place_of_the_weights_is_told_as_one(tmp_path):
    write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "model.safetensors is damaged: it is a git-lfs pointer" in refused(tmp_path)


@pytest.mark.parametrize(
    ("change", "method"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"quant_method": "awq"}}, "awq"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"bits": 4}}, "an unknown method"),
        ({"quantization_config": "int4"}, "an unknown method"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "MLX"),
        ({"quantization": {"group_size": 64}, "quantization_config": {"group_size": 64}}, "MLX"),
    ],
)
def test_a_checkpoint_that_is_quantized_already_is_told_by_which_method(tmp_path, change, method):
    write_checkpoint(tmp_path, config=change)
    complaint = refused(tmp_path)
    assert f"quantized already, by {method}. Convert the original" in complaint


@pytest.mark.parametrize("nothing", [None, {}])
def test_an_empty_quantization_config_means_none(tmp_path, nothing):
    write_checkpoint(tmp_path, config={"quantization_config": nothing})
    assert plan_of(tmp_path)
