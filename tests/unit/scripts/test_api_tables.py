"""The tables of docs/ follow from the types, whatever body a path has."""

from typing import Annotated, Any

import msgspec
import pytest

from qwen_edge.server.parameters import HINT, Group, about, hint, mapped, only
from scripts import api_tables

_SIZE = about("How large.")


class Options(Group):
    num_ctx: Annotated[int | None, _SIZE] = None
    seed: int | None = None


class Turn(Group, tag_field="type", tag="turn"):
    text: str


class Base(Group):
    """What comes first"""

    wide: Annotated[int | None, _SIZE] = None
    high: Annotated[int | None, _SIZE] = None
    depth: Annotated[int | None, mapped("options.num_ctx or wide")] = None


class Body(Base):
    """What is asked

    And more that is not for the table.
    """

    options: Annotated[Options | None, about("See `options.num_ctx`.")] = None
    turns: list[Turn | None] | None = None
    label: Annotated[str | None, HINT] = None
    raw: Annotated[bool | None, only(False, instead="Send messages.")] = None
    images: Annotated[Any, only()] = None
    cached: Annotated[Options | None, hint("Accepted; num_ctx is fixed.")] = None


class Plain(msgspec.Struct):
    wide: int = 0


def test_a_page_has_a_table_for_each_part_and_for_each_treatment():
    text = "\n".join(api_tables._tables(Body))
    assert text.index("**What is asked**") < text.index("**What comes first**")
    assert "| `wide`, `high` | How large. |" in text
    assert "| `depth` | `options.num_ctx` or `wide` |" in text
    assert "without effect on the answer:** `label`." in text
    assert "| `cached` | `num_ctx` is fixed. |" in text
    assert "| `raw` | `false` | Send messages. |" in text
    assert "| `images` | nothing | Leave it out. |" in text


def test_each_path_has_a_column_and_parameters_inside_groups_have_rows():
    text = "\n".join(api_tables._by_path({"/a": Body, "/b": Plain}))
    assert "| parameter | `/a` | `/b` |" in text
    assert "| `wide` | honoured | honoured |" in text
    assert "| `options.num_ctx` | honoured |  |" in text
    assert "| `turns.text` | honoured |  |" in text
    assert "| `cached.num_ctx` | hint |  |" in text
    assert "| `depth` | = `options.num_ctx` or `wide` |  |" in text
    assert "| `raw` | only `false` |  |" in text
    assert "| `images` | refused |  |" in text


def test_markers_that_are_missing_or_double_are_told():
    pair = "<!-- made by make docs: x --><!-- end -->"
    assert api_tables._replaced(f"a {pair} b", "x", "T") == "a <!-- made by make docs: x -->\n\nT\n\n<!-- end --> b"
    for page in ("nothing", pair * 2):
        with pytest.raises(ValueError, match="one pair of markers"):
            api_tables._replaced(page, "x", "T")


def test_check_says_whether_the_pages_are_current(monkeypatch, tmp_path, capsys):
    page = tmp_path / "page.md"
    monkeypatch.setattr(api_tables, "pages", lambda: {page: "new"})
    monkeypatch.setattr("sys.argv", ["api_tables", "--check"])
    assert api_tables.main() == 1
    assert "not current: make docs" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["api_tables"])
    assert api_tables.main() == 0
    assert page.read_text() == "new"
    monkeypatch.setattr("sys.argv", ["api_tables", "--check"])
    assert api_tables.main() == 0
