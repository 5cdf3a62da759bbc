"""Symbols, keys and times of the tests of symbol channels."""

from __future__ import annotations

import math

import numpy as np
import torch

from channels.fading.base import Observation, SymbolChannel, Timing
from channels.fading.jakes import Jakes
from channels.random import Randomness

JAKES_SPEC = {"jakes": {"doppler_hz": 200, "symbol_rate_hz": 1e5}}


BURSTS = {"gilbert_elliott": {"depth_db": 9, "bad": 0.4, "burst": 3}}


def keys(links: int, seed: int = 4) -> Randomness:
    return Randomness.derive(seed, [("link", n) for n in range(links)])


def data(links: int, slots: int, length: int) -> torch.Tensor:
    """QPSK symbols."""
    bits = Randomness.derive(3, [("data", n) for n in range(links)]).integers(slots * length) % 4
    angle = (bits.to(torch.float64) + 0.5) * math.pi / 2
    return (
        torch.polar(torch.ones_like(angle), angle).to(torch.complex64).reshape(links, slots, length)
    )


def timing(links: int, slots: int, attempt: int = 0) -> Timing:
    """Two packets a picture, one each millisecond."""
    number = torch.arange(slots).expand(links, slots)
    return Timing(number // 2, number.to(torch.float64) * 1e-3, attempt)


def at(links: int, snr_db: float) -> torch.Tensor:
    return torch.full((links,), snr_db, dtype=torch.float64)


def seen_equal(one: Observation, other: Observation) -> bool:
    return (
        torch.equal(one.symbols, other.symbols)
        and torch.equal(one.noise_variance, other.noise_variance)
        and torch.equal(one.gain, other.gain)
    )


def fades(channel: SymbolChannel, links: int, slots: int, length: int, when: Timing) -> np.ndarray:
    """h of every symbol, from what the channel lets through: variance N0 / |h|^2 at 0 dB."""
    x = torch.ones(links, slots, length, dtype=torch.complex64)
    seen = channel.apply(x, at(links, 0.0), keys(links), when)
    return (1 / seen.noise_variance.expand(x.shape)).numpy().astype(np.float64)


JAKES = Jakes(doppler_hz=100.0, symbol_rate_hz=1e4)
