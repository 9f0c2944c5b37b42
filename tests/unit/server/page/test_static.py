"""The page's files: those of others are as they were published, and all are small and without inline script."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[4] / "qwen_edge" / "server" / "page"
STATIC = PAGE / "static"
SCRIPTS = sorted(STATIC.glob("*.js"))
_VENDORED = re.compile(r"^\| `(static/[^`]+)` .*\[(\w+-LICENSE\.txt)\].*`([0-9a-f]{64})` \|$", re.MULTILINE)
_STRING = re.compile(r"""^ *'([\w. ]+)': (['"])(.*)\2,$""", re.MULTILINE)
_USED = re.compile(r"""\b(?:t|label|hint)(?:\(|: )'([\w.]+)'""")


def test_the_files_of_others_are_those_that_they_published_with_their_licences():
    found = _VENDORED.findall((PAGE / "vendored" / "VENDORED.md").read_text())
    assert found
    for name, licence, digest in found:
        assert hashlib.sha256((PAGE / name).read_bytes()).hexdigest() == digest, name
        assert "Permission is hereby granted" in (PAGE / "vendored" / licence).read_text()


def test_a_browser_that_has_nothing_loads_little():
    sent = sum(len(gzip.compress(path.read_bytes())) for path in STATIC.iterdir())
    assert sent < 75_000, "bytes, compressed as the daemon sends them"


@pytest.mark.parametrize("path", [path for path in SCRIPTS if path.name != "marked.js"], ids=lambda path: path.name)
def test_no_script_makes_elements_of_text(path: Path):
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", path.read_text()
    )


def test_the_page_has_no_inline_script_or_style_and_names_nothing_of_other_hosts():
    index = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script>|https?:|[\"']//|(?:src|href)=[\"']/", index)
    for name in re.findall(r'(?:src|href)="page/([^"]+)"', index):
        assert (STATIC / name).is_file(), name


def test_the_page_asks_at_once_for_all_scripts_that_the_chat_needs():
    needed, found = ["app.js"], set()
    while needed:
        name = needed.pop()
        found.add(name)
        if name != "marked.js":
            imported = re.findall(r"""from '\./([\w-]+\.js)'""", (STATIC / name).read_text())
            needed += [other for other in imported if other not in found]
    preloaded = re.findall(r'rel="modulepreload" href="page/([^"]+)"', (STATIC / "index.html").read_text())
    assert sorted(preloaded) == sorted(found - {"app.js"})


def test_every_word_of_the_page_is_there_in_both_languages_with_the_same_values():
    english, chinese = (_words(name) for name in ("en.js", "zh.js"))
    assert english.keys() == chinese.keys()
    for key, text in english.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", chinese[key])), key


def test_every_word_that_the_chat_uses_is_there():
    words = _words("en.js")
    others = ("device", "marked", "plot", "remembered")  # test_device_words.py has those of the device
    scripts = [path for path in SCRIPTS if not path.name.startswith(others)]
    used = {key for path in scripts for key in _USED.findall(path.read_text())}
    assert len(used) > 30
    assert used - words.keys() == set()


def _words(name: str) -> dict[str, str]:
    return {key: text for key, _, text in _STRING.findall((STATIC / name).read_text())}
