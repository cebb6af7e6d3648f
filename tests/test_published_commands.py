"""Commands in READMEs, configs and docstrings can be run: their files, keys and options exist."""

import ast
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


def advised(file):
    """The options `--word` that the messages of a file speak of."""
    for node in ast.walk(ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))):
        warns = isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "warn"
        if warns or isinstance(node, ast.Raise | ast.Assign | ast.AugAssign | ast.Return):
            texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            text = " ".join(text for text in texts if isinstance(text, str))
            yield from re.findall(r"(?<![\w-])--[a-z][\w-]*", text)


EXPLORE, GENERATE = "crl/commands/explore.py", "crl/commands/texts.py"
SAYS = {  # whose messages a command can print, beside its own
    EXPLORE: ["crl/run/chat.py", "crl/llm.py", "crl/explore/collection.py", "crl/embed.py"],
    GENERATE: ["crl/run/chat.py", "crl/llm.py"],
    "crl/commands/embed.py": ["crl/embed.py"],
}
SAYS |= {str(path.relative_to(REPOSITORY)): [] for path in REPOSITORY.glob("scripts/*.py")
         if str(path.relative_to(REPOSITORY)) not in SAYS}  # fmt: skip


@pytest.mark.parametrize("script", SAYS)
def test_no_message_advises_an_option_that_its_command_lacks(script):
    source = (REPOSITORY / script).read_text(encoding="utf-8")
    for file in (script, *SAYS[script]):
        for option in {*advised(file)} - {"--help", "--head"}:  # the latter of ray start
            assert f'"{option}"' in source, f"{file} speaks of {option}"


@pytest.mark.parametrize("file", sorted(REPOSITORY.glob("configs/**/*.yaml")), ids=lambda f: f.name)
def test_every_configuration_loads_through_the_script_that_its_head_names(file: Path):
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if any(folder.name.endswith("bases") for folder in file.parents):
        assert {"criterion", "vlm_prompt", "texts"} <= content.keys()
        return
    name = file.relative_to(REPOSITORY)
    head = re.sub(r"[\s#\\]+", " ", file.read_text(encoding="utf-8"))
    found = re.search(rf"(\w+/\w+\.py) (?:\S+ )?--config {re.escape(str(name))}", head)
    assert found, f"{name} does not show its command"
    load_config(CONFIGS[found[1]], ["--config", str(file)], "")
