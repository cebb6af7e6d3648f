"""What a Combiner is trained with: a loss over the whole batch, whatever it is split into, and
features, looked up or from a VLM that is in training too."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from crl.run.distributed import gather, rank, world
from crl.images import UNDECODABLE
from crl.embed import embed_images, embed_texts
from crl.run.errors import UserError
from crl.vlm import LoadedVLM, Preprocess
from similarity_retrieval.triplets import Triplets

if TYPE_CHECKING:
    from similarity_retrieval.train_combiner import TrainConfig

SCALE = 100.0  # of the logits: 1 / temperature
ORDER, DROPOUT, AUGMENTATION, INITIAL = range(4)  # uses of randomness, each its own stream


def draw(*key: int) -> int:
    """A seed that depends on nothing but `key`: (seed, use, ...)."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


# --- the loss and its gradients -------------------------------------------------------------------


def contrastive_loss(combined: Tensor, target: Tensor) -> Tensor:
    """Mean over the rows i of -log softmax_j(100 combined_i · target_j) at j = i.

    Args:
        combined, target: (B, D), unit rows; row i of one belongs to row i of the other.
    """
    logits = SCALE * combined @ target.T  # (B, B)
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def backward(forward: Callable[[Any], Tensor], parts: list, seeds: list[int]) -> tuple[float, list]:
    """The loss over all parts of all processes as one batch, and its gradients.

    Every feature is a negative of all others, so losses of parts do not add up to that of the
    batch. Instead: the features of all parts, the loss and its gradient by the features, and then
    each part once more, to take that gradient on to the parameters. Each part draws the same
    dropout both times. Only one part's graph is in memory at a time.

    Args:
        forward: part -> (b, 2, D), combined and target, unit rows.
        parts: this process's share of the batch, in order, all of one size.
        seeds: of each part's dropout.

    Returns:
        The loss, the same in all processes. Gradients are added to `.grad`: those of this
        process's share, so their sum over processes is the whole gradient.
    """
    once = len(parts) == 1  # its graph is kept, so that it need not be computed again
    features = []
    for part, seed in zip(parts, seeds, strict=True):
        torch.manual_seed(seed)
        with torch.set_grad_enabled(once):
            features.append(forward(part))
    mine = torch.cat(features).detach()  # (b parts, 2, D)
    whole = gather(mine).requires_grad_()  # (B, 2, D)
    loss = contrastive_loss(*whole.unbind(1))
    if math.isfinite(loss.item()):
        (gradient,) = torch.autograd.grad(loss, whole)
        gradients = gradient[rank() * len(mine) :][: len(mine)].split(len(features[0]))
        for part, seed, feature, gradient in zip(parts, seeds, features, gradients, strict=True):
            torch.manual_seed(seed)
            (feature if once else forward(part)).backward(gradient)
    return loss.item()


# --- features -------------------------------------------------------------------------------------


def embed(vlm: LoadedVLM, data: Triplets, config: "TrainConfig", cache: Path | None):
    """Raw embeddings of all images and conditions: (M, D) and (C, D), float32, on the CPU.

    Raises:
        UserError: an unreadable image, embeddings that are not finite, or several for an image.
    """
    paths = [config.images / name for name in data.images]
    image = embed_images(vlm, paths, cache, workers=config.workers or None, single=True).image
    text = embed_texts(vlm, data.conditions, cache)
    return torch.from_numpy(image), torch.from_numpy(text)


class Lookup:
    """Features of a VLM that is not trained. A part is the features of b triplets themselves."""

    def __init__(self, vlm: LoadedVLM, data: Triplets, config: "TrainConfig") -> None:
        if rank():  # the first process embeds, the others find it in the cache
            dist.barrier()
        self.image, self.text = embed(vlm, data, config, config.cache)
        if world() > 1 and not rank():
            dist.barrier()
        self.data, self.device = data, vlm.device

    def parts(self, epoch: int, slices: np.ndarray) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Rows of triplets (P, b) -> P times reference, condition and target, each (b, D)."""
        for rows in slices:
            reference, target = self.image[self.data.reference[rows]], self.data.target[rows]
            part = reference, self.text[self.data.condition[rows]], self.image[target]
            yield tuple(features.to(self.device) for features in part)

    def features(self, part: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        return part

    def validation(self, held_out: Triplets) -> tuple[Tensor, Tensor]:
        return self.image, self.text


class Pixels(Dataset):
    """Item (epoch, row) -> reference and target of a triplet (2, 3, H, W), and the row; or, if an
    image cannot be read, a text that says so."""

    def __init__(self, data: Triplets, config: "TrainConfig", transform: Callable) -> None:
        self.data, self.config, self.transform = data, config, transform

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, int] | str:
        epoch, row = item
        pictures = []
        for which, index in enumerate((self.data.reference[row], self.data.target[row])):
            path = self.config.images / self.data.images[index]
            torch.manual_seed(draw(self.config.seed, AUGMENTATION, epoch, row, which))
            try:
                with Image.open(path) as image:
                    pictures.append(self.transform(image))
            except UNDECODABLE as error:
                return f"cannot read the image {path}: {error}; mend it or leave its triplets out"
        return torch.stack(pictures), row


class Trained:
    """Features of a VLM in training. A part is pixels (b, 2, 3, H, W) and b rows of triplets."""

    def __init__(self, vlm: LoadedVLM, data: Triplets, config: "TrainConfig") -> None:
        self.vlm, self.data, self.config = vlm, data, config
        self.pixels = Pixels(data, config, augmentation(vlm.preprocess))

    def parts(self, epoch: int, slices: np.ndarray) -> Iterator[tuple[Tensor, list[int]]]:
        batches = [[(epoch, int(row)) for row in rows] for rows in slices]
        loader = DataLoader(
            self.pixels, batch_sampler=batches, num_workers=self.config.workers, collate_fn=_collate
        )
        for part in loader:
            if isinstance(part, str):
                raise UserError(part)
            yield part

    def features(self, part: tuple[Tensor, list[int]]) -> tuple[Tensor, Tensor, Tensor]:
        pixels, rows = part
        texts = [self.data.conditions[i] for i in self.data.condition[rows]]
        images = self.vlm.image_features(pixels.flatten(0, 1))  # (2b, D)
        reference, target = images.unflatten(0, (-1, 2)).unbind(1)  # (b, D) each
        return reference, self.vlm.text_features(texts), target

    def validation(self, held_out: Triplets) -> tuple[Tensor, Tensor]:
        # Not into the cache: no one will ask for the embeddings of these weights again.
        return embed(self.vlm, held_out, self.config, None)


def _collate(items: list) -> Any:
    return next((item for item in items if isinstance(item, str)), None) or default_collate(items)


def augmentation(preprocess: Preprocess) -> Callable[[Image.Image], Tensor]:
    """GeneCIS's: resized to 8/7 of the VLM's size, then a random 90 to 100 % of it, stretched by
    up to a third, at the VLM's size; then the VLM's own last steps (mean and standard deviation).

    A VLM that does not resize and crop, as CLIP does, keeps its own preprocessing as it is.
    """
    from torchvision.transforms import CenterCrop, Compose, RandomResizedCrop, Resize

    steps = getattr(preprocess.transform, "transforms", [])
    if [type(step) for step in steps[:2]] != [Resize, CenterCrop]:
        return preprocess
    (height, width), how = steps[1].size, steps[0].interpolation
    larger = Resize(int(min(height, width) / 0.875), how)
    crop = RandomResizedCrop((height, width), scale=(0.9, 1), interpolation=how)
    return replace(preprocess, transform=Compose([larger, crop, *steps[2:]]))
