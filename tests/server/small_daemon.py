# ruff: noqa: T201
"""What a private daemon looks like from outside: `small_daemon.py FOLDER -c SETTINGS`. It leaves its settings, its
state folder and its environment in FOLDER, and says that it serves, or ends as the environment variable END asks."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

folder, settings = Path(sys.argv[1]), Path(sys.argv[3])
shutil.copy(settings, folder / "settings.yaml")
state = Path(os.environ["XDG_STATE_HOME"]) / "qwen-edge"
state.mkdir(exist_ok=True)
shutil.copytree(state, folder / "state", dirs_exist_ok=True)
(folder / "environment.json").write_text(json.dumps(dict(os.environ)))
(folder / "pid").write_text(str(os.getpid()))
print("2026-11-30 12:00:00,000 INFO nothing to see here", flush=True)
print("2026-11-30 12:00:00,000 WARNING the card is slow", flush=True)
if "END" in os.environ:
    print("qwen-edge: There is no memory. Get some.", flush=True)
    sys.exit(int(os.environ["END"]))
if "MEASURED" in os.environ:
    (state / "tuning.json").write_text(os.environ["MEASURED"])
print("qwen-edge 0.1.0  http://127.0.0.1:4321  model  context 64  CPU, 2 threads  ready in 0.1 s", flush=True)
signal.pause()
