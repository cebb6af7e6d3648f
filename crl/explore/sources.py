"""What can stand for a folder of pictures: a zip or tar archive, or a data set of the Hugging Face
Hub. The pictures are written once, into a folder of the cache."""

import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePath
from textwrap import shorten

from crl.images import EXTENSIONS, NEED, NO_ENDING, left_out
from crl.run.errors import Missing, UserError
from crl.run.files import CACHE, alone_in, slug
from crl.run.progress import progress
from crl.run.results import digest
from crl.run.stamps import stamps

UNPACKED = CACHE / "unpacked"
# Photographs hardly shrink in an archive and drawings tenfold, but zeros a thousandfold: a small
# one can fill a disk.
MOST_TIMES, ALWAYS = 200, 10**9  # the size of the archive; bytes
HUB = re.compile(r"hf:(\w[\w.-]*/\w[\w.-]*)(?::([\w.+-]*(?:\[[^\]]*\])?))?(?::(.+))?")


def source_name(source: Path) -> str:
    """What its outputs are called: `photos` for `photos.tar.gz`."""
    return re.sub(r"\.(zip|tgz|tar(\.\w+)?)$", "", source.resolve().name, flags=re.IGNORECASE)


def picture_folder(source: Path | str) -> Path:
    """The folder of the pictures of `source`: itself, or one in the cache, for an archive or a data
    set `hf:OWNER/NAME[:split[:column]]` (split: train). An archive that has changed is unpacked
    anew; a data set is loaded once. A UserError if it cannot be unpacked or loaded."""
    if (name := Path(source).as_posix()).startswith("hf:"):
        return _once(name, "", partial(_load, name))
    place = Path(os.path.expanduser(source))
    if os.path.isfile(place):  # Path.is_file raises for names that are too long
        return _once(str(place.resolve()), stamps([place]), partial(_unpack, place))
    return place


def _once(name: str, version: object, write: Callable[[Path], None]) -> Path:
    """The folder that `write` fills, completely or not at all; former versions are removed."""
    place = UNPACKED / f"{slug(name)}-{digest(name)}"
    folder, unfinished = place / digest(version), place / "unfinished"
    if not folder.is_dir():
        with alone_in(place, outputs=False):
            for former in place.iterdir():
                shutil.rmtree(former)
            unfinished.mkdir()
            try:
                write(unfinished)
                if not any(unfinished.iterdir()):
                    raise UserError(f"there are no pictures in {name}")
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    total, most = 0, max(ALWAYS, MOST_TIMES * archive.stat().st_size)
    try:
        for size, extract in _members(archive, folder):
            total += size  # of all: to pass over a part of a .tar.gz takes its time too
            if total > most:
                reason = f"over {most:,} bytes, {MOST_TIMES} times its size"
                raise UserError(f"{archive} holds {reason}; unpack it yourself if you trust it")
            if extract:
                _check_room(folder, size)
                extract()
    except Exception as error:  # of a damaged archive the readers raise nearly anything
        if isinstance(error, UserError) or getattr(error, "errno", None):  # the disk's
            raise
        reason = f"{shorten(str(error), 160)}; it must be a folder, or a zip or tar archive"
        raise UserError(f"cannot unpack {archive}: {reason}") from error


def _members(archive: Path, folder: Path) -> Iterator[tuple[int, Callable[[], object] | None]]:
    """The size of each member, and what extracts it; None: it is no picture, but a link, a device,
    or outside of the archive (`..` is a hidden folder)."""
    extract: Callable[[], object]
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            for member in tar:
                extract = partial(tar.extract, member, folder, filter="data")
                yield member.size, extract if member.isreg() and _is_wanted(member.name) else None
        return
    with zipfile.ZipFile(archive) as zipped:
        for info in zipped.infolist():
            regular = not (info.is_dir() or stat.S_ISLNK(info.external_attr >> 16))
            extract = partial(zipped.extract, info, folder)
            yield info.file_size, extract if regular and _is_wanted(info.filename) else None


def _is_wanted(name: str) -> bool:
    """Would `list_images` take the file, or say what is needed to take it?"""
    return left_out(PurePath(name)) in ("", NO_ENDING, *NEED)


def _check_room(folder: Path, size: int) -> None:
    if size > shutil.disk_usage(folder).free:
        advice = "free some space, or set CRL_CACHE to a folder on another disk"
        raise UserError(f"there is no room for the pictures in {UNPACKED}; {advice}")


def _load(name: str, folder: Path) -> None:
    """Write the pictures of a data set as they are stored; names begin with the row's number."""
    if (parts := HUB.fullmatch(name)) is None:
        raise UserError(f"{name} must be hf:OWNER/NAME, hf:OWNER/NAME:split or ...:split:column")
    try:
        import datasets  # from version 4 on, it runs no code of a data set
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        raise Missing("datasets is not installed: pip install 'datasets>=4.0'") from None
    repository, split, column = parts[1], parts[2] or "train", parts[3]
    if os.path.exists(repository):  # which `load_dataset` would take
        raise UserError(f"there is {repository} in this folder; run the command in another one")
    try:
        rows = datasets.load_dataset(repository, split=split)
    except Exception as error:  # of the network, of the Hub, of what the data set holds
        raise UserError(f"cannot load {name}: {shorten(str(error), 240)}") from error
    columns = [key for key, kind in rows.features.items() if isinstance(kind, datasets.Image)]
    if column not in columns and (column or len(columns) != 1):
        known = ", ".join(columns) or "it has none"
        raise UserError(f"{name}: name a column of pictures (OWNER/NAME:split:column); {known}")
    column = column or columns[0]
    rows = rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    caches = [datasets.config.HF_CACHE_HOME, datasets.config.HF_DATASETS_CACHE, HF_HUB_CACHE]
    caches = [Path(cache).resolve() for cache in caches]  # no other file of this machine is read
    for number, row in enumerate(progress(rows, label=name, unit="pictures", total=len(rows))):
        path, content = ((row[column] or {}).get(key) for key in ("path", "bytes"))
        if path and not content and any(map(Path(path).resolve().is_relative_to, caches)):
            content = Path(path).read_bytes()
        if content:
            _check_room(folder, len(content))
            file = PurePath(path or "")  # made in memory: stored as PNG
            ending = file.suffix.lower() if file.suffix.lower() in EXTENSIONS else ".png"
            stem = f"{number:06}-{slug(file.stem)}".rstrip("-")
            (folder / f"{stem}{ending}").write_bytes(content)
