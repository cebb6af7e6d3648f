"""The rivals of the paper's Table 4, one file each.

Each is built on a tower (towers.py) and trained by train_rival.py with the sampler of CRL, in
cosine similarity. The README lists the differences from the authors' trainings.
"""

import torch

from crl.backends.hub import explained
from crl.backends.weights import load_tensors
from crl.run.errors import UserError
from fashion_retrieval.networks import Rival
from fashion_retrieval.rivals.asen import ASEN
from fashion_retrieval.rivals.asen_pp import ASENpp
from fashion_retrieval.rivals.csn import CSN
from fashion_retrieval.rivals.rpf import RPF
from fashion_retrieval.rivals.triplet import Triplet
from fashion_retrieval.rivals.two_stage import TwoStage
from fashion_retrieval.towers import open_tower
from fashion_retrieval.trained import STAGE1, TrainedRival

RIVALS: dict[str, type[Rival]]
RIVALS = {"triplet": Triplet, "csn": CSN, "asen": ASEN, "asen_pp": ASENpp, "rpf": RPF}


def load_rival(training: TrainedRival, device: str | torch.device | None) -> Rival:
    """The rival of a training, in eval mode. Its weights include the trained tower: a VLM is loaded
    only for the tower's layers and the preprocessing. UserError: no such tower; bad weights."""
    kind, name = RIVALS[training.method.removesuffix(STAGE1)], training.tower
    try:
        tower = open_tower(name, kind.spatial, device, weights=False)
    except UserError as error:
        raise UserError(f"the tower of {training.folder} is not here: {error}") from error
    rival = kind(tower, len(training.attributes), training.width)
    if training.local and isinstance(rival, TwoStage):
        rival.look_closer(rival.closer(training.local, training.width, weights=False))
    file = training.folder / training.weights
    with explained(f"{training.method} on {name}: {file}", remote=False):
        rival.load_state_dict(load_tensors(file))
    return rival.to(next(tower.module.parameters()).device).eval()
