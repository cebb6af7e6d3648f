"""The heads of CRL's fashion retrieval: one small MLP an attribute, all of them computed at once.

Stage 1 trains them on conditional representations x = l2(I @ T_a.T) of frozen embeddings (paper,
Table 4); stage 2 freezes them and trains the VLM below them.
"""

import math
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from crl.run.weights import stored_shapes
from crl.run.errors import UserError
from crl.run.weights import read_about

EPS, MOMENTUM = 1e-5, 0.1  # of the batch normalisation, as in torch


class Heads(nn.Module):
    """A heads, each Linear(K, h) -> BatchNorm1d -> ReLU -> Linear(h, out), h = (K + out) // 2.

    The rows of a batch are laid out as (A, M, K), M being the rows of the most frequent attribute,
    so that each layer is one batched product; what pads the others counts nowhere.

    Args:
        attributes: A.
        width: K, the width of the (aligned) text bases.
        out: width of the result.
    """

    def __init__(self, attributes: int, width: int, out: int = 1024) -> None:
        super().__init__()
        hidden = (width + out) // 2
        self.weight1 = nn.Parameter(torch.empty(attributes, hidden, width))
        self.bias1 = nn.Parameter(torch.empty(attributes, hidden))
        self.scale = nn.Parameter(torch.ones(attributes, hidden))  # of the normalisation
        self.shift = nn.Parameter(torch.zeros(attributes, hidden))
        self.weight2 = nn.Parameter(torch.empty(attributes, out, hidden))
        self.bias2 = nn.Parameter(torch.empty(attributes, out))
        self.register_buffer("mean", torch.zeros(attributes, hidden))  # running statistics
        self.register_buffer("variance", torch.ones(attributes, hidden))
        for weight, bias in ((self.weight1, self.bias1), (self.weight2, self.bias2)):
            bound = 1 / math.sqrt(weight.shape[-1])  # nn.Linear's own beginning
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)

    @property
    def width(self) -> int:
        return self.weight1.shape[-1]

    def forward(self, x: Tensor, attribute: Tensor) -> Tensor:
        """Each row through the head of its attribute.

        In training mode the rows of one attribute in one batch are normalised by their own mean and
        variance, and the running statistics follow, as in nn.BatchNorm1d. The variance of a single
        row is no variance, so such a row takes the running statistics and leaves them alone: it
        gets the very representation that evaluation would give it. (The authors' code returns zeros
        there, which have no direction, and nn.BatchNorm1d raises.)

        Args:
            x: (B, K) float32, each row of its own attribute's basis; or S such batches of the same
                attributes at once, (S, B, K), e.g. anchors, positives and negatives. Each of the S
                is normalised on its own, as the authors do, and counts once for the running
                statistics, in order.
            attribute: (B,) int64, 0 to A - 1.

        Returns:
            (B, out) or (S, B, out), unit rows.
        """
        batches = x if x.ndim == 3 else x[None]  # (S, B, K)
        present, attribute = attribute.unique(return_inverse=True)
        P, S = len(present), len(batches)
        one_hot = F.one_hot(attribute, P)  # (B, P)
        count = one_hot.sum(0)  # (P,)
        M = int(count.max())
        row = (one_hot.cumsum(0) * one_hot).sum(1) - 1  # (B,) place among those of its attribute
        place = attribute * M + row  # (B,) in P * M
        rows = x.new_zeros(P * M, S, x.shape[-1]).index_copy(0, place, batches.transpose(0, 1))
        rows = rows.view(P, M * S, -1)  # (P, M S, K)

        own = [self.weight1, self.bias1, self.scale, self.shift, self.weight2, self.bias2]
        if len(self.mean) > P:  # only some attributes: no work for the others
            own = [parameter[present] for parameter in own]
        weight1, bias1, scale, shift, weight2, bias2 = own
        z = _Linear.apply(rows, weight1, bias1).view(P, M, S, -1)  # (P, M, S, h)
        mean, variance = self._statistics(z, present, count)  # (P, S, h) or, in eval, (P, 1, h)
        factor = scale[:, None] * (variance + EPS).rsqrt()
        z = F.relu(torch.addcmul((shift[:, None] - mean * factor)[:, None], z, factor[:, None]))
        z = _Linear.apply(z.view(P, M * S, -1), weight2, bias2)  # (P, M S, out)
        result = z.view(P * M, S, -1)[place].transpose(0, 1)  # (S, B, out)
        return F.normalize(result if x.ndim == 3 else result[0], dim=-1)

    def _statistics(self, z: Tensor, present: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and (biased) variance of each attribute's rows of z (P, M, S, h), and the update of
        the running ones."""
        running = self.mean[present][:, None], self.variance[present][:, None]  # (P, 1, h)
        if not self.training:
            return running
        P, M, S, _ = z.shape
        real = torch.arange(M, device=z.device) < count[:, None]  # (P, M): not padding
        share = (real.to(z.dtype) / count[:, None])[:, None]  # (P, 1, M)
        flat = z.view(P, M, -1)
        mean = share @ flat  # (P, 1, S h)
        variance = (share @ (flat - mean).square()).view(P, S, -1)
        mean = mean.view(P, S, -1)
        several = count > 1
        with torch.no_grad():
            rows, n = present[several], count[several, None]
            for s in range(S):
                self.mean[rows] += MOMENTUM * (mean[several, s] - self.mean[rows])
                unbiased = variance[several, s] * n / (n - 1)
                self.variance[rows] += MOMENTUM * (unbiased - self.variance[rows])
        several = several[:, None, None]
        return torch.where(several, mean, running[0]), torch.where(several, variance, running[1])


class _Linear(torch.autograd.Function):
    """x (P, N, in), weight (P, out, in), bias (P, out) -> (P, N, out): P linear layers at once.

    Torch would find the weights' gradient transposed and bring it into their layout, which on a CPU
    takes as long as a product.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.baddbmm(bias[:, None], x, weight.mT)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad  # none that is not asked for
        return (
            gradient @ weight if of_x else None,
            gradient.mT @ x if of_weight else None,
            gradient.sum(1) if of_bias else None,
        )


# --- files ----------------------------------------------------------------------------------------


AUTHORS = {  # names in the checkpoints of the authors' code, after projection_heads.<a>.fc.
    "0.weight": "weight1",
    "0.bias": "bias1",
    "1.weight": "scale",
    "1.bias": "shift",
    "1.running_mean": "mean",
    "1.running_var": "variance",
    "3.weight": "weight2",
    "3.bias": "bias2",
}


def load_heads(path: Path, attributes: int, width: int, basis: str | None = None) -> Heads:
    """Heads from a file, in eval mode, on the CPU, in float32.

    Args:
        path: heads.safetensors of train_mlp.py, or a .pth of the authors' code: {'epoch', 'model',
            'mAP'}, the model's keys being projection_heads.<a>.fc.{0,1,3}.*.
        attributes: A, as many as it must have.
        width: K, the width of the bases that it must take.
        basis: digest of these bases; heads.safetensors says with which it was trained.

    Raises:
        UserError: no such file; a damaged one or one that holds code; no heads; heads for another
            number of attributes, another width or other bases.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there are no heads {path}; train them with train_mlp.py")
    state = _tensors(path)
    with torch.device("meta"):  # shapes only: the weights come from the file
        names = Heads(1, 1, 1).state_dict().keys()
        if state.keys() != names:
            wrong = min(state.keys() ^ names)
            what = "missing" if wrong in names else "no part of them"
            raise UserError(f"{path} holds no heads of this kind: {wrong} is {what}")
        A, _, K = (*state["weight1"].shape, 0, 0, 0)[:3]
        if attributes != A:
            raise UserError(
                f"{path} holds heads for {A} attributes, the data has {attributes}; use heads "
                "trained on this data set"
            )
        if width != K:
            raise UserError(
                f"the heads in {path} take representations of width {K}, these are {width} wide; "
                "use the text bases that they were trained with"
            )
        heads = Heads(A, K, out=(*state["bias2"].shape, 0, 0)[1])
    for key, tensor in heads.state_dict().items():
        if state[key].shape != tensor.shape:
            raise UserError(
                f"{path} does not fit: {key} is {tuple(state[key].shape)}, expected "
                f"{tuple(tensor.shape)}"
            )
    if basis and read_about(path).get("basis_hash", basis) != basis:
        raise UserError(f"the heads in {path} were trained with other text bases; use those")
    heads.load_state_dict(state, assign=True)
    return heads.eval()


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors by our names, in float32; what is no part of heads by its own name."""
    if path.suffix == ".safetensors":
        stored_shapes(path)  # refuses a damaged file
        return {key: tensor.float() for key, tensor in load_file(path).items()}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a broken file makes torch raise nearly anything
        stored_shapes(path)  # says in one line what is wrong with it
        raise
    state = state["model"] if isinstance(state, dict) and "model" in state else state
    if not isinstance(state, dict):
        raise UserError(f"{path} holds no heads, but a {type(state).__name__}")
    found: dict[str, list[Tensor]] = {}
    for key, tensor in state.items():  # head by head, as a ModuleList saves them
        name = re.fullmatch(r"(?:module\.)?projection_heads\.\d+\.fc\.(.*)", str(key))
        name = name[1] if name else str(key)
        if name != "1.num_batches_tracked":  # of no use with a fixed momentum
            found.setdefault(AUTHORS.get(name, name), []).append(tensor)
    return {name: _stacked(path, name, tensors) for name, tensors in found.items()}


def _stacked(path: Path, name: str, tensors: list) -> Tensor:
    try:
        return torch.stack(tensors).float()
    except (TypeError, RuntimeError) as error:
        raise UserError(f"{path} holds no heads: {name} differs from head to head") from error
