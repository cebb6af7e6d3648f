"""What a look at a collection leaves for other programs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

from crl.explore.collection import Collection
from crl.explore.labels import Guesses
from crl.explore.search import neighbours
from crl.explore.view import NEIGHBOURS as NEAREST
from crl.explore.view import View
from crl.run.files import atomic_path
from crl.run.tables import no_formula

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # as Hugging Face's datasets
MOST_COMPARED = 20_000  # images, each to each other
NEIGHBOURS = pa.struct([("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float32()))])


def write_tables(
    out: Path, photos: Collection, views: Sequence[View], number: int | None = None,
    guesses: Mapping[str, Guesses] | None = None,
) -> None:  # fmt: skip
    """Write images.csv, images.parquet and embeddings.safetensors into `out`, each atomically. The
    second has thumbnails too, as viewers of Parquet expect them, and the `neighbors` of each image
    under the first view, as Embedding Atlas reads them, of at most `MOST_COMPARED` images; the
    third `image` (N, D), in the order of the tables, and `text/<criterion>` (K, D): unit rows."""
    small, guesses = photos.thumbnails, guesses or {}
    columns: dict[str, object] = {"path": photos.names}
    columns["copy_of"] = ["" if i == n else photos.names[i] for n, i in enumerate(photos.first)]
    if len(small) <= MOST_COMPARED:
        near = enumerate(photos.near)
        columns["near_copy_of"] = ["" if i == n else photos.names[i] for n, i in near]
    columns["width"] = [picture.width for picture in small]
    columns["height"] = [picture.height for picture in small]
    about = pd.DataFrame([picture.metadata for picture in small]).replace({"": None})
    columns |= dict(about.dropna(axis=1, how="all"))  # what some picture says
    for view in [photos.universal, *views]:
        more = _columns(view, number, guesses.get(view.name))
        columns |= {f"{view.name}_{name}": column for name, column in more.items()}
    table = pd.DataFrame(columns)
    texts = {name: table[name].map(no_formula) for name in table.select_dtypes(exclude="number")}
    with atomic_path(out / "images.csv") as temporary:
        table.assign(**texts).to_csv(temporary, index=False, float_format="%.4f")
    pairs = zip(small, photos.names, strict=True)
    pictures = pa.array([{"bytes": picture.webp, "path": name} for picture, name in pairs], PICTURE)
    rows = pa.Table.from_pandas(table, preserve_index=False).append_column("image", pictures)
    if len(photos.files) <= MOST_COMPARED:
        view = views[0] if views else photos.universal
        rows = rows.append_column("neighbors", _neighbors(view.x))
    with atomic_path(out / "images.parquet") as temporary:
        pq.write_table(rows, temporary)
    arrays = {"image": np.asarray(photos.image)} | {f"text/{v.name}": v.text for v in views}
    vlm = photos.vlm
    about = {"vlm": vlm.name, "fingerprint": vlm.fingerprint} if vlm else None
    with atomic_path(out / "embeddings.safetensors") as temporary:
        temporary.write_bytes(save(arrays, about))


def _columns(view: View, number: int | None, guesses: Guesses | None) -> dict[str, object]:
    """The columns of one view; `ask` is 1 for the image to label next."""
    clusters = view.clusters(number)
    columns: dict[str, object] = {"cluster": clusters["cluster"]}
    if view.basis is not None:
        columns |= {"name": clusters["name"], "words": clusters["words"]}
        columns["probabilities"] = ["; ".join(f"{p:.2f}" for p in row) for row in view.best[1]]
    columns["x"], columns["y"] = view.map.T
    if guesses:
        columns |= {"label": guesses.label, "confidence": guesses.confidence}
        ask = np.zeros(len(view.x), int)
        ask[guesses.ask] = np.arange(1, len(guesses.ask) + 1)
        columns["ask"] = pd.array(np.where(ask > 0, ask, None), "Int64")
    return columns


def _neighbors(x: np.ndarray) -> pa.Array:
    """Of each row of x (N, F), unit rows: the numbers of the nearest others, and 1 - cosine."""
    near = neighbours(x, NEAREST)  # (N, 8)
    pairs = [{"ids": row, "distances": 1 - x[row] @ x[i]} for i, row in enumerate(near)]
    return pa.array(pairs, NEIGHBOURS)
