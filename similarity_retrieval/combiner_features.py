"""The features that a Combiner learns from: of a frozen VLM, or of a VLM that is trained too."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from crl.backends.loaded import LoadedVLM, Preprocess
from crl.embed import embed_images, embed_texts
from crl.images import UnreadableImage, open_image
from crl.run.distributed import rank, world
from crl.run.errors import UserError
from crl.run.training import derived_seed
from crl.vlm import VLM
from similarity_retrieval.mining.triplets import MinedTriplets

ORDER, DROPOUT, AUGMENTATION, INITIAL = range(4)  # uses of randomness; one random stream per use


def embed(vlm: VLM, data: MinedTriplets, cache: Path | None, workers: int) -> list[Tensor]:
    """Raw embeddings of all images and conditions: (M, D) and (C, D), float32, on the CPU."""
    images = embed_images(vlm, data.images, cache, workers=workers or None, single=True, raw=True)
    text = embed_texts(vlm, data.conditions, cache, raw=True)
    return [torch.from_numpy(images.image), torch.from_numpy(text)]


class FrozenFeatures:
    """Features of a frozen VLM: embedded once, then looked up. A part of a batch: rows (b,)."""

    def __init__(self, vlm: VLM, data: MinedTriplets, cache: Path, workers: int) -> None:
        if rank():  # the first process embeds, the others find the embeddings in the cache
            dist.barrier()
        self.image, self.text = embed(vlm, data, cache, workers)
        if world() > 1 and not rank():
            dist.barrier()
        self.data, self.device = data, vlm.device

    def parts(self, epoch: int, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Rows of triplets (P, b) -> P parts."""
        return iter(rows)

    def features(self, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Reference, condition and target, each (b, D)."""
        data, device = self.data, self.device
        text, target = self.text[data.condition[rows]], self.image[data.target[rows]]
        return self.image[data.reference[rows]].to(device), text.to(device), target.to(device)

    def validation(self, held_out: MinedTriplets) -> list[Tensor]:
        """Embeddings of images and conditions; those of `held_out` come first."""
        return [self.image, self.text]


class FineTunedFeatures:
    """Features from pixels, with gradients. A part of a batch holds pixels (b, 2, 3, H, W) and the
    rows (b,) of the triplets."""

    def __init__(self, vlm: LoadedVLM, data: MinedTriplets, seed: int, workers: int) -> None:
        self.vlm, self.data, self.workers = vlm, data, workers
        self.pixels = Pixels(data, augmentation(vlm.preprocess), seed)

    def parts(self, epoch: int, rows: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows of triplets (P, b) -> P parts."""
        batches = [[(epoch, int(row)) for row in part] for part in rows]
        how = {"num_workers": self.workers, "collate_fn": _collate}
        for part in DataLoader(self.pixels, batch_sampler=batches, **how):
            if isinstance(part, str):
                raise UserError(part)
            yield part

    def features(self, part: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Reference, condition and target, each (b, D)."""
        pixels, rows = part
        texts = [self.data.conditions[i] for i in self.data.condition[rows]]
        images = self.vlm.image_features(pixels.flatten(0, 1))  # (2b, D)
        reference, target = images.unflatten(0, (-1, 2)).unbind(1)  # (b, D) each
        return reference, self.vlm.text_features(texts), target

    def validation(self, held_out: MinedTriplets) -> list[Tensor]:
        """Embeddings by the VLM as it is now, which are not needed again."""
        return embed(self.vlm, held_out, None, self.workers)


class Pixels(Dataset):
    """Item (epoch, row) -> reference and target of a triplet (2, 3, H, W), and the row; or an error
    message if an image cannot be read."""

    def __init__(self, data: MinedTriplets, transform: Callable, seed: int) -> None:
        self.data, self.transform, self.seed = data, transform, seed

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, int] | str:
        epoch, row = item
        pictures = []
        for which, index in enumerate((self.data.reference[row], self.data.target[row])):
            path = self.data.images[index]
            torch.manual_seed(derived_seed(self.seed, AUGMENTATION, epoch, row, which))
            try:
                pictures.append(self.transform(open_image(path)))
            except UnreadableImage as error:
                return f"cannot read the image {path}: {error}; repair it or leave out its triplets"
        return torch.stack(pictures), row


def _collate(items: list) -> Any:
    return next((item for item in items if isinstance(item, str)), None) or default_collate(items)


def augmentation(preprocess: Preprocess) -> Callable[[Image.Image], Tensor]:
    """GeneCIS's augmentation: resize to 8/7 of the VLM's size, then a random crop of 90 to 100 % of
    the area, stretched by up to a third; then the VLM's own last steps (normalisation). If these do
    not begin with Resize and CenterCrop, as CLIP's do, there is no augmentation."""
    from torchvision.transforms import CenterCrop, Compose, RandomResizedCrop, Resize

    steps = getattr(preprocess.transform, "transforms", [])
    if [type(step) for step in steps[:2]] != [Resize, CenterCrop]:
        return preprocess
    (height, width), how = steps[1].size, steps[0].interpolation
    side = int(min(height, width) / 0.875)
    crop = RandomResizedCrop((height, width), scale=(0.9, 1), interpolation=how)
    return replace(preprocess, side=side, transform=Compose([Resize(side, how), crop, *steps[2:]]))
