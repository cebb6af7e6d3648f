"""Read YAML, name files, and write files completely or not at all."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from crl.run.errors import UserError


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path next to `target`; rename it to `target` if the block succeeds.

    A reader sees the old file or the complete new one, never a part. On any error (a full disk, an
    interrupt) the temporary file is removed and the old file stays.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; give the result the permissions of an ordinary new file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write `text` (UTF-8) to `target` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_yaml(path: Path) -> dict[str, Any]:
    """The `key: value` pairs of a YAML file; no code in it ever runs.

    Raises:
        UserError: the file cannot be read, is not YAML, or holds something else.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date; not UTF-8
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} must hold `key: value` lines")
    return data


def slug(name: str) -> str:
    """`name` as a part of a file name: letters (of any alphabet), digits and dashes."""
    return re.sub(r"[\W_]+", "-", name).strip("-").lower()[-80:]  # the end of a long path
