"""Folders of embeddings in Parquet files, as several machines make them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crl.run.cache import content_digest


def write_parts(
    folder: Path,
    files: list[Path],
    image: np.ndarray,
    root: Path | str = "",
    dtype: str = "float32",
    rows: int = 4,
    **manifest,
) -> None:
    """Embeddings `image` (N, D) or (N, Q, D) of `files`, `rows` in a part, 3 in a row group."""
    about = {
        "format": "crl-parquet-1",
        "fingerprint": "toy-1",
        "vlm": "toy",
        "dtype": dtype,
        "shape": list(image.shape[1:]),
        "root": str(root),
        **manifest,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(about))
    width = int(np.prod(image.shape[1:]))
    for number, start in enumerate(range(0, len(files), rows)):
        part, values = files[start : start + rows], image[start : start + rows]
        flat = pa.array(np.ascontiguousarray(values).astype(dtype).ravel())
        columns = {
            "path": [str(file.relative_to(root) if root else file) for file in part],
            "digest": pa.array([content_digest(f.read_bytes()) for f in part], pa.binary(16)),
            "width": pa.array([7] * len(part), pa.int32()),
            "height": pa.array([6] * len(part), pa.int32()),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, width),
        }
        table = pa.table(columns).replace_schema_metadata({"fingerprint": about["fingerprint"]})
        pq.write_table(table, folder / f"part-{number:06}.parquet", row_group_size=3)
