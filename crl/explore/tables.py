"""What a look at a collection leaves for other programs: images.csv, images.parquet and
embeddings.safetensors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

from crl.explore.collection import Collection
from crl.explore.labels import Guesses
from crl.explore.view import View
from crl.run.files import atomic_path

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # as Hugging Face's datasets


def write_tables(
    out: Path,
    photos: Collection,
    views: Sequence[View],
    number: int | None = None,
    guesses: Mapping[str, Guesses] | None = None,
) -> None:
    """Write the three files into `out`, each atomically.

    images.parquet has thumbnails too, as viewers of Parquet expect them. embeddings.safetensors
    holds `image` (N, D), in the order of the tables, and `text/<criterion>` (K, D): unit rows.
    """
    rows = table(photos, views, number, guesses or {})
    with atomic_path(out / "images.csv") as temporary:
        rows.to_csv(temporary, index=False, float_format="%.4f")
    small = zip(photos.thumbnails, photos.names, strict=True)
    pictures = pa.array([{"bytes": picture.webp, "path": name} for picture, name in small], PICTURE)
    columns = pa.Table.from_pandas(rows, preserve_index=False).append_column("image", pictures)
    with atomic_path(out / "images.parquet") as temporary:
        pq.write_table(columns, temporary)
    arrays = {"image": np.asarray(photos.image)} | {f"text/{v.name}": v.text for v in views}
    vlm = photos.vlm
    about = {"vlm": vlm.name, "fingerprint": vlm.fingerprint} if vlm else None
    with atomic_path(out / "embeddings.safetensors") as temporary:
        temporary.write_bytes(save(arrays, about))


def table(
    photos: Collection,
    views: Sequence[View],
    number: int | None,
    guesses: Mapping[str, Guesses],
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
        clusters = view.clusters(number)
        columns[f"{view.name}_cluster"] = clusters["cluster"].to_numpy()
        if view.basis is not None:
            columns[f"{view.name}_name"] = clusters["name"].to_numpy()
            columns[f"{view.name}_words"] = clusters["words"].to_numpy()
            shares = ["; ".join(f"{p:.2f}" for p in row) for row in view.best[1]]
            columns[f"{view.name}_probabilities"] = shares
        columns[f"{view.name}_x"], columns[f"{view.name}_y"] = view.map.T
        if guess := guesses.get(view.name):
            columns[f"{view.name}_label"] = guess.label
            columns[f"{view.name}_confidence"] = guess.confidence
            ask = np.zeros(len(photos.files), int)
            ask[guess.ask] = np.arange(1, len(guess.ask) + 1)
            columns[f"{view.name}_ask"] = pd.array(np.where(ask > 0, ask, None), "Int64")
    return pd.DataFrame(columns)
