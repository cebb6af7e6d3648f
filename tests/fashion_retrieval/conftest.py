"""A small CLIP, and a ResNet-50."""

import pytest
import torch
from checkpoints import save_clip

from crl.backends.torchvision_fix import import_torchvision

import_torchvision()
from torchvision.models import resnet50  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """Its folder."""
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def resnet(tmp_path_factory):
    """A random ResNet-50 whose running statistics are not those of the beginning; its file."""
    torch.manual_seed(0)
    model = resnet50()
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 64))
    file = tmp_path_factory.mktemp("resnet") / "resnet.pth"
    torch.save(model.state_dict(), file)
    return model.eval(), file
