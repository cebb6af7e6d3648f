"""Where each digest is: 24 bytes per digest, in sorted arrays."""

import numpy as np

DIGEST = "V16"
KEY = "S16"  # can be sorted, as V16 cannot; digests have one length, so zeros at the end count
RECENT = 30_000  # digests that may wait in a dict, which takes ten times the memory per digest


class Index:
    """Digest of 16 bytes -> its place, two numbers: of a file, and of a row in it.

    Other threads may ask `digest in index` while one adds: what they read changes by one
    assignment.
    """

    def __init__(self) -> None:
        # Sorted digests (N,), their places (N, 2), and digest -> place of what was added since.
        self._state: tuple[np.ndarray, np.ndarray, dict[bytes, list[int]]] = (
            np.empty(0, KEY),
            np.empty((0, 2), np.int32),
            {},
        )

    def __contains__(self, digest: bytes) -> bool:
        keys, _, recent = self._state
        if digest in recent:
            return True
        key = np.frombuffer(digest, KEY)
        at = np.searchsorted(keys, key)[0]
        return bool(at < len(keys) and keys[at] == key[0])

    def find(self, digests: np.ndarray) -> np.ndarray:
        """The places (N, 2) of digests (N,), dtype V16; -1 where a digest is unknown."""
        self._merge()
        keys, places, _ = self._state
        wanted = digests.view(KEY)
        found = np.full((len(wanted), 2), -1, np.int32)
        if len(keys):
            at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
            known = keys[at] == wanted
            found[known] = places[at[known]]
        return found

    def add(self, digests: np.ndarray, places: np.ndarray) -> None:
        """Enter digests (N,), dtype V16, and their places (N, 2); the last place of one counts."""
        _, _, recent = self._state
        if len(recent) + len(digests) <= RECENT:
            recent.update(zip(digests.tolist(), places.tolist(), strict=True))
        else:
            self._merge(digests, places)

    def forget(self, file: int) -> None:
        """Remove all digests whose place is in `file`."""
        self._merge()
        keys, places, _ = self._state
        others = places[:, 0] != file
        self._state = keys[others], places[others], {}

    def _merge(self, *more: np.ndarray) -> None:
        """Sort what was added since, and `more` digests and places, into the arrays."""
        keys, places, recent = self._state
        if not (recent or more):
            return
        new = np.frombuffer(b"".join(recent), KEY)
        at = np.array([*recent.values()], np.int32).reshape(-1, 2)
        keys = np.concatenate([keys, new, *(digests.view(KEY) for digests in more[:1])])
        places = np.concatenate([places, at, *more[1:]], dtype=np.int32)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        last = np.ones(len(keys), bool)  # of equal digests the last one that was added
        last[:-1] = keys[1:] != keys[:-1]
        self._state = keys[last], places[order[last]], {}
