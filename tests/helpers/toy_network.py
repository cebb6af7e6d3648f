"""A small network and pictures for it, to train from pixels."""

import numpy as np
import torch
import toy_vlm
from PIL import Image
from torch import nn
from torch.nn import functional as F

from fashion_retrieval.method import TripletSampler
from fashion_retrieval.networks import Network
from fashion_retrieval.trainers import NetworkConfig, NetworkTrainer, TrainingData

PIXELS = 3 * toy_vlm.SIDE**2


class Tower(nn.Module):
    """Linear, in float64; counts its images."""

    def __init__(self, width=7):
        super().__init__()
        self.linear = nn.Linear(PIXELS, width, dtype=torch.float64)
        self.images = 0

    def forward(self, pixels):
        self.images += len(pixels)
        return self.linear(pixels.flatten(1).double() / 255)


class Toy(Network):
    """A mask for each attribute over a shared embedding, and CSN's penalty. In float64, so that
    sums in another order agree to 1e-10."""

    width = 7

    def __init__(self, attributes=2):
        super().__init__()
        torch.manual_seed(3)
        self.tower, self.preprocess = Tower(self.width), toy_vlm.ToyVLM().preprocess
        self.mask = nn.Parameter(torch.rand(attributes, self.width, dtype=torch.float64))
        self.spare = nn.Parameter(torch.ones(3), requires_grad=False)

    def features(self, pixels, precision):
        return self.tower(pixels)

    def embed(self, features, attribute):
        embedded = F.normalize(features * self.mask[attribute], dim=1)
        return embedded if torch.is_grad_enabled() else embedded.float()  # in use: float32

    def penalty(self, features, attribute):
        assert features.shape[0] == 3 and features.shape[1] == len(attribute)
        return 0.01 * features.square().mean() + 0.1 * self.mask[attribute].abs().mean()


def write_data(folder):
    """24 pictures to train on and 11 to validate with; two attributes of three values."""
    files = toy_vlm.make_images(folder / "images", 35)
    rng = np.random.default_rng(0)

    def rows(images):
        return np.array([(n, a, v) for n in images for a, v in enumerate(rng.integers(3, size=2))])

    valid = rows(range(24, 35))
    return TrainingData(
        ["hue", "cut"], TripletSampler(rows(range(24))), valid[:9], valid[9:], files
    )


def settings(folder, **more):
    keys = {"name": "toy", "outputs": folder / "outputs", "epochs": 2, "triplets": 22}
    keys |= {"batch_size": 6, "lr": 1e-2, "workers": 0, "device": "cpu"}
    return NetworkConfig(**{**keys, **more})


class ToyTrainer(NetworkTrainer):
    """Counts how often weights are kept."""

    task, file = "toys", "toy.bin"

    def __init__(self, config, data, network=None):
        super().__init__(config, data, "toy")
        self.network, self.kept = network or Toy(), 0

    def prepare(self):
        self.train_network(self.network)

    def keep(self):
        self.kept += 1
        self.weights.write_bytes(b"kept")


def pixels_of(data, image):
    with Image.open(data.files[image]) as picture:
        return toy_vlm.ToyVLM().preprocess(picture)[None]


def literal(network, pixels, attribute):
    """One image: tower, l2, T_a, l2, the head of a layer by layer, l2."""
    fc = network.heads.projection_heads[attribute].fc
    image = network.tower(pixels[None])[0]
    image = image / image.norm()
    x = torch.stack([(image * t).sum() for t in network.text[attribute]])
    z = fc[0].weight @ (x / x.norm()) + fc[0].bias
    z = (z - fc[1].running_mean) / torch.sqrt(fc[1].running_var + fc[1].eps)
    z = fc[3].weight @ torch.clamp(z * fc[1].weight + fc[1].bias, min=0) + fc[3].bias
    return z / z.norm()
