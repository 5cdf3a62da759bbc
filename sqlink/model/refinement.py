"""Refinement: masked tokens at 1/8 and 1/4 that carry what the base tokens do not.

    TRANSMITTER                                        RECEIVER
     x, base's x̂ ─┬─ e4, e8 ─ gain8, gain4            base decoder ─ picture, features at 1/8, 1/4
                   │                                          │           │           │
                   ├─ cosines of 16x16 ─ step ─ q8 ┬ link ─ (+ cosines) ─ U-Net, 1/2 to 1/16 ─ x̂
                   └─ cosines of 8x8 ─(- q8) step ─ q4 ┘  (q8, q4, masks)  (realism 0: at 1/2) ─ x̂

The transmitter draws the base itself, from those of its tokens that it sends, and codes what is
missing there. Tokens are cosine coefficients of blocks of the residual, quantised; that transform
is fixed. The four tokens of a unit are bands of the spectrum of one block, of 16 pixels a side in
the layer at 1/8 and of 8 in that at 1/4, the long waves first. The decoders' networks, which are
learned, correct the sum of base and tokens, and `gain` estimates the worth of a token. The residual
is taken against the base's picture without detail finer than 8 pixels. That detail is invented: at
realism 0 little of it is shown, at realism 1 what the decoder leaves of it, except where received
tokens replace it.

The semantic masking of the base is applied again at finer scales: `gain` estimates for every place
by how much the error falls if its token is sent, so that the transmitter can send the most useful
tokens (`sqlink.codecs.sqgan`). Any token may be missing; the decoder knows which were received.
There are two decoders, a small one for the most probable picture (realism 0), learned by squared
error, and one for the most natural (realism 1); in between, their pictures are mixed linearly,
which is optimal for squared error against the distance of distributions (Freirich, Michaeli, Meir,
"A theory of the distortion-perception tradeoff in Wasserstein space", NeurIPS 2021).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise, product

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from sqlink.errors import ConfigError
from sqlink.model.concealment import LowRankDifferences, NeighbourPrediction
from sqlink.model.config import sizes_from_json, sizes_to_json
from sqlink.model.fused import convolved, silu

KINDS = ("squared", "perceptual", "semantic")
"""Errors whose reduction determines the value of a token: mean squared error, LPIPS, and the
cross-entropy of the transmitter's segmenter. The first follows from the digits; `GainEstimator`
estimates the others.
"""

LARGEST = 70
"""Largest size of a digit."""

CONCEALMENT = ("prediction.", "differences.")
"""Beginnings of the names of the concealment's tensors in a `Refinement`."""

VERSION = 4
"""Version of the layers: 1, blocks of 8 and 4 pixels; 2, of 16 and 8; 3, a decoder for each
realism; 4, a U-Net at realism 1."""


STEPS_PER_ROW = 4
_ANCHORS = (4.0, 3.2, 2.5, 2.0, 1.6, 1.25, 1.0, 0.8, 0.63, 0.5, 0.4, 0.32, 0.25, 0.2, 0.16)
STEPS = (
    *(
        round(coarse * (fine / coarse) ** (part / STEPS_PER_ROW), 4)
        for coarse, fine in pairwise(_ANCHORS)
        for part in range(STEPS_PER_ROW)
    ),
    _ANCHORS[-1],
)
"""Steps of the quantiser, 12 per halving: neighbouring steps differ by 6 %, their streams by 8 %.
"""


@dataclass(frozen=True)
class RefinementConfig:
    """Sizes of the layers.

    values8, values4: digits of a token, a quarter of those of a block, whose cosine coefficients
    `_waves` orders. version: of the layers; only this one is known. steps: of the quantiser, in
    units of a coefficient that is orthonormal over three colours of [0, 1], the coarsest first; a
    picture is sent at one of them. steps_per_row: steps that share a row of the coder's tables.
    round_up: added to a size before it is rounded down; below a half, as small values cost bits.
    widths_natural, blocks_natural: of the U-Net's levels at 1/2 to 1/16, channels, and blocks on
    the way up; on the way down all but the last have one. restrained: classes of the map in which
    the network's correction is left out at realism 1: what LPIPS makes of foliage is a hatching.
    predicted, lossy_rank: of the concealment of losses (`sqlink.model.concealment`), coefficients
    of a unit at 1/8 that are predicted and the rank of the decoder's differences; 0, none.
    """

    values8: int = 12
    values4: int = 10
    version: int = VERSION
    steps: tuple[float, ...] = STEPS
    steps_per_row: int = STEPS_PER_ROW
    round_up: float = 0.33
    width4: int = 48
    width8: int = 96
    width16: int = 128
    widths_natural: tuple[int, int, int, int] = (48, 96, 128, 128)
    blocks_natural: tuple[int, int, int, int] = (2, 2, 2, 2)
    width_probable: int = 32
    blocks_probable: int = 3
    restrained: tuple[int, ...] = ()
    predicted: int = 0
    lossy_rank: int = 0

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ConfigError(
                f"the refinement is of version {self.version}, this program of {VERSION}: use "
                "weights that it exported"
            )
        if not (1 <= self.values8 <= 16 and 1 <= self.values4 <= 16):
            raise ConfigError(f"values {self.values8}, {self.values4} must be 1 to 16")
        if not 1 <= len(self.steps) <= 256 or any(a <= b for a, b in pairwise(self.steps)):
            raise ConfigError(f"steps {self.steps} must be 1 to 256 numbers that fall")
        if self.steps_per_row < 1 or table_row(len(self.steps) - 1, self.steps_per_row) > 15:
            raise ConfigError(f"steps_per_row {self.steps_per_row} must leave 1 to 16 rows")
        if self.steps[-1] <= 0 or not 0 < self.round_up <= 0.5:
            raise ConfigError("steps must be above 0, round_up above 0 and up to a half")
        if not (0 <= self.predicted <= 4 * self.values8 and 0 <= self.lossy_rank <= 256):
            raise ConfigError(
                f"predicted {self.predicted} must be up to {4 * self.values8}, lossy_rank "
                f"{self.lossy_rank} up to 256"
            )
        if any(number < 0 for number in self.restrained):
            raise ConfigError(f"restrained {self.restrained} must be numbers of classes")

    def to_json(self) -> str:
        """Return the sizes as text, for a weights file."""
        return sizes_to_json(self)

    @classmethod
    def from_json(cls, text: str) -> RefinementConfig:
        """Read what `to_json` wrote. Raises ConfigError on unknown keys, and for layers of another
        version.
        """
        before = '"version"' not in text
        found = sizes_from_json(cls, text.replace('"transform"', '"version"'), "refinement")
        return replace(found, version=1) if before and '"transform"' not in text else found


def table_row(step: int, steps_per_row: int) -> int:
    """Return the row of the coder's tables for the step of an index: that of the nearest step.

    >>> [table_row(step, 4) for step in range(8)]
    [0, 0, 1, 1, 1, 1, 2, 2]
    """
    return (step + steps_per_row // 2) // steps_per_row


def share_of_classes(segmentation: Tensor, classes: Sequence[int]) -> Tensor:
    """Return which share of the about 20x20 pixels around each pixel is of some classes.

    segmentation: int64 [N, H, W], H and W multiples of 4. Returns float32 [N, 1, H, W].

    >>> share_of_classes(torch.full((1, 8, 8), 5), (5, 7)).unique().tolist()
    [1.0]
    """
    named = torch.tensor(classes, device=segmentation.device)
    cells = F.avg_pool2d(torch.isin(segmentation, named).float().unsqueeze(1), 4)
    cells = F.avg_pool2d(cells, 5, 1, 2, count_include_pad=False)
    return F.interpolate(cells, scale_factor=4.0, mode="bilinear", align_corners=False)


def without_cast(images: Tensor, picture: Tensor) -> Tensor:
    """Shift images to the colours of a picture, both [N, 3, H, W], H and W multiples of 8, by the
    median of what they differ by in places of 8x8 pixels: the receiver shifts the mean of what it
    draws back (`sqlink.codecs.sqgan.mean_colour`), so that no digits are spent on a cast. What is
    wrong in a part of the picture is none.

    >>> without_cast(torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)).unique().tolist()
    [1.0]
    """
    cast = F.avg_pool2d(images - picture, 8).flatten(2).median(2).values
    return images - cast.unsqueeze(2).unsqueeze(3)


def quantised(coefficients: Tensor, step: Tensor, round_up: float) -> Tensor:
    """Quantise to digits, integer multiples of the step, in floating point.

    coefficients: [N, D, h, w]; step: [N]. Gradients pass as if nothing were rounded.

    >>> z = torch.tensor([0.5, 0.8, -1.9]).view(1, 1, 1, 3)
    >>> quantised(z, torch.tensor([1.0]), 0.33).flatten().tolist()
    [0.0, 1.0, -2.0]
    """
    z = coefficients / step.view(-1, 1, 1, 1)
    digits = torch.sign(z) * torch.floor(z.abs() + round_up).clamp(min=0)
    digits = digits.clamp(-LARGEST, LARGEST)
    return digits + (z - z.detach()) if z.requires_grad else digits


class Block(nn.Module):
    """conv3x3 - SiLU - conv3x3, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Transform x, [N, C, h, w]."""
        return convolved(self.conv2, silu(convolved(self.conv1, x)), plus=x)


class GainEstimator(nn.Module):
    """An estimator of the logarithms of a place's errors if its token is masked or sent, at any
    step.
    """

    def __init__(self, width: int, labels: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width + labels, hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.out = nn.Conv2d(hidden, 3 * (len(KINDS) - 1), 1)
        assert self.out.bias is not None
        nn.init.constant_(self.out.bias, 0.0)
        with torch.no_grad():  # about where errors lie, and how they grow with the step
            self.out.bias[: 2 * (len(KINDS) - 1)] = -4.5
            self.out.bias[2 * (len(KINDS) - 1) :] = 0.2

    def forward(self, features: Tensor, shares: Tensor) -> Tensor:
        """Estimate from features, [N, C, h, w], and shares of the classes, [N, L, h, w].

        Returns [N, 3, 2, h, w], for each estimated error: if masked, if sent at a step of 1, and
        the change of the latter with the logarithm of the step.
        """
        x = silu(convolved(self.conv1, torch.cat((features, shares), 1)))
        out: Tensor = convolved(self.out, silu(convolved(self.conv2, x)))
        found: Tensor = out.unflatten(1, (3, len(KINDS) - 1))
        return found


def errors_at(errors: Tensor, step: Tensor) -> Tensor:
    """Evaluate the output of `GainEstimator`, [N, 3, 2, h, w], at steps [N].

    Returns [N, 2, 2, h, w], logarithms of the errors if the token is masked and if it is sent.
    """
    masked, sent, slope = errors.unbind(1)
    return torch.stack((masked, sent + slope * step.log().view(-1, 1, 1, 1)), 1)


@dataclass(frozen=True)
class Coefficients:
    """The transmitter's coefficients of a batch, before a step is chosen.

    z8: float32 [N, D, h, w], coefficients at 1/8; z4: at 1/4, of what is missing without the layer
    at 1/8. errors8, errors4: [N, 3, 2, h, w], see `GainEstimator`.
    """

    z8: Tensor
    z4: Tensor
    errors8: Tensor
    errors4: Tensor

    def to(self, device: torch.device) -> Coefficients:
        """Return the same on a device."""
        return Coefficients(*(getattr(self, field.name).to(device) for field in fields(self)))


Quantiser = Callable[[int, Tensor], Tensor]
"""Makes digits of coefficients of a layer, 0 at 1/8 and 1 at 1/4, in steps: both [N, D, h, w]."""


@dataclass(frozen=True)
class Digits:
    """Coefficients at a step: digits of both layers as floats, and the gains of their tokens.

    The gains are [N, 3, h, w], one for each of KINDS. rounded8, rounded4: what was rounded,
    coefficients in steps.
    """

    digits8: Tensor
    digits4: Tensor
    gains8: Tensor
    gains4: Tensor
    rounded8: Tensor
    rounded4: Tensor


BaseFeatures = tuple[Tensor, Tensor, Tensor]
"""What the base decoder draws: features at 1/8 and 1/4, and the picture [N, 3, H, W]."""
LayerTokens = tuple[Tensor, Tensor, Tensor, Tensor]
"""What arrived of the layers at 1/8 and 1/4: of each the digits, [N, D, h, w], and where tokens are
known, bool [N, h, w]. A unit of zeros is as one that did not come."""


@dataclass(frozen=True)
class Seen:
    """What a decoder sees of tokens at steps [N]: the base's picture, values and where units that
    hold some came, and the picture without fine detail (`low`), alone and with all tokens drawn
    (`sum_`).
    """

    picture: Tensor
    values8: Tensor
    came8: Tensor
    values4: Tensor
    came4: Tensor
    step: Tensor
    low: Tensor
    sum_: Tensor


class RefinementEncoder(nn.Module):
    """The transmitter's part of the refinement."""

    def __init__(self, config: RefinementConfig, base8: int, labels: int) -> None:
        super().__init__()
        w4, w8, w16 = config.width4, config.width8, config.width16
        self.round_up = config.round_up
        self.conv_in = nn.Conv2d(96 + labels, w4, 3, padding=1)
        self.block4 = Block(w4)
        self.down8 = nn.Conv2d(w4, w8, 3, stride=2, padding=1)
        self.base8 = nn.Conv2d(base8, w8, 1)
        self.before8 = Block(w8)
        self.down16 = nn.Conv2d(w8, w16, 3, stride=2, padding=1)
        self.block16 = Block(w16)
        self.up16 = nn.Conv2d(w16, w8, 1)
        self.after8 = Block(w8)
        self.gain8 = GainEstimator(w8, labels, 48)
        self.from8 = nn.Conv2d(w8, w4, 1)
        self.finest = Block(w4)
        self.gain4 = GainEstimator(w4, labels, 24)
        self.cosines8 = BlockCosines(config.values8, 16)
        self.cosines4 = BlockCosines(config.values4, 8)

    def forward(
        self, images: Tensor, shares4: Tensor, picture: Tensor, coarse: Tensor
    ) -> Coefficients:
        """Analyse images, [N, 3, H, W] in [0, 1].

        shares4: [N, L, H/4, W/4], of the map's classes. picture, [N, 3, H, W], and coarse, [N,
        base8, H/8, W/8]: outputs of the base decoder for all tokens at realism 0.
        """
        pixels = F.pixel_unshuffle(torch.cat((2 * images - 1, 4 * (images - picture)), 1), 4)
        e4 = self.block4(convolved(self.conv_in, torch.cat((pixels, shares4), 1)))
        e8 = convolved(self.down8, F.silu(e4), plus=convolved(self.base8, coarse))
        e8 = self.before8(e8)
        e16 = self.block16(convolved(self.down16, F.silu(e8)))
        e8 = e8 + _doubled(convolved(self.up16, e16))
        e8 = self.after8(e8)
        finer = self.finest(e4 + _doubled(convolved(self.from8, e8)))
        return replace(
            self.without_errors(images, picture),
            errors8=self.gain8(e8, F.avg_pool2d(shares4, 2)),
            errors4=self.gain4(finer, shares4),
        )

    def without_errors(self, images: Tensor, picture: Tensor) -> Coefficients:
        """Return the coefficients with errors of 0: their gains are in squared error alone."""
        rest = images - _smooth(picture)
        z8, z4 = self.cosines8.analysed(rest), self.cosines4.analysed(rest)
        none8, none4 = (z.new_zeros((len(z), 3, len(KINDS) - 1, *z.shape[2:])) for z in (z8, z4))
        return Coefficients(z8, z4, none8, none4)

    def digits(
        self, found: Coefficients, step: Tensor, quantiser: Quantiser | None = None
    ) -> Digits:
        """Quantise at steps [N]; the layer at 1/4 codes what the quantised layer at 1/8 leaves.

        quantiser: makes digits of coefficients in steps; None: `quantised`.
        """
        steps = step.view(-1, 1, 1, 1)

        def made(layer: int, z: Tensor) -> Tensor:
            if quantiser is None:
                return quantised(z, step, self.round_up)
            return quantiser(layer, z / steps)

        digits8 = made(0, found.z8)
        z4 = found.z4 - self.cosines4.analysed(self.cosines8.drawn(digits8 * steps))
        digits4 = made(1, z4)
        gains = []
        for z, digits, errors, side in (
            (found.z8, digits8, found.errors8, 8),
            (z4, digits4, found.errors4, 4),
        ):
            said = digits * steps
            squared = (said * (2 * z - said)).sum(1, keepdim=True) / (3 * side**2)
            masked, sent = errors_at(errors.detach(), step).exp().unbind(1)
            gains.append(torch.cat((squared, masked - sent), 1).clamp(min=0))
        return Digits(digits8, digits4, gains[0], gains[1], found.z8 / steps, z4 / steps)


class PictureDecoder(nn.Module):
    """A receiver's part, which draws what came. detail: share that is shown of the base's detail
    at first; it is learned.
    """

    def __init__(self, config: RefinementConfig, detail: float) -> None:
        super().__init__()
        self.detail = nn.Parameter(torch.tensor(detail))
        self.cosines8 = BlockCosines(config.values8, 16)
        self.cosines4 = BlockCosines(config.values4, 8)

    def seen(
        self,
        picture: Tensor,
        tokens: LayerTokens,
        step: Tensor,
        prediction: NeighbourPrediction | None,
    ) -> Seen:
        """Draw what came: picture, [N, 3, H, W], is the base's. prediction: of units that did not
        come; it is added to the base's picture.
        """
        digits8, came8, digits4, came4 = tokens
        came8, came4 = _holding(digits8, came8), _holding(digits4, came4)
        values8 = digits8 * step.view(-1, 1, 1, 1)
        values4 = digits4 * step.view(-1, 1, 1, 1)
        low = _smooth(picture)
        if prediction is not None:
            predicted = self.cosines8.drawn(prediction(values8, tokens[1]))
            picture, low = picture + predicted, low + predicted
        drawn8 = self.cosines8.drawn(values8 * came8.unsqueeze(1))
        drawn4 = self.cosines4.drawn(values4 * came4.unsqueeze(1))
        sum_ = low + drawn8 + drawn4
        return Seen(picture, values8, came8, values4, came4, step, low, sum_)


class NaturalDecoder(PictureDecoder):
    """The receiver's part at realism 1: a U-Net from half size to 1/16 that corrects the sum of the
    base's picture and the tokens, and says how much of the base's invented detail is shown.

    It sees both as pictures, the base decoder's features, the tokens, where their units came, and
    where in its block a pixel lies.
    """

    def __init__(self, config: RefinementConfig, base8: int, base4: int) -> None:
        super().__init__(config, 1.0)
        w2, w4, w8, w16 = config.widths_natural
        b2, b4, b8, b16 = config.blocks_natural
        self.given = nn.Conv2d(2 * 12 + 3 + 8, w2, 3, padding=1)
        self.first2 = Block(w2)
        self.down4 = nn.Conv2d(w2, w4, 3, stride=2, padding=1)
        self.base4 = nn.Conv2d(base4, w4, 1)
        self.tokens4 = nn.Conv2d(config.values4 + 2, w4, 1)
        self.first4 = Block(w4)
        self.down8 = nn.Conv2d(w4, w8, 3, stride=2, padding=1)
        self.base8 = nn.Conv2d(base8, w8, 1)
        self.tokens8 = nn.Conv2d(config.values8 + 2, w8, 1)
        self.first8 = Block(w8)
        self.down16 = nn.Conv2d(w8, w16, 3, stride=2, padding=1)
        self.blocks16 = nn.Sequential(*(Block(w16) for _ in range(b16)))
        self.up8 = nn.Conv2d(w16, w8, 1)
        self.blocks8 = nn.Sequential(*(Block(w8) for _ in range(b8)))
        self.up4 = nn.Conv2d(w8, w4, 1)
        self.blocks4 = nn.Sequential(*(Block(w4) for _ in range(b4)))
        self.up2 = nn.Conv2d(w4, w2, 1)
        self.blocks2 = nn.Sequential(*(Block(w2) for _ in range(b2)))
        # Amount of the base's detail that a zero digit leaves, in steps.
        self.room8 = nn.Parameter(torch.full((4 * config.values8,), 0.2))
        self.room4 = nn.Parameter(torch.full((4 * config.values4,), 0.2))
        self.out = nn.Conv2d(w2, 24, 3, padding=1)
        # Coarser levels join one after another: drawn by chance, they only disturb the finest.
        for layer in (self.tokens8, self.tokens4, self.up8, self.up4, self.up2, self.out):
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        base: BaseFeatures,
        tokens: LayerTokens,
        step: Tensor,
        restrained: Tensor | None = None,
        prediction: NeighbourPrediction | None = None,
    ) -> Tensor:
        """Decode the base and the tokens to pictures [N, 3, H, W], not clamped.

        step: [N], value of a digit of 1. restrained: [N, 1, H, W] in [0, 1], which part of the
        network's correction is left out. prediction: see `seen`.
        """
        seen = self.seen(base[2], tokens, step, prediction)
        drawn, gate = self._corrections(base, seen).float().chunk(2, 1)
        shown = self.detail * (1 + gate)
        if restrained is not None:
            corrected = 1 - restrained
            drawn, shown = corrected * drawn, torch.lerp(torch.ones_like(shown), shown, corrected)
        high = (seen.picture - seen.low) * shown
        # Tokens of a block replace the base's detail in it.
        for values, came, cosines, room in (
            (seen.values8, seen.came8, self.cosines8, self.room8),
            (seen.values4, seen.came4, self.cosines4, self.room4),
        ):
            own = cosines.analysed(high)
            said = own - _left(own, values, step, room)
            high = high - cosines.drawn(said * came.unsqueeze(1))
        out: Tensor = seen.sum_ + drawn + high
        return out

    def _corrections(self, base: BaseFeatures, seen: Seen) -> Tensor:
        """Return the network's six planes, [N, 6, H, W]."""
        coarse, fine, _ = base
        placed4 = _placed(self.cosines4.local(seen.values4), seen.came4, seen.step)
        placed8 = _placed(self.cosines8.local(seen.values8), seen.came8, seen.step)
        x2 = self.first2(convolved(self.given, _at_half_size(seen, masked=True)))
        x4 = convolved(self.down4, F.silu(x2), plus=convolved(self.base4, fine))
        x4 = self.first4(convolved(self.tokens4, placed4, plus=x4))
        x8 = convolved(self.down8, F.silu(x4), plus=convolved(self.base8, coarse))
        x8 = self.first8(convolved(self.tokens8, placed8, plus=x8))
        x16 = self.blocks16(convolved(self.down16, F.silu(x8)))
        x8 = self.blocks8(x8 + _doubled(convolved(self.up8, silu(x16))))
        x4 = self.blocks4(x4 + _doubled(convolved(self.up4, silu(x8))))
        x2 = self.blocks2(x2 + _doubled(convolved(self.up2, silu(x4))))
        return F.pixel_shuffle(convolved(self.out, silu(x2)), 2)


class ProbableDecoder(PictureDecoder):
    """The receiver's part at realism 0: a correction of the sum of base and tokens by a small
    network at half size, which also sees the base's picture, where units came, and where in its
    block a pixel lies. A U-Net of ten times its size is no better.
    """

    def __init__(self, config: RefinementConfig) -> None:
        super().__init__(config, 0.2)
        width = config.width_probable
        self.given = nn.Conv2d(2 * 12 + 3 + 8, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(config.blocks_probable)))
        self.out = nn.Conv2d(width, 12, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        picture: Tensor,
        tokens: LayerTokens,
        step: Tensor,
        prediction: NeighbourPrediction | None = None,
    ) -> Tensor:
        """Decode the base's picture [N, 3, H, W] and the tokens to pictures [N, 3, H, W], not
        clamped; see `NaturalDecoder`.
        """
        seen = self.seen(picture, tokens, step, prediction)
        high = seen.picture - seen.low
        for came, cosines in ((seen.came8, self.cosines8), (seen.came4, self.cosines4)):
            high = high - cosines.drawn(cosines.analysed(high) * came.unsqueeze(1))
        x = self.blocks(convolved(self.given, _at_half_size(seen, masked=False)))
        drawn = F.pixel_shuffle(convolved(self.out, silu(x)), 2).float()
        out: Tensor = seen.sum_ + self.detail * high + drawn
        return out


class Refinement(nn.Module):
    """Both halves: the transmitter's, and the receiver's at realism 0 (`probable`) and 1.

    labels: classes and the null one; base8, base4: channels of the base decoder's features.
    prediction, differences: of the concealment of losses, if there is one.
    """

    def __init__(self, config: RefinementConfig, labels: int, base8: int, base4: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = RefinementEncoder(config, base8, labels)
        self.probable = ProbableDecoder(config)
        self.natural = NaturalDecoder(config, base8, base4)
        self.prediction = NeighbourPrediction(config.predicted) if config.predicted else None
        self.differences = (
            LowRankDifferences(self.natural, config.lossy_rank) if config.lossy_rank else None
        )
        self.for_losses: NaturalDecoder | None = None

    def merge(self) -> None:
        """Make the decoder for losses from its differences, for inference: `for_losses`."""
        if self.differences is not None:
            self.for_losses = copy.deepcopy(self.natural)
            with torch.no_grad():
                for name, changed in self.differences.weights(self.natural).items():
                    self.for_losses.get_parameter(name).copy_(changed)

    def decoded(
        self,
        realism: int,
        base: BaseFeatures,
        tokens: LayerTokens,
        step: Tensor,
        segmentation: Tensor,
        lossy: bool = False,
    ) -> Tensor:
        """Decode to pictures [N, 3, H, W], not clamped, at realism 0 or 1.

        base: drawn at the same realism. step: see `NaturalDecoder`. segmentation: int64 [N, H, W],
        the map at the receiver: at realism 1 networks correct nothing in restrained classes. lossy:
        whether packets of the pictures were lost, and losses are to be concealed.
        """
        prediction = self.prediction if lossy else None
        out: Tensor
        if realism == 0:
            out = self.probable(base[2], tokens, step, prediction)
        else:
            classes = self.config.restrained
            restrained = share_of_classes(segmentation, classes) if classes else None
            given = base, tokens, step, restrained, prediction
            if not lossy or self.differences is None:
                out = self.natural(*given)
            elif self.for_losses is not None:
                out = self.for_losses(*given)
            else:
                out = functional_call(self.natural, self.differences.weights(self.natural), given)
        return out


class BlockCosines(nn.Module):
    """The longest cosine waves of blocks, as tokens: a block's coefficients are a unit of 2x2
    tokens of `values` digits, of which the first in raster order holds the longest waves.

    side: of a block, in pixels.
    """

    waves: Tensor
    views: Tensor

    def __init__(self, values: int, side: int) -> None:
        super().__init__()
        self.side = side
        # Rows in the order of `pixel_shuffle`: of a digit, the four tokens.
        waves = _waves(4 * values, side, (side - 2.0, 2.0 * side - 4.0))
        waves = waves.unflatten(0, (4, values)).transpose(0, 1).flatten(0, 1)
        half = _waves(values, side // 2, (0.3, 0.6))
        blocks = waves.unflatten(1, (3, side, side))
        views = torch.einsum("kc,nchw->nkhw", half, F.pixel_unshuffle(blocks, side // 2))
        self.register_buffer("waves", waves, persistent=False)
        self.register_buffer("views", F.pixel_unshuffle(views, 2).flatten(1), persistent=False)

    def analysed(self, pictures: Tensor) -> Tensor:
        """Return the coefficients [N, D, 2 H / side, 2 W / side] of pictures [N, 3, H, W]."""
        blocks = F.pixel_unshuffle(pictures, self.side)
        return F.pixel_shuffle(_product("kc,nchw->nkhw", self.waves, blocks), 2)

    def drawn(self, coefficients: Tensor) -> Tensor:
        """Return the pictures [N, 3, H, W] of coefficients [N, D, 2 H / side, 2 W / side]."""
        units = F.pixel_unshuffle(coefficients, 2)
        return F.pixel_shuffle(_product("kc,nkhw->nchw", self.waves, units), self.side)

    def local(self, coefficients: Tensor) -> Tensor:
        """Return the coefficients of what is drawn in blocks of half the side, one at each token's
        place: [N, D, h, w], as given. The networks see these.
        """
        units = F.pixel_unshuffle(coefficients, 2)
        return F.pixel_shuffle(torch.einsum("km,nkhw->nmhw", self.views, units), 2)


def _waves(count: int, side: int, colours: tuple[float, float]) -> Tensor:
    """Return an orthonormal basis [count, 3 side^2]: cosine waves, longest first.

    colours: squares of the frequencies, in half waves a block, after which even red and even blue
    follow; their waves are much weaker.
    """
    places = torch.arange(side) + 0.5
    waves = [torch.cos(torch.pi / side * k * places) for k in range(side)]
    waves = [wave / wave.norm() for wave in waves]
    hues = (
        (0.0, 1.0, torch.full((3,), 3**-0.5)),
        (colours[0], 25.0, torch.tensor([1.0, -0.5, -0.5]) * (2 / 3) ** 0.5),
        (colours[1], 25.0, torch.tensor([0.0, -1.0, 1.0]) * 2**-0.5),
    )
    orders = sorted(
        (start + slope * (down**2 + right**2), down, right, hue)
        for down, right in product(range(side), repeat=2)
        for hue, (start, slope, _) in enumerate(hues)
    )[:count]
    planes = [
        hues[hue][2][:, None, None] * waves[down][:, None] * waves[right]
        for _, down, right, hue in orders
    ]
    return torch.stack(planes).flatten(1)


def _product(indices: str, waves: Tensor, x: Tensor) -> Tensor:
    """Return a product of tensors, in float32 whatever precision the networks run at."""
    with torch.autocast(x.device.type, enabled=False):
        return torch.einsum(indices, waves, x.float())


def _smooth(picture: Tensor) -> Tensor:
    """Remove detail finer than 8 pixels from pictures [N, 3, H, W]."""
    return F.interpolate(
        F.avg_pool2d(picture, 8), scale_factor=8.0, mode="bilinear", align_corners=False
    )


def _left(own: Tensor, values: Tensor, step: Tensor, room: Tensor) -> Tensor:
    """Return what is left of the base's detail, of coefficients own [N, D, h, w], where tokens came
    with values: a zero digit only means that the coefficient is small, so a little stays.
    """
    size = F.pixel_shuffle(room.clamp(min=0).view(1, -1, 1, 1), 2)  # of a unit's digits
    size = size.repeat(1, 1, own.shape[2] // 2, own.shape[3] // 2)
    free = step.view(-1, 1, 1, 1) * size * (values == 0)
    return torch.minimum(torch.maximum(own, -free), free)


def _holding(digits: Tensor, came: Tensor) -> Tensor:
    """Return which tokens, [N, h, w], came and are of units that do not hold zeros alone."""
    units = F.max_pool2d(digits.abs().amax(1, keepdim=True), 2) > 0
    return came & F.interpolate(units.float(), scale_factor=2.0)[:, 0].bool()


def _at_half_size(seen: Seen, masked: bool) -> Tensor:
    """Return what a decoder sees at half size, [N, 35, H/2, W/2]: the base's picture and the sum,
    where units of both layers came, the step's logarithm, there alone if `masked`, and places in
    blocks.
    """
    pixels = F.pixel_unshuffle(2 * torch.cat((seen.picture, seen.sum_), 1) - 1, 2)
    n, _, h, w = pixels.shape
    planes = [
        F.interpolate(F.max_pool2d(came.unsqueeze(1).float(), 2), (h, w))
        for came in (seen.came8, seen.came4)
    ]
    # The shipped decoder of realism 0 learned with the step everywhere.
    there = torch.maximum(*planes) if masked else torch.ones_like(planes[0])
    planes.append(there * seen.step.log().view(-1, 1, 1, 1))
    planes.append(_places_in_blocks(h, w).to(pixels).expand(n, -1, -1, -1))
    return torch.cat((pixels, *planes), 1)


def _places_in_blocks(height: int, width: int) -> Tensor:
    """Return where in blocks of 16 and 8 pixels the pixels of a picture at half size lie: waves
    [1, 8, h, w] of that period, cosine and sine, down and across.
    """
    planes = []
    for period in (8, 4):
        for size, down in ((height, True), (width, False)):
            angle = 2 * torch.pi / period * (torch.arange(size) + 0.5)
            waves = torch.stack((angle.cos(), angle.sin()))
            waves = waves[:, :, None] if down else waves[:, None]
            planes.append(waves.expand(2, height, width))
    return torch.cat(planes).unsqueeze(0)


def _placed(values: Tensor, came: Tensor, step: Tensor) -> Tensor:
    """Return values where received, else 0, with a plane of the mask and one of the step's
    logarithm.
    """
    there = came.unsqueeze(1).to(values.dtype)
    return torch.cat((values * there, there, step.log().view(-1, 1, 1, 1) * there), 1)


def _doubled(x: Tensor, mode: str = "bilinear") -> Tensor:
    align = False if mode == "bilinear" else None
    return F.interpolate(x, scale_factor=2.0, mode=mode, align_corners=align)
