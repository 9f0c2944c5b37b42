"""Whatever is wrong with a checkpoint is said in one sentence with the remedy, before anything is written."""

import io
import json

import pytest
from rich.console import Console

from qwen_edge.convert.hub import Source, fetch
from qwen_edge.convert.pipeline import Job, convert, make_plan
from qwen_edge.convert.quantize import TYPES, check_head, check_type
from qwen_edge.core.errors import ConversionError
from qwen_edge.core.progress import on_console
from tests.checkpoints import save_shards, write_checkpoint
from tests.unit.chat.templates import CHATML, FAULTS, HANGS


def refused(folder) -> str:
    with pytest.raises(ConversionError) as error:
        make_plan(Source(folder, "tiny", str(folder)))
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    return str(error.value)


@pytest.fixture
def folder(tmp_path):
    write_checkpoint(tmp_path / "in")
    return tmp_path / "in"


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "Qwen3MoeForCausalLM", "Qwen2VLForConditionalGeneration"])
def test_another_architecture(tmp_path, name):
    write_checkpoint(tmp_path, config={"architectures": [name]})
    assert f"architecture {name} cannot be converted; Qwen2ForCausalLM and Qwen3ForCausalLM can" in refused(tmp_path)


def test_no_architecture(tmp_path):
    write_checkpoint(tmp_path, config={"architectures": []})
    assert "architecture none cannot be converted" in refused(tmp_path)


@pytest.mark.parametrize("value", [None, "many", -3, 0, 2.5])
def test_a_hyperparameter_that_is_no_number(tmp_path, value):
    write_checkpoint(tmp_path, config={"num_hidden_layers": value})
    assert "num_hidden_layers is" in refused(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"rms_norm_eps": None},
        {"rope_theta": "much"},
        {"rope_scaling": "yarn"},
        {"rope_scaling": {"type": "linear", "factor": "much"}},
        {"rope_scaling": {"type": "linear", "factor": None}},
    ],
)
def test_a_setting_of_another_kind(tmp_path, change):
    write_checkpoint(tmp_path, config=change)
    assert "config.json: " in refused(tmp_path)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_a_file_that_is_no_json(folder, file):
    (folder / file).write_bytes(b"<html>404</html>")
    assert f"{file} is damaged" in refused(folder)


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "model.safetensors.index.json"])
def test_a_file_that_cannot_be_read(folder, file):
    (folder / file).unlink(missing_ok=True)
    (folder / file).mkdir()
    job = Job(source=str(folder), file_type="Q4_K_M", models=folder.parent)
    with pytest.raises(ConversionError, match=f"{folder / file} cannot be read: Is a directory"):
        convert(job, on_console(Console(file=io.StringIO())))


def test_an_output_that_cannot_be_looked_at(folder):
    job = Job(source=str(folder), file_type="Q4_K_M", models=folder.parent, output=folder / ("m" * 300))
    with pytest.raises(ConversionError, match="File name too long"):
        convert(job, on_console(Console(file=io.StringIO())))


def test_no_config(folder):
    (folder / "config.json").unlink()
    assert "has no config.json" in refused(folder)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    assert "has no model.safetensors" in refused(folder)


def test_no_tokenizer(folder):
    for name in ("tokenizer.json", "vocab.json"):
        (folder / name).unlink()
    assert "has no tokenizer" in refused(folder)


def test_another_tokenizer(folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\w+|\s+"
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "this is not Qwen's tokenizer" in refused(folder)


def test_a_tokenizer_that_is_larger_than_the_embedding(folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({"id": 99999, "content": "<|more|>", "special": True})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "token '<|more|>' has id 99999" in refused(folder)


def test_a_missing_tensor(tmp_path):
    tensors = write_checkpoint(tmp_path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_shards(tmp_path, tensors, 1)
    assert "lacks tensor 'model.layers.1.mlp.up_proj.weight' (1 missing in all)" in refused(tmp_path)


def test_an_extra_tensor(tmp_path):
    tensors = write_checkpoint(tmp_path)
    tensors["model.layers.7.mlp.up_proj.weight"] = tensors["model.layers.1.mlp.up_proj.weight"].copy()
    save_shards(tmp_path, tensors, 1)
    assert "'model.layers.7.mlp.up_proj.weight' does not belong" in refused(tmp_path)


def test_a_wrong_shape(tmp_path):
    write_checkpoint(tmp_path, config={"intermediate_size": 768})
    assert "has shape [256, 512], config.json makes it [256, 768]" in refused(tmp_path)


def test_a_missing_shard(tmp_path):
    write_checkpoint(tmp_path, shards=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    assert "model-00002-of-00003.safetensors missing" in refused(tmp_path)


def test_a_truncated_shard(tmp_path):
    write_checkpoint(tmp_path, shards=3)
    file = tmp_path / "model-00002-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    assert "is cut short: 1,000 of" in refused(tmp_path)


def test_the_same_tensor_in_two_files(tmp_path):
    write_checkpoint(tmp_path)
    (tmp_path / "model-2.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes())
    assert "Two versions of the checkpoint are mixed" in refused(tmp_path)


def test_an_index_that_names_more_than_there_is(tmp_path):
    write_checkpoint(tmp_path, shards=2)
    file = tmp_path / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"]["model.layers.5.mlp.up_proj.weight"] = "model-00001-of-00002.safetensors"
    file.write_text(json.dumps(index))
    assert "no file holds 'model.layers.5.mlp.up_proj.weight'" in refused(tmp_path)


def test_a_rope_scaling_that_gguf_cannot_say(tmp_path):
    write_checkpoint(tmp_path, config={"rope_scaling": {"rope_type": "longrope", "factor": 2.0}})
    assert "rope scaling 'longrope' cannot be converted" in refused(tmp_path)
    write_checkpoint(tmp_path, config={"rope_scaling": {"rope_type": "yarn", "factor": 2.0}})
    assert "lacks original_max_position_embeddings" in refused(tmp_path)


def test_an_unknown_quantization_type_is_told_with_those_known():
    with pytest.raises(ConversionError, match=r"Q9_X is not a quantization type of this converter\. Choose one of"):
        check_type("Q9_X")
    assert [check_type(name.lower()) for name in TYPES] == list(TYPES)


def test_a_head_that_cannot_be_is_told():
    with pytest.raises(
        ConversionError, match=r"--head q9 is not a type for the output head\. Choose one of q8_0, q6_k, q4_k"
    ):
        check_head("q9", "Q4_K_M")
    with pytest.raises(ConversionError, match="--head needs a quantized --type, and BF16 is not quantized"):
        check_head("q8_0", "BF16")
    assert check_head("Q8_0", "Q4_K_M") == "q8_0"
    assert check_head(None, "BF16") is None


@pytest.mark.parametrize("source", ["no-such-folder", "/no/such/folder", "./a/b", "~/x"])
def test_a_source_that_is_neither_folder_nor_hub_name(source):
    with pytest.raises(ConversionError, match="is neither a folder nor a Hub name"):
        fetch(source, None, None)


@pytest.mark.parametrize("source", ["~nobody-of-that-name/x", "a" * 300 + "/b"])
def test_a_source_that_cannot_even_be_looked_at(source):
    with pytest.raises(ConversionError, match="cannot be read"):
        fetch(source, None, None)


def test_a_revision_of_a_folder_makes_no_sense(folder):
    with pytest.raises(ConversionError, match="--revision applies only to Hub repositories"):
        fetch(str(folder), "main", None)


@pytest.mark.parametrize("name", ["merges.txt", "chat_template.jinja"])
def test_a_text_file_that_is_no_text(tmp_path, name):
    write_checkpoint(tmp_path, tokenizer_json=False)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / name).write_bytes(b"\xff\xfe\x00")
    assert f"{name} is damaged" in refused(tmp_path)


def refused_template(folder, template) -> str:
    """What is said of a checkpoint with this template (None: with none), when it is converted as a whole."""
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings["chat_template"] = template
    file.write_text(json.dumps(settings))
    output = folder.parent / "out" / "tiny.gguf"
    job = Job(source=str(folder), file_type="Q4_K_M", models=output.parent, output=output)
    with pytest.raises(ConversionError) as error:
        convert(job, on_console(Console(file=io.StringIO())))
    assert not output.parent.exists()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["syntax", "unknown filter", "division with tools", "empty", "recursion"])
def test_a_faulty_chat_template(folder, name):
    template, words = FAULTS[name]
    assert (words if template else "has no chat template") in refused_template(folder, template)


def test_a_chat_template_that_hangs(folder):
    assert "takes longer than 5 s" in refused_template(folder, HANGS["nested ranges"])


@pytest.mark.parametrize("template", [None, [], "", {}])
def test_no_chat_template(folder, template):
    assert "put a chat_template.jinja into the checkpoint's folder" in refused_template(folder, template)


@pytest.mark.parametrize("template", [["x"], [{"name": "default"}], [{"name": 1, "template": "x"}]])
def test_chat_templates_of_the_wrong_shape(folder, template):
    assert "tokenizer_config.json: chat_template is " in refused_template(folder, template)


def test_named_chat_templates_without_one_for_ordinary_conversations(folder):
    assert "none is called 'default'" in refused_template(folder, [{"name": "rag", "template": "x"}])


def test_a_faulty_template_for_tools(folder):
    named = [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": "{{ 1 / 0 }}"}]
    assert "fails with tools" in refused_template(folder, named)
