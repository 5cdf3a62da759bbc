"""The receiver of one picture as a search for its tokens sees it: differentiable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sqlink.model.refinement import BaseFeatures, quantised, without_cast

if TYPE_CHECKING:
    from sqlink.model.refinement import Refinement
    from sqlink.model.sqgan import SQGAN


@dataclass(frozen=True)
class SearchedReceiver:
    """See `sqlink.model.token_search.DifferentiableReceiver`.

    image: [1, 3, H, W], whole latent vectors. received: bool [1, h, w], codes of the base that are
    sent. segmentation: int64 [1, H, W], the map at the receiver. came: see there. step: [1], value
    of a digit of 1.
    """

    model: SQGAN
    refinement: Refinement
    image: Tensor
    received: Tensor
    segmentation: Tensor
    came: tuple[Tensor, Tensor]
    step: Tensor

    def nearest(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """See `DifferentiableReceiver`."""
        quantizer = self.model.image_quantizer
        indices = quantizer.nearest(vectors)
        return indices, quantizer.lookup(indices)

    def base(self, vectors: Tensor) -> BaseFeatures:
        """See `DifferentiableReceiver`; the picture is not clamped."""
        model = self.model
        with model.precision(vectors.device):
            grid = model.image_demasker(vectors, self.received)
            coarse, fine, out = model.image_decoder.with_features(grid, self.segmentation)
        return coarse, fine, (out.float() + 1) / 2

    def missing(self, picture: Tensor) -> Tensor:
        """See `DifferentiableReceiver`."""
        image = without_cast(self.image, picture)
        found = self.refinement.encoder.without_errors(image, picture)
        return found.z8 / self.step.view(-1, 1, 1, 1)

    def decoded(self, base: BaseFeatures, digits8: Tensor, digits4: Tensor) -> Tensor:
        """See `DifferentiableReceiver`."""
        tokens = digits8, self.came[0], digits4, self.came[1]
        with self.model.precision(digits8.device):
            drawn = self.refinement.decoded(1, base, tokens, self.step, self.segmentation)
        # Its mean colour becomes that of the original.
        shift = self.image.mean((2, 3), keepdim=True) - drawn.mean((2, 3), keepdim=True)
        return drawn + shift

    def rounded(self, values: Tensor) -> Tensor:
        """See `DifferentiableReceiver`."""
        return self.harder(values, 0.0)

    def harder(self, values: Tensor, harder: float) -> Tensor:
        """Round values in steps; with a number above 0 it is harder to be rounded up."""
        unit = torch.ones_like(self.step)
        return quantised(values, unit, self.refinement.config.round_up - harder)
