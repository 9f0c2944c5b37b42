"""What the settings ask of the device is done or refused with a sentence."""

import pytest

from qwen_edge.config.schema import DeviceConfig
from qwen_edge.core.errors import ConfigError
from qwen_edge.device.from_config import find_source


@pytest.mark.parametrize("path", ["~nosuchuser/trace", "a\0b"])
def test_a_trace_whose_path_cannot_be_one_is_a_mistake_in_the_settings(path):
    with pytest.raises(ConfigError, match=r"^device\.trace: "):
        find_source(DeviceConfig(source="trace", trace=path))
