"""Symbol channels: complex symbols in, what a receiver sees of them out.

    y = h x + n,  E|x|^2 = E|h|^2 = 1,  E|n|^2 = N0 = 10^(-snr_db / 10)

SNR is the mean Es/N0 in dB. A receiver that knows h and N0 divides by h, which leaves the symbol
under noise of variance N0 / |h|^2: bitwise LLRs lose nothing by that.

A receiver that estimates h by least squares from `pilots` known symbols of unit energy in each
block has h' = h + e, E|e|^2 = N0 / pilots. It divides by h'; with y = h' x + (n - e x), what is
left on the symbol counts as noise of variance

    (N0 + E|e|^2 E|x|^2) / |h'|^2 = N0 (1 + 1 / pilots) / |h'|^2

(Hassibi and Hochwald, "How much training is needed in multiple-antenna wireless links?", IEEE
Transactions on Information Theory, 2003: the estimation error times the symbol adds to the noise).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from channels.config.checks import choice, integer, number
from channels.config.spec import from_spec
from channels.errors import ConfigError
from channels.random import Streams
from channels.registry import Registry, nearest
from channels.two_state import two_states

SNR_RANGE_DB = (-60.0, 100.0)
LONGEST_COHERENCE = 1_000_000
MOST_PILOTS = 1000


@dataclass(frozen=True)
class Observation:
    """What the receiver sees of N x P packets of S symbols.

    symbols: complex64 [N, P, S], equalised. noise_variance: float32 [N, P, 1] or [N, P, S],
    E|noise|^2 on them. gain: float32 [N, P], the mean of |h|^2 over each packet.
    """

    symbols: Tensor
    noise_variance: Tensor
    gain: Tensor


@dataclass(frozen=True)
class Timing:
    """When packets are on the air.

    picture: int64 [N, P], which picture of a link's sequence each belongs to, not falling along P.
    start_s: float64 [N, P], seconds at which each packet's first symbol is sent.
    attempt: 0 for the first transmission, 1, 2 ... for repetitions of the same packets (HARQ).
    """

    picture: Tensor
    start_s: Tensor
    attempt: int = 0

    @classmethod
    def together(cls, links: int, slots: int, device: torch.device | str = "cpu") -> Timing:
        """One picture a link, everything at 0 s, the first attempt."""
        picture = torch.zeros(links, slots, dtype=torch.int64, device=device)
        return cls(picture, picture.to(torch.float64))

    def draws(self, name: str) -> str:
        """Name of the random draws of this attempt; the first one's is `name`."""
        return f"{name}:{self.attempt}" if self.attempt else name


@runtime_checkable
class SymbolChannel(Protocol):
    """Anything that carries complex symbols."""

    name: str

    def apply(
        self, symbols: Tensor, snr_db: Tensor, randomness: Streams, timing: Timing
    ) -> Observation:
        """symbols: complex64 [N, P, S], E|x|^2 = 1. snr_db: float64 [N]. randomness: N keys.

        What a packet meets depends on its link, its slot, its timing and the packets of its link
        before it, not on those after it nor on the batch. Another attempt of a packet meets other
        noise, and another fade where the channel's coherence is shorter than the wait; a state of
        `gilbert_elliott` stays.
        """
        ...


@runtime_checkable
class Flat(Protocol):
    """A symbol channel under which each packet meets one known |h|^2, whatever its length.

    Only such a channel is one of instantaneous SNR: an object that fades within a packet, or whose
    receiver errs about h, has no `gains` and is no `Flat`.
    """

    def gains(self, randomness: Streams, timing: Timing) -> Tensor:
        """float32 [N, P]: the |h|^2 that `apply` would use with this randomness and timing."""
        ...


@runtime_checkable
class Piloted(Protocol):
    """A symbol channel that sends pilots, and so occupies more than a packet's data symbols.

    streams: data symbols that one element carries at once, 1 but for several transmit antennas.
    """

    streams: int

    def occupied(self, symbols: int) -> tuple[int, int]:
        """Of a packet of so many data symbols: elements occupied in all, and pilots among them."""
        ...


ONE_GAIN = (
    "use awgn, or rayleigh or rician with coherence packet or picture and csi perfect, or "
    "gilbert_elliott over one of them"
)
"""What `Flat` channels there are, for errors."""

SYMBOL_CHANNELS: Registry[SymbolChannel] = Registry("symbol channel", "sqlink.symbol_channels")
register = SYMBOL_CHANNELS.register


def _noise(shape: torch.Size, randomness: Streams, name: str) -> Tensor:
    """complex64 [N, P, S], E|n|^2 = 1, one stream a packet."""
    links, slots, length = shape
    streams = randomness.child(name).split(slots)
    draws = streams.complex_normal(length, dtype=torch.complex64)
    return draws.reshape(links, slots, length)


def _noise_variance(snr_db: Tensor) -> Tensor:
    """float32 [N, 1, 1] of float64 [N]."""
    return torch.pow(10.0, -snr_db / 10).to(torch.float32)[:, None, None]


@register("awgn")
class Awgn:
    """White Gaussian noise and nothing else: h = 1."""

    name = "awgn"

    def apply(
        self, symbols: Tensor, snr_db: Tensor, randomness: Streams, timing: Timing
    ) -> Observation:
        """Add noise; see `SymbolChannel.apply`."""
        variance = _noise_variance(snr_db).expand(*symbols.shape[:2], 1)
        noisy = symbols + torch.sqrt(variance) * _noise(
            symbols.shape, randomness, timing.draws("noise")
        )
        return Observation(noisy, variance, torch.ones_like(variance[..., 0]))

    def gains(self, randomness: Streams, timing: Timing) -> Tensor:
        """See `Flat.gains`: ones."""
        return torch.ones(timing.picture.shape, dtype=torch.float32, device=timing.picture.device)


def _coherence(owner: str, value: object) -> str | int:
    """`value` as "packet", "picture" or a number of symbols. Raises ConfigError."""
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
    """What flat block-fading channels share: when h changes, and what the receiver knows of it."""

    name = "block_fading"
    streams = 1

    gains: Callable[[Streams, Timing], Tensor]
    """Set where each packet meets one h and the receiver knows it; see `Flat`."""

    occupied: Callable[[int], tuple[int, int]]
    """Set where the receiver needs pilots; see `Piloted`."""

    def __init__(self, coherence: str | int, csi: str, pilots: int) -> None:
        self.coherence = _coherence(self.name, coherence)
        self.csi = choice(self.name, "csi", csi, ("perfect", "estimated"))
        self.pilots = integer(self.name, "pilots", pilots, 1, MOST_PILOTS)
        if self.csi == "estimated":
            self.occupied = self._occupied
        elif isinstance(self.coherence, str):
            self.gains = self._gains

    def apply(
        self, symbols: Tensor, snr_db: Tensor, randomness: Streams, timing: Timing
    ) -> Observation:
        """Fade and add noise; see `SymbolChannel.apply`."""
        length = symbols.shape[2]
        h = self._fades(length, randomness, timing)  # [N, P, blocks]
        variance = _noise_variance(snr_db)
        noise = torch.sqrt(variance) * _noise(symbols.shape, randomness, timing.draws("noise"))
        known, excess = h, 1.0
        if self.csi == "estimated":
            error = _noise(h.shape, randomness, timing.draws("pilots"))
            known = h + torch.sqrt(variance / self.pilots) * error
            excess = 1 + 1 / self.pilots
        h, known = self._over_symbols(h, length), self._over_symbols(known, length)
        seen = (h * symbols + noise) / known
        return Observation(seen, excess * variance / _power(known), _power(h).mean(dim=2))

    def _law(self, scattered: Tensor) -> Tensor:
        """h of complex Gaussian draws, E|h|^2 = 1."""
        raise NotImplementedError

    def _blocks(self, length: int) -> int:
        """Blocks of one h in a packet of so many symbols."""
        return 1 if isinstance(self.coherence, str) else -(-length // self.coherence)

    def _over_symbols(self, blocks: Tensor, length: int) -> Tensor:
        """[N, P, blocks] as [N, P, 1], or [N, P, length] where a packet may have several."""
        if isinstance(self.coherence, str):
            return blocks
        return blocks.repeat_interleave(self.coherence, dim=2)[..., :length]

    def _fades(self, length: int, randomness: Streams, timing: Timing) -> Tensor:
        """complex64 [N, P, blocks]; what comes first needs nothing of what comes later."""
        links, slots = timing.picture.shape
        name = timing.draws("fading")
        if isinstance(self.coherence, int):
            streams = randomness.child(f"{name}:blocks").split(slots)
            blocks = self._blocks(length)
            draws = streams.complex_normal(blocks, dtype=torch.complex64)
            return self._law(draws.reshape(links, slots, blocks))
        if self.coherence == "packet":
            draws = randomness.child(name).complex_normal(slots, dtype=torch.complex64)
            return self._law(draws)[..., None]
        pictures = int(timing.picture.max()) + 1 if timing.picture.numel() else 1
        draws = randomness.child("fading").complex_normal(pictures, dtype=torch.complex64)
        return self._law(draws).gather(1, timing.picture)[..., None]

    def _gains(self, randomness: Streams, timing: Timing) -> Tensor:
        return _power(self._fades(1, randomness, timing))[..., 0]

    def _occupied(self, symbols: int) -> tuple[int, int]:
        pilots = self.pilots * self._blocks(symbols)
        return symbols + pilots, pilots


def _power(h: Tensor) -> Tensor:
    """|h|^2."""
    return h.real.square() + h.imag.square()


@register("rayleigh")
class Rayleigh(_BlockFading):
    """Flat Rayleigh block fading: h is complex Gaussian, E|h|^2 = 1, and constant over a block.

    coherence: "packet", a new h for each packet; "picture", one h for all packets of a picture; or
    an integer, a new h each so many data symbols, counted from each packet's first.
    csi: "perfect", the receiver knows h; or "estimated", by least squares from `pilots` symbols
    (1 to 1000) sent in each packet for each of its blocks, beside the data: then `Piloted`.
    The transmitter knows only the mean SNR. `Flat` where h is perfectly known and does not change
    within a packet. Another attempt meets another h, except under "picture".
    """

    name = "rayleigh"

    def __init__(
        self, coherence: str | int = "packet", csi: str = "perfect", pilots: int = 4
    ) -> None:
        super().__init__(coherence, csi, pilots)

    def _law(self, scattered: Tensor) -> Tensor:
        return scattered


@register("rician")
class Rician(_BlockFading):
    """Flat Rician block fading: a constant line of sight beside what is scattered.

        h = sqrt(K / (K + 1)) + sqrt(1 / (K + 1)) s,  s complex Gaussian, E|s|^2 = E|h|^2 = 1

    k_db: K = 10^(k_db / 10), power of the line of sight over that of the rest, -100 to 100 dB;
    Rayleigh fading for a small K, no fading for a large one. The line of sight has phase 0 always.
    coherence, csi, pilots: as for `rayleigh`, whose draws s are the same.
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

    def _law(self, scattered: Tensor) -> Tensor:
        k = 10 ** (self.k_db / 10)
        return math.sqrt(k / (k + 1)) + math.sqrt(1 / (k + 1)) * scattered


@register("gilbert_elliott")
class GilbertElliott:
    """Attenuation in bursts: a two-state Markov chain that takes a step each packet.

        good ── p ──> bad        share of packets in the bad state: p / (p + r)
        good <── r ── bad        mean stay in the bad state: 1 / r packets

    In the bad state |h|^2 is depth_db (0 to 100) lower than in the good one, as behind an obstacle;
    E|h|^2 = 1, so that the good one lies above the mean. What that loses depends on the code.

    bad: share of packets in the bad state, 0 to burst / (burst + 1). burst: mean packets in a row
    in the bad state, 1 to 10000. over: a symbol channel of one known gain a packet and without such
    states, whose gain is multiplied: a fade in each state. Each link starts from the stationary
    law. Packets' slots count, whether filled or not; another attempt of a packet meets its slot's
    state again. `Flat`.

    Sources: Gilbert, "Capacity of a burst-noise channel", 1960; Elliott, "Estimates of error rates
    for codes on burst-noise channels", 1963; over fading: Lutz, Cygan, Dippold, Dolainsky, Papke,
    "The land mobile satellite communication channel", IEEE Trans. Vehicular Technology, 1991.
    """

    name = "gilbert_elliott"

    def __init__(self, depth_db: float, bad: float, burst: float, over: object = "awgn") -> None:
        self.depth_db = number(self.name, "depth_db", depth_db, 0, 100)
        self.burst = number(self.name, "burst", burst, 1, 10_000)
        self.bad = number(self.name, "bad", bad, 0, self.burst / (self.burst + 1))
        try:
            carrier = from_spec(SYMBOL_CHANNELS, over)
        except ConfigError as error:
            raise ConfigError(f"{self.name}: over: {error}") from None
        if isinstance(carrier, GilbertElliott):
            raise ConfigError(
                f"{self.name}: over={carrier.name} has states already: use awgn, rayleigh or rician"
            )
        if not isinstance(carrier, Flat):
            raise ConfigError(
                f"{self.name}: over={carrier.name} has no single known gain a packet; use awgn, or "
                "rayleigh or rician with coherence packet or picture and csi perfect"
            )
        self.over: Flat = carrier

    @property
    def state_gains(self) -> tuple[float, float]:
        """|h|^2 of the good and of the bad state, on top of what it is over; 1 in the mean."""
        ratio = 10 ** (-self.depth_db / 10)
        good = 1 / (1 - self.bad + self.bad * ratio)
        return good, good * ratio

    def apply(
        self, symbols: Tensor, snr_db: Tensor, randomness: Streams, timing: Timing
    ) -> Observation:
        """Attenuate, fade and add noise; see `SymbolChannel.apply`."""
        gain = self.gains(randomness, timing)[..., None]
        variance = _noise_variance(snr_db) / gain
        noise = torch.sqrt(variance) * _noise(symbols.shape, randomness, timing.draws("noise"))
        return Observation(symbols + noise, variance, gain[..., 0])

    def gains(self, randomness: Streams, timing: Timing) -> Tensor:
        """See `Flat.gains`."""
        draws = randomness.child("state").uniform(timing.picture.shape[1])
        first = draws.new_full((len(draws),), self.bad)
        enter = first / ((1 - first) * self.burst)
        bad = two_states(draws, first, enter, 1 - 1 / self.burst)
        states = torch.tensor(self.state_gains, dtype=torch.float32, device=draws.device)
        return states[bad.long()] * self.over.gains(randomness, timing)


_PATHS = 32
"""Sinusoids of a Jakes process: E|h|^4 is 2 - 1/32 against the Gaussian 2."""

_STRIDE = 64
"""Symbols whose phases are one step's phases times those within it."""

_JAKES_TERMS = 1 << 21
"""Phases held at once."""


@register("jakes")
class Jakes:
    """Flat Rayleigh fading that varies by Doppler: E[h(t) h*(t + tau)] = J0(2 pi f tau).

        h(t) = sum_m exp(j (2 pi f t cos(a_m) + p_m)) / sqrt(M),  a_m = 2 pi (m + u_m) / M

    with M = 32 paths, u_m uniform over [0, 1) and p_m over [0, 2 pi), drawn once a link: isotropic
    scattering (Clarke, Jakes). h is evaluated at absolute time, symbol k of a packet at
    `timing.start_s` + k / symbol_rate_hz, so that it goes on from packet to packet and from attempt
    to attempt; packets that start at one time meet one h. The link above needs the same symbol rate
    to start them one after another.

    doppler_hz: the largest Doppler shift f, 0 to 1e6. symbol_rate_hz: symbols a second, 1 to 1e12.
    The receiver knows h at every symbol. No `Flat`.

    Source: Xiao, Zheng, Beaulieu, "Novel sum-of-sinusoids simulation models for Rayleigh and Rician
    fading channels", IEEE Transactions on Wireless Communications, 2006.
    """

    name = "jakes"

    def __init__(self, doppler_hz: float, symbol_rate_hz: float) -> None:
        self.doppler_hz = number(self.name, "doppler_hz", doppler_hz, 0, 1e6)
        self.symbol_rate_hz = number(self.name, "symbol_rate_hz", symbol_rate_hz, 1, 1e12)

    def apply(
        self, symbols: Tensor, snr_db: Tensor, randomness: Streams, timing: Timing
    ) -> Observation:
        """Fade and add noise; see `SymbolChannel.apply`."""
        h = self._fades(symbols.shape[2], randomness, timing)
        variance = _noise_variance(snr_db)
        noise = torch.sqrt(variance) * _noise(symbols.shape, randomness, timing.draws("noise"))
        gain = _power(h)
        return Observation((h * symbols + noise) / h, variance / gain, gain.mean(dim=2))

    def _fades(self, length: int, randomness: Streams, timing: Timing) -> Tensor:
        """complex64 [N, P, length]."""
        links, slots = timing.start_s.shape
        draws = randomness.child("fading").uniform(2 * _PATHS).reshape(links, 2, _PATHS)
        number_of = torch.arange(_PATHS, dtype=torch.float64, device=draws.device)
        angle = 2 * math.pi * (number_of + draws[:, 0]) / _PATHS
        rate = 2 * math.pi * self.doppler_hz * torch.cos(angle)  # [N, M], radians a second
        phase = 2 * math.pi * draws[:, 1, None] + rate[:, None] * timing.start_s[..., None]

        rate = (rate / self.symbol_rate_hz).repeat_interleave(slots, dim=0)  # [N P, M], a symbol
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
    """exp(j phase)."""
    return torch.polar(torch.ones_like(phase), phase)
