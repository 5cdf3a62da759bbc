"""Rayleigh fading that varies with Doppler within a packet and between packets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from channels.config.checks import number
from channels.fading.base import (
    Observation,
    Timing,
    complex_noise,
    noise_variance_of,
    power,
    register,
)
from channels.random import Randomness

_PATHS = 32
"""Number of sinusoids: E|h|^4 is 2 - 1/32, and 2 for a Gaussian h."""


_STRIDE = 64
"""Symbols per step: a phase is that of its step plus that within the step."""


_JAKES_TERMS = 1 << 21
"""Most phases in memory at once."""


@register("jakes")
class Jakes:
    """Flat Rayleigh fading with Doppler: E[h(t) h*(t + tau)] = J0(2 pi f tau).

        h(t) = sum_m exp(j (2 pi f t cos(a_m) + p_m)) / sqrt(M),  a_m = 2 pi (m + u_m) / M

    with M = 32 paths, u_m uniform over [0, 1) and p_m uniform over [0, 2 pi), drawn once per link.
    This is isotropic scattering (Clarke, Jakes). h is a function of absolute time; the time of
    symbol k of a packet is `timing.start_s` + k / symbol_rate_hz. So h is continuous over packets
    and attempts, and packets with the same start have the same h. The link above needs the same
    symbol rate, so that packets start one after another.

    doppler_hz: the maximum Doppler shift f, 0 to 1e6. symbol_rate_hz: symbols per second, 1 to
    1e12. The receiver knows h at every symbol. The channel is not `Flat`.

    Source: Xiao, Zheng, Beaulieu, "Novel sum-of-sinusoids simulation models for Rayleigh and Rician
    fading channels", IEEE Transactions on Wireless Communications, 2006.
    """

    name = "jakes"

    def __init__(self, doppler_hz: float, symbol_rate_hz: float) -> None:
        self.doppler_hz = number(self.name, "doppler_hz", doppler_hz, 0, 1e6)
        self.symbol_rate_hz = number(self.name, "symbol_rate_hz", symbol_rate_hz, 1, 1e12)

    def apply(
        self, symbols: Tensor, snr_db: Tensor, randomness: Randomness, timing: Timing
    ) -> Observation:
        """Multiply by h and add noise; see `SymbolChannel.apply`."""
        h = self._fades(symbols.shape[2], randomness, timing)
        variance = noise_variance_of(snr_db)
        noise = torch.sqrt(variance) * complex_noise(
            symbols.shape, randomness, timing.draws("noise")
        )
        gain = power(h)
        return Observation((h * symbols + noise) / h, variance / gain, gain.mean(dim=2))

    def _fades(self, length: int, randomness: Randomness, timing: Timing) -> Tensor:
        """Draw h, complex64 [N, P, length]."""
        links, slots = timing.start_s.shape
        draws = randomness.child("fading").uniform(2 * _PATHS).reshape(links, 2, _PATHS)
        number_of = torch.arange(_PATHS, dtype=torch.float64, device=draws.device)
        angle = 2 * math.pi * (number_of + draws[:, 0]) / _PATHS
        rate = 2 * math.pi * self.doppler_hz * torch.cos(angle)  # [N, M], radians per second
        phase = 2 * math.pi * draws[:, 1, None] + rate[:, None] * timing.start_s[..., None]

        rate = (rate / self.symbol_rate_hz).repeat_interleave(slots, dim=0)  # [N P, M], per symbol
        steps = torch.arange(-(-length // _STRIDE), dtype=torch.float64, device=draws.device)
        within = torch.arange(_STRIDE, dtype=torch.float64, device=draws.device)
        rows = max(1, _JAKES_TERMS // (_PATHS * (len(steps) + _STRIDE)))
        pieces = [
            _turn(start[:, None] + _STRIDE * steps[:, None] * turn[:, None])
            @ _turn(turn[..., None] * within)
            for start, turn in zip(phase.flatten(0, 1).split(rows), rate.split(rows), strict=True)
        ]
        h = torch.cat(pieces).reshape(links, slots, len(steps) * _STRIDE)[..., :length]
        return (h / math.sqrt(_PATHS)).to(torch.complex64)


def _turn(phase: Tensor) -> Tensor:
    """Return exp(j phase)."""
    return torch.polar(torch.ones_like(phase), phase)
