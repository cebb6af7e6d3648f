"""Train a rival of CRL's fashion retrieval (paper, Table 4): Triplet, CSN or ASEN; see rivals.py.

    python fashion_retrieval/train_rival.py --config configs/deepfashion_rival.yaml method=csn

Images go through the tower, which is trained too, and the rival's layers; the triplets, the loss
and the schedule are those of CRL (train_mlp.py). ASEN++ and RPF are not implemented.

Writes <outputs>/fashion_rivals/<name>/: rival.safetensors, tower and all, of the validation with
the best overall mAP; results.json; config.yaml; and state.pt, from which a killed run goes on, and
a finished one too, if `epochs` has grown.
"""

from typing import Literal

import torch
from pydantic import Field

from crl.run.config import load_config
from crl.run.distributed import process_group, tell, world
from crl.run.errors import UserError, command
from crl.run.results import environment
from crl.run.weights import save_tensors
from fashion_retrieval.networks import NetworkConfig, train_network
from fashion_retrieval.rivals import METHODS, check_tower, open_tower
from fashion_retrieval.training import Job, training_data


class RivalConfig(NetworkConfig):
    """Keys of train_rival.py; lr and width are those of ASEN's authors."""

    method: Literal["triplet", "csn", "asen"] = Field("asen", description="which rival")
    tower: str = Field(
        "resnet50",
        description="torchvision's resnet50, resnet50:FILE of its weights, or an open_clip VLM",
    )
    width: int = Field(1024, gt=0, description="of a representation")


def train(config: RivalConfig, device: str | None) -> None:
    """Train, or go on with, the rival of `config`; see the top of the file.

    Raises:
        UserError: several processes; wrong files, images or tower names, before the tower is
            loaded; weights of the tower that are missing or wrong; another training in the folder;
            a loss that is not finite.
    """
    if world() > 1:
        raise UserError("rivals are trained by one process, since CSN's norms are of whole batches")
    data = training_data(config)
    check_tower(config.tower)

    kind = METHODS[config.method]
    tower = open_tower(config.tower, kind.spatial, device)
    # In the place of the tower's name, which may be that of a file.
    contents = {"data": data.digest, "tower": tower.fingerprint}
    job = Job.of("fashion_rivals", config, **contents)
    if job.finished:
        tell(f"{job.folder}: this training is finished; nothing to do")
        return
    torch.manual_seed(config.seed)
    attributes = len(data.attributes)
    where = next(tower.module.parameters()).device
    rival = kind(tower, attributes, config.width).to(where)
    about = {
        "environment": environment(),
        "device": str(where),
        "method": config.method,
        "tower": tower.name,
        "tower_fingerprint": tower.fingerprint,
        **data.about,
    }
    header = {"method": config.method, "tower": tower.name}
    header |= {"width": config.width, "attributes": attributes}
    file = job.folder / "rival.safetensors"
    train_network(job, about, rival, data, keep=lambda: save_tensors(file, rival, **header))


@command
def main(argv: list[str]) -> None:
    config = load_config(RivalConfig, argv, __doc__)
    with process_group(config.device) as device:
        train(config, device)


if __name__ == "__main__":
    main()
