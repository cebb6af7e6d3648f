#!/usr/bin/env bash
# Lint, types and tests, in .venv, which is made if it does not exist: bash scripts/test.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/mypy
# Two processes of one thread each: with more threads than cores, k-means takes many times as long.
OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
  --durations=20 "$@"
