"""What is said of a model that was loaded, and what is refused then."""

import logging

import pytest

from qwen_edge.config.schema import EngineConfig
from qwen_edge.core.errors import EngineError, UnservableError
from qwen_edge.daemon.announcement import check_gpu, tell_of_shorter_context
from qwen_edge.device.host.gpu import Gpu
from qwen_edge.protocol.messages import Ready, Sampling

ORIN = Gpu("NVIDIA Jetson Orin Nano", "87")


def ready(**what) -> Ready:
    return Ready("m", 512, 0, (), None, Sampling(), what.pop("gpu_layers", 0), 28, 6, **what)


def test_a_gpu_that_the_build_cannot_use_is_a_lasting_error_where_it_is_required():
    with pytest.raises(UnservableError, match=r"Orin Nano is here, but llama\.cpp runs on the CPU\. Build it with"):
        check_gpu(EngineConfig(require_gpu=True), ready(), ORIN)
    with pytest.raises(UnservableError, match=r"require_gpu is set, but llama\.cpp runs on the CPU"):
        check_gpu(EngineConfig(require_gpu=True), ready(), None)


def test_a_gpu_whose_driver_may_come_later_is_an_error_that_may_mend_itself():
    with pytest.raises(EngineError, match="is its driver loaded") as raised:
        check_gpu(EngineConfig(require_gpu=True), ready(gpu_build=True), ORIN)
    assert not isinstance(raised.value, UnservableError)


def test_a_gpu_that_is_here_and_not_required_is_a_warning(caplog):
    check_gpu(EngineConfig(), ready(), ORIN)
    assert "llama.cpp runs on the CPU" in caplog.text


@pytest.mark.parametrize(("model", "gpu"), [(ready(gpu_layers=29, gpu_build=True), ORIN), (ready(), None)])
def test_a_gpu_that_is_used_or_not_there_is_no_news(caplog, model, gpu):
    check_gpu(EngineConfig(), model, gpu)
    assert caplog.text == ""


def test_a_context_that_is_shorter_than_the_settings_say_is_one_line(caplog):
    with caplog.at_level(logging.INFO):
        tell_of_shorter_context(EngineConfig(context=512), ready())
        assert not caplog.records
        tell_of_shorter_context(EngineConfig(context=513), ready())
    assert caplog.messages == [
        "engine.context is 513 tokens, but the model was trained for 512: the context has 512",
    ]
