"""What a look at a collection leaves behind: a page, tables and embeddings."""

import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

from crl import report
from crl.collection import Collection, View, neighbours, shared_words
from crl.images import shown
from crl.labels import Guesses
from crl.run.files import atomic_path

MOST_ON_PAGE = 5_000  # images; a page with more is slow to open
NEIGHBOURS, TYPICAL, UNCERTAIN = 8, 12, 6
DRAWN = ".drawn.json"  # in the folders of scripts/demo/make_data.py
BANNER = (
    "Made with the demo VLM, which has seen nothing but its own drawings. On these pictures its "
    "words mean nothing; use another one (--vlm, see the README)."
)


def table(
    photos: Collection,
    views: Sequence[View],
    number: int | None = None,
    guesses: Mapping[str, Guesses] | None = None,
) -> pd.DataFrame:
    """One row per image: path, width, height; per criterion cluster, name, words and probabilities
    (best first), map coordinates x and y, and with labels label, confidence and ask (1: label this
    one next)."""
    columns: dict[str, object] = {
        "path": photos.names,
        "width": [small.width for small in photos.thumbnails],
        "height": [small.height for small in photos.thumbnails],
    }
    for view in [photos.universal, *views]:
        found = view.clusters(number)
        columns[f"{view.name}_cluster"] = found["cluster"].to_numpy()
        if view.basis is not None:
            columns[f"{view.name}_name"] = found["name"].to_numpy()
            columns[f"{view.name}_words"] = found["words"].to_numpy()
            rows = ["; ".join(f"{p:.2f}" for p in row) for row in view.best[1]]
            columns[f"{view.name}_probabilities"] = rows
        columns[f"{view.name}_x"], columns[f"{view.name}_y"] = view.map.T
        if guesses and view.name in guesses:
            guess = guesses[view.name]
            columns[f"{view.name}_label"] = guess.label
            columns[f"{view.name}_confidence"] = guess.confidence
            ask = np.zeros(len(photos.files), int)
            ask[guess.ask] = np.arange(1, len(guess.ask) + 1)
            columns[f"{view.name}_ask"] = pd.array(np.where(ask > 0, ask, None), "Int64")
    return pd.DataFrame(columns)


def write_tables(
    out: Path,
    photos: Collection,
    views: Sequence[View],
    number: int | None = None,
    guesses: Mapping[str, Guesses] | None = None,
) -> None:
    """Write images.csv, images.parquet (with thumbnails) and embeddings.safetensors.

    The thumbnails are in the format of Hugging Face's datasets, as viewers of Parquet expect. The
    embeddings are `image` (N, D), in the order of the tables, and `text/<criterion>` (K, D), not
    normalised.
    """
    found = table(photos, views, number, guesses)
    with atomic_path(out / "images.csv") as temporary:
        found.to_csv(temporary, index=False, float_format="%.4f")
    small = zip(photos.thumbnails, photos.names, strict=True)
    pictures = [{"bytes": picture.webp, "path": name} for picture, name in small]
    rows = pa.Table.from_pandas(found, preserve_index=False)
    rows = rows.append_column("image", pa.array(pictures, _PICTURE))
    with atomic_path(out / "images.parquet") as temporary:
        pq.write_table(rows, temporary)
    arrays = {"image": np.asarray(photos.image)}
    for view in views:
        arrays[f"text/{view.name}"] = np.asarray(view.projection.text_embeddings)
    about = {"vlm": photos.vlm.name, "fingerprint": photos.vlm.fingerprint}
    with atomic_path(out / "embeddings.safetensors") as temporary:
        temporary.write_bytes(save(arrays, about))


_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # as Hugging Face's datasets


def write_page(
    file: Path,
    photos: Collection,
    views: Sequence[View],
    number: int | None = None,
    guesses: Mapping[str, Guesses] | None = None,
    command: str = "",
) -> None:
    """Write one HTML page that works without a network: maps, clusters, neighbours, labels.

    It shows at most `MOST_ON_PAGE` images, a random sample if there are more; it says so.
    """
    count = len(photos.files)
    some = np.sort(np.random.default_rng(0).permutation(count)[:MOST_ON_PAGE])
    small = photos.thumbnails
    report.write_report(
        file,
        title=shown(photos.folder),
        facts=facts(photos, views, command),
        names=[photos.names[i] for i in some],
        places=[_link(photos.files[i], file) for i in some],
        sizes=np.array([[small[i].width, small[i].height] for i in some]),
        thumbnails=[small[i].webp for i in some],
        panels=[
            panel(view, some, number, (guesses or {}).get(view.name))
            for view in [photos.universal, *views]
        ],
        banner=BANNER if photos.vlm.name == "demo" and not _drawn(photos.folder) else "",
        sample=f"{len(some):,} of {count:,} pictures, a random sample" if len(some) < count else "",
    )


def panel(view: View, some: np.ndarray, number: int | None, guess: Guesses | None) -> report.Panel:
    """What the page shows of a view: all of `some` images, which it numbers from 0."""
    clusters, names, titles = view.groups(number)
    places = np.full(len(view.x), -1)
    places[some] = np.arange(len(some))

    def on_page(images: np.ndarray, count: int) -> list[int]:
        return [int(place) for place in places[images] if place >= 0][:count]

    cards = [
        report.Cluster(
            name=title,
            words=list(zip(view.words[name.words], name.strength, strict=True)),
            weak=name.weak and view.basis is not None,
            typical=on_page(clusters.typical(cluster, len(view.x)), TYPICAL),
            uncertain=on_page(clusters.uncertain(cluster, len(view.x)), UNCERTAIN),
        )
        for cluster, (title, name) in enumerate(zip(titles, names, strict=True))
    ]
    x, standing = view.x[some], view.standing[some]
    near = neighbours(x, NEIGHBOURS)
    scale = view.standing.std(axis=0).clip(1e-6)
    return report.Panel(
        name=view.name,
        points=view.map[some],
        cluster=clusters.label[some],
        clusters=cards,
        neighbours=near,
        note=clusters.note,
        words=list(view.words),
        standing=(standing / scale).astype(np.float32),
        best=view.best[0][some],
        probability=view.best[1][some],
        shared=shared_words(standing, near),
        origin=_origin(view),
        label=None if guess is None else list(guess.label[some]),
        confidence=None if guess is None else guess.confidence[some],
    )


def facts(photos: Collection, views: Sequence[View], command: str) -> dict[str, str]:
    """What a reader of the page must know to trust it, or to make it again."""
    found = {
        "Folder": shown(photos.folder.resolve()),
        "Pictures": f"{len(photos.files):,}",
        "Remarks": "; ".join(photos.remarks()),
        "VLM": f"{photos.vlm.name} ({photos.vlm.fingerprint})",
        "Made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "Command": command,
    }
    found |= {f"Texts: {view.name}": _origin(view) for view in views}
    return {what: value for what, value in found.items() if value}


def _origin(view: View) -> str:
    """How many texts there are, who wrote them, and how the VLM reads them."""
    if view.basis is None:
        return ""
    made = view.basis.provenance
    who = str(made.get("llm") or made.get("source") or "a file")
    return f"{len(view.words):,} texts from {who}; the VLM reads {view.basis.prompts[0]!r}"


def _drawn(folder: Path) -> bool:
    """Is the folder a part of the demo's data?"""
    return any((above / DRAWN).is_file() for above in (folder.resolve(), *folder.resolve().parents))


def _link(image: Path, page: Path) -> str:
    """A link from the page to an image file."""
    relative = os.path.relpath(image.absolute(), page.absolute().parent)
    return quote(os.fsencode(relative))
