"""A model that is not there: what there is instead."""

import pytest

from qwen_edge.client.private_daemon import model_named
from qwen_edge.core.errors import NotNowError


def test_a_wrong_name_is_told_with_the_names_of_the_models_folder(tmp_path):
    for name in ("b.gguf", "a.gguf", "a.gguf.json"):
        (tmp_path / name).touch()
    with pytest.raises(NotNowError, match=rf"no model c here, nor in {tmp_path}, which has: a, b\.$"):
        model_named("c", tmp_path)


@pytest.mark.parametrize("name", ["c", "./c"])
def test_without_other_models_and_for_a_path_it_is_told_how_to_make_one(tmp_path, name):
    if name == "./c":
        (tmp_path / "a.gguf").touch()
    with pytest.raises(NotNowError, match="Make one: qwen-edge convert"):
        model_named(name, tmp_path)
