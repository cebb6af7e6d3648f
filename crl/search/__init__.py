"""Search under a criterion among millions of images, without embedding again.

    build_index, Index      I (N, D) on disk: one index serves every criterion
    search                  the k most similar rows, exactly
    build_faiss, Faiss      nearly the same rows, faster, for one criterion (optional: FAISS)
    stream_clusters         k-means

R = I Tᵀ, so a similarity under a criterion follows from I and T; R is never stored. All functions
take any array or memory map I, and read it by parts: memory does not grow with N.
"""

from crl.search.approximate import Faiss, build_faiss
from crl.search.clusters import stream_clusters
from crl.search.exact import Criterion, Found, sample, search
from crl.search.index import Index, build_index

__all__ = [
    "Criterion",
    "Faiss",
    "Found",
    "Index",
    "build_faiss",
    "build_index",
    "sample",
    "search",
    "stream_clusters",
]
