#!/usr/bin/env bash
# Before a release: do the lower bounds in requirements.txt hold? Installs just these versions into
# a new environment, but torch and torchvision, which come from .venv (or that of PYTHON=...), and
# runs explore.py and clustering.py on drawn data: bash scripts/lowest_versions.sh
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" -m venv "$scratch/venv"
lowest=$scratch/venv/bin/python
# What is installed here comes before what a .pth file names.
place='import sysconfig; print(sysconfig.get_path("purelib"))'
"$python" -c "$place" >"$("$lowest" -c "$place")/others.pth"
sed -nE '/^torch/d; s/^([A-Za-z0-9_-]+)>=([0-9.]+).*/\1==\2/p' requirements.txt >"$scratch/pins"
"$lowest" -m pip install --quiet --disable-pip-version-check -r "$scratch/pins"
export PYTHONPATH=$PWD HF_HUB_OFFLINE=1
"$lowest" scripts/demo/make_data.py --out "$scratch/data" --images 200
"$lowest" scripts/explore.py "$scratch/data/clevr_4_10k_v1/images" --vlm demo \
  --texts color=clevr4_color --texts shape=clevr4_shape --out "$scratch/explore"
"$lowest" classification_clustering/clustering.py --config configs/demo/clevr4.yaml \
  root="$scratch/data" outputs="$scratch/outputs" images=200
echo "The lower bounds hold: $(paste -sd ' ' "$scratch/pins")"
