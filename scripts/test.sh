#!/usr/bin/env bash
# Lint, types and tests, in an environment that is made if it is not there: bash scripts/test.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/mypy
.venv/bin/python -m pytest "$@"
