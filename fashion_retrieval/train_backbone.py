"""Stage 2 of CRL's fashion retrieval (paper, Table 4): the VLM's visual tower, heads frozen.

    python fashion_retrieval/train_backbone.py --config configs/deepfashion_backbone.yaml
    torchrun --nproc_per_node 8 fashion_retrieval/train_backbone.py --config ...

Images go through the tower, x = l2(I @ T_a.T), and the frozen heads of stage 1 (train_mlp.py); the
same triplets and loss. The texts stay as the VLM embedded them at first: its text tower is frozen.
Any open_clip VLM can be trained.

Writes <outputs>/fashion_backbone/<name>/: vlm/, the VLM of the validation with the best overall
mAP; results.json; config.yaml; and state.pt, from which a killed run goes on, and a finished one
too, if `epochs` has grown.
"""

from pathlib import Path

import torch
from pydantic import Field

from crl.run.config import load_config
from crl.run.distributed import process_group, tell, world
from crl.run.errors import UserError, command
from crl.run.results import digest, environment
from crl.vlm import check_made_for
from crl.vlm.open_clip import save_vlm, trained_name
from crl.run.weights import weights_digest
from crl.vlm import LoadedVLM, load_vlm
from fashion_retrieval.heads import load_heads
from fashion_retrieval.networks import Conditional, NetworkConfig, check_shares, train_network
from fashion_retrieval.representation import aligned_texts, text_bases
from fashion_retrieval.training import Job, training_data


class BackboneConfig(NetworkConfig):
    """Keys of train_backbone.py; defaults are those of the authors' code."""

    bases: dict[str, str] = Field(
        {}, description="attribute: text basis (name or YAML file); none: <dataset>_<attribute>"
    )
    vlm: str = Field("clip-b16", description="the VLM, by name; it must be of open_clip")
    heads: Path = Field(Path("heads.safetensors"), description="of train_mlp.py, for that VLM")
    lr: float = Field(1e-6, gt=0, description="first learning rate (Adam)")
    checkpointing: bool = Field(
        False, description="keep no activations but compute them twice: less memory, more time"
    )


def train(config: BackboneConfig, device: str | None) -> None:
    """Train, or go on with, the tower of `config`; see the top of the file.

    Raises:
        UserError: wrong files, images, bases, heads or VLM names, before the VLM is loaded; a VLM
            of another library; another training in the folder; a loss that is not finite.
    """
    check_shares(config)
    data = training_data(config)
    bases = text_bases(config.dataset, data.attributes, config.bases)
    basis = digest(*(basis.hash for basis in bases))
    heads = load_heads(config.heads, len(bases), min(len(basis.texts) for basis in bases), basis)
    name = trained_name(config.outputs / "fashion_backbone" / config.name, config.vlm)

    vlm = load_vlm(config.vlm, device)
    check_made_for(config.heads, "heads", vlm, "fp32")
    contents = {
        "data": data.digest,
        "vlm": vlm.fingerprint,
        "basis": basis,
        "heads": weights_digest(heads),
    }
    job = Job.of("fashion_backbone", config, **contents)
    if job.finished:
        tell(f"{job.folder}: this training is finished; nothing to do")
        return
    text = torch.from_numpy(aligned_texts(vlm, bases, config.cache))  # (A, K, D)
    tower = trainable_tower(vlm, config.checkpointing)
    network = Conditional(tower, vlm.preprocess, text, heads).to(vlm.device)
    about = {
        "environment": environment(),
        "device": str(vlm.device),
        "processes": world(),
        "vlm_fingerprint": contents["vlm"],
        "basis_hash": basis,
        "heads_hash": contents["heads"],
        "trained_vlm": name,
        "texts": text.shape[1],
        **data.about,
    }
    header = {"vlm": config.vlm, "vlm_fingerprint": contents["vlm"], "precision": "fp32"}
    header |= {"basis_hash": basis, "heads_hash": contents["heads"]}
    train_network(job, about, network, data, keep=lambda: save_vlm(job.folder, vlm, **header))
    tell(f"evaluate.py takes it as backbone={name} backbone_heads={config.heads}")


def trainable_tower(vlm: LoadedVLM, checkpointing: bool) -> torch.nn.Module:
    """The visual tower of an open_clip VLM, pixels (B, 3, H, W) -> I (B, D).

    Raises:
        UserError: it has no gradient checkpointing, but is asked for it.
    """
    tower = vlm.model.visual
    tower.output_tokens = False  # CoCa's would give the patches too
    if checkpointing:
        tower.set_grad_checkpointing(True)  # towers that cannot do it say nothing
        if not any(getattr(part, "grad_checkpointing", False) for part in tower.modules()):
            raise UserError(
                f"the visual tower of {vlm.name} has no gradient checkpointing; set "
                "checkpointing=false and, if memory is short, a smaller batch_size"
            )
    return tower


@command
def main(argv: list[str]) -> None:
    config = load_config(BackboneConfig, argv, __doc__)
    with process_group(config.device) as device:
        train(config, device)


if __name__ == "__main__":
    main()
