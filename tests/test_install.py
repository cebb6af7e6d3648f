"""`pip install .`, not editable: an installed package has all that it needs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from commands import REPOSITORY

USED = """
import crl
from crl import TextBasis, load_vlm
from fashion_retrieval import rivals, towers
from similarity_retrieval.mining import miner
assert len(TextBasis.load("clevr4_color").texts) > 10
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
