"""What the page's files are served as."""

import gzip
import re

import pytest

from qwen_edge.server.page.files import INDEX, PageFile, accepts, read_files


def test_every_file_of_the_page_is_served_and_the_page_itself_is_there():
    files = read_files()
    assert files[INDEX].content_type == "text/html; charset=utf-8"
    assert sum(len(gzip.compress(file.body)) for file in files.values()) < 150_000, "the page's limit"


def test_only_the_files_of_known_types_in_the_folder_itself_are_served(tmp_path):
    for name in ("index.html", "app.js", "a.css", "icon.svg", "notes.md", ".hidden.js", "key", "app.js~"):
        (tmp_path / name).write_text("x")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "other.js").write_text("x")
    types = {name: file.content_type.partition(";")[0] for name, file in read_files(tmp_path).items()}
    assert types == {
        "a.css": "text/css",
        "app.js": "text/javascript",
        "icon.svg": "image/svg+xml",
        "index.html": "text/html",
    }


def test_a_file_that_compression_makes_longer_is_not_compressed():
    assert PageFile(b"x", "text/css").zipped is None
    assert gzip.decompress(PageFile(b"x" * 1000, "text/css").zipped or b"") == b"x" * 1000


def test_the_tag_is_of_the_content():
    assert PageFile(b"x", "text/css").tag == PageFile(b"x", "text/html").tag != PageFile(b"y", "text/css").tag


@pytest.mark.parametrize(
    ("header", "is_accepted"),
    [
        ("gzip", True),
        ("deflate, GZIP ; q=0.1", True),
        ("gzip;q=0.001", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzip;q=", False),
        ("*", False),
        ("x-gzip", False),
        ("", False),
        (";,;q=,,", False),
    ],
)
def test_who_names_an_encoding_gets_it_unless_its_weight_is_0(header, is_accepted):
    assert accepts([header], "gzip") is is_accepted
    assert accepts(["br", header], "gzip") is is_accepted


def test_whatever_the_page_and_its_scripts_name_is_served():
    files = read_files()
    html = files[INDEX].body.decode()
    named = {name.partition("page/")[2] for name in re.findall(r'(?:href|src)="([^"#]+)"', html)}
    for name, file in files.items():
        if name.endswith(".js"):
            named |= set(re.findall(r"""(?:from|import\()\s*['"]\./([^'"]+)['"]""", file.body.decode()))
    assert named <= set(files)
