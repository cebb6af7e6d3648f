"""The device; and several processes that share one batch, started by torchrun."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from textwrap import shorten
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from crl.run.errors import UserError


def available_device(device: str | torch.device | None) -> torch.device:
    """The device with that name; None: CUDA if there is a GPU that can be used, else the CPU."""
    try:
        available = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.ones(1, device=available).item()
        if available.type == "cpu" and available.index:
            raise RuntimeError("the CPU has no number")
        return available
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = shorten(str(error), 160)
        if device is None:
            note = f"torch sees a GPU here and cannot use it ({reason}); the CPU is used"
            warnings.warn(note, stacklevel=2)
            return torch.device("cpu")
        raise UserError(f"no device {str(device)!r} here ({reason}); use the device cpu") from error


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
    if device is not None:
        available_device(device)
    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    # The other processes wait a long time while the first one embeds millions of images.
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(days=2))
    try:
        yield device if cuda else "cpu"
    finally:
        dist.destroy_process_group()


def gather(features: Tensor) -> Tensor:
    """(b, ...) of each process -> (b * processes, ...) in order of rank, without gradients."""
    if world() == 1:
        return features
    everyone = [torch.empty_like(features) for _ in range(world())]
    dist.all_gather(everyone, features.contiguous())
    return torch.cat(everyone)


def sum_gradients(parameters: list[nn.Parameter]) -> None:
    """Sum the gradients over all processes, in place; all processes have the same parameters."""
    for parameter in parameters if world() > 1 else []:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)


def from_rank0(value: Any) -> Any:
    """The first process's `value`, in all processes."""
    values = [value]
    if world() > 1:
        dist.broadcast_object_list(values)
    return values[0]


def print_rank0(line: str) -> None:
    if rank() == 0:
        print(line, flush=True)
