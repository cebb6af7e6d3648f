"""The rivals of the paper's Table 4 that are trained here: Triplet, CSN and ASEN.

Each is built on a tower (towers.py) and trained by train_rival.py with the sampler and the loss of
CRL, in cosine similarity. The README lists the differences from the authors' trainings. ASEN++ and
RPF are not implemented: their numbers are quoted from the paper.
"""

import torch

from crl.backends.hub import explained
from crl.backends.weights import load_tensors
from crl.run.errors import UserError
from fashion_retrieval.rivals.asen import ASEN
from fashion_retrieval.rivals.csn import CSN
from fashion_retrieval.rivals.rival import Rival
from fashion_retrieval.rivals.towers import open_tower
from fashion_retrieval.rivals.triplet import Triplet
from fashion_retrieval.trained import TrainedRival

RIVALS: dict[str, type[Rival]] = {"triplet": Triplet, "csn": CSN, "asen": ASEN}


def load_rival(training: TrainedRival, device: str | torch.device | None) -> Rival:
    """The rival of a training, in eval mode.

    Its weights include the trained tower: a VLM is loaded only for the tower's layers and the
    preprocessing.

    Raises:
        UserError: the tower is missing; weights that are damaged or do not fit it.
    """
    kind, name = RIVALS[training.method], training.tower
    try:
        tower = open_tower(name, kind.spatial, device, weights=False)
    except UserError as error:
        raise UserError(f"the tower of {training.folder} is not here: {error}") from error
    rival = kind(tower, len(training.attributes), training.width)
    file = training.folder / training.weights
    with explained(f"{training.method} on {name}: {file}", remote=False):
        rival.load_state_dict(load_tensors(file))
    return rival.to(next(tower.module.parameters()).device).eval()
