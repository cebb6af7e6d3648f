"""Networks: precision, pictures and vectors against one image at a time."""

import numpy as np
import pytest
import torch
from torch import nn
from toy_network import Toy, pixels_of, write_data

from fashion_retrieval.networks import Network, represent_tables


def test_precision_is_that_of_the_tower_alone():
    network = Toy()
    network.tower = nn.Linear(12, 5)
    pixels = torch.randn(9, 12)
    full, half = (Network.features(network, pixels, precision) for precision in ("fp32", "bf16"))
    assert full.dtype == half.dtype == torch.float32
    assert torch.allclose(full, half, atol=0.05) and torch.equal(half, half.bfloat16().float())
    assert not torch.equal(full, half)


@pytest.mark.parametrize("batch_size", [1, 4, 100])  # 4: the last one is smaller
def test_tables_one_image_at_a_time(tmp_path, batch_size):
    data, network = write_data(tmp_path), Toy()
    tables = [data.sampler.labels, data.query]
    represent = represent_tables(network, data.files, tables, "fp32", 0, batch_size)
    images = set(tables[0][:, 0]) | set(tables[1][:, 0])
    assert network.tower.images == len(images)  # each once, for both attributes
    assert not network.training
    for table in tables:
        for attribute in (0, 1):
            asked = np.random.default_rng(0).permutation(table[table[:, 1] == attribute, 0])
            vectors = represent(asked, attribute)
            assert vectors.shape == (len(asked), 7) and vectors.dtype == np.float32
            for vector, image in zip(vectors, asked, strict=True):
                with torch.inference_mode():
                    features = network.tower(pixels_of(data, image))
                    expected = network.embed(features, torch.tensor([attribute]))[0]
                assert np.allclose(vector, expected, atol=1e-6)
