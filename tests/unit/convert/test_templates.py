"""The chat template is the one that transformers would take, with the others that have names."""

import io

import gguf
import pytest
from rich.console import Console

from qwen_edge.convert.gguf_file import write_gguf
from qwen_edge.core.progress import on_console
from tests.checkpoints import write_checkpoint
from tests.unit.convert.editing import edited, plan_of, refused

NONE = object()


@pytest.fixture
def folder(tmp_path):
    write_checkpoint(tmp_path / "in")
    return tmp_path / "in"


def configure(folder, template) -> None:
    with edited(folder / "tokenizer_config.json") as settings:
        if template is NONE:
            del settings["chat_template"]
        else:
            settings["chat_template"] = template


def test_a_file_of_its_own_comes_before_the_settings_and_that_is_said(folder):
    (folder / "chat_template.jinja").write_text("new")
    plan = plan_of(folder)
    assert plan.tokenizer.chat_templates == {"default": "new"}
    assert plan.notes == [
        "chat_template.jinja is used, as in transformers; tokenizer_config.json has another chat template"
    ]


def test_the_byte_order_mark_of_an_editor_is_no_part_of_the_template(folder):
    (folder / "chat_template.jinja").write_bytes("new".encode("utf-8-sig"))
    assert plan_of(folder).tokenizer.chat_templates == {"default": "new"}


@pytest.mark.parametrize("inside", ["same", NONE])
def test_a_file_that_says_the_same_or_stands_alone_is_no_news(folder, inside):
    configure(folder, inside)
    (folder / "chat_template.jinja").write_text("same")
    assert plan_of(folder).notes == []
    assert plan_of(folder).tokenizer.chat_templates == {"default": "same"}


def test_the_settings_come_before_chat_template_json(folder):
    (folder / "chat_template.json").write_text('{"chat_template": "processor"}')
    assert plan_of(folder).tokenizer.chat_templates["default"].startswith("{% for m")
    configure(folder, NONE)
    assert plan_of(folder).tokenizer.chat_templates == {"default": "processor"}


def test_named_templates_go_along_under_gguf_s_keys(folder, tmp_path):
    configure(folder, [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}])
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag-2.jinja").write_text("c")
    write_gguf(plan_of(folder), tmp_path / "out.gguf", on_console(Console(file=io.StringIO())))
    fields = gguf.GGUFReader(tmp_path / "out.gguf").fields
    found = {name: field.contents() for name, field in fields.items() if "chat_template" in name}
    assert found == {
        "tokenizer.chat_template": "a",
        "tokenizer.chat_template.tool_use": "b",
        "tokenizer.chat_template.rag_2": "c",
        "tokenizer.chat_templates": ["rag_2", "tool_use"],
    }


@pytest.mark.parametrize(
    "template",
    [
        5,
        True,
        ["a"],
        [{"name": "default"}],
        [{"name": 5, "template": "a"}],
        [{"template": "a"}],
        {"default": 5},
    ],
)
def test_a_template_of_another_shape_is_told(folder, template):
    configure(folder, template)
    assert "chat_template is" in refused(folder)


def test_templates_of_which_none_is_the_default_are_told(folder):
    configure(folder, [{"name": "tool_use", "template": "a"}])
    assert "(tool_use), but none is called 'default'" in refused(folder)


def test_two_templates_of_one_name_are_told(folder):
    configure(folder, {"default": "x", "a-b": "x", "a_b": "y"})
    assert "two chat templates have the same name" in refused(folder)


def test_no_template_at_all_is_none(folder):
    configure(folder, None)
    assert plan_of(folder).tokenizer.chat_templates == {}
