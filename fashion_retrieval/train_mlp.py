"""Stage 1 of CRL's fashion retrieval (paper, Table 4): heads on frozen embeddings.

    python fashion_retrieval/train_mlp.py --config configs/deepfashion_mlp.yaml

Every image is embedded once, by a VLM that stays as it is. Each attribute's representation of it,
x = l2(I @ T_a.T), goes through that attribute's small MLP, which learns to bring images of the same
value together: triplets, a margin of 0.3 in cosine similarity, Adam.

Writes <outputs>/fashion_mlp/<name>/: heads.safetensors, of the validation with the best overall
mAP, for evaluate.py and stage 2; results.json; config.yaml; and state.pt, from which a killed run
goes on, and a finished one too, if `epochs` has grown.
"""

from typing import Literal

import numpy as np
import torch
from pydantic import Field

from crl.run.config import load_config
from crl.embed import embed_images
from crl.run.errors import command
from crl.run.results import digest, environment
from crl.run.weights import save_tensors
from crl.vlm import find_vlm, load_vlm
from fashion_retrieval.heads import Heads
from fashion_retrieval.representation import aligned_texts, conditional, headed, text_bases
from fashion_retrieval.scoring import mean_scores, retrieval_precision
from fashion_retrieval.training import FitConfig, Job, fit, training_data, triplet_loss


class MlpConfig(FitConfig):
    """Keys of train_mlp.py."""

    bases: dict[str, str] = Field(
        {}, description="attribute: text basis (name or YAML file); none: <dataset>_<attribute>"
    )
    vlm: str = Field("clip-b16", description="the VLM, by name")
    epochs: int = Field(1000, gt=0, description="of `triplets` triplets each")
    out: int = Field(1024, gt=0, description="width of the heads' results")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of the VLM")
    embed_batch: int = Field(64, gt=0, description="images a batch while embedding")
    workers: int | None = Field(None, gt=0, description="threads that decode images")


def train(config: MlpConfig) -> None:
    """Train, or go on with, the heads of `config`; see the top of the file.

    Raises:
        UserError: wrong files, images, bases or VLM names, before the VLM is loaded; another
            training in the folder, before any image is encoded; a loss that is not finite.
    """
    data = training_data(config)
    bases = text_bases(config.dataset, data.attributes, config.bases)
    find_vlm(config.vlm)

    vlm = load_vlm(config.vlm, config.device, config.precision)
    basis = digest(*(basis.hash for basis in bases))
    job = Job.of("fashion_mlp", config, data=data.digest, vlm=vlm.fingerprint, basis=basis)
    if job.finished:
        print(f"{job.folder}: this training is finished; nothing to do")
        return

    text = aligned_texts(vlm, bases, config.cache)  # (A, K, D)
    image = embed_images(
        vlm, data.files, config.cache, config.embed_batch, config.workers, single=True
    ).image  # (N, D)
    represent = conditional(image, text)
    triplets, labels = data.triplets, data.triplets.labels
    x = np.empty((len(labels), text.shape[1]), np.float32)  # (L, K)
    for a in range(len(bases)):
        mine = labels[:, 1] == a
        x[mine] = represent(labels[mine, 0], a)
    x = torch.from_numpy(x).to(vlm.device)
    attribute = torch.from_numpy(labels[:, 1]).to(vlm.device)  # (L,)

    torch.manual_seed(config.seed)
    heads = Heads(*text.shape[:2], config.out).to(vlm.device)
    optimizer = torch.optim.Adam(heads.parameters(), lr=config.lr, fused=True)

    def batches(epoch: int, done: int):
        rows = torch.from_numpy(triplets.draw(config.triplets, config.seed, epoch))  # (n, 3)
        return rows.to(vlm.device).split(config.batch_size)[done:]

    def backward(rows: torch.Tensor) -> float:
        features = heads(x[rows.T], attribute[rows[:, 0]])  # (3, b, out)
        loss = triplet_loss(*features, config.margin)
        loss.backward()
        return loss.item()

    def validate() -> dict[str, float]:
        heads.eval()
        through = headed(represent, heads)
        precision = retrieval_precision(through, data.query, data.candidate)
        heads.train()
        return mean_scores(precision, data.query, data.attributes)

    about = {
        "environment": environment(),
        "device": str(vlm.device),
        "vlm_fingerprint": vlm.fingerprint,
        "basis_hash": basis,
        "texts": text.shape[1],
        **data.about,
    }

    header = {"vlm": config.vlm, "vlm_fingerprint": vlm.fingerprint, "precision": config.precision}
    header |= {"basis_hash": basis}

    def keep() -> None:
        save_tensors(job.folder / "heads.safetensors", heads, **header)

    fit(job, about, heads, optimizer, batches, backward, validate, keep)


@command
def main(argv: list[str]) -> None:
    train(load_config(MlpConfig, argv, __doc__))


if __name__ == "__main__":
    main()
