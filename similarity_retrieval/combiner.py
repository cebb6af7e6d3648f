"""The Combiner: one query vector from a reference image and a condition.

Baldrati et al., Effective Conditioned and Composed Image Retrieval Combining CLIP-Based Features
(CVPR 2022). GeneCIS trains it on mined triplets and publishes one for CLIP ViT-B/16.
"""

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
    state = load_tensors(path)
    stored = {key: tuple(tensor.shape) for key, tensor in state.items()}
    with torch.device("meta"):  # shapes only: the weights come from the file
        missing = Combiner(1, 1, 1).state_dict().keys() - stored.keys()
        if missing:
            raise UserError(f"{path} holds no Combiner: {min(missing)} is missing")
        projection, width = (*stored["text_projection_layer.weight"], 0, 0)[:2]
        if width != dim:
            raise UserError(
                f"the Combiner in {path} takes embeddings of width {width}, the VLM's are {dim} "
                "wide; use the VLM that it was trained with"
            )
        combiner = Combiner(dim, projection, hidden=(*stored["combiner_layer.bias"], 0)[0])
    expected = {key: tuple(tensor.shape) for key, tensor in combiner.state_dict().items()}
    if stored != expected:
        key = min(key for key in stored if stored[key] != expected.get(key))
        raise UserError(
            f"{path} does not fit the Combiner: {key} is {stored[key]}, "
            f"expected {expected.get(key, 'nothing of that name')}"
        )
    state = {key: tensor.float() for key, tensor in state.items()}
    combiner.load_state_dict(state, assign=True)
    return combiner.eval()
