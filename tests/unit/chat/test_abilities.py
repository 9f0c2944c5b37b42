"""What a template can do is what it shows, not what its source looks like."""

import pytest

from qwen_edge.chat.abilities import TemplateAbilities
from qwen_edge.chat.template import ChatTemplate
from tests.fakes import SPECIALS, TEMPLATE
from tests.unit.chat.templates import (
    ALTERNATING,
    CHATML,
    FAULTS,
    JOINS_TEXT,
    LISTS_ARGUMENTS,
    PRINTS_JSON,
    SINGLE,
    TAKES_BOTH,
    WITH_TOOLS,
)


def findings(source: str, **more: str):
    return ChatTemplate(source, SPECIALS, **more).findings


@pytest.mark.parametrize(
    ("source", "abilities"),
    [
        (CHATML, TemplateAbilities(system=True)),
        (ALTERNATING, TemplateAbilities()),
        (SINGLE, TemplateAbilities()),
        (PRINTS_JSON, TemplateAbilities(system=True, calls=True, arguments="object")),
        (LISTS_ARGUMENTS, TemplateAbilities(system=True, calls=True, arguments="object")),
        (JOINS_TEXT, TemplateAbilities(system=True, calls=True, arguments="text")),
        (TAKES_BOTH, TemplateAbilities(system=True, calls=True, arguments="text")),
        (WITH_TOOLS, TemplateAbilities(system=True, tools=True, calls=True, arguments="object")),
        (CHATML + "<think>\n", TemplateAbilities(system=True)),
        (CHATML + "<think>\n\n</think>", TemplateAbilities(system=True, thinking="always")),
        (
            CHATML + "{% if enable_thinking is false %}<think>\n\n</think>{% endif %}",
            TemplateAbilities(system=True, thinking="optional"),
        ),
    ],
)
def test_what_a_template_can_do_is_found_by_rendering(source, abilities):
    found = findings(source)
    assert (found.abilities, found.fault) == (abilities, "")


@pytest.mark.parametrize("note", ["is string", "tools", "tool_calls", "enable_thinking </think>"])
def test_a_word_in_a_comment_is_no_ability(note):
    plain = TemplateAbilities(system=True, thinking="always" if "</think>" in note else "never")
    assert findings("{# " + note + " #}" + CHATML).abilities == plain
    assert findings("{# is string #}" + PRINTS_JSON).abilities.arguments == "object"


def test_the_template_for_tools_is_tried_with_tools():
    assert not findings(CHATML).abilities.tools
    found = findings(CHATML, tool_use=WITH_TOOLS)
    assert (found.abilities.tools, found.abilities.arguments, found.fault) == (True, "object", "")
    assert "with tools" in findings(CHATML, tool_use="{{ 1 / 0 }}").fault


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_said_in_one_line(name):
    source, words = FAULTS[name]
    try:
        fault = findings(source).fault
    except Exception as error:  # at compiling
        fault = str(error) if "line" not in words else f"line 1: {error}"
    assert words in fault
    assert "\n" not in fault


def test_the_template_of_the_tests_has_no_fault():
    assert findings(TEMPLATE).fault == ""
