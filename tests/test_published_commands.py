"""Commands in READMEs, configs and docstrings can be run: their files, keys and options exist."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from commands import REPOSITORY
from published import CONFIGS, PUBLISHED, TASKS

from crl.run.config import load_config


def test_commands_were_found():
    assert len(PUBLISHED) > 40
    assert {name for name, _ in PUBLISHED} >= {"README.md", *(f"{t}/README.md" for t in TASKS)}


@pytest.mark.parametrize(("where", "command"), PUBLISHED)
def test_a_published_command(where, command, monkeypatch):
    script, *arguments = shlex.split(command)
    assert (REPOSITORY / script).is_file(), f"{where}: there is no {script}"
    if script not in CONFIGS:
        source = (REPOSITORY / script).read_text(encoding="utf-8")
        for argument in arguments:
            if argument.startswith("--"):
                assert argument in source, f"{where}: {script} does not know {argument}"
        return
    arguments = [argument for argument in arguments if "..." not in argument]
    if arguments[-1:] == ["--config"]:
        arguments = []
    monkeypatch.chdir(REPOSITORY)
    if arguments:
        load_config(CONFIGS[script], arguments, "")


@pytest.mark.parametrize("file", sorted(REPOSITORY.glob("configs/**/*.yaml")), ids=lambda f: f.name)
def test_every_configuration_loads_through_the_script_that_its_head_names(file: Path):
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if file.parent.name.endswith("bases"):
        assert {"criterion", "vlm_prompt", "texts"} <= content.keys()
        return
    name = file.relative_to(REPOSITORY)
    head = re.sub(r"[\s#\\]+", " ", file.read_text(encoding="utf-8"))
    found = re.search(rf"(\w+/\w+\.py) (?:\S+ )?--config {re.escape(str(name))}", head)
    assert found, f"{name} does not show its command"
    load_config(CONFIGS[found[1]], ["--config", str(file)], "")
