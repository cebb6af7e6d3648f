#!/usr/bin/env bash
# Makes .venv and installs this repository and its requirements into it, again only if they change;
# sourced by demo.sh and test.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
stamp=.venv/.installed
wanted=$(cat requirements.txt constraints.txt pyproject.toml | cksum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "Installing into .venv (some minutes and a few GB the first time) ..."
  python=${PYTHON:-python3}
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    { echo "error: Python 3.10 or newer is needed; set PYTHON=/path/to/it" >&2; exit 2; }
  if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    "$python" -m venv --clear .venv ||
      { rm -rf .venv; echo "error: no venv; on Debian: apt install python3-venv" >&2; exit 2; }
  fi
  pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt)
  # Without an NVIDIA GPU, PyTorch's own CPU wheels (200 MB, not 3 GB), if that index answers.
  command -v nvidia-smi >/dev/null || "${pip[@]}" --no-deps --retries 1 --timeout 15 \
    --extra-index-url https://download.pytorch.org/whl/cpu torch torchvision 2>/dev/null || true
  "${pip[@]}" -e '.[dev]'
  echo "$wanted" >"$stamp"
fi
