"""Imports torchvision even if its wheel and torch's do not match: the one on PyPI is compiled for
CUDA, and with a CPU-only torch its operator `nms` is missing. So we declare it: only the part in
Python (transforms, models) is used. This file can go when `import torchvision` succeeds with
constraints.txt and a CPU-only torch."""

import sys

import torch


def import_torchvision() -> None:
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[module]  # half imported
        for operator in ("nms", "qnms"):
            signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", signature)
        import torchvision  # noqa: F401
