"""RPF: from region to patch, with a contrast between foreground and background."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crl.backends.torchvision_fix import import_torchvision
from fashion_retrieval.rivals.asen import attention_map, pooled
from fashion_retrieval.rivals.two_stage import WIDTH, Both, TwoStage
from fashion_retrieval.towers import Tower, load_published

DROPOUT, EPSILON = 0.1, 1e-6  # of LayerNorm


class Patches(nn.Module):
    """The local branch: a ViT's tokens of the crop, which an attribute attends to."""

    def __init__(self, vit: nn.Module, width: int) -> None:
        super().__init__()
        D, heads = vit.hidden_dim, vit.encoder.layers[0].num_heads
        self.vit, self.size = vit, vit.image_size
        self.query = nn.Linear(WIDTH, D)
        self.kind = nn.Parameter(0.02 * torch.randn(2, D))  # how they begin was not found
        self.cross_norm = nn.LayerNorm(D, EPSILON)
        self.cross = nn.MultiheadAttention(D, heads, batch_first=True)
        self.fc = nn.Linear(D, width)
        self.ffn = nn.Sequential(nn.LayerNorm(width, EPSILON), *_mlp(width, nn.GELU()))
        self.norm = nn.LayerNorm(width, EPSILON)
        for part in (self.query, self.cross, self.fc, self.ffn):
            part.apply(_begin)

    def tokens(self, crops: Tensor) -> Tensor:
        """(B, 3, size, size) -> (B, n, D), without the class token."""
        x = self.vit.conv_proj(crops).flatten(2).mT
        first = self.vit.class_token.expand(len(x), -1, -1)
        return self.vit.encoder(torch.cat([first, x], 1))[:, 1:]

    def forward(self, crops: Tensor, asked: Tensor) -> Tensor:
        query = self.cross_norm(self.query(asked) + self.kind[0])[:, None]
        tokens = self.cross_norm(self.tokens(crops) + self.kind[1])
        h = self.fc(self.cross(query, tokens, tokens, need_weights=False)[0][:, 0])
        return self.norm(h + self.ffn(h))


class RPF(TwoStage):
    """From Region to Patch (Dong et al., SIGIR 2023).

    Differences from the authors' code: the crop's source (crop.py); the tower's batch normalisation
    keeps its statistics; the ViT has torchvision's weights, not Google's. Theirs mirrors pictures
    at random in stage 1's evaluation too, and pools the background without `embedding`, which needs
    as many channels as dimensions; both are taken for mistakes and not done here. Not found:
    whether the map pools normed features (here: not normed, as in ASEN++), and the dropout of the
    cross attention (here: none). `share` is theirs for DeepFashion (0.3 for FashionAI and DARN).
    """

    share, decay, flips = 0.4, 2, True

    def __init__(self, tower: Tower, attributes: int, width: int) -> None:
        super().__init__(tower, attributes, width)
        C = tower.channels
        self.map_norm, self.attribute_norm = nn.LayerNorm(C, EPSILON), nn.LayerNorm(WIDTH, EPSILON)
        self.position = nn.Sequential(nn.Conv2d(C, 512, 1), nn.Tanh())
        self.where = nn.Sequential(nn.Linear(WIDTH, 512), nn.Tanh())
        self.embedding = nn.Linear(C, width)
        self.norm = nn.LayerNorm(width, EPSILON)
        self.mlp = nn.Sequential(*_mlp(width, nn.ReLU()))

    @staticmethod
    def closer(source: str, width: int, weights: bool = True) -> nn.Module:
        """ViT-B/16 at 224 pixels; `small`: 2 layers of width 64, 8 x 8 patches at 32."""
        import_torchvision()
        from torchvision.models import VisionTransformer, ViT_B_16_Weights, vit_b_16

        if source == "small":
            vit = VisionTransformer(32, 8, 2, 4, 64, 256, dropout=DROPOUT)
        else:
            vit = vit_b_16(weights=None, dropout=DROPOUT)
        vit.apply(_begin)
        if weights and source != "small":
            load_published(vit, ViT_B_16_Weights.IMAGENET1K_V1, source, "local=FILE")
        nn.init.zeros_(vit.class_token)  # the only part that the authors do not copy
        vit.encoder.ln = vit.heads = nn.Identity()
        return Patches(vit, width)

    def whole(self, features: Tensor, attribute: Tensor) -> tuple[Tensor, Tensor]:
        x = self.map_norm(features.movedim(1, 3)).movedim(3, 1)  # over the channels of a position
        asked = self.where(self.attribute_norm(self.attribute(attribute)))
        attention = attention_map(self.position(x), asked)
        return self.region(features, attention), attention

    def region(self, features: Tensor, weights: Tensor) -> Tensor:
        """(B, C, h, w), weighted with (B, h, w) -> (B, width)."""
        h = self.embedding(pooled(features, weights))
        return self.norm(h + self.mlp(self.norm(h)))

    def tie(self, both: Both, attribute: Tensor, value: Tensor) -> Tensor:
        rest = F.normalize(self.region(both.map, background(both.attention)), dim=1)
        return 0.04 * e_infonce(both.whole, both.local, rest, attribute, value)


def background(attention: Tensor) -> Tensor:
    """The opposite of attention maps (B, h, w), which also sums to 1."""
    rest = 1 - attention
    return rest / rest.sum((1, 2), keepdim=True)


def e_infonce(
    region: Tensor, patch: Tensor, rest: Tensor, attribute: Tensor, value: Tensor,
    temperature: float = 0.07, weight: float = 12,
) -> Tensor:  # fmt: skip
    """Region against patches and backgrounds of n images, (n, width) unit rows each. A region is to
    be near the patches of its own value, far from the other patches, and, `weight` times, from the
    backgrounds of its attribute (n,); the defaults are the authors' for DeepFashion."""
    asked = attribute[:, None] == attribute
    same = asked & (value[:, None] == value)
    patches = region @ patch.T / temperature  # (n, n)
    backgrounds = region @ rest.T / temperature + math.log(weight)
    near = patches.masked_fill(~same, -math.inf).logsumexp(1)
    everything = torch.cat([patches, backgrounds.masked_fill(~asked, -math.inf)], 1).logsumexp(1)
    return (everything - near).mean()


def _mlp(width: int, activation: nn.Module) -> list[nn.Module]:
    first, second = nn.Linear(width, width // 2), nn.Linear(width // 2, width)
    return [first, activation, nn.Dropout(DROPOUT), second, nn.Dropout(DROPOUT)]


def _begin(module: nn.Module) -> None:
    if isinstance(module, nn.MultiheadAttention):
        nn.init.trunc_normal_(module.in_proj_weight, std=0.02)
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
