"""Fetch the paper's data sets into the places where the configurations expect them.

    python scripts/download.py --list
    python scripts/download.py clevr4 cards
    python scripts/download.py genecis coco visual-genome genecis-weights
    python scripts/download.py deepfashion

What is complete is not fetched again. An interrupted command goes on where it stopped if it is
given again: half a file is kept as FILE.part. Sizes and checksums are compared with the known ones.
An archive is removed after it is unpacked. An archive that you got by hand is used if it is in the
place that --list shows. DeepFashion needs an agreement: its command says what to do.
"""

from crl.run.command import command

import argparse
import hashlib
import http.client
import json
import os
import re
import shutil
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import Any

from check_data import SETS, DataSet, File, in_bytes, look

from crl.run.errors import ArgumentParser, UserError, nearest
from crl.run.files import alone_in, write_text
from crl.run.progress import progress

PAUSES = (0.0, 1.0, 3.0, 10.0)  # seconds before each attempt
SILENCE = 60.0  # seconds without a byte before an attempt ends
CHUNK = 1 << 18  # bytes
BUSY = {408, 425, 429, 500, 502, 503, 504}  # answers that may be another one a little later
FORM = f"""\
DeepFashion's images need an agreement, which only you can sign:
  1. Ask for access to "Category and Attribute Prediction", as its page says:
     {SETS["deepfashion-images"].page}
     The images are for non-commercial research only.
  2. Unpack Img/img.zip into the folder named below.
  3. Get ASEN's split files, as the README of its repository says:
     {SETS["deepfashion"].page}
     Put meta.json and the text files for DeepFashion into the same folder.
  4. See what is there and what is missing:
     python scripts/check_data.py
The folder is"""


@command
def main(argv: list[str]) -> None:
    args = parse(argv)
    fetched = [name for name, of in SETS.items() if of.files]
    if args.list:
        print("\n".join(_listed(name, args.data) for name in fetched))
        return
    if not args.names:
        raise UserError(f"give one or more of {', '.join(fetched)}; --list shows them")
    for name in args.names:
        if name.startswith("deepfashion"):
            print(f"{FORM} {args.data / SETS['deepfashion'].place}")
            raise UserError(
                "DeepFashion needs an agreement, so no script can fetch it; do the steps above"
            )
        if name not in fetched:
            raise UserError(
                f"unknown data set {name!r}; {nearest(name, [*fetched, 'deepfashion'])}"
            )
    for name in dict.fromkeys(args.names):
        get(name, args.data)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="data sets, e.g. coco; --list shows their names")
    add("--data", type=Path, default=Path("data"), help="the data folder (default: %(default)s)")
    add("--list", action="store_true", help="show names, sizes, licences, addresses and places")
    return parser.parse_args(argv)


def _listed(name: str, data: Path) -> str:
    of = SETS[name]
    lines = [f"{name}: {of.title}; licence: {of.licence}"]
    for file in of.files:
        size = in_bytes(file.size) if file.size else "size not known"
        lines.append(f"  {file.url} ({size}) -> {data / of.place / file.name}")
    return "\n".join(lines)


def get(name: str, data: Path) -> None:
    """Fetch and unpack what is missing of one data set, and print what is there then.

    Raises:
        UserError: something stopped it; the message has the page and the place to do it by hand.
    """
    of = SETS[name]
    found = look(name, data)
    if found.state == "complete":
        print(f"{name}: already complete in {data / of.place}; nothing is fetched")
        return
    with alone_in(data / of.place):
        # If everything is there and yet something is wrong, all is fetched again.
        for file in [f for f in of.files if not _is_there(f, data / of.place)] or of.files:
            _get_file(file, of, data / of.place)
    found = look(name, data)
    state, images, size = found.cells()
    if found.state != "complete":
        raise UserError(
            f"{name} is still {state}; give the command again to fetch all of it; or "
            f"{_by_hand(of, data / of.place, *of.files)}"
        )
    print(f"{name}: {state} in {data / of.place}; images: {images}; {size}")


def _is_there(file: File, place: Path) -> bool:
    return all((place / name).exists() for name in file.holds or (file.name,))


def _get_file(file: File, of: DataSet, place: Path) -> None:
    target = place / file.name
    try:
        if not (file.holds and target.is_file()):
            fetch(file, target)
        elif wrong := _wrong(target, file):
            raise UserError(f"{target} {wrong}; delete it and give the command again")
        if file.holds:
            unpack(target, file.holds, place)
            target.unlink()
    except UserError as error:
        raise UserError(f"{error}; or {_by_hand(of, place, file)}") from error


def _by_hand(of: DataSet, place: Path, *files: File) -> str:
    names = ", ".join(file.name for file in files)
    return f"get {names} by hand from {of.page}, put it in {place}, and give the command again"


# --- fetching -------------------------------------------------------------------------------------


class Broken(Exception):
    """Says why a transfer ended that may well succeed if it is tried again."""


def fetch(file: File, target: Path) -> None:
    """Download `file` to `target`; half of it stays in `<target>.part` for the next time.

    Raises:
        UserError: the server does not give it, or gives something else.
    """
    part = target.with_name(f"{target.name}.part")
    for pause in PAUSES:
        time.sleep(pause)
        try:
            _transfer(file, part)
            break
        except Broken as error:
            why = error
    else:
        raise UserError(
            f"{file.url}: {why}, {len(PAUSES)} times; give the command again later, it goes on "
            f"after the {in_bytes(_length(part))} that are here"
        )
    wrong = _wrong(part, file)
    if wrong:  # nothing to go on from
        part.unlink()
    else:
        os.replace(part, target)
    _version(part).unlink(missing_ok=True)
    if wrong:
        raise UserError(f"{file.url}: what came {wrong}")


def _transfer(file: File, part: Path) -> None:
    """Download what `part` lacks, or all of it, if the server has another version now."""
    # Without a version, half a file is not used: the rest might be of another one.
    version = _version(part).read_text(encoding="utf-8") if _version(part).is_file() else ""
    start = _length(part) if version else 0
    if start and start == file.size:
        return
    with _answer(file.url, start, version) as answer:
        if answer.status not in (206, 416):
            start = 0
        elif not _goes_on(answer, start, version):
            part.unlink()
            raise Broken("the server does not go on with half a file")
        elif answer.status == 416:  # nothing follows
            return
        if answer.headers.get_content_type() == "text/html":
            raise UserError(f"{file.url} answers with a web page instead of {file.name}")
        total = None if answer.length is None else start + answer.length
        if file.size and total is not None and total != file.size:
            raise UserError(f"{file.url} has {total:,} bytes now, not {file.size:,}")
        _save(answer, part, start, total)


def _answer(url: str, start: int, version: str) -> Any:
    """The server's answer: the whole file, or what follows after the first `start` bytes."""
    headers = {"User-Agent": "crl", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    try:
        request = urllib.request.Request(url, headers=headers)
        return urllib.request.urlopen(request, timeout=SILENCE)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            return error
        if error.code in BUSY:
            raise Broken(f"the server answers {error.code} {error.reason}") from error
        raise UserError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "reason", error)
        raise Broken(f"no answer ({getattr(why, 'strerror', None) or why})") from error


def _goes_on(answer: Any, start: int, version: str) -> bool:
    """Whether the answer is what follows after the first `start` bytes of the same version."""
    place = f"bytes */{start}" if answer.status == 416 else f"bytes {start}-"
    same = _version_of(answer.headers) in ("", version)
    return same and answer.headers.get("Content-Range", "").startswith(place)


def _save(answer: Any, part: Path, start: int, total: int | None) -> None:
    with (
        part.open("ab" if start else "wb") as sink,
        progress(label=part.stem, unit="B", total=total, done=start) as bar,
    ):
        bar.unit_scale = True
        if not start:  # after the old bytes are gone, so that they never have the new version
            write_text(_version(part), _version_of(answer.headers))
        while chunk := _read(answer):
            sink.write(chunk)
            bar.update(len(chunk))
    if total is not None and _length(part) < total:
        raise Broken(f"it broke off after {_length(part):,} of {total:,} bytes")


def _read(answer: Any) -> bytes:
    try:
        return answer.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise Broken(f"it broke off ({error})") from error


def _version(part: Path) -> Path:
    """The file that says which version of the server's file `part` is the beginning of."""
    return part.with_name(f"{part.name}.version")


def _version_of(headers: Message) -> str:
    """What HTTP accepts for If-Range, which is no weak tag; empty if there is nothing."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _length(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _wrong(path: Path, file: File) -> str:
    """How `path` differs from what is known about `file`, after the words "what came"."""
    size = path.stat().st_size
    if not size:
        return "is empty"
    if file.size and size != file.size:
        return f"has {size:,} bytes, not {file.size:,}"
    if file.checksum and (found := _checksum(path, file)) != file.checksum:
        return f"has the checksum {found}, not {file.checksum}"
    with path.open("rb") as stream:
        if stream.read(CHUNK).lstrip()[:1] == b"<":
            return "is a web page"
    if file.holds and not zipfile.is_zipfile(path):
        return "is not a whole zip archive"
    if file.name.endswith(".json"):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            return f"is not valid JSON: {error}"
    return ""


def _checksum(path: Path, file: File) -> str:
    kind = file.checksum.partition(":")[0]
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as stream, progress(label=kind, unit="B", total=file.size) as bar:
        bar.unit_scale = True
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return f"{kind}:{digest.hexdigest()}"


# --- unpacking ------------------------------------------------------------------------------------


def unpack(archive: Path, holds: tuple[str, ...], place: Path) -> None:
    """Bring the files and folders `holds` from a zip archive to `place`.

    They are unpacked beside their place, and renamed when all of them are whole. What is there
    already is kept, except files of the same name.

    Raises:
        UserError: a damaged archive, or one without them; one with names that lead elsewhere.
    """
    temporary = place / f".{archive.name}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed command
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = _members(archive, zipped, holds)
            for target, member in progress(members.items(), label="unpacking", unit="files"):
                (temporary / target).parent.mkdir(parents=True, exist_ok=True)
                with zipped.open(member) as source, (temporary / target).open("wb") as sink:
                    shutil.copyfileobj(source, sink)  # compares the checksum of the file
        for name in holds:
            _move(temporary / name, place / name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{archive} is damaged: {error}; delete it and give the command again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _members(
    archive: Path, zipped: zipfile.ZipFile, holds: tuple[str, ...]
) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Where each wanted file goes -> its entry in the archive."""
    entries = [e for e in zipped.infolist() if not e.is_dir() and "__MACOSX" not in e.filename]
    for entry in entries:
        name = entry.filename
        if re.match(r"/|\w:", name) or "\\" in name or ".." in name.split("/") or _is_link(entry):
            raise UserError(f"{archive} is not safe to unpack: {name!r} leads elsewhere")
    paths = {PurePosixPath(entry.filename): entry for entry in entries}
    above = [
        {PurePosixPath(*p.parts[:i]) for p in paths for i, part in enumerate(p.parts) if part == n}
        for n in holds
    ]
    roots = set.intersection(*above)
    if len(roots) != 1:
        where = ", ".join(sorted(map(str, roots))) or "nowhere"
        raise UserError(
            f"{archive} must hold {' and '.join(holds)} side by side in one place; found: {where}"
        )
    (root,) = roots
    inside = {p.relative_to(root): e for p, e in paths.items() if p.is_relative_to(root)}
    return {path: entry for path, entry in inside.items() if path.parts[0] in holds}


def _is_link(entry: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(entry.external_attr >> 16)


def _move(source: Path, target: Path) -> None:
    if source.is_dir() and target.is_dir():
        for entry in sorted(source.iterdir()):
            _move(entry, target / entry.name)
    else:
        os.replace(source, target)


if __name__ == "__main__":
    main()
