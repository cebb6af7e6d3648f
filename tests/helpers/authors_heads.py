"""The heads of the authors' code, literally."""

import torch
from torch import nn


class AuthorsHeads(nn.Module):
    """Heads as the authors' code has them, literally; statistics not those of the beginning."""

    def __init__(self, attributes, width, out):
        super().__init__()
        self.out = out
        torch.manual_seed(0)
        hidden = (width + out) // 2
        self.projection_heads = nn.ModuleList()
        for _ in range(attributes):
            head = nn.Module()
            head.fc = nn.Sequential(
                nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, out)
            )
            for tensor in (*head.fc[1].parameters(), head.fc[1].running_mean):
                nn.init.uniform_(tensor, 0.2, 1.0)
            nn.init.uniform_(head.fc[1].running_var, 0.2, 1.0)
            self.projection_heads.append(head)

    def forward(self, x, attribute):
        result = torch.zeros(len(x), self.out, dtype=x.dtype)
        for a, head in enumerate(self.projection_heads):
            if (attribute == a).any():
                result[attribute == a] = head.fc(x[attribute == a])
        return result / result.norm(dim=1, keepdim=True)
