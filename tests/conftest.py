import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings
from llm_server import Server

# Set before crl is imported, so that no test reads or fills the user's own cache.
os.environ["CRL_CACHE"] = tempfile.mkdtemp(prefix="crl-tests-")

# Tests draw the same examples in every run, so that what fails is the change at hand; others with
# pytest --hypothesis-profile new. No deadline: a busy machine is no failure.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("new", deadline=None)
settings.load_profile("same")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that at the end no process waits for one of them."""
    longest = (
        "test_published_runs test_benchmark test_demo_vlm test_scripts test_train_combiner "
        "test_published_weights test_kills test_trainers test_install test_hub test_straight_lines"
    ).split()
    items.sort(key=lambda item: item.path.stem not in longest)


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["CRL_CACHE"], ignore_errors=True)


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs a script's `main` in this process with arguments, and settings as `key=value`; gives
    exit code, output and errors."""

    def run(main: Callable[[], None], *arguments: object, **settings: object):
        words = [*map(str, arguments), *(f"{key}={value}" for key, value in settings.items())]
        monkeypatch.setattr(sys, "argv", [f"{main.__module__}.py", *words])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def output(run) -> Callable[..., str]:
    """Runs a command that must go well; gives what it prints."""

    def output(*command: object, **settings: object) -> str:
        code, printed, errors = run(*command, **settings)
        assert code == 0, errors
        return printed

    return output


@pytest.fixture
def refusal(run) -> Callable[..., str]:
    """Runs a command that must be refused with exit code 2 and one line; gives that line."""

    def refusal(*command: object, **settings: object) -> str:
        code, _, errors = run(*command, **settings)
        lines = errors.splitlines()
        assert code == 2, errors
        assert [line.startswith("error: ") for line in lines] == [True], errors
        return lines[0].removeprefix("error: ")

    return refusal


@pytest.fixture
def server() -> Iterator[Server]:
    """A stand-in of an LLM server."""
    with Server() as server:
        yield server
