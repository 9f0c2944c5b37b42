#!/usr/bin/python3
"""`systemctl` in the fresh root, where the manager is a real `systemd --user` and not the system's.

Gives it the installed unit without what only the system's manager can do, and does of that what the service would
notice: its user, its state folder, its credentials. Stands alone: it runs with the root's own Python.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SYSTEM_ONLY = "@SYSTEM_ONLY@"  # the beginnings of lines, as a regular expression
NOBODY = 65534
UNIT = Path("/etc/systemd/system/qwen-edge.service")
PLACE = Path("/manager")  # units, run (XDG_RUNTIME_DIR), credentials
STATE, KEYS = Path("/var/lib/qwen-edge"), Path("/etc/qwen-edge/api-keys")


def main() -> None:
    if os.geteuid() != 0:
        os.execvp("sudo", ["sudo", *sys.argv])
    verb, *rest = sys.argv[1:]
    if verb == "daemon-reload":
        load()
    elif verb in ("enable", "disable") and rest[0] == "--now":  # nothing is wanted at a boot: there is none
        verb, rest = ("start" if verb == "enable" else "stop"), rest[1:]
    if verb in ("start", "restart"):
        prepare()
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    command = [*as_nobody, "/usr/bin/systemctl", "--user", "--no-pager", verb, *rest]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(PLACE / "run")}
    sys.exit(subprocess.run(command, env=environment, check=False).returncode)


def load() -> None:
    """What the system's manager reads: the unit and its drop-ins."""
    loaded = PLACE / "units" / UNIT.name
    if not UNIT.exists():
        loaded.unlink(missing_ok=True)
        return
    unit = UNIT.read_text() + "".join(file.read_text() for file in sorted(Path(f"{UNIT}.d").glob("*.conf")))
    unit = re.sub(rf"^({SYSTEM_ONLY}).*\n", "", unit, flags=re.MULTILINE)
    ours = (
        f"Environment=STATE_DIRECTORY={STATE} CONFIGURATION_DIRECTORY={KEYS.parent}\n"
        f"Environment=CREDENTIALS_DIRECTORY={PLACE}/credentials\n"
        f"StandardOutput=append:{PLACE}/run/service.log\nStandardError=inherit\n"
    )
    unit = unit.replace("[Service]\n", f"[Service]\n{ours}").replace("[Unit]\n", "[Unit]\nDefaultDependencies=no\n")
    loaded.write_text(unit)
    loaded.chmod(0o644)


def prepare() -> None:
    """What DynamicUser=, StateDirectory= and LoadCredential= do before each start."""
    STATE.mkdir(parents=True, exist_ok=True)
    if STATE.stat().st_uid != NOBODY:  # and only then, as systemd does it
        for path in (STATE, *STATE.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    credential = PLACE / "credentials" / "api-keys"
    credential.parent.mkdir(exist_ok=True)
    if KEYS.exists():
        shutil.copyfile(KEYS, credential)
    else:
        credential.write_text("# none")
    credential.chmod(0o400)
    for path in (credential.parent, credential):
        os.chown(path, NOBODY, NOBODY)


main()
