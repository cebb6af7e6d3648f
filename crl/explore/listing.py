"""placeholder"""

import json

import pyarrow as pa
from pyarrow import parquet


def write_listing(file, paths, digests, about):
    t = pa.table({"path": paths, "digest": pa.array(digests, pa.binary(16))})
    parquet.write_table(
        t.replace_schema_metadata({"crl": json.dumps(about)}), file, write_page_checksum=True
    )
def read_listing(file):
    t = parquet.read_table(file)
    return t["path"].to_pylist(), t["digest"].to_pylist(), json.loads(t.schema.metadata[b"crl"])
