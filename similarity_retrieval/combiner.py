"""The Combiner: one query vector from a reference image and a condition.

Baldrati et al., Effective Conditioned and Composed Image Retrieval Combining CLIP-Based Features
(CVPR 2022). GeneCIS trains it on mined triplets and publishes one for CLIP ViT-B/16.
"""

import textwrap
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crl.backends.weights import load_tensors
from crl.run.errors import UserError


class Combiner(nn.Module):
    """Raw embeddings of an image and a text, both (B, D) -> unit rows (B, D).

    The result is a learned mixture of the two embeddings plus a learned correction. The layers have
    the names of the published weights.

    Args:
        dim: D, the width of the embeddings.
        projection: width to which each of the two is projected.
        hidden: width of the hidden layers.
        dropout: rate after each hidden activation, in training.
    """

    def __init__(
        self, dim: int, projection: int = 2560, hidden: int = 5120, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.dim = dim
        self.text_projection_layer = nn.Linear(dim, projection)
        self.image_projection_layer = nn.Linear(dim, projection)
        self.combiner_layer = nn.Linear(2 * projection, hidden)
        self.output_layer = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)
        self.dynamic_scalar = nn.Sequential(
            nn.Linear(2 * projection, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
            nn.Sigmoid(),
        )

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """(B, D) and (B, D), not normalised -> (B, D), unit rows."""
        projected_text = self.dropout(F.relu(self.text_projection_layer(text)))  # (B, projection)
        projected_image = self.dropout(F.relu(self.image_projection_layer(image)))
        both = torch.cat([projected_text, projected_image], dim=1)  # (B, 2 projection)
        correction = self.output_layer(self.dropout(F.relu(self.combiner_layer(both))))  # (B, D)
        share = self.dynamic_scalar(both)  # (B, 1), of the text
        return F.normalize(correction + share * text + (1 - share) * image, dim=1)


def load_combiner(path: Path, dim: int) -> Combiner:
    """A Combiner from a checkpoint, in eval mode, on the CPU, in float32.

    Args:
        path: .safetensors, or a file of torch.save (.pt, .pth); see `load_tensors`.
            The sizes of the layers are read from it.
        dim: D, the width of the embeddings that the Combiner must take.

    Raises:
        UserError: no such file; a damaged file or one that holds code; not the layers of a
            Combiner; a Combiner for embeddings of another width.
    """
    state = {key: tensor.float() for key, tensor in load_tensors(path).items()}
    try:
        projection, width = state["text_projection_layer.weight"].shape
        hidden = len(state["combiner_layer.bias"])
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} holds no Combiner") from error
    if width != dim:
        raise UserError(
            f"the Combiner in {path} takes embeddings of width {width}, the VLM's are {dim} wide; "
            "use the VLM that it was trained with"
        )
    with torch.device("meta"):  # shapes only: the weights come from the file
        combiner = Combiner(dim, projection, hidden)
    try:
        combiner.load_state_dict(state, assign=True)
    except RuntimeError as error:  # names the layers
        reason = textwrap.shorten(str(error).partition(":")[2], 200)
        raise UserError(f"{path} does not fit the Combiner: {reason}") from error
    return combiner.eval()
