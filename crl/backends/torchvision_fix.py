"""Imports torchvision even if its wheel and torch's wheel do not match.

Only torchvision's pure Python part (transforms, models) is used, mostly through open_clip. The
wheel on PyPI is compiled for CUDA. With a CPU-only torch of the right version, its compiled
operators do not load, and the import fails because the operator `nms` is missing. If we declare
that operator, the Python part can be imported.

This file can be removed when `python -c "import torch, torchvision"` succeeds in a fresh
environment with constraints.txt and a CPU-only torch.
"""

import re
import sys
from importlib import metadata

import torch

from crl.run.errors import UserError


def import_torchvision() -> None:
    """Import torchvision.

    Raises:
        UserError: it was built for another version of torch; the message says which.
    """
    requirements = " ".join(metadata.requires("torchvision") or [])
    pin = re.search(r"\btorch *\(?== *([\w.]+)", requirements)
    if pin and pin[1] != torch.__version__.split("+")[0]:
        raise UserError(
            f"torchvision {metadata.version('torchvision')} wants torch {pin[1]} but "
            f"{torch.__version__} is installed; install the pair in constraints.txt"
        )
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
