"""SAMM, the semantic-aware masking module: it scores the relevance of latent vectors.

    z ── SPADE(.|s) ── conv3x3 ── ReLU ── SPADE(.|s) ── conv1x1 ── sigmoid ──> score in (0, 1)
    z ── layer norm ──(x score)── linear ──> vector of the codes' size, to be quantised

The multiplication by the score passes the gradient to the scorer. Source: arXiv 2502.09520, built
on MQ-VAE (Huang et al., "Not all image regions matter", CVPR 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sqlink.model.fused import convolved
from sqlink.model.spade import SpadeNorm


class SemanticAwareMasking(nn.Module):
    """A network that scores every place of the latent grid and prepares its vector for the
    quantiser.
    """

    def __init__(
        self, channels: int, width: int, code_dim: int, label_channels: int, groups: int
    ) -> None:
        super().__init__()
        self.spade1 = SpadeNorm(channels, groups, label_channels, hidden=32)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.spade2 = SpadeNorm(width, groups, label_channels, hidden=32)
        self.conv2 = nn.Conv2d(width, 1, 1)
        self.norm = nn.LayerNorm(channels, elementwise_affine=False)
        self.project = nn.Linear(channels, code_dim)

    def forward(self, z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Score z: [N, C, h, w]; labels: one-hot map at the latent grid [N, L, h, w].

        Returns vectors [N, h, w, code_dim] and scores [N, h, w] in (0, 1).
        """
        hidden = convolved(self.conv1, self.spade1(z, labels), relu=True)
        scores = torch.sigmoid(self._weigh(self.spade2(hidden, labels)))
        vectors = self.norm(z.permute(0, 2, 3, 1).float()) * scores.unsqueeze(-1)
        return self.project(vectors), scores

    def _weigh(self, hidden: Tensor) -> Tensor:
        """Apply conv2, [N, width, h, w] to [N, h, w], with sums that do not depend on the
        threads.
        """
        weight, bias = self.conv2.weight.float(), self.conv2.bias
        assert bias is not None
        return (hidden.float() * weight.view(1, -1, 1, 1)).sum(1) + bias.float()


def keep_most_relevant(scores: Tensor, fraction: Tensor) -> Tensor:
    """Return a mask of the ceil(fraction * h * w) places with the highest scores, bool [N, h, w].

    scores: [N, h, w]; fraction: [N] in [0, 1]. Of equal scores the earlier place is kept.

    >>> keep_most_relevant(torch.tensor([[[0.1, 0.9], [0.5, 0.2]]]), torch.tensor([0.5])).tolist()
    [[[False, True], [True, False]]]
    """
    n, h, w = scores.shape
    order = scores.reshape(n, -1).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(h * w, device=scores.device).expand(n, -1).contiguous()
    )
    kept = torch.ceil(fraction * h * w - 1e-6).long()
    return (rank < kept.unsqueeze(1)).reshape(n, h, w)
