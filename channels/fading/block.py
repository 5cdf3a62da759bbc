"""Flat fading that is constant over a block: AWGN, Rayleigh and Rician.

A receiver that estimates h by least squares from `pilots` known symbols of unit energy in each
block obtains h' = h + e, E|e|^2 = N0 / pilots. It divides by h'. With y = h' x + (n - e x), the
remaining error counts as noise of variance

    (N0 + E|e|^2 E|x|^2) / |h'|^2 = N0 (1 + 1 / pilots) / |h'|^2

(Hassibi and Hochwald, "How much training is needed in multiple-antenna wireless links?", IEEE
Transactions on Information Theory, 2003: the estimation error times the symbol adds to the noise).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from channels.config.checks import choice, integer, number
from channels.errors import ConfigError
from channels.fading.base import (
    Observation,
    Timing,
    complex_noise,
    noise_variance_of,
    power,
    register,
)
from channels.random import Randomness
from channels.registry import nearest

LONGEST_COHERENCE = 1_000_000
MOST_PILOTS = 1000


@register("awgn")
class Awgn:
    """Additive white Gaussian noise without fading: h = 1."""

    name = "awgn"

    def apply(
        self, symbols: Tensor, snr_db: Tensor, randomness: Randomness, timing: Timing
    ) -> Observation:
        """Add noise; see `SymbolChannel.apply`."""
        variance = noise_variance_of(snr_db).expand(*symbols.shape[:2], 1)
        noisy = symbols + torch.sqrt(variance) * complex_noise(
            symbols.shape, randomness, timing.draws("noise")
        )
        return Observation(noisy, variance, torch.ones_like(variance[..., 0]))

    def gains(self, randomness: Randomness, timing: Timing) -> Tensor:
        """Return ones; see `Flat.gains`."""
        return torch.ones(timing.group.shape, dtype=torch.float32, device=timing.group.device)


def _coherence(owner: str, value: object) -> str | int:
    """Return `value` as "packet", "picture" or a number of symbols. Raises ConfigError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return integer(owner, "coherence", value, 1, LONGEST_COHERENCE)
    key, known = str(value).lower(), ["packet", "picture"]
    if not isinstance(value, str) or key not in known:
        raise ConfigError(
            f"{owner}: unknown coherence={value!r}: {nearest(key, known)}, or an integer of "
            f"symbols from 1 to {LONGEST_COHERENCE}"
        )
    return key


class _BlockFading:
    """A base class of flat block fading: when h changes, and what the receiver knows of it."""

    name = "block_fading"
    streams = 1

    gains: Callable[[Randomness, Timing], Tensor]
    """Set if each packet has one h, known to the receiver; see `Flat`."""

    occupied: Callable[[int], tuple[int, int]]
    """Set if the receiver needs pilots; see `Piloted`."""

    def __init__(self, coherence: str | int, csi: str, pilots: int) -> None:
        self.coherence = _coherence(self.name, coherence)
        self.csi = choice(self.name, "csi", csi, ("perfect", "estimated"))
        self.pilots = integer(self.name, "pilots", pilots, 1, MOST_PILOTS)
        if self.csi == "estimated":
            self.occupied = self._occupied
        elif isinstance(self.coherence, str):
            self.gains = self._gains

    def apply(
        self, symbols: Tensor, snr_db: Tensor, randomness: Randomness, timing: Timing
    ) -> Observation:
        """Multiply by h and add noise; see `SymbolChannel.apply`."""
        length = symbols.shape[2]
        h = self._fades(length, randomness, timing)  # [N, P, blocks]
        variance = noise_variance_of(snr_db)
        noise = torch.sqrt(variance) * complex_noise(
            symbols.shape, randomness, timing.draws("noise")
        )
        known, excess = h, 1.0
        if self.csi == "estimated":
            error = complex_noise(h.shape, randomness, timing.draws("pilots"))
            known = h + torch.sqrt(variance / self.pilots) * error
            excess = 1 + 1 / self.pilots
        h, known = self._over_symbols(h, length), self._over_symbols(known, length)
        seen = (h * symbols + noise) / known
        return Observation(seen, excess * variance / power(known), power(h).mean(dim=2))

    def _fade_from(self, scattered: Tensor) -> Tensor:
        """Return h, E|h|^2 = 1, from complex Gaussian draws of variance 1."""
        raise NotImplementedError

    def _blocks(self, length: int) -> int:
        """Return the number of blocks of constant h in a packet of `length` symbols."""
        return 1 if isinstance(self.coherence, str) else -(-length // self.coherence)

    def _over_symbols(self, blocks: Tensor, length: int) -> Tensor:
        """Repeat [N, P, blocks] over the symbols of each block.

        Returns [N, P, 1] if h is constant over a packet, else [N, P, length].
        """
        if isinstance(self.coherence, str):
            return blocks
        return blocks.repeat_interleave(self.coherence, dim=2)[..., :length]

    def _fades(self, length: int, randomness: Randomness, timing: Timing) -> Tensor:
        """Draw h, complex64 [N, P, blocks]; a block does not depend on the number of later ones."""
        links, slots = timing.group.shape
        name = timing.draws("fading")
        if isinstance(self.coherence, int):
            streams = randomness.child(f"{name}:blocks").split(slots)
            blocks = self._blocks(length)
            draws = streams.complex_normal(blocks, dtype=torch.complex64)
            return self._fade_from(draws.reshape(links, slots, blocks))
        if self.coherence == "packet":
            draws = randomness.child(name).complex_normal(slots, dtype=torch.complex64)
            return self._fade_from(draws)[..., None]
        pictures = int(timing.group.max()) + 1 if timing.group.numel() else 1
        draws = randomness.child("fading").complex_normal(pictures, dtype=torch.complex64)
        return self._fade_from(draws).gather(1, timing.group)[..., None]

    def _gains(self, randomness: Randomness, timing: Timing) -> Tensor:
        return power(self._fades(1, randomness, timing))[..., 0]

    def _occupied(self, symbols: int) -> tuple[int, int]:
        pilots = self.pilots * self._blocks(symbols)
        return symbols + pilots, pilots


@register("rayleigh")
class Rayleigh(_BlockFading):
    """Flat Rayleigh block fading: h is complex Gaussian, E|h|^2 = 1, and constant over a block.

    coherence: "packet", a new h for each packet; "picture", one h for all packets of a group (a
        picture); or an integer, the number of data symbols between two changes of h, counted from
        the first symbol of each packet.
    csi: "perfect", the receiver knows h; or "estimated", the receiver estimates h by least squares
        from `pilots` symbols (1 to 1000) of each block, in addition to the data.

    The transmitter knows only the mean SNR. Another attempt has another h, except with "picture".
    The channel is `Flat` if csi is perfect and h is constant within a packet, and `Piloted` if csi
    is estimated.
    """

    name = "rayleigh"

    def __init__(
        self, coherence: str | int = "packet", csi: str = "perfect", pilots: int = 4
    ) -> None:
        super().__init__(coherence, csi, pilots)

    def _fade_from(self, scattered: Tensor) -> Tensor:
        return scattered


@register("rician")
class Rician(_BlockFading):
    """Flat Rician block fading: a constant line of sight plus a scattered component.

        h = sqrt(K / (K + 1)) + sqrt(1 / (K + 1)) s,  s complex Gaussian, E|s|^2 = E|h|^2 = 1

    k_db: Rician factor K = 10^(k_db / 10), the power of the line of sight over that of the
    scattered component, -100 to 100 dB. The phase of the line of sight is 0. coherence, csi,
    pilots: as for `rayleigh`; the draws s are those of `rayleigh`, too.
    """

    name = "rician"

    def __init__(
        self,
        k_db: float,
        coherence: str | int = "packet",
        csi: str = "perfect",
        pilots: int = 4,
    ) -> None:
        self.k_db = number(self.name, "k_db", k_db, -100, 100)
        super().__init__(coherence, csi, pilots)

    def _fade_from(self, scattered: Tensor) -> Tensor:
        k = 10 ** (self.k_db / 10)
        return math.sqrt(k / (k + 1)) + math.sqrt(1 / (k + 1)) * scattered
