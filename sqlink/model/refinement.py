"""Refinement: masked tokens at 1/8 and 1/4 that carry what the base tokens left open.

    TRANSMITTER                                        RECEIVER
     x, base's x̂ ─ e4 ─┬─ down ─ e8 ─(+ base)     base decoder ─ features at 1/8, 1/4, picture
                        │         ├─ FSQ ─ q8 ─┐         │ 1/8       │ 1/4      │
                        │         └─ gain8     ├─ link ─ d8 ── up ── d4 ── up ── d2 ─(+)─ x̂
                        └─(+ q8 up)─ FSQ ─ q4 ─┘     (q8, mask)   (q4, mask)   (+ linear)
                                   └─ gain4

The transmitter decodes the base itself, all of it, so as to code what is still missing. Beside the
networks, tokens are a linear transform of the residual and back, which begins as a cosine transform
of its blocks: that way tokens mean something from the first step of training. The residual is that
to the base's picture without its detail finer than 8 pixels. That detail is invention: at realism 0
little of it is shown, at realism 1 all of it but what the tokens that came say better.

Masking guided by semantics, the idea of the base, is applied again at finer scales: `gain`
estimates for every place by how much the error would fall if its token was sent, so that the
transmitter can spend on what matters (`sqlink.codecs.sqgan`). Any token may be missing; the decoder
is told which came. One set of weights draws from the most probable picture (realism 0) to the most
natural one (realism 1); in between, the two are mixed linearly, which is optimal for squared error
against the distance of distributions (Freirich, Michaeli, Meir, "A theory of the distortion-
perception tradeoff in Wasserstein space", NeurIPS 2021). Tokens are finite scalar quantisation
(Mentzer et al., "Finite scalar quantization: VQ-VAE made simple", ICLR 2024), a product codebook
that needs no learning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlink.errors import ConfigError
from sqlink.model.config import sizes_from_json, sizes_to_json
from sqlink.model.fused import convolved, silu

KINDS = ("squared", "perceptual", "semantic")
"""The errors whose fall a `GainEstimator` estimates: mean squared error, LPIPS, and the
cross-entropy of the transmitter's segmenter.
"""


@dataclass(frozen=True)
class RefinementConfig:
    """What fixes the layers; levels are steps of each value of a token, odd numbers."""

    levels8: tuple[int, ...] = (11, 3, 3, 9, 9, 5)
    levels4: tuple[int, ...] = (5, 7, 5, 3, 5, 3)
    width4: int = 48
    width8: int = 96
    width16: int = 128
    blocks8: int = 3
    blocks4: int = 2
    width2: int = 32

    def __post_init__(self) -> None:
        for levels in (self.levels8, self.levels4):
            odd = levels and all(3 <= count <= 15 and count % 2 for count in levels)
            if not odd or math.prod(levels) ** 4 >= 1 << 63:
                raise ConfigError(
                    f"levels {levels} must be odd, 3 to 15, and four tokens' codes below 2^63"
                )

    def to_json(self) -> str:
        """Return the sizes as text, for a weights file."""
        return sizes_to_json(self)

    @classmethod
    def from_json(cls, text: str) -> RefinementConfig:
        """Read what `to_json` wrote. Raises ConfigError on unknown or missing keys."""
        return sizes_from_json(cls, text, "refinement")


ROUND_UP = 0.25
"""Added to a size before its fraction is cut off: under a half, as small values cost bits."""


STEP8, STEP4 = 0.75, 0.65
"""Steps of cosine coefficients, orthonormal over the three colours. Training begins with them, and
the decoder takes from them which detail a zero allows: weights are made for these and ROUND_UP."""


class ScalarQuantizer(nn.Module):
    """Rounds each of D values to a whole number, within its levels; stated in [-1, 1].

    The gradient passes straight through, but where a value lies beyond its levels. Steps are even,
    as they should be where an entropy coder follows.

    >>> quantizer = ScalarQuantizer((3, 5))
    >>> quantizer.values(torch.tensor([0, 7, 14])).tolist()
    [[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]]
    """

    halves: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = levels
        self.codes = 1
        for count in levels:
            self.codes *= count
        halves = torch.tensor([(count - 1) / 2 for count in levels])
        self.register_buffer("halves", halves, persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """z: [N, D, h, w], any values. Returns the rounded values in [-1, 1]."""
        halves = self.halves.view(1, -1, 1, 1)
        within = torch.clamp(z, -halves, halves)
        rounded = torch.sign(within) * torch.floor(within.abs() + ROUND_UP)
        return (within + (rounded - within).detach()) / halves

    def indices(self, values: Tensor) -> Tensor:
        """Return rounded values [N, D, h, w] to int64 [N, h, w], the first value the most
        significant.
        """
        steps = ((values + 1) * self.halves.view(1, -1, 1, 1)).round().long()
        index = torch.zeros_like(steps[:, 0])
        for place, count in enumerate(self.levels):
            index = index * count + steps[:, place]
        return index

    def values(self, indices: Tensor) -> Tensor:
        """Return int64 [...] to float32 [..., D]; -1 (masked) gives some code: mask it yourself."""
        rest, parts = indices.clamp(min=0), []
        for count in reversed(self.levels):
            parts.append(rest % count)
            rest = rest // count
        return torch.stack(parts[::-1], -1).float() / self.halves - 1


class Block(nn.Module):
    """conv3x3 - SiLU - conv3x3, added to the input; `steered` blocks are scaled by the realism."""

    def __init__(self, width: int, steered: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.steer = nn.Linear(1, 2 * width) if steered else None
        nn.init.zeros_(self.conv2.weight)
        if self.steer is not None:
            nn.init.zeros_(self.steer.weight)
            nn.init.zeros_(self.steer.bias)

    def forward(self, x: Tensor, realism: Tensor | None = None) -> Tensor:
        """x: [N, C, h, w]; realism: [N, 1] for steered blocks."""
        y = self.conv1(x)
        if self.steer is not None:
            assert realism is not None
            scale, shift = self.steer(2 * realism - 1)[:, :, None, None].chunk(2, 1)
            y = torch.addcmul(y + shift, y, scale)
        return convolved(self.conv2, silu(y), plus=x)


class GainEstimator(nn.Module):
    """The logarithm of a place's errors if its token is masked, and if it is sent."""

    def __init__(self, width: int, labels: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width + labels, hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.out = nn.Conv2d(hidden, 2 * len(KINDS), 1)
        assert self.out.bias is not None
        nn.init.constant_(self.out.bias, -4.5)  # about where errors lie

    def forward(self, features: Tensor, shares: Tensor) -> Tensor:
        """features: [N, C, h, w]; shares: [N, L, h, w] of the classes. Returns [N, 2, 3, h, w]."""
        x = silu(self.conv1(torch.cat((features, shares), 1)))
        out: Tensor = self.out(silu(self.conv2(x))).unflatten(1, (2, len(KINDS)))
        return out


class DigitRates(nn.Module):
    """About how many bits a token takes: its digits as those of discretised Laplace variables.

    For training, so that a digit is spent only where it tells; the coder has its own tables.
    """

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.log_spreads = nn.Parameter(torch.zeros(len(levels)))
        self.levels = levels

    def forward(self, values: Tensor) -> Tensor:
        """values: [N, D, h, w] in [-1, 1], rounded. Returns bits [N, h, w]; differentiable."""
        halves = (torch.tensor(self.levels, device=values.device).view(1, -1, 1, 1) - 1) / 2
        steps = values * halves
        spread = self.log_spreads.clamp(-4, 4).exp().view(1, -1, 1, 1)
        near = 1 - torch.exp(-0.5 / spread)  # of 0, and the half of any other step's interval
        size = steps.abs()
        far = torch.log(torch.sinh((0.5 / spread).clamp(max=30))) - size / spread
        inside = torch.log(near)
        bits = -torch.lerp(inside.expand_as(far), far, size.clamp(max=1)) / math.log(2)
        return bits.sum(1)


@dataclass(frozen=True)
class Refined:
    """What the transmitter knows: values of both layers, and logarithms of the errors.

    values8: [N, D, h, w] rounded, at 1/8; values4: at 1/4. gains8, gains4: [N, 2, 3, h, w].
    """

    values8: Tensor
    values4: Tensor
    gains8: Tensor
    gains4: Tensor


class RefinementEncoder(nn.Module):
    """The transmitter's half."""

    def __init__(self, config: RefinementConfig, base8: int, labels: int) -> None:
        super().__init__()
        w4, w8, w16 = config.width4, config.width8, config.width16
        self.quantizer8 = ScalarQuantizer(config.levels8)
        self.quantizer4 = ScalarQuantizer(config.levels4)
        self.conv_in = nn.Conv2d(96 + labels, w4, 3, padding=1)
        self.block4 = Block(w4)
        self.down8 = nn.Conv2d(w4, w8, 3, stride=2, padding=1)
        self.base8 = nn.Conv2d(base8, w8, 1)
        self.before8 = Block(w8)
        self.down16 = nn.Conv2d(w8, w16, 3, stride=2, padding=1)
        self.block16 = Block(w16)
        self.up16 = nn.Conv2d(w16, w8, 1)
        self.after8 = Block(w8)
        self.out8 = nn.Conv2d(w8, len(config.levels8), 1)
        self.linear8 = _analysis(config.levels8, 8)
        self.gain8 = GainEstimator(w8, labels, 48)
        self.sent8 = nn.Conv2d(len(config.levels8), w4, 1)
        self.from8 = nn.Conv2d(w8, w4, 1)
        self.finest = Block(w4)
        self.out4 = nn.Conv2d(w4, len(config.levels4), 1)
        self.linear4 = _analysis(config.levels4, 4)
        self.rates8, self.rates4 = DigitRates(config.levels8), DigitRates(config.levels4)
        self.back8 = _synthesis(config.levels8, 8)
        self.gain4 = GainEstimator(w4, labels, 24)
        for layer in (self.out8, self.out4):
            nn.init.normal_(layer.weight, std=0.002)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor, shares4: Tensor, picture: Tensor, coarse: Tensor) -> Refined:
        """images: [N, 3, H, W] in [0, 1]; shares4: [N, L, H/4, W/4] of the map's classes; picture,
        [N, 3, H, W], and coarse, [N, base8, H/8, W/8]: what the base decoder makes of all tokens at
        realism 0.
        """
        pixels = F.pixel_unshuffle(torch.cat((2 * images - 1, 4 * (images - picture)), 1), 4)
        rest = images - _smooth(picture)
        e4 = self.block4(self.conv_in(torch.cat((pixels, shares4), 1)))
        e8 = self.down8(silu(e4)) + self.base8(coarse)
        e8 = self.before8(e8)
        e8 = e8 + _doubled(self.up16(self.block16(self.down16(silu(e8)))))
        e8 = self.after8(e8)
        values8 = self.quantizer8(self.out8(e8) + self.linear8(F.pixel_unshuffle(rest, 8)))
        shares8 = F.avg_pool2d(shares4, 2)
        finer = e4 + _doubled(self.sent8(values8), "nearest") + _doubled(self.from8(e8))
        finer = self.finest(finer)
        left = rest - F.pixel_shuffle(self.back8(values8), 8)
        return Refined(
            values8,
            self.quantizer4(self.out4(finer) + self.linear4(F.pixel_unshuffle(left, 4))),
            self.gain8(e8.detach(), shares8),
            self.gain4(finer.detach(), shares4),
        )


class RefinementDecoder(nn.Module):
    """The receiver's half: a correction of the base's picture from its features and the tokens."""

    basis8: Tensor
    basis4: Tensor

    def __init__(self, config: RefinementConfig, base8: int, base4: int) -> None:
        super().__init__()
        w4, w8, w2 = config.width4 + 16, config.width8, config.width2
        self.base8 = nn.Conv2d(base8, w8, 1)
        self.base4 = nn.Conv2d(base4 + 48, w4, 1)
        self.tokens8 = nn.Conv2d(len(config.levels8) + 1, w8, 1)
        self.tokens4 = nn.Conv2d(len(config.levels4) + 1, w4, 1)
        self.blocks8 = nn.ModuleList(Block(w8, True) for _ in range(config.blocks8))
        self.up4 = nn.Conv2d(w8, w4, 1)
        self.blocks4 = nn.ModuleList(Block(w4, True) for _ in range(config.blocks4))
        self.up2 = nn.Conv2d(w4, w2, 1)
        self.base2 = nn.Conv2d(12, w2, 1)
        self.block2 = Block(w2, True)
        self.linear8 = _synthesis(config.levels8, 8)
        self.linear4 = _synthesis(config.levels4, 4)
        self.detail = nn.Parameter(torch.tensor([0.2, 1.0]))  # shown of the base's, by realism
        self.register_buffer("basis8", _basis(len(config.levels8), 8), persistent=False)
        self.register_buffer("basis4", _basis(len(config.levels4), 4), persistent=False)
        self.out = nn.Conv2d(w2, 12, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        base: tuple[Tensor, Tensor, Tensor],
        values8: Tensor,
        came8: Tensor,
        values4: Tensor,
        came4: Tensor,
        realism: Tensor,
    ) -> Tensor:
        """base: features at 1/8 and 1/4 and the picture [N, 3, H, W], of the base decoder; values:
        [N, D, h, w]; came: bool [N, h, w], where tokens are known; realism: [N], 0 or 1.

        Returns [N, 3, H, W], not clamped.
        """
        coarse, fine, picture = base
        steer = realism.view(-1, 1)
        x = self.base8(coarse) + self.tokens8(_placed(values8, came8))
        for block in self.blocks8:
            x = block(x, steer)
        x = _doubled(self.up4(x))
        x = x + self.base4(torch.cat((fine, F.pixel_unshuffle(2 * picture - 1, 4)), 1))
        x = x + self.tokens4(_placed(values4, came4))
        for block in self.blocks4:
            x = block(x, steer)
        x = _doubled(self.up2(x)) + self.base2(F.pixel_unshuffle(2 * picture - 1, 2))
        x = self.block2(x, steer)
        low = _smooth(picture)
        shown = torch.lerp(self.detail[0], self.detail[1], realism).view(-1, 1, 1, 1)
        high = (picture - low) * shown
        out: Tensor = low + F.pixel_shuffle(self.out(silu(x)), 2)
        # What tokens say of a block takes the place of the base's detail in it; a zero says no more
        # than that little is there: at realism 1 as much of the detail stays as rounds to it.
        room = realism.view(-1, 1, 1, 1) * (1 - ROUND_UP)
        for values, came, linear, basis, side, step in (
            (values8, came8, self.linear8, self.basis8, 8, STEP8),
            (values4, came4, self.linear4, self.basis4, 4, STEP4),
        ):
            there = came.unsqueeze(1)
            out = out + F.pixel_shuffle(linear(values * there), side)
            own = torch.einsum("kc,nchw->nkhw", basis, F.pixel_unshuffle(high, side))
            free = room * step * (values == 0)
            said = (own - own.clamp(-free, free)) * there
            high = high - F.pixel_shuffle(torch.einsum("kc,nkhw->nchw", basis, said), side)
        return out + high


class Refinement(nn.Module):
    """Both halves.

    labels: classes and the null one; base8, base4: channels of the base decoder's features.
    """

    def __init__(self, config: RefinementConfig, labels: int, base8: int, base4: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = RefinementEncoder(config, base8, labels)
        self.decoder = RefinementDecoder(config, base8, base4)


def _basis(values: int, side: int) -> Tensor:
    """Return [values, 3 side^2]: the means of grey, red and blue, then slopes of grey; without the
    two of colour in blocks of under 8 pixels. Orthonormal.
    """
    grey = torch.full((3,), 3**-0.5)
    red = torch.tensor([1.0, -0.5, -0.5]) * (2 / 3) ** 0.5
    blue = torch.tensor([0.0, -1.0, 1.0]) * 2**-0.5
    places = torch.arange(side) + 0.5
    waves = [torch.cos(torch.pi / side * k * places) for k in range(3)]
    waves = [wave / wave.norm() for wave in waves]
    colours = [grey, red, blue] if side >= 8 else [grey]
    planes = [c[:, None, None] * waves[0][:, None] * waves[0] for c in colours]
    for down, right in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0)):
        planes.append(grey[:, None, None] * waves[down][:, None] * waves[right])
    return torch.stack(planes[:values]).flatten(1)


def _analysis(levels: tuple[int, ...], side: int) -> nn.Conv2d:
    """Return a 1x1 convolution of unshuffled blocks to cosine coefficients, in steps."""
    layer = nn.Conv2d(3 * side**2, len(levels), 1, bias=False)
    with torch.no_grad():
        basis = _basis(len(levels), side) / (STEP8 if side == 8 else STEP4)
        layer.weight.copy_(basis[:, :, None, None])
    return layer


def _synthesis(levels: tuple[int, ...], side: int) -> nn.Conv2d:
    """Return the way back, to be shuffled up."""
    layer = nn.Conv2d(len(levels), 3 * side**2, 1, bias=False)
    halves = (torch.tensor(levels) - 1) / 2
    with torch.no_grad():
        basis = _basis(len(levels), side) * (halves * (STEP8 if side == 8 else STEP4))[:, None]
        layer.weight.copy_(basis.t()[:, :, None, None])
    return layer


def gains_of(errors: Tensor) -> Tensor:
    """By how much sending a token lowers each error, [N, 3, h, w], 0 at least.

    errors: [N, 2, 3, h, w], logarithms of the errors if it is masked, and if it is sent.
    """
    masked, sent = errors.exp().unbind(1)
    return (masked - sent).clamp(min=0)


def _smooth(picture: Tensor) -> Tensor:
    """Without detail finer than 8 pixels."""
    return F.interpolate(
        F.avg_pool2d(picture, 8), scale_factor=8.0, mode="bilinear", align_corners=False
    )


def _placed(values: Tensor, came: Tensor) -> Tensor:
    """Return values where they came, 0 elsewhere, and a plane that says which is which."""
    there = came.unsqueeze(1).to(values.dtype)
    return torch.cat((values * there, there), 1)


def _doubled(x: Tensor, mode: str = "bilinear") -> Tensor:
    align = False if mode == "bilinear" else None
    return F.interpolate(x, scale_factor=2.0, mode=mode, align_corners=align)
