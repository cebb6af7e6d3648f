"""mine_triplets.py on `key=value` settings, in this process."""

from collections.abc import Callable

import pytest

from similarity_retrieval import mine_triplets


@pytest.fixture
def arguments(tmp_path) -> Callable[..., list[str]]:
    def arguments(**settings) -> list[str]:
        given = [f"{key}={'null' if value is None else value}" for key, value in settings.items()]
        return [f"outputs={tmp_path / 'out'}", *given]

    return arguments


@pytest.fixture
def mine(run, arguments) -> Callable[..., tuple[int, str, str]]:
    """Exit code, output and errors."""
    return lambda **settings: run(mine_triplets.main, *arguments(**settings))


@pytest.fixture
def mine_refused(refusal, arguments) -> Callable[..., str]:
    """The one line of a run that must fail."""
    return lambda **settings: refusal(mine_triplets.main, *arguments(**settings))
