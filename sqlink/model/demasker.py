"""ADM, the attention demasker: it fills in tokens that were not sent or not received.

    codes at their places, a learned mask token elsewhere ── conv1x1 ── B x [residual ── attention]
    ──>

In the attention of a block, a place has weight 1 if its code was received, else `start`. The square
root of this weight is taken after every block, so that filled-in places gradually take part.
Source: arXiv 2502.09520, after MQ-VAE's demasker (Huang et al., CVPR 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sqlink.model.fused import convolved
from sqlink.model.residual import ResidualBlock, SelfAttention


class AttentionDemasker(nn.Module):
    """A network that fills the latent grid of one stream."""

    def __init__(self, code_dim: int, width: int, blocks: int, groups: int, start: float) -> None:
        super().__init__()
        self.start = start
        self.mask_token = nn.Parameter(torch.zeros(code_dim))
        self.project = nn.Conv2d(code_dim, width, 1)
        self.residuals = nn.ModuleList(ResidualBlock(width, width, groups) for _ in range(blocks))
        self.attentions = nn.ModuleList(SelfAttention(width, groups) for _ in range(blocks))

    def forward(self, codes: Tensor, received: Tensor) -> Tensor:
        """Fill in masked codes, [N, h, w, code_dim]; received: bool [N, h, w].

        Returns [N, width, h, w].
        """
        placed = torch.where(received.unsqueeze(-1), codes, self.mask_token.to(codes.dtype))
        x = convolved(self.project, placed.permute(0, 3, 1, 2))
        weights = torch.where(received, 1.0, self.start).flatten(1)  # [N, h*w]
        for residual, attention in zip(self.residuals, self.attentions, strict=True):
            x = attention(residual(x), weights)
            weights = weights.sqrt()
        return x
