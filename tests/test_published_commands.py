"""Commands that READMEs, configs and docstrings print can be run: nothing in them has rotted."""

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from commands import REPOSITORY

from crl.run.config import Config, load_config

TASKS = ("classification_clustering", "similarity_retrieval", "fashion_retrieval")
CONFIGS = {  # script -> its configuration
    "classification_clustering/clustering.py": "classification_clustering.inputs:EvaluateConfig",
    "classification_clustering/few_shot.py": "classification_clustering.inputs:EvaluateConfig",
    "similarity_retrieval/evaluate.py": "similarity_retrieval.inputs:EvaluateConfig",
    "similarity_retrieval/mine_triplets.py": "similarity_retrieval.mine_triplets:MineConfig",
    "similarity_retrieval/train_combiner.py": "similarity_retrieval.train_combiner:TrainConfig",
    "fashion_retrieval/evaluate.py": "fashion_retrieval.inputs:EvaluateConfig",
    "fashion_retrieval/train_mlp.py": "fashion_retrieval.train_mlp:MlpConfig",
    "fashion_retrieval/train_backbone.py": "fashion_retrieval.train_backbone:BackboneConfig",
    "fashion_retrieval/train_rival.py": "fashion_retrieval.train_rival:RivalConfig",
}
COMMAND = re.compile(
    r"(?:python3?|bash|torchrun[^\n]*?) +((?:scripts|"
    + "|".join(TASKS)
    + r")/\w+\.(?:py|sh)[^\n`]*)"
)


def config_of(script: str) -> type[Config]:
    module, name = CONFIGS[script].split(":")
    return getattr(importlib.import_module(module), name)


def published() -> Iterator[tuple[str, str]]:
    """Each file that speaks to people, and each command in it, on one line."""
    files = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("*/README.md")]
    files += [*REPOSITORY.glob("configs/*.yaml"), *REPOSITORY.glob("configs/demo/*.yaml")]
    files += [
        file for task in (*TASKS, "scripts", "crl") for file in REPOSITORY.glob(f"{task}/**/*.py")
    ]
    for file in files:
        text = re.sub(r"\n *# ?", "\n", file.read_text(encoding="utf-8"))  # comments of a YAML
        text = re.sub(r"\\\\?\n *", " ", text)  # lines that go on
        for found in COMMAND.finditer(text):
            command = re.split(r" {2,}#|  +(?=[a-zA-Z(])| # ", found[1])[0].strip()
            if "{" not in command.partition(" ")[0] and "{name}" not in command:
                yield str(file.relative_to(REPOSITORY)), command


PUBLISHED = sorted(set(published()))


def test_commands_were_found():
    assert len(PUBLISHED) > 40
    assert {name for name, _ in PUBLISHED} >= {"README.md", *(f"{t}/README.md" for t in TASKS)}


@pytest.mark.parametrize(("where", "command"), PUBLISHED)
def test_a_published_command(where, command):
    script, *arguments = shlex.split(command)
    assert (REPOSITORY / script).is_file(), f"{where}: there is no {script}"
    if script not in CONFIGS:
        source = (REPOSITORY / script).read_text(encoding="utf-8")
        for argument in arguments:
            if argument.startswith("--"):
                assert argument in source, f"{where}: {script} does not know {argument}"
        return
    arguments = [a for a in arguments if a not in ("...", "[...]") and "..." not in a]
    if arguments[-1:] == ["--config"]:
        arguments = []
    if "--config" in arguments:
        place = arguments.index("--config") + 1
        file = REPOSITORY / arguments[place]
        assert file.is_file(), f"{where}: there is no {arguments[place]}"
        arguments[place] = str(file)
    if arguments:
        load_config(config_of(script), arguments, "")


@pytest.mark.parametrize("file", sorted(REPOSITORY.glob("configs/**/*.yaml")), ids=lambda f: f.name)
def test_every_configuration_loads_through_the_script_that_its_head_names(file: Path):
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if file.parent.name.endswith("bases"):
        assert {"criterion", "vlm_prompt", "texts"} <= content.keys()
        return
    name = file.relative_to(REPOSITORY)
    head = re.sub(
        r"\s+", " ", file.read_text(encoding="utf-8").replace("#", " ").replace("\\", " ")
    )
    found = re.search(rf"(\w+/\w+\.py) (?:\S+ )?--config {re.escape(str(name))}", head)
    assert found, f"{name} does not show its command"
    load_config(config_of(found[1]), ["--config", str(file)], "")
