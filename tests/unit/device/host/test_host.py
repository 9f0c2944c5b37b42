"""What the daemon finds out about the machine."""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from qwen_edge.device.host.cpu import cpu_model, cpu_name, preempted, usable_cores
from qwen_edge.device.host.gpu import Gpu, find_gpu, rebuild_command
from qwen_edge.device.host.llama_cpp_build import pinned_bindings
from qwen_edge.device.host.memory import available_bytes, is_granted, own_bytes, own_pages


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


def test_pages_of_ones_own_go_back_to_the_system_with_the_last_who_has_them():
    before = own_bytes(os.getpid())
    view = memoryview(own_pages(64 << 20))
    view[::4096] = bytes(len(view[::4096]))
    assert own_bytes(os.getpid()) > before + (60 << 20)
    del view
    assert own_bytes(os.getpid()) < before + (4 << 20)


def test_own_pages_may_be_large():
    pages = own_pages(64 << 20)
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    mappings = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("this kernel has no large pages")
    (flags,) = [
        line.split()
        for mapping in mappings[1:]
        if (limits := [int(one, 16) for one in mapping.split(None, 1)[0].split("-")])[0] <= address < limits[1]
        for line in mapping.splitlines()
        if line.startswith("VmFlags")
    ]
    assert "hg" in flags


def test_it_is_counted_when_others_take_the_core():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        before = preempted()
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:  # on the same core
            while preempted() < before + 10:
                pass
            other.kill()
    finally:
        os.sched_setaffinity(0, allowed)


def group(root, path, **files):
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"memory.{name}").write_text(f"{content}\n")


def test_a_limit_of_any_group_around_us_counts_and_cached_files_do_not(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/box/service\n")
    group(
        tmp_path,
        "box",
        max=1_000_000,
        high="max",
        current=700_000,
        stat="anon 500000\nactive_file 30000\ninactive_file 70000",
    )
    group(tmp_path, "box/service", max="max", high=900_000, current=600_000, stat="inactive_file 50000")
    assert available_bytes(tmp_path) == 350_000
    group(tmp_path, "box/service", max="max", high="max")
    assert available_bytes(tmp_path) == 400_000
    group(tmp_path, "box", max=10_000)
    assert available_bytes(tmp_path) == 0


@pytest.mark.parametrize("text", [None, "4:memory:/old\n", "0::/gone\n"])
def test_without_a_limit_it_is_what_the_system_has(tmp_path, monkeypatch, text):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=123))
    if text:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(text)
    assert available_bytes(tmp_path) == 123


def test_a_processor_is_named_by_the_board_or_by_its_maker(tmp_path):
    assert cpu_name(tmp_path)
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/cpuinfo").write_text("processor : 0\nmodel name\t: Quick (R) 3000\n")
    assert cpu_name(tmp_path) == "Quick (R) 3000"
    (tmp_path / "proc/device-tree/model").write_bytes(b"NVIDIA Jetson Orin Nano\0")
    assert cpu_name(tmp_path) == "NVIDIA Jetson Orin Nano"


def cpuinfo(root, *cores: dict[str, str]):
    touch(root, "proc/cpuinfo", "\n\n".join("\n".join(f"{k}\t: {v}" for k, v in core.items()) for core in cores))
    return root


def test_two_generations_of_one_name_are_told_apart(tmp_path):
    zen4 = {"vendor_id": "AuthenticAMD", "cpu family": "25", "model": "17", "model name": "AMD EPYC"}
    zen4["flags"] = "fpu avx2 avx512f"
    told = cpu_model(cpuinfo(tmp_path, zen4, zen4))
    assert told.startswith("vendor_id AuthenticAMD, cpu family 25, model 17, flags ")
    assert cpu_model(cpuinfo(tmp_path, {**zen4, "cpu family": "26", "model": "2"})) != told
    assert cpu_model(cpuinfo(tmp_path, {**zen4, "flags": "fpu avx2"})) != told, "as in a machine that hides some"
    assert cpu_model(cpuinfo(tmp_path, {**zen4, "flags": "fpu avx2 avx512f ibrs"})) == told, "a kernel's own flag"


def test_a_board_with_two_kinds_of_cores_names_both(tmp_path):
    cores = [{"CPU implementer": "0x41", "CPU part": part, "Features": "asimd bf16"} for part in ("0xd41", "0xd05")]
    assert cpu_model(cpuinfo(tmp_path, *cores)).startswith("CPU implementer 0x41, CPU part 0xd05/0xd41, flags ")
    assert cpu_model(tmp_path / "nowhere") == "unknown model"


def test_what_the_system_would_not_give_is_known_without_taking_it():
    assert is_granted(1 << 20)
    assert not is_granted(1 << 62)
