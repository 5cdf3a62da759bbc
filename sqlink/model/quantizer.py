"""Vector quantisation with a codebook updated by moving averages.

    v ── nearest code ──> index; the gradient passes straight through to v

Source: van den Oord et al., "Neural discrete representation learning", NeurIPS 2017 (appendix A.1,
the EMA update); restart of unused codes as in Dhariwal et al., "Jukebox", 2020.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class VectorQuantizer(nn.Module):
    """A codebook of `codes` vectors of `dim` values.

    In training, a code whose moving count falls below `restart_below` uses per batch is replaced by
    a vector of that batch. In the first batch this applies to all codes except the frequent ones,
    which move to the mean of their vectors, so that the codebook starts among the data.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(
        self, codes: int, dim: int, decay: float = 0.99, restart_below: float = 0.03
    ) -> None:
        super().__init__()
        self.codes = codes
        self.decay = decay
        self.restart_below = restart_below
        book = torch.randn(codes, dim, generator=torch.Generator().manual_seed(codes))
        self.register_buffer("codebook", F.normalize(book, dim=1))
        self.register_buffer("counts", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, dim))

    def adopt(self) -> None:
        """Reset the averages to the present codebook, with every code equally used."""
        self.counts.fill_(1.0)
        self.sums.copy_(self.codebook)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Find the index of the nearest code of [..., dim], int64 [...], in float32."""
        flat = vectors.detach().reshape(-1, vectors.shape[-1]).float()
        with torch.autocast(flat.device.type, enabled=False):
            distance = self.codebook.square().sum(1) - 2 * flat @ self.codebook.t()
        return distance.min(1).indices.reshape(vectors.shape[:-1])

    def lookup(self, indices: Tensor) -> Tensor:
        """Look up int64 [...], giving [..., dim]; an index of -1 gives the first code, to be
        masked.
        """
        return self.codebook[indices.clamp(min=0)]

    def perplexity(self) -> Tensor:
        """Return the exponential of the entropy of code use: 1 to `codes`."""
        share = self.counts / self.counts.sum().clamp(min=1e-9)
        return torch.exp(-torch.xlogy(share, share).sum())

    def forward(self, vectors: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise vectors: [N, h, w, dim]; kept: bool [N, h, w].

        Returns the quantised vectors with a straight-through gradient, int64 indices [N, h, w], and
        the commitment loss, a mean over the kept places. In training the codebook is updated.
        """
        indices = self.nearest(vectors)
        codes = self.lookup(indices)
        weight = kept.unsqueeze(-1).to(vectors.dtype)
        error = (vectors.float() - codes).square() * weight
        commitment = error.sum() / weight.sum().clamp(min=1) / vectors.shape[-1]
        if self.training:
            self._follow(vectors.detach()[kept].float(), indices[kept])
        return vectors + (codes - vectors).detach(), indices, commitment

    @torch.no_grad()
    def _follow(self, vectors: Tensor, indices: Tensor) -> None:
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        if not len(vectors) and not together:
            return
        with torch.autocast(vectors.device.type, enabled=False):
            counts = torch.zeros_like(self.counts).index_add_(
                0, indices, torch.ones_like(indices, dtype=self.counts.dtype)
            )
            sums = torch.zeros_like(self.sums).index_add_(0, indices, vectors)
            if together:
                torch.distributed.all_reduce(counts)
                torch.distributed.all_reduce(sums)
            self.counts.mul_(self.decay).add_(counts, alpha=1 - self.decay)
            self.sums.mul_(self.decay).add_(sums, alpha=1 - self.decay)
            unused = self.counts < self.restart_below
            if unused.any():
                source = vectors if len(vectors) else self.codebook
                places = torch.arange(self.codes, device=vectors.device) * 7919 % len(source)
                replacement = source[places]
                if together:
                    torch.distributed.broadcast(replacement, 0)
                fresh = 8 * self.restart_below
                self.sums[unused] = replacement[unused] * fresh
                self.counts[unused] = fresh
            self.codebook.copy_(self.sums / self.counts.clamp(min=1e-6).unsqueeze(1))
