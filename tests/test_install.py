"""`pip install .`, not editable: an installed package has all that it needs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from commands import REPOSITORY
from packaging.version import Version

USED = """
import crl
from crl import TextBasis, load_vlm
from fashion_retrieval import rivals, towers
from similarity_retrieval.mining import miner
assert len(TextBasis.load("clevr4_color").texts) > len(TextBasis.load("everyday/mood").texts) > 10
print(load_vlm("demo").encode_texts(["red"]).shape[1], crl.__file__)
"""


def test_an_installed_package_finds_its_demo_vlm_and_bases_from_another_folder(tmp_path: Path):
    source, installed, elsewhere = (tmp_path / name for name in ("source", "installed", "else"))
    others = shutil.ignore_patterns(".*", "data", "outputs", "cache", "tests", "*.egg-info")
    shutil.copytree(REPOSITORY, source, ignore=others)  # the build leaves files in its source
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", installed, source], check=True)
    line = [sys.executable, "-c", USED]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    printed = subprocess.check_output(line, cwd=elsewhere, env=environment, text=True)
    width, place = printed.split()
    assert (width, Path(place).parent) == ("128", installed / "crl")


def test_no_lower_bound_allows_versions_that_are_unsafe_or_broken():
    """scripts/lowest_versions.sh tries that the bounds are enough."""
    least = "torch 2.10, torchvision 0.25, filelock 3.20.3, pillow 12.1.1, open_clip_torch 3.3"
    least += ", bokeh 3.8, transformers 5.10.1, safetensors 0.4.3, scipy 1.11.1"
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    pattern = r"([\w-]+)>=([\d.]+)\s*(#.*)?"  # the form that lowest_versions.sh reads
    bounds = [re.fullmatch(pattern, line) for line in lines if line and not line.startswith("#")]
    allowed = {bound[1]: Version(bound[2]) for bound in bounds}
    for name, version in (pair.split() for pair in least.split(", ")):
        assert allowed[name] >= Version(version), name
    project = (REPOSITORY / "pyproject.toml").read_text()
    assert 'dependencies = { file = ["requirements.txt"] }' in project
