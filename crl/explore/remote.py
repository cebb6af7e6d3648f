"""Lists of image files: in a folder, in a text file, or in an object store."""

import errno
import os
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from textwrap import shorten

from pyarrow.fs import FileSelector, FileSystem, FileType

from crl.images import EXTENSIONS, image_files, shown
from crl.run.errors import UserError


@dataclass(frozen=True)
class RemoteFile:
    """A file of an object store.

    Attributes:
        path: bucket/key.
        store: reads it.
    """

    path: str
    store: FileSystem = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.store.type_name}://{self.path}"

    def read_bytes(self) -> bytes:
        """Its content.

        Raises:
            FileNotFoundError: there is no such file.
            UserError: the store does not answer or refuses; that says nothing about the image.
        """
        try:
            with self.store.open_input_stream(self.path) as stream:
                return stream.read()
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(self)) from None
        except OSError as error:
            raise UserError(
                f"cannot read {self}: {shorten(str(error), 300)}; when the store answers again, "
                "run the command again"
            ) from error


def find_images(where: str) -> tuple[list[str], str]:
    """Names of images, sorted, and the folder that they are relative to: those in a folder, in a
    list with a name per line, or below an object store's prefix.

    Raises:
        UserError: none there; a file of the list is missing; a store that does not answer.
    """
    if "://" in where:
        return remote_names(where), ""
    place = Path(where).expanduser().resolve()
    if not place.is_file():
        return [str(file.relative_to(place)) for file in image_files(place)], str(place)
    lines = place.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    names = sorted({line for line in lines if line})
    missing = [name for name in names if "://" not in name and not os.path.isfile(name)]
    if not names:
        raise UserError(f"{place} names no images; write one on each line")
    if missing:
        raise UserError(
            f"{place}: {len(missing):,} files are missing, the first: {shown(missing[0])}"
        )
    return names, str(Path.cwd())


def remote_names(uri: str) -> list[str]:
    """`s3://bucket/key` of each image below `s3://bucket/prefix`, by the ending of its name."""
    try:
        store, prefix = FileSystem.from_uri(uri)
        files = store.get_file_info(FileSelector(prefix, recursive=True, allow_not_found=True))
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise UserError(f"cannot list {without_keys(uri)}: {shorten(str(error), 300)}") from error
    names = [f"{store.type_name}://{info.path}" for info in files if info.type == FileType.File]
    names = [name for name in names if PurePosixPath(name).suffix.lower() in EXTENSIONS]
    if not names:
        raise UserError(f"there are no images in {without_keys(uri)}")
    return sorted(names)


def without_keys(uri: str) -> str:
    """A URI to show, without the keys and options that it may hold; a path as it is."""
    return re.sub("//[^/]*@", "//", uri.partition("?")[0]) if "://" in uri else uri


def open_file(name: str, root: str, uri: str = "") -> Path | RemoteFile:
    """The file of a name of `find_images`.

    Args:
        uri: that of the prefix it was found below, whose options say how to reach the store.
    """
    scheme, remote, path = name.partition("://")
    if not remote:
        return Path(root, name)
    store = uri if "://" in uri else f"{scheme}://{path.partition('/')[0]}"
    return RemoteFile(path, FileSystem.from_uri(store)[0])
