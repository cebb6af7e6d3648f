"""A wheel holds the package alone and all that it needs; a clone also finds its tasks."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml
from commands import REPOSITORY
from packaging.version import Version
from toy_vlm import make_images

import crl

NOT_INSTALLED = ("*/__pycache__/*", "crl/README.md")
BUILD = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the repository: a build leaves files in its source."""
    source = tmp_path_factory.mktemp("clone") / "source"
    others = shutil.ignore_patterns(
        ".*", "data", "outputs", "cache", "tests", "*.egg-info", "build"
    )
    return shutil.copytree(REPOSITORY, source, ignore=others)


@pytest.fixture
def call(tmp_path):
    """Runs a command of a new environment, which sees our libraries but no `crl` of theirs."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (site,) = tmp_path.glob("venv/lib/python*/site-packages")
    (site / "ours.pth").write_text(sysconfig.get_path("purelib"))

    def call(command: str, *arguments: object) -> str:
        line = [tmp_path / "venv/bin" / command, *arguments]
        done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def test_the_command_of_a_wheel_explores_pictures(source, call, tmp_path):
    call("python", "-m", "pip", "wheel", *BUILD, "--wheel-dir", tmp_path, source)
    (wheel,) = tmp_path.glob("crl_vision-*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {file.relative_to(source) for file in source.glob("crl/**/*") if file.is_file()}
    wanted = {str(f) for f in wanted if not any(f.match(p) for p in NOT_INSTALLED)}
    bases = (source / "configs/bases").rglob("*.yaml")
    bases = {f"crl/bases/{f.relative_to(source / 'configs/bases')}" for f in bases}
    assert names == wanted | bases
    call("python", "-m", "pip", "install", *BUILD, wheel)
    assert call("crl", "--version") == f"crl {crl.__version__}\n"
    make_images(tmp_path / "pictures", 20)
    printed = call("crl", "explore", "pictures", "--vlm", "demo", "--texts", "color=clevr4_color")
    assert "pictures: 20 pictures, VLM demo" in printed
    page = (tmp_path / "outputs/explore/pictures/report.html").read_text(encoding="utf-8")
    assert "crl explore pictures --vlm demo" in page


def test_the_tasks_of_a_clone_find_each_other(source, call):
    call("python", "-m", "pip", "install", *BUILD, "--editable", source)
    for script in ("classification_clustering/clustering.py", "scripts/explore.py"):
        assert call("python", source / script, "--help").startswith("usage: ")
    where = "import fashion_retrieval as package; print(package.__path__)"
    assert str(source / "fashion_retrieval") in call("python", "-c", where)


def test_the_citation_is_that_of_the_readme():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    paper = citation["preferred-citation"]
    names = [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert f"{{{paper['title']}}}" in readme and f"{{{' and '.join(names)}}}" in readme
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", crl.__version__)


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
