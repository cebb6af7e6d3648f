"""Read texts, name files, write files completely or not at all, and one command per folder."""

import codecs
import os
import re
import socket
import sys
import unicodedata
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from crl.run.errors import UserError

# In the user's cache folder, so that all working directories share it.
CACHE = Path(
    os.environ.get("CRL_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "crl")
).expanduser()
MOST_REFERENCES = 20  # a few lines of references to references can stand for gigabytes
HOST = re.sub(r"\W", "", socket.gethostname())[:40]
OURS = ".crl"  # an empty file in folders of outputs: their pictures are not the user's


@contextmanager
def alone_in(folder: Path, outputs: bool = True) -> Iterator[None]:
    """No other command writes to `folder` meanwhile; what killed ones left unfinished is removed. A
    command that has written nothing leaves no folder. A new folder of `outputs` is marked as such.
    A UserError if another command is at work there, or if it cannot be written to."""
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    locked, holder = (folder.parent / f".{folder.name}.{kind}" for kind in ("lock", "holder"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locked, timeout=0)
        lock.acquire()
        holder.unlink(missing_ok=True)  # of a killed command; through a link, another file
        with holder.open("x", encoding="utf-8") as stream:
            stream.write(f"process {os.getpid()} on {HOST}")
        if outputs and not any(folder.iterdir()):
            (folder / OURS).touch()
    except Timeout:
        who = holder.read_text(encoding="utf-8")[:80] if holder.is_file() else "just started"
        raise UserError(f"another command is at work in {folder} ({who}); wait until it has "
                        "ended, or choose another folder") from None  # fmt: skip
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot write to {folder}: {reason}; choose another folder") from error
    try:
        remove_leftovers(folder)
        yield
    finally:
        holder.unlink(missing_ok=True)
        if [file.name for file in folder.iterdir()] == [OURS]:
            (folder / OURS).unlink()
        if folder in made and not any(folder.iterdir()):
            with suppress(PermissionError):  # of an open file on Windows, where `release` does it
                locked.unlink()
        lock.release()
        for empty in made:
            with suppress(OSError):  # it holds something
                empty.rmdir()


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes of this machine left in `folder`."""
    for file in folder.rglob(".*.tmp"):
        if made_by := re.search(rf"\.(\d+)-{HOST}\.\w+\.tmp$", file.name):
            with suppress(OSError):  # not ours to remove
                if not is_running(int(made_by[1])):
                    file.unlink()


def is_running(process: int) -> bool:
    """Is there a process of this number on this machine?"""
    if sys.platform == "win32":  # where os.kill(process, 0) would send Ctrl-C
        import ctypes

        kernel = ctypes.windll.kernel32
        handle = kernel.OpenProcess(0x100000, False, process)  # SYNCHRONIZE; 0: there is none
        running = kernel.WaitForSingleObject(handle, 0) == 258  # WAIT_TIMEOUT: it has not ended
        kernel.CloseHandle(handle)
        return running
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # of another user; no number of a process
        pass
    return True


def no_link(path: str, flags: int) -> int:
    """The `opener` of files that we write in place: never through a symbolic link."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path next to `target`; rename it to `target` if the block succeeds. A
    reader sees the old file or the complete new one. On any error the old file stays, alone."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    writer = f"{os.getpid()}-{HOST}"  # for `remove_leftovers`
    temporary = target.with_name(f".{target.name}.{writer}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.touch()
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


class _Loader(yaml.SafeLoader):
    """Plain data. A key that stands twice is refused, where YAML would take the last one."""

    references = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.references += self.check_event(yaml.AliasEvent)
        if self.references > MOST_REFERENCES:
            raise yaml.YAMLError(f"it has more than {MOST_REFERENCES} references (*name)")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key, count in Counter(keys).items() if count > 1]:
            raise yaml.YAMLError(f"the key {twice[0]!r} stands twice")
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """The plain data in a YAML text; no code in it ever runs. A ValueError if it is not valid."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (AttributeError, LookupError, TypeError) as error:  # `!!timestamp x` and the like
        raise ValueError(f"a value does not fit its tag ({error})") from error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def encoding_of(content: bytes) -> str:
    """UTF-16 if `content` begins with its mark, else UTF-8 with or without one."""
    marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return "utf-16" if content.startswith(marks) else "utf-8-sig"


def read_text(path: Path, errors: str = "strict") -> str:
    """The text of a file in UTF-8 or UTF-16, without a mark at its start. A UserError if it cannot
    be read."""
    try:
        if path.exists() and not path.is_file():  # reading from a pipe would wait for ever
            raise UserError(f"{path} is not a regular file")
        content = path.read_bytes()
        text = content.decode(encoding_of(content), errors)
        return text.replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not a text in UTF-8: {error}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The `key: value` pairs of a YAML file. A UserError if it cannot be read or holds others."""
    try:
        data = parse_yaml(read_text(path))
    except ValueError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} must hold `key: value` lines")
    return data


def portable(name: str) -> str:
    """The name of a file, the same whichever system wrote it: with `/`, and accents composed."""
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def slug(name: str) -> str:
    """`name` as a part of a file name: letters (of any alphabet), digits and dashes."""
    return re.sub(r"[\W_]+", "-", name).strip("-").lower()[-80:]  # the end of a long path
