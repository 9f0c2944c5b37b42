"""What the documents say exists, and what exists is in the documents."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from qwen_edge.config.schema import Config
from qwen_edge.server.openai.chat_body import ChatBody
from qwen_edge.server.parameters import fields_of, marks_of
from scripts import api_tables

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "models").rglob("README.md")]


def settings(struct: msgspec.Struct, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if isinstance(value, msgspec.Struct):
            found |= settings(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def as_written(value: object) -> str:
    if value in (None, ()):
        return "none"
    return f"`{json.dumps(value)}`" if isinstance(value, bool | int | float) else f"`{value}`"


def test_every_setting_is_explained_with_its_default():
    rows = dict(
        re.findall(r"^\| `([\w.]+)` \| (.+?) \|", (ROOT / "docs" / "settings.md").read_text(), flags=re.MULTILINE)
    )
    expected = settings(Config())
    assert set(rows) == set(expected)
    for name, value in expected.items():
        assert rows[name] == as_written(value), name


@pytest.mark.parametrize("page", sorted(api_tables.pages()), ids=lambda page: page.name)
def test_the_tables_of_parameters_are_those_of_the_types_that_check_requests(page):
    assert page.read_text() == api_tables.pages()[page], "make docs"


def test_every_parameter_of_a_chat_completion_is_explained():
    for name, kind in fields_of(ChatBody).items():
        assert any(mark.description for mark in marks_of(kind)), name
    page = (ROOT / "docs" / "api.md").read_text()
    tables = page[page.index("<!-- made by make docs: chat completions -->") : page.index("<!-- end -->")]
    assert set(re.findall(r"`(\w+)`", tables)) >= set(fields_of(ChatBody))


def test_every_code_of_an_error_is_explained():
    page = (ROOT / "docs" / "api.md").read_text()
    table = page[page.index("| status |") : page.index("When the engine fails in the middle")]
    sources = "".join(file.read_text() for file in (ROOT / "qwen_edge").rglob("*.py"))
    codes = set(re.findall(r'\bcode="([a-z_]+)"', sources))
    assert codes <= set(re.findall(r"`([a-z_]+)`", table))


def test_both_readmes_show_the_same_commands_and_outputs():
    one, other = (
        [
            re.sub(r" +#.*", "", block)
            for block in re.findall(r"^```.*?^```", page.read_text(), re.MULTILINE | re.DOTALL)
        ]
        for page in (ROOT / "README.md", ROOT / "README.zh.md")
    )
    assert one == other


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_in_the_pages_exist(page):
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`make (\w+)`|^make (\w+)", page.read_text(), flags=re.MULTILINE)) <= {
        pair for target in targets for pair in ((target, ""), ("", target))
    }


def anchors(page: Path) -> set[str]:
    """The names that a link to a part of this page may use: GitHub's names of its headings, and explicit anchors."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    named = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return named | set(re.findall(r'<a id="([\w-]+)">', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_a_part_of_a_page_lead_to_a_heading_or_an_anchor(page):
    for target, part in re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", page.read_text()):
        assert part in anchors((page.parent / target) if target else page), f"{target}#{part}"
