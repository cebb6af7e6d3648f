"""The rivals of the paper's Table 4 that are trained here: Triplet, CSN and ASEN.

Each is built on a tower (towers.py) and trained by train_rival.py with the sampler and the loss of
CRL, in cosine similarity. The README lists the differences from the authors' trainings. ASEN++ and
RPF are not implemented: their numbers are quoted from the paper.
"""

from pathlib import Path
from typing import Any

import torch

from crl.backends.hub import explained
from crl.backends.weights import load_tensors
from crl.run.errors import UserError
from fashion_retrieval.rivals.asen import ASEN
from fashion_retrieval.rivals.csn import CSN
from fashion_retrieval.rivals.rival import Rival
from fashion_retrieval.rivals.towers import check_tower, open_tower
from fashion_retrieval.rivals.triplet import Triplet

RIVALS: dict[str, type[Rival]] = {kind.method: kind for kind in (Triplet, CSN, ASEN)}


def load_rival(folder: Path, record: dict[str, Any], device: str | torch.device | None) -> Rival:
    """The rival in a folder of train_rival.py, in eval mode.

    Its weights include the trained tower: a VLM is loaded only for the tower's layers and the
    preprocessing.

    Args:
        record: the content of the folder's results.json.

    Raises:
        UserError: the tower is missing; weights that are damaged or do not fit it.
    """
    kind, tower = RIVALS[record["method"]], record["tower"]
    try:
        check_tower(tower)
    except UserError as error:
        raise UserError(f"the tower of {folder} is not here: {error}") from error
    opened = open_tower(tower, kind.spatial, device, weights=False)
    rival = kind(opened, len(record["attributes"]), record["width"])
    file = folder / record["weights"]
    with explained(f"{kind.method} on {tower}: {file}", remote=False):
        rival.load_state_dict(load_tensors(file))
    return rival.to(next(opened.module.parameters()).device).eval()
