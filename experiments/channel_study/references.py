"""References for a channel study: the published law or bound that holds for a channel."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from channels import theory
from channels.base import Channel
from channels.fading.base import Flat
from channels.fading.block import Awgn, Rayleigh, Rician
from channels.fading.shadowing import GilbertElliott
from experiments.channel_study.curves import Curves, Floats


@dataclass(frozen=True)
class Law:
    """A line to draw beside what was counted: its name, its values, and whether it only bounds.

    aim: it is what a channel strives for, and says nothing of what it reaches.
    """

    name: str
    values: Callable[[Floats], Floats]
    bound: bool = False
    aim: bool = False


@dataclass(frozen=True)
class Fading:
    """A flat symbol channel with a known law: Rician fading in each of a few states.

    states: probability of each and its gain over the mean, dB. k_factor: of the fading in all of
    them, as a ratio; 0: Rayleigh fading, infinite: none.
    """

    states: tuple[tuple[float, float], ...]
    k_factor: float

    @classmethod
    def of(cls, over: object) -> Fading | None:
        """None for a channel without such a law."""
        kind = type(over)
        if isinstance(over, GilbertElliott):
            inner = cls.of(over.over)
            if inner is None or over.depth_db == 0 or over.bad == 0:
                return inner
            shares = (1 - over.bad, over.bad)
            gains_db = (10 * math.log10(gain) for gain in over.state_gains)
            return cls(tuple(zip(shares, gains_db, strict=True)), inner.k_factor)
        one_state = ((1.0, 0.0),)
        if kind is Awgn:
            return cls(one_state, math.inf)
        if kind is Rayleigh and isinstance(over, Flat):
            return cls(one_state, 0.0)
        if kind is Rician and isinstance(over, Rician) and isinstance(over, Flat):
            return cls(one_state, 10 ** (over.k_db / 10))
        return None

    @property
    def none(self) -> bool:
        """Whether every packet meets the mean."""
        return len(self.states) == 1 and math.isinf(self.k_factor)

    def mean(self, law: Callable[[Floats, float], Floats], snr_db: Floats) -> Floats:
        """Of a law of SNR in dB and K, over the states."""
        parts = [share * law(snr_db + gain, self.k_factor) for share, gain in self.states]
        return np.asarray(sum(parts), dtype=np.float64)


def code_of(channel: Channel) -> tuple[str, int, int, int] | None:
    """Input, information bits and symbols of a code block over symbols, and blocks."""
    plan, modulation = getattr(channel, "layout", None), getattr(channel, "modulation", None)
    if plan is None or modulation is None:
        return None
    symbols = plan.words * plan.n // int(getattr(channel, "bits_per_symbol", 1))
    inputs = theory.GAUSSIAN if getattr(channel, "inputs", "") == theory.GAUSSIAN else modulation
    return inputs, plan.k, symbols, plan.blocks


def loss_laws(curves: Curves) -> list[Law]:
    """What packet loss is held against, over the condition; of a few channels alone."""
    channel = curves.channel
    chain = states_of(channel)
    if chain is not None:
        return [Law("stationary loss", lambda x: np.array([chain(v).loss for v in x]))]
    if channel.name == "iid_erasure":
        fixed = getattr(channel, "loss", None)
        return [Law("the parameter", lambda x: x if fixed is None else np.full_like(x, fixed))]
    deadline = getattr(channel, "deadline_s", None)
    within = delay_law(curves)
    if deadline is not None and math.isfinite(deadline) and within is not None:
        late = 1 - float(within.values(np.array([deadline]))[0])
        return [Law("P(delay > deadline)", lambda x: np.full_like(x, late))]
    if channel.name == "adaptive":
        target = float(getattr(channel, "target", math.nan))
        return [Law("target of link adaptation", lambda x: np.full_like(x, target), aim=True)]
    over = getattr(channel, "over", None)
    if getattr(channel, "harq", None) is not None:
        return []
    fading, code = Fading.of(over), code_of(channel)
    if channel.name == "uncoded" and fading is not None and math.isinf(fading.k_factor):
        modulation, bits = str(getattr(channel, "modulation", "")), 8 * curves.packet_bytes
        return [
            Law(
                "closed form",
                lambda x: fading.mean(
                    lambda at, _: theory.uncoded_packet_error_awgn(modulation, bits, at), x
                ),
            )
        ]
    if code is not None and fading is not None:
        inputs, bits, symbols, blocks = code
        laws = []
        if getattr(channel, "law", "finite_length") == "finite_length":
            laws.append(
                Law(
                    "normal approximation (best code of this length)",
                    lambda x: fading.mean(
                        lambda at, k: theory.fading_bler(inputs, bits, symbols, at, k, blocks), x
                    ),
                    bound=channel.name != "ideal",
                )
            )
        exact = channel.name == "ideal" and not laws
        laws.append(
            Law(
                "capacity (endless code)" if fading.none else "outage probability",
                lambda x: fading.mean(
                    lambda at, k: theory.outage(inputs, bits / symbols, at, k), x
                ),
                bound=not exact,
            )
        )
        return laws
    plan, name = getattr(channel, "layout", None), getattr(over, "name", "")
    reach = {"bsc": theory.bsc_information, "bec": theory.bec_information}.get(name)
    if plan is not None and reach is not None and curves.condition is not None:
        uses = plan.words * plan.n
        return [
            Law(
                "normal approximation (best code of this length)",
                lambda x: 1 - (1 - theory.normal_bler(reach(x), plan.k, uses)) ** plan.blocks,
                bound=True,
            )
        ]
    return []


def states_of(channel: Channel) -> Callable[[float], theory.GilbertElliott] | None:
    """The two states of a Gilbert-Elliott channel at a value of its condition."""
    if channel.name != "gilbert_elliott":
        return None
    own: Any = channel
    if own.p is not None and own.r is not None:
        chain = theory.GilbertElliott(own.p, own.r, own.loss_good, own.loss_bad)
        return lambda loss: chain
    fixed = own.loss
    return lambda loss: theory.GilbertElliott.of(loss if fixed is None else fixed, own.burst)


def bit_laws(curves: Curves) -> list[Law]:
    """The closed form of an uncoded link's bit errors over SNR."""
    fading = Fading.of(getattr(curves.channel, "over", None))
    modulation = str(getattr(curves.channel, "modulation", ""))
    if fading is None:
        return []

    def in_state(snr_db: Floats, k_factor: float) -> Floats:
        return theory.ber_fading(modulation, snr_db, k_factor)

    return [Law("closed form", lambda x: fading.mean(in_state, x))]


def delay_law(curves: Curves) -> Law | None:
    """P(delay <= t) where it is known: random delays, and Poisson traffic behind a bottleneck."""
    own: Any = curves.channel
    if own.name == "delay":
        mean, least = own.mean_s, own.mean_s * (own.shape - 1) / own.shape

        def within(t: Floats) -> Floats:
            d = np.maximum(t - own.propagation_s, 0.0)
            if own.law == "fixed":
                return np.asarray(d >= mean - 1e-12, dtype=np.float64)
            if own.law == "exponential":
                return np.asarray(-np.expm1(-d / mean))
            return np.asarray(1 - (least / np.maximum(d, least)) ** own.shape)

        return Law(f"{own.law} law", within)
    poisson = curves.traffic.startswith("Poisson")
    if own.name == "bottleneck" and poisson and own.room is None and math.isinf(own.deadline_s):
        service = 8 * curves.packet_bytes / own.bandwidth_bits_s
        load = float(curves.traffic.split()[1]) * service
        if load < 1:
            return Law(
                "M/D/1, stationary",
                lambda t: theory.md1_wait_cdf(load, service, t - service - own.propagation_s),
            )
    return None


def run_law(curves: Curves, value: float | None) -> Law | None:
    """P(a run of losses has more than l packets)."""
    chain = states_of(curves.channel)
    if curves.channel.name == "iid_erasure":
        fixed: Any = getattr(curves.channel, "loss", None)
        loss = value if fixed is None else fixed
        return Law("geometric", lambda x: np.power(float(loss or 0), x))
    if chain is None or (value is not None and value == 0):
        return None
    found = chain(0.0 if value is None else value)
    return Law("two states", lambda x: found.run_exceeds(int(x.max()))[x.astype(int)])
