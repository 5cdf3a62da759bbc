"""DeepJSCC: a picture directly to the complex symbols of a channel and back, without bits.

    x ──┬─ KLT of 8×8 blocks ──────────┬─ + ─ DCT ─ gains ─ prefix ─ power 1 ──> k complex symbols
        └─ conv, conv, blocks with AF ─┘
                                                      symbol channel, equalised
    x̂ ──┬─ inverse KLT ────────────────┬─ inverse DCT ─ / gains ─ Wiener <── y, noise variance
        └─ conv, blocks with AF, conv ─┘

The picture becomes a latent of real channels at 1/8 of its height and width, and a fixed DCT of 4×4
places decorrelates the neighbours in each channel. Its coefficients are sent one after another,
strongest first, each for all places of 32×32 pixels in a scattered order. Those that fit into k
complex symbols are sent, two real values per symbol. So one set of weights serves every number of
channel uses, and coefficients that are not sent count as received with infinite noise.

**Power.** The symbols of each picture are scaled so that the mean |s|² is 1 exactly, whatever the
picture. The scale is sent, too: its logarithm is the phase of SCALE_SYMBOLS of the k symbols.
**Noise.** The SNR is the mean Es/N0 of a complex symbol in dB, so that on a channel of gain 1 each
of its two real values, of mean power 1/2, meets noise of variance N0 / 2 = 10^(-snr_db / 10) / 2.
**Bandwidth.** The channel bandwidth ratio is CBR = k / (3 H W), complex symbols to real source
values; papers that count real values on both sides write 2k / (3 H W). H W is before padding.

Power is allocated to the coefficients as by the best linear code for them at that SNR (Lee and
Petersen), times learned factors. AF modules scale features by what the sender or the receiver
knows: the mean SNR, the bandwidth ratio and, at the receiver, the actual noise.

Sources: Bourtsoulatze, Kurka, Gündüz, "Deep joint source-channel coding for wireless image
transmission", IEEE Transactions on Cognitive Communications and Networking, 2019; Xu, Ai, Chen,
Yang, Sun, Rodrigues, "Wireless image transmission using deep source channel coding with attention
modules", IEEE Transactions on Circuits and Systems for Video Technology, 2021 (AF modules); Lee,
Petersen, "Optimal linear coding for vector channels", IEEE Transactions on Communications, 1976;
Jakubczak, Katabi, "A cross-layer design for scalable mobile video", MobiCom 2011 (SoftCast).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlink.model.config import sizes_from_json, sizes_to_json

STRIDE = 8
"""Side of a place of the latent, in pixels."""

DCT = 4
"""Side of a DCT block, in places of the latent."""

PLACE = STRIDE * DCT
"""Side of a place of the coefficients, in pixels."""

SCALE_SYMBOLS = 16
"""Complex symbols per picture whose phase carries the scale; fewer if there are few symbols."""

GREY = 0.45
"""Value subtracted from every pixel before the transform."""

_SIDE_SNR_DB = (-10.0, 30.0)
"""Range of SNRs at the input of the networks; other values are clipped to it."""

_PHASE = 1.25
"""Radians per unit of the scale's natural logarithm."""

_SCALE_VARIANCE = 0.15
"""Variance of the scale's logarithm over pictures, as the receiver expects it."""


@dataclass(frozen=True)
class DeepJSCCConfig:
    """Sizes. latents: real channels at 1/8. width, fine: features at 1/8 and at 1/4.

    sender_blocks, receiver_blocks: blocks at 1/8 on each side.
    """

    latents: int = 64
    width: int = 64
    fine: int = 48
    sender_blocks: int = 2
    receiver_blocks: int = 3

    @property
    def coefficients(self) -> int:
        """Real values of one place of 32×32 pixels."""
        return self.latents * DCT * DCT

    def to_json(self) -> str:
        """Return the sizes as text, for a weights file."""
        return sizes_to_json(self)

    @classmethod
    def from_json(cls, text: str) -> DeepJSCCConfig:
        """Read what `to_json` wrote. Raises ConfigError for anything else."""
        return sizes_from_json(cls, text, "DeepJSCC configuration")


def places(height: int, width: int) -> int:
    """Count the places of 32×32 pixels of a picture; incomplete ones at an edge count as whole.

    >>> places(360, 480), places(384, 481)
    (180, 192)
    """
    return -(-height // PLACE) * -(-width // PLACE)


def scale_symbols(symbols: int) -> int:
    """Return how many of `symbols` symbols carry the scale.

    >>> scale_symbols(2700), scale_symbols(40), scale_symbols(1)
    (16, 5, 0)
    """
    return min(SCALE_SYMBOLS, symbols // 8)


def scattered(count: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the order in which the places of a coefficient are sent, int64 [count].

    Neighbours in the order are far apart in the picture.

    >>> scattered(8).tolist()
    [0, 5, 2, 7, 4, 1, 6, 3]
    """
    step = max(1, round(count * (math.sqrt(5) - 1) / 2))
    while math.gcd(step, count) != 1:
        step += 1
    return torch.arange(count, device=device) * step % count


def sent_mask(values: Tensor, coefficients: int, height: int, width: int) -> Tensor:
    """Return which coefficients are sent: the first `values` real values of each picture.

    values: int64 [N]. Returns bool [N, coefficients, height, width].
    """
    count = height * width
    rank = torch.empty(count, dtype=torch.int64, device=values.device)
    rank[scattered(count, values.device)] = torch.arange(count, device=values.device)
    number = torch.arange(coefficients, device=values.device)[:, None] * count + rank
    return (number < values[:, None, None]).reshape(len(values), coefficients, height, width)


def to_symbols(values: Tensor, symbols: int) -> Tensor:
    """Convert float32 [N, C, h, w] to complex64 [N, symbols], in the order in which they
    are sent.
    """
    order = scattered(values.shape[2] * values.shape[3], values.device)
    flat = values.flatten(2)[:, :, order].flatten(1)[:, : 2 * symbols]
    return torch.view_as_complex(flat.reshape(len(values), symbols, 2).contiguous())


def from_symbols(symbols: Tensor, coefficients: int, height: int, width: int) -> Tensor:
    """Invert `to_symbols`; values that were not sent are 0."""
    count = height * width
    flat = torch.view_as_real(symbols).flatten(1)
    flat = F.pad(flat, (0, coefficients * count - flat.shape[1]))
    order = torch.argsort(scattered(count, flat.device))
    values = flat.reshape(len(symbols), coefficients, count)[:, :, order]
    return values.reshape(len(symbols), coefficients, height, width)


def dct_matrix(size: int) -> Tensor:
    """Return the orthonormal DCT-II, float32 [size, size]; row k is its basis function k."""
    k, j = torch.arange(size, dtype=torch.float64)[:, None], torch.arange(size)[None]
    matrix = torch.cos(math.pi * (2 * j + 1) * k / (2 * size)) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.float()


def spread_power(power: Tensor, sent: Tensor, noise: Tensor) -> Tensor:
    """Return the mean transmitted power of each coefficient under the best linear code, mean 1/2.

    Minimises the sum of power_i N / (p_i + N): p_i = max(0, level sqrt(power_i N) - N).

    power: float [C], of the coefficients, falling. sent: float [N, C], the share of each that is
    sent, falling. noise: float [N], variance N on a real value. Returns float [N, C].
    """
    root = power.sqrt()[None] * noise.sqrt()[:, None]  # [N, C]
    budget = 0.5 * sent.sum(dim=1, keepdim=True)
    level = (budget + noise[:, None] * sent.cumsum(1)) / (root * sent).cumsum(1)  # if the first i
    used = (level * root > noise[:, None]) & (sent > 0)
    last = used.cumprod(1).sum(dim=1, keepdim=True).clamp(min=1) - 1
    spread = (level.gather(1, last) * root - noise[:, None]).clamp(min=0)
    return torch.where(sent > 0, spread, 0.0)


def side_information(snr_db: Tensor, ratio: Tensor) -> Tensor:
    """Scale SNR in dB, float [N], and k / (3 H W) after padding, [N], to order 1: float32
    [N, 2].
    """
    told = (snr_db.clamp(*_SIDE_SNR_DB) - 10) / 10
    return torch.stack([told, (torch.log2(ratio.clamp(min=1e-6)) + 5) / 2], dim=1).float()


def _silence(layer: nn.Module) -> None:
    """Set a layer's weights to zero, so that it initially adds nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class AttentionFeatures(nn.Module):
    """AF module: scale each channel by the features' means and by side information.

    features [N, C, h, w] and side [N, S] to [N, C, h, w]; factors lie between 0 and 2.
    """

    def __init__(self, channels: int, side: int, hidden: int = 16) -> None:
        super().__init__()
        self.inner = nn.Linear(channels + side, hidden)
        self.outer = nn.Linear(hidden, channels)
        _silence(self.outer)

    def forward(self, features: Tensor, side: Tensor) -> Tensor:
        seen = torch.cat([features.mean(dim=(2, 3)), side], dim=1)
        factors = 2 * torch.sigmoid(self.outer(F.relu(self.inner(seen))))
        return features * factors[:, :, None, None]


class Block(nn.Module):
    """A 3×3 convolution, PReLU and AF, added to the input."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)
        self.activation = nn.PReLU(channels)
        self.attention = AttentionFeatures(channels, side)

    def forward(self, features: Tensor, side: Tensor) -> Tensor:
        new: Tensor = self.activation(self.convolution(features))
        added: Tensor = self.attention(new, side)
        return features + added


class Transform(nn.Module):
    """The sender's network: pictures [N, 3, H, W] to latents [N, latents, H/8, W/8]."""

    def __init__(self, config: DeepJSCCConfig) -> None:
        super().__init__()
        self.linear = nn.Conv2d(3, config.latents, STRIDE, stride=STRIDE, bias=False)
        self.first = nn.Conv2d(3, config.fine, 8, stride=4, padding=2)
        self.first_activation = nn.PReLU(config.fine)
        self.second = nn.Conv2d(config.fine, config.width, 4, stride=2, padding=1)
        self.second_activation = nn.PReLU(config.width)
        self.blocks = nn.ModuleList(Block(config.width, 2) for _ in range(config.sender_blocks))
        self.last = nn.Conv2d(config.width, config.latents, 3, padding=1)
        _silence(self.last)

    def forward(self, images: Tensor, side: Tensor) -> Tensor:
        centred = images - GREY
        latents: Tensor = self.linear(centred)
        features = self.first_activation(self.first(centred))
        features = self.second_activation(self.second(features))
        for block in self.blocks:
            features = block(features, side)
        added: Tensor = self.last(features)
        return latents + added


class Inverse(nn.Module):
    """The receiver's network: estimated latents to pictures, not clamped."""

    def __init__(self, config: DeepJSCCConfig) -> None:
        super().__init__()
        self.linear = nn.ConvTranspose2d(config.latents, 3, STRIDE, stride=STRIDE, bias=False)
        self.first = nn.Conv2d(config.latents, config.width, 3, padding=1)
        self.first_activation = nn.PReLU(config.width)
        self.blocks = nn.ModuleList(Block(config.width, 3) for _ in range(config.receiver_blocks))
        self.up = nn.ConvTranspose2d(config.width, config.fine, 4, stride=2, padding=1)
        self.up_activation = nn.PReLU(config.fine)
        self.fine = Block(config.fine, 3)
        self.last = nn.ConvTranspose2d(config.fine, 3, 8, stride=4, padding=2)
        _silence(self.last)

    def forward(self, latents: Tensor, side: Tensor) -> Tensor:
        pictures: Tensor = self.linear(latents) + GREY
        features = self.first_activation(self.first(latents))
        for block in self.blocks:
            features = block(features, side)
        features = self.fine(self.up_activation(self.up(features)), side)
        added: Tensor = self.last(features)
        return pictures + added


class DeepJSCC(nn.Module):
    """Both ends of the link. Both know the powers and gains of the coefficients."""

    dct: Tensor
    order: Tensor

    def __init__(self, config: DeepJSCCConfig | None = None) -> None:
        super().__init__()
        self.config = config or DeepJSCCConfig()
        count = self.config.coefficients
        self.transform = Transform(self.config)
        self.inverse = Inverse(self.config)
        self.log_power = nn.Parameter(
            torch.linspace(2.0, -8.0, count)
        )  # from natural order to sending order
        self.gain_inner = nn.Linear(2, 32)
        self.gain_outer = nn.Linear(32, count)
        _silence(self.gain_outer)
        self.register_buffer("dct", dct_matrix(DCT))
        self.register_buffer(
            "order", torch.arange(count)
        )  # position in the latent of each, in sending order

    def coefficients(self, latents: Tensor) -> Tensor:
        """Rearrange [N, latents, h, w] to [N, coefficients, h/4, w/4], in the order of sending."""
        count, channels, height, width = latents.shape
        blocks = latents.reshape(count, channels, height // DCT, DCT, width // DCT, DCT)
        found = torch.einsum("nciajb,pa,qb->ncpqij", blocks, self.dct, self.dct)
        return found.flatten(1, 3)[:, self.order]

    def latents(self, coefficients: Tensor) -> Tensor:
        """Invert `coefficients`."""
        count, _, height, width = coefficients.shape
        blocks = coefficients[:, torch.argsort(self.order)]
        blocks = blocks.reshape(count, self.config.latents, DCT, DCT, height, width)
        found = torch.einsum("ncpqij,pa,qb->nciajb", blocks, self.dct, self.dct)
        return found.reshape(count, self.config.latents, height * DCT, width * DCT)

    def encode(
        self, images: Tensor, snr_db: Tensor, symbols: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode to the coefficients to send, a mask of those that are sent, and the scale's
        symbol.

        images: float32 [N, 3, H, W] in [0, 1], H and W multiples of 32. snr_db: float [N], the mean
        SNR. symbols: int64 [N], complex symbols for the coefficients of each picture, at most half
        the number of coefficients. Returns float32 [N, C, H/32, W/32], 0 where not sent, with mean
        square 1/2 over those sent; bool of that shape; complex64 [N], of modulus 1.
        """
        side = self._side(images.shape[2], images.shape[3], snr_db, symbols)
        values = self.coefficients(self.transform(images, side))
        sent = sent_mask(2 * symbols, *values.shape[1:])
        gains, _ = self._gains(side, sent, snr_db)
        values = values * gains * sent
        mean = values.square().sum(dim=(1, 2, 3)) / (2 * symbols)
        scale = torch.rsqrt(2 * mean.clamp(min=1e-12))
        phase = _PHASE * torch.log(scale).clamp(-2, 2)
        return (
            values * scale[:, None, None, None],
            sent,
            torch.polar(torch.ones_like(phase), phase),
        )

    def decode(
        self, received: Tensor, variance: Tensor, snr_db: Tensor, scale: Tensor, scale_noise: Tensor
    ) -> Tensor:
        """Decode to pictures float32 [N, 3, H, W], not clamped.

        received: float32 [N, C, h, w], equalised. variance: of the noise on each real value, the
        same shape, infinite where nothing was sent. snr_db: [N], the mean SNR, as at the sender.
        scale: complex64 [N], the scale's symbols combined. scale_noise: float32 [N], E|noise|² on
        it.
        """
        sent = variance.isfinite()
        count = sent.sum(dim=(1, 2, 3)).clamp(min=1)
        height, width = received.shape[2] * PLACE, received.shape[3] * PLACE
        side = self._side(height, width, snr_db, count // 2)
        gains, nominal = self._gains(side, sent, snr_db)
        heard = _SCALE_VARIANCE / (_SCALE_VARIANCE + 0.5 * scale_noise / _PHASE**2)
        factor = torch.exp(heard * torch.angle(scale) / _PHASE)[:, None, None, None]
        gains, nominal = gains * factor, nominal * factor.square()
        # Infinities are replaced first, as their gradients would be NaN.
        finite = torch.where(sent, variance, 1.0)
        weight = nominal / ((nominal + finite) * gains)
        latents = self.latents(torch.where(sent, received * weight, 0.0))
        decibels = -10 * torch.log10((2 * finite).clamp(1e-4, 1e3)) * sent
        met = decibels.sum(dim=(1, 2, 3)) / count
        known = torch.cat([side, ((met.clamp(*_SIDE_SNR_DB) - 10) / 10)[:, None]], dim=1)
        pictures: Tensor = self.inverse(latents, known)
        return pictures

    def _gains(self, side: Tensor, sent: Tensor, snr_db: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of the coefficients and their resulting nominal power, [N, C, 1, 1]
        each.
        """
        power = torch.exp(self.log_power)
        noise = 0.5 * torch.pow(10.0, -snr_db.clamp(*_SIDE_SNR_DB) / 10).to(power)
        spread = spread_power(power, sent.float().mean(dim=(2, 3)), noise)
        shift: Tensor = self.gain_outer(F.relu(self.gain_inner(side)))
        gains = torch.sqrt(spread + 1e-5) * torch.exp(shift - 0.5 * self.log_power)
        return gains[:, :, None, None], (gains.square() * power)[:, :, None, None]

    @staticmethod
    def _side(height: int, width: int, snr_db: Tensor, symbols: Tensor) -> Tensor:
        return side_information(snr_db, symbols.to(torch.float64) / (3 * height * width))

    @torch.no_grad()
    def start_from_klt(self, crops: Tensor) -> None:
        """Set the linear path to the Karhunen-Loève transform of 8×8 blocks.

        crops: float32 [M, 3, H, W] in [0, 1], H and W multiples of 32; many 8×8 blocks are needed.
        """
        blocks = F.unfold(crops - GREY, STRIDE, stride=STRIDE).permute(0, 2, 1).double()
        blocks = blocks.reshape(-1, 3 * STRIDE**2)
        _, vectors = torch.linalg.eigh(blocks.T @ blocks / len(blocks))
        keep = self.config.latents
        basis = vectors.flip(1)[:, :keep].T  # [latents, 192]
        basis = basis * torch.where(basis.sum(dim=1, keepdim=True) < 0, -1.0, 1.0)
        self.transform.linear.weight.copy_(basis.reshape(keep, 3, STRIDE, STRIDE))
        self.inverse.linear.weight.copy_(basis.reshape(keep, 3, STRIDE, STRIDE))
        self.order.copy_(torch.arange(self.config.coefficients))
        found = self.coefficients(self.transform.linear(crops - GREY))
        power = found.square().mean(dim=(0, 2, 3)).clamp(min=1e-7)
        self.order.copy_(torch.argsort(power, descending=True))
        self.log_power.copy_(power[self.order].log())
