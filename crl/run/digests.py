"""Where each digest is: 24 bytes per digest, in sorted arrays."""

import numpy as np

DIGEST = "V16"
KEY = "S16"  # can be sorted, as V16 cannot; digests have one length, so zeros at the end count
RECENT = 30_000  # digests that may wait in a dict, which takes ten times the memory per digest


class DigestIndex:
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
        return digest in recent or bool(_look_up(keys, np.frombuffer(digest, KEY))[1][0])

    def find(self, digests: np.ndarray) -> np.ndarray:
        """The places (N, 2) of digests (N,), dtype V16; -1 where a digest is unknown."""
        self._merge()
        keys, places, _ = self._state
        at, known = _look_up(keys, digests.view(KEY))
        found = np.full((len(digests), 2), -1, np.int32)
        found[known] = places[at[known]]
        return found

    def add(self, digests: np.ndarray, places: np.ndarray) -> None:
        """Enter digests (N,), dtype V16, and their places (N, 2); the last place of one counts."""
        recent = self._state[2]
        if len(recent) + len(digests) <= RECENT:
            recent.update(zip(digests.tolist(), places.tolist(), strict=True))
        else:
            self._merge()
            self._insert(digests.view(KEY), places)

    def forget(self, file: int) -> None:
        """Remove all digests whose place is in `file`."""
        self._merge()
        keys, places, _ = self._state
        others = places[:, 0] != file
        self._state = keys[others], places[others], {}

    def _merge(self) -> None:
        """Move what was added since into the arrays."""
        recent = self._state[2]
        if recent:
            self._insert(np.frombuffer(b"".join(recent), KEY), np.array([*recent.values()]))

    def _insert(self, new: np.ndarray, new_places: np.ndarray) -> None:
        """Put digests and their places into the arrays, once there are no recent ones."""
        keys, places, _ = self._state
        order = np.argsort(new, kind="stable")
        new = new[order]
        last = np.ones(len(new), bool)  # of equal digests the last one
        last[:-1] = new[1:] != new[:-1]
        new, new_places = new[last], new_places[order[last]]
        at, known = _look_up(keys, new)
        places = places.copy()
        places[at[known]] = new_places[known]
        at, new, new_places = at[~known], new[~known], new_places[~known]
        self._state = np.insert(keys, at, new), np.insert(places, at, new_places, axis=0), {}


def _look_up(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where in the sorted `keys` each of `wanted` is, or would be; and whether it is there."""
    at = np.searchsorted(keys, wanted)
    known = at < len(keys)
    known[known] = keys[at[known]] == wanted[known]
    return at, known
