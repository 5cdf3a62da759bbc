"""Search for the picture's tokens at the transmitter, through the receiver's own networks.

    the base's vectors ─ nearest codes ─ base decoder ─┐
    coefficients in steps ─ rounded ───────────────────┴─ decoder at realism 1 ─ distance
             │                                                                + price x bits
             └── gradient, as if nothing were rounded ────────────────────────────────┘

The nearest code and the nearest digit are best for squared error. How they look, the receiver's
networks decide, which both ends hold: a few passes through them find codes and digits that look
more like the original for the same bytes. The stream is an ordinary one.

Rounding that gradients pass unchanged: Bengio, Léonard, Courville, "Estimating or propagating
gradients through stochastic neurons", 2013. Search per picture in learned codecs: Campos et al.,
"Content adaptive optimization for neural image compression", CVPR Workshops 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sqlink.errors import DataError
from sqlink.metrics.lpips import LPIPS, too_small
from sqlink.model.refinement import BaseFeatures, Digits
from sqlink.segmentation.pyramid import Pyramid
from sqlink.training.perceptual import features_loss

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


class DifferentiableReceiver(Protocol):
    """What a search sees of the receiver of one picture, at a step of the quantiser."""

    @property
    def came(self) -> tuple[Tensor, Tensor]:
        """Tokens of both layers of the refinement that are sent, bool [1, h, w]."""
        ...

    def nearest(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the indices [1, h, w] of the codes next to vectors [1, h, w, d], and the codes."""
        ...

    def base(self, vectors: Tensor) -> BaseFeatures:
        """Return what the base draws of vectors at realism 1, differentiable in them."""
        ...

    def missing(self, picture: Tensor) -> Tensor:
        """Return the coefficients at 1/8, in steps, of what a picture of the base does not show."""
        ...

    def decoded(self, base: BaseFeatures, digits8: Tensor, digits4: Tensor) -> Tensor:
        """Return the picture, [1, 3, H, W], not clamped, differentiable in all."""
        ...

    def rounded(self, values: Tensor) -> Tensor:
        """Make digits of values in steps."""
        ...


class FoundTokens(NamedTuple):
    """indices: int64 [1, h, w], of the base's codes. rounded8, rounded4: what is to be rounded, in
    steps, [1, D, h, w].
    """

    indices: Tensor
    rounded8: Tensor
    rounded4: Tensor


@dataclass(frozen=True)
class TokenSearch:
    """Adam on the base's vectors and on coefficients in steps.

    distance: what is made small. passes: through the receiver, forward and back. price: of a bit a
    pixel of the refinement, in units of the distance, while there are as many bits as before; it
    rises where there are more, so that they stay about as many. rate, base_rate: learning rates of
    coefficients and vectors at first, in steps and in units of the codebook; they fall linearly to
    nothing. tell: is called after each pass with the number of those done and of all.
    """

    distance: Distance
    passes: int
    price: float = 4.0
    rate: float = 0.05
    base_rate: float = 0.1
    tell: Callable[[int, int], None] | None = None

    def tokens(
        self, receiver: DifferentiableReceiver, image: Tensor, vectors: Tensor, found: Digits
    ) -> FoundTokens:
        """Search for the tokens of an image, [1, 3, H, W].

        vectors: [1, h, w, d], where the base's codes begin. found: digits for these. Digits of
        tokens that are not sent stay as they are.
        """
        with torch.inference_mode(False), torch.enable_grad():
            image, first = image.clone(), vectors.clone()
            values = [part.clone().requires_grad_() for part in (found.rounded8, found.rounded4)]
            moved = first.clone().requires_grad_()
            masks = [part.clone().unsqueeze(1) for part in receiver.came]

            def bits(digits: Sequence[Tensor]) -> Tensor:
                """Return about the bits of a pixel, [1]."""
                each = [
                    (about_bits(d) * m).sum((1, 2, 3)) for d, m in zip(digits, masks, strict=True)
                ]
                return torch.stack(each).sum(0) / image[0, 0].numel()

            def drawn() -> tuple[Tensor, BaseFeatures, list[Tensor]]:
                """Return the base's indices, what they draw, and what is to be rounded beside it:
                the coefficients follow what the base shows.
                """
                indices, codes = receiver.nearest(moved.detach())
                coarse, fine, picture = receiver.base(moved + (codes - moved).detach())
                picture = _clamped(picture)
                more = receiver.missing(picture.detach()) - missing
                return indices, (coarse, fine, picture), [values[0] + more, values[1]]

            with torch.no_grad():
                distance_of = self.distance.to(image)
                before = bits([found.digits8.clone(), found.digits4.clone()])
                missing = receiver.missing(receiver.base(first)[2].clamp(0, 1))
            optimizer = torch.optim.Adam(
                [
                    {"params": values, "lr": self.rate},
                    {"params": [moved], "lr": self.base_rate},
                ]
            )
            rates = [group["lr"] for group in optimizer.param_groups]
            for number in range(self.passes):
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * (1 - number / self.passes)
                _, base, now = drawn()
                digits = [receiver.rounded(value) for value in now]
                shown = _clamped(receiver.decoded(base, digits[0], digits[1]).float())
                more = bits([part.detach() for part in digits]) / before.clamp(min=1e-9) - 1
                price = self.price * (_FOLLOWS * more.clamp(-0.2, 0.2)).exp()
                cost = distance_of(shown) + (price * bits(now)).sum()
                searched = [*values, moved]
                gradients = torch.autograd.grad(cost, searched)
                for value, gradient in zip(searched, gradients, strict=True):
                    value.grad = gradient
                optimizer.step()
                if self.tell is not None:
                    self.tell(number + 1, self.passes)
            with torch.no_grad():
                indices, _, now = drawn()
                first8, first4 = (
                    torch.where(mask, value, old)
                    for value, mask, old in zip(
                        now, masks, (found.rounded8, found.rounded4), strict=True
                    )
                )
        return FoundTokens(indices, first8, first4)


def _clamped(picture: Tensor) -> Tensor:
    """Clamp to [0, 1]; gradients pass as if nothing were clamped."""
    return picture + (picture.clamp(0, 1) - picture).detach()
