"""Search for the refinement's digits at the transmitter, through the receiver's own network.

    coefficients in steps ─ rounded ─ decoder at realism 1 ─ distance + price x bits
             └── gradient, as if nothing were rounded ────────────────────┘

A digit rounded to the nearest is best for squared error. How it looks, the decoder's network
decides, which both ends hold: a few passes through it find digits that look more like the original
for the same bytes. The stream is an ordinary one.

Rounding that gradients pass unchanged: Bengio, Léonard, Courville, "Estimating or propagating
gradients through stochastic neurons", 2013. Search per picture in learned codecs: Campos et al.,
"Content adaptive optimization for neural image compression", CVPR Workshops 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sqlink.metrics.lpips import LPIPS
from sqlink.model.refinement import Digits
from sqlink.segmentation.pyramid import Pyramid
from sqlink.training.perceptual import features_loss

Decode = Callable[[Tensor, Tensor], Tensor]
"""Decodes digits of both layers, [N, D, h, w] each, to pictures [N, 3, H, W], not clamped."""


def about_bits(rounded: Tensor) -> Tensor:
    """Return about the bits of values in steps before they are rounded, smooth in these.

    >>> about_bits(torch.tensor([0.0, 1.5]))
    tensor([0., 2.])
    """
    return (1 + 2 * rounded.abs()).log2()


class Distance(Protocol):
    """What a search makes small."""

    def to(self, originals: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the distance of pictures from originals, both [N, 3, H, W], a sum over N,
        differentiable in the pictures.
        """
        ...


@dataclass(frozen=True)
class PerceptualDistance:
    """LPIPS, and with `network` `weight` times the difference of the features that it sees
    (`sqlink.training.perceptual`): of LPIPS alone, other networks think less.
    """

    lpips: LPIPS
    network: Pyramid | None = None
    weight: float = 0.5

    def to(self, originals: Tensor) -> Callable[[Tensor], Tensor]:
        """See `Distance`."""
        network = self.network
        taps = [part.detach() for part in self.lpips.taps(originals)]
        features = None if network is None else network.features(originals)

        def distance(shown: Tensor) -> Tensor:
            total = self.lpips.between(self.lpips.taps(shown), taps).sum()
            if network is not None and features is not None:
                seen = features_loss(network.features(shown), features)
                total = total + self.weight * len(shown) * seen
            return total

        return distance


@dataclass(frozen=True)
class TokenSearch:
    """Adam on coefficients in steps.

    distance: what is made small. passes: through the decoder, forward and back. price: of a bit a
    pixel, in LPIPS; the search then takes about as many bits as before. rate: learning rate at
    first, in steps; it falls linearly to nothing.
    """

    distance: Distance
    passes: int
    price: float = 6.0
    rate: float = 0.04

    def digits(
        self,
        decode: Decode,
        images: Tensor,
        found: Digits,
        came: tuple[Tensor, Tensor],
        rounding: Callable[[Tensor], Tensor],
        precision: Callable[[], AbstractContextManager[object]],
    ) -> tuple[Tensor, Tensor]:
        """Return digits of both layers, [N, D, h, w], that differ from those found where tokens
        came.

        images: [N, 3, H, W]. came: bool [N, h, w] of both layers. rounding: makes digits of values
        in steps. precision: context that the networks run in.
        """
        pixels = images[0, 0].numel()
        with torch.inference_mode(False), torch.enable_grad():
            values = [part.clone().requires_grad_() for part in (found.rounded8, found.rounded4)]
            masks = [part.clone().unsqueeze(1) for part in came]
            optimizer = torch.optim.Adam(values, lr=self.rate)
            with torch.no_grad():
                distance_of = self.distance.to(images.clone())
            for number in range(self.passes):
                for group in optimizer.param_groups:
                    group["lr"] = self.rate * (1 - number / self.passes)
                with precision():
                    shown = decode(rounding(values[0]), rounding(values[1])).float()
                shown = shown + (shown.clamp(0, 1) - shown).detach()
                distance = distance_of(shown)
                bits = torch.stack(
                    [(about_bits(v) * m).sum() for v, m in zip(values, masks, strict=True)]
                ).sum()
                gradients = torch.autograd.grad(distance + self.price * bits / pixels, values)
                for value, gradient in zip(values, gradients, strict=True):
                    value.grad = gradient
                optimizer.step()
        made = [
            torch.where(m, rounding(v.detach()), old.detach())
            for v, m, old in zip(values, masks, (found.digits8, found.digits4), strict=True)
        ]
        return made[0], made[1]
