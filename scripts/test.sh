#!/usr/bin/env bash
# Lint, types and tests, in .venv, which is made if it does not exist: bash scripts/test.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/mypy
.venv/bin/python -m pytest "$@"
