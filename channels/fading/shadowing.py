"""Shadowing: attenuation in bursts, from a two-state Markov chain over the packets."""

from __future__ import annotations

import torch
from torch import Tensor

from channels.config.builder import from_spec
from channels.config.checks import number
from channels.errors import ConfigError
from channels.fading.base import (
    SYMBOL_CHANNELS,
    Flat,
    Observation,
    Timing,
    complex_noise,
    noise_variance_of,
    register,
)
from channels.random import Randomness
from channels.two_state import two_states


@register("gilbert_elliott")
class GilbertElliott:
    """Attenuation in bursts: a two-state Markov chain with one step per packet.

        good ── p ──> bad        share of packets in the bad state: p / (p + r)
        good <── r ── bad        mean stay in the bad state: 1 / r packets

    In the bad state |h|^2 is depth_db (0 to 100) lower than in the good state, as behind an
    obstacle. E|h|^2 = 1, so |h|^2 is above 1 in the good state. The share of lost packets depends
    on the code.

    bad: share of packets in the bad state, 0 to burst / (burst + 1). burst: mean number of
    consecutive packets in the bad state, 1 to 10000. over: a symbol channel with one known gain per
    packet (`Flat`) and no states of its own; its gain is multiplied by the gain of the state. Each
    link starts from the stationary distribution. The chain makes a step for every slot, also for an
    empty one. Another attempt of a packet has the state of the same slot. The channel is `Flat`.

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
                f"{self.name}: over={carrier.name} has no single known gain per packet: use awgn, "
                "or rayleigh or rician with coherence packet or picture and csi perfect"
            )
        self.over: Flat = carrier

    @property
    def state_gains(self) -> tuple[float, float]:
        """|h|^2 of the good and of the bad state, relative to `over`; the mean is 1."""
        ratio = 10 ** (-self.depth_db / 10)
        good = 1 / (1 - self.bad + self.bad * ratio)
        return good, good * ratio

    def apply(
        self, symbols: Tensor, snr_db: Tensor, randomness: Randomness, timing: Timing
    ) -> Observation:
        """Attenuate, fade and add noise; see `SymbolChannel.apply`."""
        gain = self.gains(randomness, timing)[..., None]
        variance = noise_variance_of(snr_db) / gain
        noise = torch.sqrt(variance) * complex_noise(
            symbols.shape, randomness, timing.draws("noise")
        )
        return Observation(symbols + noise, variance, gain[..., 0])

    def gains(self, randomness: Randomness, timing: Timing) -> Tensor:
        """Return the state's gain times that of `over`; see `Flat.gains`."""
        draws = randomness.child("state").uniform(timing.group.shape[1])
        first = draws.new_full((len(draws),), self.bad)
        enter = first / ((1 - first) * self.burst)
        bad = two_states(draws, first, enter, 1 - 1 / self.burst)
        states = torch.tensor(self.state_gains, dtype=torch.float32, device=draws.device)
        return states[bad.long()] * self.over.gains(randomness, timing)
