"""Several processes on one batch, as torchrun starts them; one process needs none of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from crl.checkpoints import available_device
from crl.errors import UserError


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group(device: str | None) -> Iterator[str | None]:
    """Join the other processes if torchrun started this one; -> the device of this process."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield device
        return
    if "RANK" not in os.environ:
        raise UserError("WORLD_SIZE is set but RANK is not; start several processes with torchrun")
    if device is not None:
        available_device(device)
    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    # Others wait a long time while the first one embeds millions of images.
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(days=2))
    try:
        yield device if cuda else "cpu"
    finally:
        dist.destroy_process_group()


def gather(features: Tensor) -> Tensor:
    """(b, ...) of each process -> (b * processes, ...) in order of rank, without graph."""
    if world() == 1:
        return features
    everyone = [torch.empty_like(features) for _ in range(world())]
    dist.all_gather(everyone, features.contiguous())
    return torch.cat(everyone)


def sum_gradients(parameters: list[nn.Parameter]) -> None:
    """Over all processes, in place. All of them reach the same parameters."""
    if world() > 1:
        for parameter in parameters:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)


def tell(line: str) -> None:
    """Print, from the first process only."""
    if rank() == 0:
        print(line, flush=True)
