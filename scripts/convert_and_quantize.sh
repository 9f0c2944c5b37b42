#!/bin/sh
# One shot: from nothing to a checked Q4_K_M file. Needs Python 3.10+, a C++ compiler and the network.
#
# usage: scripts/convert_and_quantize.sh [SOURCE] [-o OUT] [--type TYPE] ...
#   SOURCE is a Hub repository or a checkpoint folder; Qwen/Qwen3-0.6B if not given.
#   All options are those of `qwen-edge convert`; `--help` shows them.
#   QWEN_EDGE_VENV names another place for the environment than .venv in this checkout: one that you may write to.
set -e
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
venv=${QWEN_EDGE_VENV:-$root/.venv}
"${PYTHON:-python3}" "$root/scripts/bootstrap.py" "$venv"
exec "$venv/bin/qwen-edge" convert "$@"
