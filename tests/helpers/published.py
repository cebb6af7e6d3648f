"""The commands in READMEs, configurations, docstrings and messages."""

import re
from collections.abc import Iterator

from commands import REPOSITORY
from paper_tables.runs import SCRIPTS, script_of

from classification_clustering.ask import AskConfig

TASKS = ("classification_clustering", "similarity_retrieval", "fashion_retrieval")
CONFIGS = {script_of(task)[0]: script_of(task)[2] for task in SCRIPTS}  # of each script
CONFIGS["classification_clustering/ask.py"] = AskConfig
FOLDERS = "|".join((*TASKS, "scripts"))
COMMAND = re.compile(
    rf"(?:python3?|bash|torchrun[^\n]*?) +((?:{FOLDERS})/[\w/]+\.(?:py|sh)[^\n`]*)"
    r"|^(?:\w+:)? *(crl (?:explore|texts|embed) \S[^\n`]*)",
    re.MULTILINE,
)


def published() -> Iterator[tuple[str, str]]:
    """Each file that shows commands, and each command in it, on one line."""
    patterns = ["*.md", "*/README.md", "configs/*.yaml", "configs/demo/*.yaml"]
    patterns += [f"{folder}/**/*.py" for folder in (*TASKS, "scripts", "crl")]
    for file in (file for pattern in patterns for file in REPOSITORY.glob(pattern)):
        text = re.sub(r"\n *# ?", "\n", file.read_text(encoding="utf-8"))  # comments of a YAML
        text = re.sub(r" *\\\\?\n *", " ", text)  # lines that go on
        for found in COMMAND.finditer(text):
            command = re.split(r" {2,}#|  +(?=[a-zA-Z(])| # ", found[1] or found[2])[0].strip()
            command = re.sub(r"^crl (\w+)", r"crl/commands/\1.py", command)
            if "{" not in command.partition(" ")[0] and "{name}" not in command:
                yield str(file.relative_to(REPOSITORY)), command


PUBLISHED = sorted(set(published()))


def python_blocks(readme: str) -> list[str]:
    """The Python examples of a README."""
    text = (REPOSITORY / readme).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)
