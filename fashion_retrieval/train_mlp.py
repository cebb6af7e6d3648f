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

from crl.config import load_config
from crl.embed import embed_images
from crl.errors import UserError, command
from crl.projection import l2, project
from crl.results import digest, environment
from crl.training import save_tensors
from crl.vlm import find_vlm, load_vlm
from fashion_retrieval.evaluate import aligned_texts, text_bases
from fashion_retrieval.heads import Heads
from fashion_retrieval.scoring import mean_scores, retrieval_precision
from fashion_retrieval.training import FitConfig, Job, fit, training_data, triplet_loss

CHUNK = 4096  # rows at once


class MlpConfig(FitConfig):
    """Keys of train_mlp.py."""

    bases: dict[str, str] = Field(
        {}, description="attribute: text basis (name or YAML file); none: <dataset>_<attribute>"
    )
    vlm: str = Field("clip-b16", description="the VLM, by name")
    out: int = Field(1024, gt=0, description="width of the heads' results")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of the VLM")
    embed_batch: int = Field(64, gt=0, description="images a batch while embedding")
    workers: int | None = Field(None, gt=0, description="threads that decode images")


def conditional(image: np.ndarray, text: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """x = l2(I @ T_a.T) of rows (n, 2 or more), image and attribute: (n, K) float32, unit rows.

    Args:
        image: (N, D), of any length.
        text: T_a, (A, K, D).
    """
    x = np.empty((len(rows), text.shape[1]), np.float32)
    for attribute in np.unique(rows[:, 1]):
        mine = np.flatnonzero(rows[:, 1] == attribute)
        for part in np.array_split(mine, len(mine) // CHUNK + 1):
            x[part] = l2(project(l2(image[rows[part, 0]]), text[attribute]))
    return x


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
    embedded = embed_images(vlm, data.files, config.cache, config.embed_batch, config.workers)
    image = embedded.image  # (N, D)
    if image.ndim != 2:
        raise UserError(f"{config.vlm} gives {image.shape[1]} vectors an image; this needs one")
    triplets, labels = data.triplets, data.triplets.labels
    x = torch.from_numpy(conditional(image, text, labels)).to(vlm.device)  # (L, K)
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

    def represent(images: np.ndarray, attribute: int) -> np.ndarray:
        parts = []
        for part in np.array_split(images, len(images) // CHUNK + 1):
            rows = np.column_stack([part, np.full_like(part, attribute)])
            x = torch.from_numpy(conditional(image, text, rows)).to(vlm.device)
            parts.append(heads(x, torch.from_numpy(rows[:, 1]).to(vlm.device)).cpu().numpy())
        return np.concatenate(parts)

    def validate() -> dict[str, float]:
        heads.eval()
        with torch.inference_mode():
            precision = retrieval_precision(represent, data.query, data.candidate)
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
