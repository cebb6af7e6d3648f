"""`refused`: a command on data of which something is wrong ends with one line that says so."""

import shlex
from collections.abc import Callable

import mistakes
import pytest

from crl.run import config

PYDANTIC = ("Input should", "valid dictionary", "Extra inputs", "Value error", "errors.pydantic")


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    mistakes.make(folder)
    return folder


@pytest.fixture(scope="session")
def trained(data):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(data)
        mistakes.train()


@pytest.fixture
def refused(data, run, monkeypatch) -> Callable[..., None]:
    """Runs `line`, a key of `mistakes.COMMANDS` and further arguments, while `files` are replaced:
    exit code 2, one line with `words`, and nothing is written."""
    monkeypatch.chdir(data)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(config, "_shown", str)  # takes most of the time of --help

    def refused(line: str, words: str, files: dict[str, mistakes.Content] | None = None) -> None:
        command, *arguments = shlex.split(line)
        with mistakes.replaced(files or {}):
            before = mistakes.tree()
            main = mistakes.COMMANDS[command][0]
            code, _, errors = run(main, *mistakes.words_of(command), *arguments)
            assert mistakes.tree() == before
        lines = [text for text in errors.splitlines() if not text.startswith("note: ")]
        assert code == 2, errors
        assert [text.startswith("error: ") for text in lines] == [True], errors
        assert words in lines[0]
        assert not any(word in lines[0] for word in PYDANTIC)

    return refused
