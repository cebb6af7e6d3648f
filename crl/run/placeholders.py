"""Placeholders for libraries that take seconds to import, for a script that only prints its help.
Sphinx does the same (`autodoc_mock_imports`)."""

from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

HEAVY = (
    "bokeh filelock jinja2 json_repair markupsafe matplotlib numpy open_clip openai pandas "
    "pillow_heif pyarrow ray safetensors scipy sklearn tabulate threadpoolctl torch torchvision "
    "tornado tqdm transformers"
).split()


class Placeholder(ModuleType):
    """A module that has every attribute. Attributes, calls and subscripts are placeholders too: so
    they can decorate, annotate and be base classes."""

    def __getattr__(self, name: str) -> "Placeholder":
        if name.startswith("__"):  # Python and its library ask what a thing can do
            raise AttributeError(name)
        return Placeholder(name)

    def __call__(self, *_: Any, **__: Any) -> "Placeholder":
        return self

    __getitem__ = __setitem__ = __or__ = __ror__ = __call__

    def __mro_entries__(self, bases: tuple) -> tuple:
        return ()


class Finder:
    """Finds a placeholder for each module of the `HEAVY` libraries."""

    def find_spec(self: Any, fullname: str, *_: Any) -> ModuleSpec | None:
        heavy = fullname.partition(".")[0] in HEAVY
        return ModuleSpec(fullname, self, is_package=True) if heavy else None

    def create_module(self, spec: ModuleSpec) -> Placeholder:
        return Placeholder(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def asks_for_help(line: Sequence[str]) -> bool:
    """Does argparse answer this command line with help, or with a mistake that stands before?"""
    return "--" not in line and not {"-h", "--help"}.isdisjoint(line)
