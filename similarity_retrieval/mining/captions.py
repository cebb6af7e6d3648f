"""Image-caption data in common formats, as one stream of (image, caption) pairs.

JSONL, and CSV or TSV, with `image` and `caption`; COCO's captions JSON; webdataset shards.
"""

import csv
import itertools
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, StringConstraints, ValidationError

from crl.run.errors import UserError, explain

Name = Annotated[str, StringConstraints(min_length=1)]
M = TypeVar("M", bound=BaseModel)
MOST_NAMES = 100_000  # that braces stand for


class Pair(BaseModel):
    """An image and one caption of it."""

    image: Name
    caption: str


def caption_files(captions: str) -> list[Path]:
    """The files that `captions` names: one file, a folder of shards, or a brace or glob pattern.

    Raises:
        UserError: no such file, too many, an unknown suffix, or two shards of the same name.
    """
    files: list[Path] = []
    names = list(itertools.islice(_braces(os.path.expanduser(captions)), MOST_NAMES + 1))
    if len(names) > MOST_NAMES:
        raise UserError(f"{captions} names more than {MOST_NAMES:,} files; give a folder or a *")
    for name in names:
        path = Path(name)
        if path.is_dir():
            files += sorted(path.glob("*.tar"))
        elif re.search(r"[*?\[]", name) and not path.exists():
            anchor = Path(path.anchor)
            try:
                files += sorted(anchor.glob(str(path.relative_to(anchor))))
            except ValueError as error:  # a**
                raise UserError(f"{captions}: {error}") from error
        else:
            files.append(path)
    if not files:
        raise UserError(f"{captions} names no file (of a folder, the .tar shards are read)")
    for file in files:
        if file.suffix not in READERS:
            raise UserError(f"{file}: captions come as {', '.join(READERS)}, not {file.suffix!r}")
        if not file.is_file():
            raise UserError(f"{file} does not exist (captions={captions})")
    shards = Counter(file.stem for file in files if file.suffix == ".tar")
    if shards and max(shards.values()) > 1:
        name = shards.most_common(1)[0][0]
        raise UserError(f"two shards are called {name}.tar; their images could not be told apart")
    return files


def _braces(pattern: str) -> Iterator[str]:
    """Expand `x{00..02}.tar` and `{a,b}.tar` as shells and webdataset do.

    >>> list(_braces("x{08..10}.tar"))
    ['x08.tar', 'x09.tar', 'x10.tar']
    """
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        yield pattern
        return
    span = re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", found[1])
    middles: Iterable[str] = found[1].split(",")
    if span:
        numbers = range(int(span[1]), int(span[2]) + 1)
        middles = (str(number).zfill(len(span[1])) for number in numbers)
    for middle in middles:
        for tail in _braces(pattern[found.end() :]):
            yield pattern[: found.start()] + middle + tail


def read_captions(files: Iterable[Path], prefix: str = "") -> Iterator[Pair]:
    """Yield all pairs of image and caption in `files`, in their order.

    Raises:
        UserError: a file is not in the format of its suffix; names the file and the line or entry.
    """
    for file in files:
        for where, image, caption in READERS[file.suffix](file):
            pair = checked(Pair, {"image": image, "caption": caption}, where)
            yield Pair.model_construct(image=prefix + pair.image, caption=pair.caption)


def checked(kind: type[M], value: Any, where: str) -> M:
    """`value` as a `kind`; a UserError that begins with `where` if it is not one."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error)}") from error


def lines(file: Path, blank: bool = False) -> Iterator[tuple[str, str]]:
    """(`file:number`, line) of each line; blank lines only if `blank`."""
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            where = f"{file}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{where}: not UTF-8") from error
            if blank or text.strip():
                yield where, text


def _read_jsonl(file: Path) -> Iterator[tuple[str, Any, Any]]:
    for where, line in lines(file):
        try:
            value = json.loads(line)
            yield where, value["image"], value["caption"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(f'{where}: not {{"image": ..., "caption": ...}}') from error


def _read_table(file: Path) -> Iterator[tuple[str, Any, Any]]:
    text = (line for _, line in lines(file, blank=True))
    rows = csv.reader(text, delimiter="\t" if file.suffix == ".tsv" else ",", strict=True)
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        if header.count("image") != 1 or header.count("caption") != 1:
            raise UserError(
                f"{file}:1: the first line must name the columns image and caption, "
                f"not {', '.join(header)[:80] or 'nothing'}"
            )
        image, caption = header.index("image"), header.index("caption")
        for row in filter(None, rows):
            where = f"{file}:{rows.line_num}"
            if len(row) != len(header):
                raise UserError(f"{where}: {len(row)} columns, but the header has {len(header)}")
            yield where, row[image], row[caption]
    except csv.Error as error:
        raise UserError(f"{file}:{rows.line_num}: {error}") from error


def _read_coco(file: Path) -> Iterator[tuple[str, Any, Any]]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        names = {image["id"]: image["file_name"] for image in data["images"]}
        annotations = list(data["annotations"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(
            f"{file} is not a COCO captions file (images with id and file_name, annotations): "
            f"{type(error).__name__} {error}"
        ) from error
    for number, annotation in enumerate(annotations):
        where = f"{file}: annotation {number}"
        try:
            yield where, names[annotation["image_id"]], annotation["caption"]
        except (TypeError, KeyError) as error:
            raise UserError(f"{where}: no caption, or no image {error}") from error


def _read_shard(file: Path) -> Iterator[tuple[str, Any, Any]]:
    """One webdataset shard, read as a stream: members that share a key are one sample."""
    try:
        with tarfile.open(file, mode="r|*") as shard:
            members = (_member(shard, entry, file) for entry in shard if entry.isfile())
            for key, sample in itertools.groupby(members, key=lambda member: member[0]):
                where = f"{file}: {key}"
                parts = {suffix: value for _, suffix, value in sample}
                images = [parts[suffix] for suffix in IMAGES if suffix in parts]
                if not images:
                    raise UserError(f"{where}: no image beside it ({', '.join(IMAGES)})")
                # The path of the image if the shard is unpacked into a folder of its name
                yield where, f"{file.stem}/{images[0]}", _caption(parts, where)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.filename:
            raise
        raise UserError(f"{file} is damaged or no .tar: {error}; get it again") from error


def _member(shard: tarfile.TarFile, entry: tarfile.TarInfo, file: Path) -> tuple[str, str, Any]:
    """(key, suffix, value); value: content of a .txt or .json, else the file name. `a/1.x.jpg` has
    the key `a/1`."""
    folder, slash, name = entry.name.removeprefix("./").rpartition("/")
    stem, _, suffix = name.partition(".")
    key, suffix = folder + slash + stem, suffix.lower()
    if suffix not in {"txt", "json"}:
        return key, suffix, entry.name.removeprefix("./")
    try:
        text = shard.extractfile(entry).read().decode("utf-8-sig")
        return key, suffix, text if suffix == "txt" else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: {entry.name} is not {suffix} in UTF-8") from error


def _caption(parts: dict[str, Any], where: str) -> Any:
    """The caption of a sample; empty if it has none: such samples are common, and are counted."""
    if "txt" in parts:
        return parts["txt"].strip()
    about = parts.get("json", {})
    if not isinstance(about, dict):
        raise UserError(f"{where}: its .json is not an object with a caption")
    caption = about.get("caption")
    return "" if caption is None else caption


IMAGES = ("jpg", "jpeg", "png", "webp")
READERS: dict[str, Callable[[Path], Iterator[tuple[str, Any, Any]]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_table,
    ".tsv": _read_table,
    ".json": _read_coco,
    ".tar": _read_shard,
}
