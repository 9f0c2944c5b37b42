"""A manifest that cannot be read is as good as none: it describes, and nothing depends on it."""

import json
import os

import pytest

from qwen_edge.convert.manifest import FORMAT, Kept, Manifest, encode_manifest, manifest_path, read_manifest


def test_a_model_without_a_manifest(tmp_path):
    assert read_manifest(tmp_path / "m.gguf") is None


def test_a_place_that_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    assert read_manifest(tmp_path / "file" / "m.gguf") is None


def test_a_folder_in_its_place(tmp_path):
    manifest_path(tmp_path / "m.gguf").mkdir()
    assert read_manifest(tmp_path / "m.gguf") is None


def test_a_pipe_in_its_place_is_not_waited_for(tmp_path):
    os.mkfifo(manifest_path(tmp_path / "m.gguf"))
    assert read_manifest(tmp_path / "m.gguf") is None


def test_a_name_too_long_for_the_file_system(tmp_path):
    assert read_manifest(tmp_path / ("m" * 300)) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format": "caf\xe9"}', b"\xff\xfe"])
def test_a_file_that_is_none_of_ours(tmp_path, content):
    manifest_path(tmp_path / "m.gguf").write_bytes(content)
    assert read_manifest(tmp_path / "m.gguf") is None


def test_what_was_kept_of_a_vocabulary_comes_back_and_an_older_manifest_kept_all_of_it(tmp_path):
    manifest = Manifest(
        format=FORMAT, file="m.gguf", type="Q4_K_M", bytes=1, sha256="", source="", revision=None, fingerprint="",
        created="", tools={}, inputs=(), types={}, checks={}, seconds={}, tensors={}, vocabulary=Kept(("zh",), 5, 9),
    )  # fmt: skip
    place = manifest_path(tmp_path / "m.gguf")
    place.write_bytes(encode_manifest(manifest))
    assert read_manifest(tmp_path / "m.gguf") == manifest
    older = json.loads(place.read_bytes())
    del older["vocabulary"]
    place.write_text(json.dumps(older))
    assert read_manifest(tmp_path / "m.gguf").vocabulary is None
