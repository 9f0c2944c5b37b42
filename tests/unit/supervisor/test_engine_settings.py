"""What the settings ask of the engine is done or refused with a sentence."""

import pytest

from qwen_edge.config.schema import RememberConfig
from qwen_edge.core.errors import ConfigError
from qwen_edge.supervisor.engine_settings import conversation_files


@pytest.mark.parametrize("path", ["~nosuchuser/kept", "a\0b"])
def test_a_folder_that_cannot_be_one_is_a_mistake_in_the_settings(path):
    with pytest.raises(ConfigError, match=r"^remember\.folder: .*[^.]\.$"):
        conversation_files(RememberConfig(folder=path))
