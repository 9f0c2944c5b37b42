"""The systemd unit, read by systemd's own checker where there is one."""

import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("drop_in", [None, "qwen-edge-cuda.conf"])
def test_the_unit_is_valid_and_well_locked(tmp_path, drop_in):
    program = tmp_path / "qwen-edge"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = (SYSTEMD / "qwen-edge.service").read_text().replace("/opt/qwen-edge/.venv/bin/qwen-edge", str(program))
    if drop_in:
        unit = unit.replace("[Install]", (SYSTEMD / drop_in).read_text() + "\n[Install]")
    (tmp_path / "qwen-edge.service").write_text(unit)
    verify = ["systemd-analyze", "verify", str(tmp_path / "qwen-edge.service")]
    verified = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert verified.stderr == "", "systemd-analyze prints what it does not know, and exits with 0"
    most = "20" if drop_in else "15"  # exposure times ten
    score = ["systemd-analyze", "security", "--offline=true", f"--threshold={most}", verify[-1]]
    scored = subprocess.run(score, capture_output=True, text=True, check=False)
    assert scored.returncode == 0, scored.stdout[-200:] + scored.stderr
