"""Features: what is embedded, and how pictures are augmented."""

import numpy as np
import pytest
import torch
from checkpoints import save_clip
from mining_files import write_triplets
from PIL import Image

from crl.backends.loaded import Preprocess
from crl.vlm import load_vlm
from similarity_retrieval.combiner_features import Pixels, augmentation
from similarity_retrieval.mining.triplets import read_triplets


@pytest.fixture
def vlm(tmp_path):
    return load_vlm(str(save_clip(tmp_path / "clip")), device="cpu")


def test_augmentation_keeps_size_and_normalisation(vlm):
    augment = augmentation(vlm.preprocess)
    flat = Image.new("L", (90, 70), 128)  # no RGB; a crop of one colour shows mean and std alone
    assert torch.allclose(augment(flat), vlm.preprocess(flat), atol=1e-5)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8))
    torch.manual_seed(0)
    first, second = augment(noise), augment(noise)
    torch.manual_seed(0)
    assert first.shape == (3, 32, 32) and torch.equal(augment(noise), first)
    assert not torch.equal(first, second)
    other = Preprocess(vlm.preprocess.transform.transforms[0])  # nothing known to crop
    assert augmentation(other) is other


def test_augmentation_of_a_triplet_depends_on_epoch_and_place_alone(tmp_path, vlm):
    keys = write_triplets(tmp_path)
    data = read_triplets(keys["triplets"], keys["images"])
    pixels = Pixels(data, augmentation(vlm.preprocess), seed=0)
    assert torch.equal(pixels[1, 7][0], pixels[1, 7][0])
    assert not torch.equal(pixels[1, 7][0], pixels[2, 7][0])
