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

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sqlink.errors import DataError
from sqlink.metrics.lpips import LPIPS, too_small
from sqlink.model.refinement import Digits
from sqlink.segmentation.pyramid import Pyramid
from sqlink.training.perceptual import features_loss

Decode = Callable[[Tensor, Tensor], Tensor]
"""Decodes digits of both layers, [N, D, h, w] each, to pictures [N, 3, H, W], not clamped."""

_FOLLOWS = 20.0
"""How much higher the price is with too many bits: e to this power with twice as many."""


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
    weight: float = 0.2

    def to(self, originals: Tensor) -> Callable[[Tensor], Tensor]:
        """See `Distance`. Raises DataError for pictures that are too small for LPIPS."""
        network = self.network
        height, width = originals.shape[2:]
        reason = too_small(height, width, self.lpips.net)
        if reason is not None:
            raise DataError(f"sqgan search_passes: {reason}: leave it at 0")
        taps = self.lpips.taps(originals)
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
    pixel, in units of the distance, while there are as many bits as before; it rises where there
    are more, so that they stay about as many. rate: learning rate at first, in steps; it falls
    linearly to nothing.
    """

    distance: Distance
    passes: int
    price: float = 4.0
    rate: float = 0.05

    def values(
        self,
        decode: Decode,
        images: Tensor,
        found: Digits,
        came: tuple[Tensor, Tensor],
        rounding: Callable[[Tensor], Tensor],
        precision: Callable[[], AbstractContextManager[object]],
    ) -> tuple[Tensor, Tensor]:
        """Return what to round, in steps, of both layers, [N, D, h, w]; it differs from what was
        found where tokens came.

        images: [N, 3, H, W]. came: bool [N, h, w] of both layers. rounding: makes digits of values
        in steps. precision: context that the networks run in.
        """
        with torch.inference_mode(False), torch.enable_grad():
            values = [part.clone().requires_grad_() for part in (found.rounded8, found.rounded4)]
            masks = [part.clone().unsqueeze(1) for part in came]

            def bits(digits: Sequence[Tensor]) -> Tensor:
                """Return about the bits of a pixel, [N]."""
                each = [
                    (about_bits(d) * m).sum((1, 2, 3)) for d, m in zip(digits, masks, strict=True)
                ]
                return torch.stack(each).sum(0) / images[0, 0].numel()

            with torch.no_grad():
                distance_of = self.distance.to(images.clone())
                before = bits([found.digits8, found.digits4])
            optimizer = torch.optim.Adam(values, lr=self.rate)
            for number in range(self.passes):
                for group in optimizer.param_groups:
                    group["lr"] = self.rate * (1 - number / self.passes)
                digits = [rounding(value) for value in values]
                with precision():
                    shown = decode(digits[0], digits[1]).float()
                shown = shown + (shown.clamp(0, 1) - shown).detach()
                more = bits([part.detach() for part in digits]) / before.clamp(min=1e-9) - 1
                price = self.price * (_FOLLOWS * more.clamp(-0.2, 0.2)).exp()
                cost = distance_of(shown) + (price * bits(values)).sum()
                gradients = torch.autograd.grad(cost, values)
                for value, gradient in zip(values, gradients, strict=True):
                    value.grad = gradient
                optimizer.step()
        first, second = (
            torch.where(mask, value.detach(), old)
            for value, mask, old in zip(
                values, masks, (found.rounded8, found.rounded4), strict=True
            )
        )
        return first, second
