"""A command in an error message works when it is typed as it stands."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from qwen_edge.device.host.llama_cpp_build import install_bindings, pinned_bindings

SETUP = Path(__file__).resolve().parents[4] / "setup.cfg"


def test_the_release_is_the_one_setup_cfg_pins():
    (pinned,) = re.findall(r"^ *llama-cpp-python *== *([\d.]+)$", SETUP.read_text(), flags=re.MULTILINE)
    assert pinned_bindings() == f"llama-cpp-python=={pinned}"


def test_it_is_installed_for_the_python_that_runs_us(monkeypatch):
    assert shlex.split(install_bindings())[:4] == [sys.executable, "-m", "pip", "install"]
    monkeypatch.setattr(sys, "executable", "/opt/my env/bin/python")
    assert install_bindings("--no-deps").startswith("'/opt/my env/bin/python' -m pip install --no-deps llama-cpp-")


def test_bindings_that_are_missing_are_told_with_the_command():
    """In an interpreter that has everything but them."""
    code = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'llama_cpp' else find(name, *more)\n"
        "import qwen_edge.llama.bindings"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"llama-cpp-python is not installed. Install it: {install_bindings()}" in done.stderr
