"""Image-caption data in common formats, as one stream of (image, caption) pairs.

JSONL, and CSV or TSV, with `image` and `caption`; COCO's captions JSON; webdataset shards.
"""

import functools
import glob
import html
import itertools
import tarfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, StringConstraints

from crl.run.errors import UserError
from similarity_retrieval.mining.files import checked, decoded, read_jsonl, read_table

IMAGES = ("jpg", "jpeg", "png", "webp")
MOST_TEXT = 2**20  # bytes; a longer file in a shard is no caption
Name = Annotated[str, StringConstraints(min_length=1)]


def _unescape(caption: str) -> str:
    """`tom &amp; jerry` is `tom & jerry`; twice, as in CLIP's tokenizer."""
    return html.unescape(html.unescape(caption))


class Pair(BaseModel):
    """An image and one caption of it."""

    image: Name
    caption: Annotated[str, AfterValidator(_unescape)]


def caption_files(captions: str) -> list[Path]:
    """The files that `captions` names: one file, a folder of shards, or a glob pattern."""
    path = Path(captions).expanduser()
    pattern = str(path / "*.tar") if path.is_dir() else str(path)
    files = [path] if path.is_file() else sorted(map(Path, glob.glob(pattern, recursive=True)))
    if not files:
        raise UserError(f"{captions} names no file (of a folder, the .tar shards are read)")
    for file in files:
        if file.suffix not in READERS or not file.is_file():
            endings = ", ".join(READERS)
            raise UserError(f"{file}: captions are regular files that end with {endings}")
    shards = [file.name for file in files if file.suffix == ".tar"]
    if len(set(shards)) < len(shards):
        raise UserError(f"{captions}: two shards have the same name, and so would their images")
    return files


def read_captions(files: Iterable[Path], prefix: str = "") -> Iterator[Pair]:
    """Yield all pairs in `files`, in their order, with `prefix` before the name of each image. A
    UserError names the line or entry that is not in the format of the file's suffix. Bad samples of
    shards are counted in a warning at the end."""
    bad: list[str] = []
    for file in files:
        for pair in READERS[file.suffix](file):
            if isinstance(pair, str):
                bad.append(pair)
                continue
            pair.image = prefix + pair.image
            yield pair
    if bad:
        warnings.warn(f"{len(bad):,} bad samples are left out, the first: {bad[0]}", stacklevel=2)


class _CocoImage(BaseModel):
    id: int
    file_name: Name


class _CocoCaption(BaseModel):
    image_id: int
    caption: str


class _Coco(BaseModel):
    images: list[_CocoImage]
    annotations: list[_CocoCaption]


def _read_coco(file: Path) -> Iterator[Pair]:
    where = f"{file} is not a COCO captions file"
    coco = checked(_Coco.model_validate_json, decoded(file.read_bytes(), where), where)
    names = {image.id: image.file_name for image in coco.images}
    for number, annotation in enumerate(coco.annotations):
        if annotation.image_id not in names:
            raise UserError(f"{file}: annotations.{number}: no image {annotation.image_id}")
        yield Pair(image=names[annotation.image_id], caption=annotation.caption)


class _Metadata(BaseModel):
    caption: str | None = None


def _read_shard(file: Path) -> Iterator[Pair | str]:
    """One webdataset shard: neighbours that share a key are one sample. A text says what is wrong
    with a sample. Images are not read."""
    try:
        # "r:", not compressed: only then can the content of a member be read after the next header.
        with tarfile.open(file, mode="r:") as shard:
            # What begins with a dot is no sample: macOS puts `._1.jpg` beside `1.jpg`.
            names = ((entry, PurePath(entry.name).name) for entry in shard if entry.isfile())
            members = (entry for entry, name in names if not name.startswith("."))
            for key, sample in itertools.groupby(members, key=lambda entry: _key(entry)[0]):
                parts = {_key(entry)[1]: entry for entry in sample}
                pair: Pair | str
                try:
                    pair = _pair(shard, parts, f"{file}: {key}", file.stem)
                except UserError as error:
                    pair = str(error)
                yield pair
            # To tarfile, a header that is cut off or damaged is the end.
            shard.fileobj.seek(shard.offset)
            if shard.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("it ends without an end mark")
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{file} is damaged or no .tar: {error}; get it again") from error


def _pair(
    shard: tarfile.TarFile, parts: dict[str, tarfile.TarInfo], where: str, folder: str
) -> Pair:
    """The caption is the sample's .txt, else "caption" in its .json, else empty."""
    image = next((parts[suffix].name for suffix in IMAGES if suffix in parts), None)
    if image is None:
        raise UserError(f"{where}: no image beside it ({', '.join(IMAGES)})")
    caption, text = "", parts.get("txt") or parts.get("json")
    if text:
        if text.size > MOST_TEXT:
            raise UserError(f"{where}: its text has {text.size:,} bytes, {MOST_TEXT:,} at most")
        caption = decoded(shard.extractfile(text).read(), where)
        if "txt" not in parts:
            caption = checked(_Metadata.model_validate_json, caption, where).caption or ""
    # The path of the image if the shard is unpacked into a folder of its name
    path = f"{folder}/{image.removeprefix('./')}"
    return checked(Pair.model_validate, {"image": path, "caption": caption.strip()}, where)


def _key(entry: tarfile.TarInfo) -> tuple[str, str]:
    """(key, suffix) of a member, as in webdataset: `./a/1.x.JPG` gives `a/1` and `x.jpg`."""
    folder, slash, name = entry.name.removeprefix("./").rpartition("/")
    stem, _, suffix = name.partition(".")
    return folder + slash + stem, suffix.lower()


READERS: dict[str, Callable[[Path], Iterator[Pair | str]]] = {
    ".jsonl": functools.partial(read_jsonl, Pair),
    ".csv": functools.partial(read_table, Pair),
    ".tsv": functools.partial(read_table, Pair),
    ".json": _read_coco,
    ".tar": _read_shard,
}
