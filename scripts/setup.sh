#!/usr/bin/env bash
# Makes .venv and installs requirements.txt into it, once; sourced by demo.sh and test.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
stamp=.venv/.installed
wanted=$(cat requirements.txt constraints.txt pyproject.toml | cksum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "Installing into .venv (some minutes and a few GB the first time) ..."
  python=${PYTHON:-python3}
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    { echo "error: Python 3.10 or newer is needed; set PYTHON=/path/to/it" >&2; exit 2; }
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    -r requirements.txt -c constraints.txt
  echo "$wanted" >"$stamp"
fi
