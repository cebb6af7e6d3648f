"""Keep a chosen set: lists, copies or links of pictures by group, or keywords in XMP sidecars. The
pictures themselves are never changed."""

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from uuid import uuid4
from xml.sax.saxutils import escape

from crl.explore.collection import Collection
from crl.run.errors import UserError
from crl.run.files import slug

RESERVED = {"con", "prn", "aux", "nul"}  # no names of files on Windows, with any ending
RESERVED |= {f"{device}{number}" for device in ("com", "lpt") for number in range(10)}
XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">
   <dc:subject><rdf:Bag>{words}</rdf:Bag></dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


def export(folder: Path, photos: Collection, groups: Mapping[str, Sequence[int]], kind: str) -> int:
    """Write `groups`, name -> numbers of pictures, into the new `folder`: all, or nothing. Returns
    how many pictures they are. `lists`: a text file per group, a path per line; `copies`, `links`:
    a folder per group; `xmp`: a sidecar `a.jpg.xmp` per picture, in folders as the pictures are,
    whose keywords (dc:subject) are its groups. A UserError if there is something at `folder`, if it
    is among the pictures, or if a picture to copy is not here."""
    folder = folder.expanduser().absolute()
    if folder.resolve().is_relative_to(photos.folder.resolve()):
        raise UserError(f"{folder} is in the folder of the pictures; export to one elsewhere")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; export to a new folder")
    chosen = sorted({i for rows in groups.values() for i in rows})
    gone = [photos.names[i] for i in chosen if kind != "lists" and not photos.files[i].is_file()]
    if gone:
        raise UserError(f"{len(gone):,} pictures are not here, the first: {gone[0]}")
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.tmp")
    try:
        temporary.mkdir(parents=True)
        if kind == "xmp":
            _write_sidecars(temporary, photos, groups, chosen)
        else:
            _write_groups(temporary, photos, groups, kind)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return len(chosen)


def _write_groups(
    folder: Path, photos: Collection, groups: Mapping[str, Sequence[int]], kind: str
) -> None:
    for name, rows in zip(distinct(map(safe, groups)), groups.values(), strict=True):
        files = [photos.files[i].absolute() for i in rows]
        if kind == "lists":
            lines = b"".join(os.fsencode(file) + b"\n" for file in files)
            (folder / f"{name}.txt").write_bytes(lines)
            continue
        (folder / name).mkdir()
        for file, copy in zip(files, distinct(file.name for file in files), strict=True):
            if kind == "copies":
                shutil.copy2(file, folder / name / copy)
            else:
                (folder / name / copy).symlink_to(file)


def _write_sidecars(
    folder: Path, photos: Collection, groups: Mapping[str, Sequence[int]], chosen: Sequence[int]
) -> None:
    keywords: dict[int, list[str]] = {i: [] for i in chosen}
    for name, rows in groups.items():
        for i in rows:
            keywords[i].append(f"<rdf:li>{escape(name)}</rdf:li>")
    for i, words in keywords.items():
        place = folder / photos.files[i].relative_to(photos.folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        sidecar = XMP.format(words="".join(words))
        place.with_name(f"{place.name}.xmp").write_text(sidecar, encoding="utf-8")


def safe(name: str) -> str:
    """`name` as the name of a file on every system."""
    part = slug(name) or "group"
    return f"{part}-" if part in RESERVED else part


def distinct(names: Iterable[str]) -> list[str]:
    """The names; one that stands before, in any case of letters, gets a number: a.jpg, a-2.jpg."""
    counts, taken, result = Counter[str](), set[str](), []
    for name in names:
        stem, ending = os.path.splitext(name)
        new = name
        while new.casefold() in taken:
            counts[name.casefold()] += 1
            new = f"{stem}-{counts[name.casefold()] + 1}{ending}"
        taken.add(new.casefold())
        result.append(new)
    return result
