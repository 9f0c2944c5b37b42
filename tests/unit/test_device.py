"""What the daemon finds out about the machine."""

import os
import sys

import pytest

from qwen_edge.device.cpu import usable_cores
from qwen_edge.device.gpu import Gpu, find_gpu, rebuild_command
from qwen_edge.remedies import pinned_bindings


def touch(root, path: str, content: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def test_a_machine_without_gpu(tmp_path):
    assert find_gpu(tmp_path) is None


@pytest.mark.parametrize("sign", ["etc/nv_tegra_release", "dev/nvgpu", "dev/nvhost-gpu"])
def test_an_orin_is_a_gpu_of_architecture_87(tmp_path, sign):
    touch(tmp_path, sign)
    touch(tmp_path, "proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0")
    assert find_gpu(tmp_path) == Gpu("NVIDIA Jetson Orin Nano Developer Kit", "87")


def test_another_jetson_is_built_for_itself(tmp_path):
    touch(tmp_path, "etc/nv_tegra_release")
    assert find_gpu(tmp_path) == Gpu("Jetson", "native")


@pytest.mark.parametrize("sign", ["proc/driver/nvidia/version", "dev/nvidia0"])
def test_a_card_with_its_driver(tmp_path, sign):
    touch(tmp_path, sign)
    assert find_gpu(tmp_path) == Gpu("NVIDIA GPU", "native")


def test_the_rebuild_command_sets_all_that_keeps_cuda_from_being_left_out():
    command = rebuild_command(Gpu("Orin", "87"))
    for part in ("CUDACXX=", "-DGGML_CUDA=on", "-DCMAKE_CUDA_ARCHITECTURES=87", "--no-binary", sys.executable):
        assert part in command
    assert command.endswith(pinned_bindings())


def test_cores_are_those_this_process_may_use():
    everything = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(everything)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, everything)
