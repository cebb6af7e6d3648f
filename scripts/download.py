"""Fetch the paper's data sets into the places where the configurations expect them.

    python scripts/download.py --list
    python scripts/download.py clevr4 cards
    python scripts/download.py genecis coco visual-genome genecis-weights
    python scripts/download.py deepfashion

What is complete is not fetched again, and half an archive is kept as FILE.part: the same command
goes on where it stopped. An archive is removed after it is unpacked; one that you got by hand is
used if it is where --list shows. DeepFashion needs an agreement: its command says what to do.
"""

from crl.run.command import command

import hashlib
import http.client
import os
import re
import shutil
import ssl
import stat
import time
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError, URLError

from check_data import DATA_SETS, Download, state
from tqdm import tqdm

from crl.run.errors import ArgumentParser, UserError, nearest
from crl.run.files import alone_in, atomic_path, no_link
from crl.run.progress import progress
from similarity_retrieval.mining.files import file_digest

PAUSES = (0.0, 1.0, 3.0, 10.0)  # seconds before each attempt
SILENCE = 60.0  # seconds without a byte before an attempt ends
CHUNK = 1 << 18  # bytes
BUSY = {408, 425, 429, 500, 502, 503, 504}  # answers that may be another one a little later
# Errors that may pass; those of the disk are others
NETWORK = (URLError, http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError)
MOST_BYTES = 20 * 10**9  # of a file whose size is not known; the largest known one has half
MOST_FILES = 10**6  # in an archive
GROWTH = 20  # most bytes that a byte of an archive unpacks to; images hardly grow
FORM = f"""\
DeepFashion's images need an agreement, which only you can sign:
  1. Ask for "Category and Attribute Prediction"; it is for non-commercial research only:
     {DATA_SETS["deepfashion-images"].page}
  2. Unpack Img/img.zip into the folder named below.
  3. Get meta.json and the text files for DeepFashion, as ASEN's README says, into the same folder:
     {DATA_SETS["deepfashion"].page}
  4. See what is missing: python scripts/check_data.py
The folder is"""


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="data sets, e.g. coco; --list shows their names")
    add("--data", type=Path, default=Path("data"), help="the data folder (default: %(default)s)")
    add("--list", action="store_true", help="show names, sizes, licences, addresses and places")
    args = parser.parse_args(argv)
    offered = [name for name, data_set in DATA_SETS.items() if data_set.downloads]
    for name in offered if args.list else []:
        data_set = DATA_SETS[name]
        print(f"{name}: {data_set.title}; licence: {data_set.licence}")
        for file in data_set.downloads:
            size = tqdm.format_sizeof(file.size, "B") if file.size else "size not known"
            print(f"  {file.url} ({size}) -> {args.data / data_set.folder / file.name}")
    if not args.names and not args.list:
        raise UserError(f"give one or more of {', '.join(offered)}; --list shows them")
    for name in args.names:
        if name.startswith("deepfashion"):
            print(f"{FORM} {args.data / DATA_SETS['deepfashion'].folder}")
            raise UserError("DeepFashion needs an agreement: do the steps above")
        if name not in offered:
            raise UserError(f"unknown data set {name!r}; {nearest(name, DATA_SETS)}")
    for name in dict.fromkeys(args.names):
        get(name, args.data)


def get(name: str, data: Path) -> None:
    """Fetch and unpack what is missing of one data set."""
    data_set = DATA_SETS[name]
    folder = data / data_set.folder
    hand = f"by hand from {data_set.page}, put it in {folder}, and give the command again"
    if state(name, data)[0] == "complete":
        print(f"{name}: already complete in {folder}; nothing is fetched")
        return
    with alone_in(folder, outputs=False):
        # If everything is there and yet something is wrong, all is fetched again.
        for file in [f for f in data_set.downloads if _is_missing(f, folder)] or data_set.downloads:
            target = folder / file.name
            try:
                if not (file.unpacked and target.is_file()):
                    fetch(file, target)
                elif fault := _fault(target, file):
                    raise UserError(f"{target} {fault}; delete it and give the command again")
                if not file.checksum:
                    print(f"note: no checksum of {file.name} is on record, so only its form was "
                          f"checked; it has sha256:{file_digest(target)}")  # fmt: skip
                if file.unpacked:
                    unpack(target, file.unpacked, folder)
                    target.unlink()
            except UserError as error:
                raise UserError(f"{error}; or get {file.name} {hand}") from error
    now, files = state(name, data)
    if now != "complete":
        raise UserError(
            f"{name} is still {now}; the same command fetches all of it; or get it {hand}"
        )
    print(f"{name}: complete in {folder}; {len(files):,} files")


def _is_missing(file: Download, folder: Path) -> bool:
    """Whether it must be fetched; or unpacked, which ends with the archive's removal."""
    left = file.unpacked and (folder / file.name).exists()
    return left or not all((folder / name).exists() for name in file.unpacked or [file.name])


def fetch(file: Download, target: Path) -> None:
    """Download `file` to `target`; half an archive stays in `<target>.part` for the next time."""
    part = target.with_name(f"{target.name}.part")
    if not file.unpacked:  # small; and nothing would notice if the halves were of two versions
        part.unlink(missing_ok=True)
    for pause in PAUSES:
        time.sleep(pause)
        if not (reason := _transfer(file, part)):
            break
    else:
        times = f"{len(PAUSES)} times"
        raise UserError(f"{file.url}: {reason}, {times}; give the command again later, it goes on")
    if fault := _fault(part, file):
        part.unlink()  # nothing to go on from
        raise UserError(f"{file.url}: what came {fault}")
    os.replace(part, target)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """What is encrypted stays so."""

    def redirect_request(self, request, answer, code, reason, headers, address):
        if request.type == "https" and not address.lower().startswith("https:"):
            address = address.partition("?")[0]  # what follows may hold a key
            raise UserError(f"{request.full_url} leads to {address}, which is not encrypted")
        return super().redirect_request(request, answer, code, reason, headers, address)


def _transfer(file: Download, part: Path) -> str:
    """Download what `part` lacks. Says why it ended too early, if another attempt may help."""
    start = part.stat().st_size if part.is_file() else 0
    if start and start == file.size:
        return ""
    most = file.size or MOST_BYTES
    headers = {"User-Agent": "crl"} | ({"Range": f"bytes={start}-"} if start else {})
    request = urllib.request.Request(file.url, headers=headers)
    try:
        opener = urllib.request.build_opener(_Redirects)
        with opener.open(request, timeout=SILENCE) as answer:
            start = start if answer.status == 206 else 0
            total = None if answer.length is None else start + answer.length
            if file.size and total not in (None, file.size):
                raise UserError(f"{file.url} has {total:,} bytes now, not {file.size:,}")
            bar = progress(label=file.name, unit="B", total=total, done=start)
            with open(part, "ab" if start else "wb", opener=no_link) as sink, bar:
                bar.unit_scale = True
                while chunk := answer.read(CHUNK):
                    if max(total or 0, sink.tell() + len(chunk)) > most:
                        sink.truncate(0)  # nothing to go on from
                        raise UserError(f"{file.url} sends more than {most:,} bytes")
                    sink.write(chunk)
                    bar.update(len(chunk))
    except HTTPError as error:
        reason = f"the server answers {error.code} {error.reason}"
        if error.code == 416:  # nothing follows what is here
            part.unlink()
        elif error.code not in BUSY:
            raise UserError(f"{file.url}: {reason}") from None
        return reason
    except NETWORK as error:
        cause = getattr(error, "reason", error)
        return f"no answer ({getattr(cause, 'strerror', None) or cause})"
    size = part.stat().st_size
    return f"it broke off after {size:,} of {total:,} bytes" if total and size < total else ""


def _fault(path: Path, file: Download) -> str:
    """How `path` differs from what is known about `file`, after the words "what came"."""
    if file.checksum:
        digest = hashlib.new(file.checksum.partition(":")[0], usedforsecurity=False)
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
        if f"{digest.name}:{digest.hexdigest()}" != file.checksum:
            return f"has the checksum {digest.hexdigest()}, not {file.checksum}"
    with path.open("rb") as stream:
        if stream.read(CHUNK).lstrip()[:1] in (b"", b"<"):
            return "is empty or a web page"
    if file.unpacked and not zipfile.is_zipfile(path):
        return "is not a whole zip archive"
    return ""


def unpack(archive: Path, names: tuple[str, ...], folder: Path) -> None:
    """Bring the files and folders `names` from a zip archive to `folder`, each file completely;
    what is there already is kept, except files of the same name."""
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = _members(archive, zipped, names)
            for path, member in progress(members.items(), label="unpacking", unit="files"):
                with (
                    zipped.open(member) as source,
                    atomic_path(folder / path) as temporary,
                    temporary.open("wb") as sink,
                ):
                    shutil.copyfileobj(source, sink)  # compares the file's checksum
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{archive} is damaged: {error}; delete it and try again") from error


def _members(archive: Path, zipped: zipfile.ZipFile, names: tuple[str, ...]) -> dict:
    """Where each wanted file goes (PurePosixPath) -> its entry in the archive (ZipInfo)."""
    paths = {}
    for entry in zipped.infolist():
        name, link = entry.filename, stat.S_ISLNK(entry.external_attr >> 16)
        if link or re.match(r"/|\w:", name) or "\\" in name or ".." in name.split("/"):
            raise UserError(f"{archive} is not safe to unpack: {name!r} leads elsewhere")
        if not entry.is_dir() and "__MACOSX" not in name:
            paths[PurePosixPath(name)] = entry
    if sum(entry.file_size for entry in paths.values()) > GROWTH * archive.stat().st_size:
        raise UserError(f"{archive} is not safe to unpack: it grows more than {GROWTH} times")
    if len(paths) > MOST_FILES:
        raise UserError(f"{archive} is not safe to unpack: it has more than {MOST_FILES:,} files")
    above = [
        {place.parent for path in paths for place in (path, *path.parents) if place.name == name}
        for name in names
    ]
    roots = set.intersection(*above)
    if len(roots) != 1:
        where = ", ".join(sorted(map(str, roots))) or "nowhere"
        wanted = " and ".join(names)
        raise UserError(f"{archive} must hold {wanted} side by side in one place; found: {where}")
    (root,) = roots
    inside = {p.relative_to(root): e for p, e in paths.items() if p.is_relative_to(root)}
    return {path: entry for path, entry in inside.items() if path.parts[0] in names}


if __name__ == "__main__":
    main()
