"""References of a channel study: the published laws and bounds that hold for a channel.

They are chosen by the class of a channel and by the exact class of its symbol channel, because a
subclass may follow another law.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch

import numpy as np

from channels import theory
from channels.base import Channel
from channels.fading.base import Flat
from channels.fading.binary import BinaryErasure, BinarySymmetric
from channels.fading.block import Awgn, Rayleigh, Rician
from channels.fading.shadowing import GilbertElliott
from channels.link.adaptive import AdaptiveLink
from channels.link.base import BaseLink
from channels.link.coded import CodedLink
from channels.link.ideal import IdealLink
from channels.link.uncoded import UncodedLink
from channels.packet.delay import Delay
from channels.packet.erasure import GilbertElliott as PacketBursts
from channels.packet.erasure import IidErasure
from channels.packet.queueing import Bottleneck
from experiments.channel_study.curves import Curves, Floats


@dataclass(frozen=True)
class Reference:
    """A reference curve: its name, its values, and whether it is a bound.

    target: whether it is a target of the channel. up_to: the last value at which it is drawn.
    """

    name: str
    values: Callable[[Floats], Floats]
    bound: bool = False
    target: bool = False
    up_to: float = math.inf


@dataclass(frozen=True)
class Fading:
    """A flat symbol channel with a known distribution of its gain: Rician fading in some states.

    states: probability of each state and its gain relative to the mean, dB. k_factor: Rician factor
    in all states, as a ratio; 0: Rayleigh fading, infinity: no fading.
    """

    states: tuple[tuple[float, float], ...]
    k_factor: float

    @classmethod
    def of(cls, over: object) -> Fading | None:
        """Return the fading of a symbol channel; None if its distribution is not known."""
        known = _fading.registry.get(type(over))
        found: Fading | None = None if known is None else known(over)
        return found

    @property
    def none(self) -> bool:
        """Return whether every packet has the mean gain."""
        return len(self.states) == 1 and math.isinf(self.k_factor)

    def mean(self, function: Callable[[Floats, float], Floats], snr_db: Floats) -> Floats:
        """Average a function of SNR in dB and K over the states."""
        parts = [share * function(snr_db + gain, self.k_factor) for share, gain in self.states]
        return np.asarray(sum(parts), dtype=np.float64)


_ONE_STATE = ((1.0, 0.0),)


@singledispatch
def _fading(over: object) -> Fading | None:
    return None


@_fading.register
def _(over: Awgn) -> Fading | None:
    return Fading(_ONE_STATE, math.inf)


@_fading.register
def _(over: Rayleigh) -> Fading | None:
    return Fading(_ONE_STATE, 0.0) if isinstance(over, Flat) else None


@_fading.register
def _(over: Rician) -> Fading | None:
    return Fading(_ONE_STATE, 10 ** (over.k_db / 10)) if isinstance(over, Flat) else None


@_fading.register
def _(over: GilbertElliott) -> Fading | None:
    inner = Fading.of(over.over)
    if inner is None or over.depth_db == 0 or over.bad == 0:
        return inner
    shares = (1 - over.bad, over.bad)
    gains_db = (10 * math.log10(gain) for gain in over.state_gains)
    return Fading(tuple(zip(shares, gains_db, strict=True)), inner.k_factor)


def medium(channel: Channel) -> object:
    """Return the symbol or bit channel under a link; None if the channel is not a link."""
    return channel.over if isinstance(channel, (AdaptiveLink, BaseLink, IdealLink)) else None


def code_of(channel: Channel) -> tuple[str, int, int, int] | None:
    """Return input, information bits and symbols of a code block over symbols, and blocks."""
    if not isinstance(channel, (CodedLink, IdealLink)) or channel.modulation is None:
        return None
    plan, inputs = channel.layout, channel.modulation
    if isinstance(channel, IdealLink) and channel.inputs == theory.GAUSSIAN:
        inputs = theory.GAUSSIAN
    return inputs, plan.k, plan.words * plan.n // channel.bits_per_symbol, plan.blocks


def loss_references(curves: Curves) -> list[Reference]:
    """Return the references of packet loss over the condition; many channels have none."""
    return _loss(curves.channel, curves)


@singledispatch
def _loss(channel: Channel, curves: Curves) -> list[Reference]:
    return []


@_loss.register
def _(channel: PacketBursts, curves: Curves) -> list[Reference]:
    return [Reference("stationary loss", lambda x: np.array([_states(channel, v).loss for v in x]))]


@_loss.register
def _(channel: IidErasure, curves: Curves) -> list[Reference]:
    fixed = channel.loss
    return [Reference("the parameter", lambda x: x if fixed is None else np.full_like(x, fixed))]


@_loss.register
def _(channel: Delay, curves: Curves) -> list[Reference]:
    within = delay_reference(curves)
    deadline = channel.deadline_s
    if within is None or deadline is None or not math.isfinite(deadline):
        return []
    late = 1 - float(within.values(np.array([deadline]))[0])
    return [Reference("P(delay > deadline)", lambda x: np.full_like(x, late))]


@_loss.register
def _(channel: AdaptiveLink, curves: Curves) -> list[Reference]:
    values = channel.target
    return [Reference("target of link adaptation", lambda x: np.full_like(x, values), target=True)]


@_loss.register
def _(channel: UncodedLink, curves: Curves) -> list[Reference]:
    fading, modulation = Fading.of(channel.over), channel.modulation or ""
    if fading is None or not math.isinf(fading.k_factor):
        return []
    bits = 8 * curves.packet_bytes
    return [
        Reference(
            "closed form",
            lambda x: fading.mean(
                lambda at, _: theory.uncoded_packet_error_awgn(modulation, bits, at), x
            ),
        )
    ]


@_loss.register
def _(channel: CodedLink, curves: Curves) -> list[Reference]:
    if channel.harq is not None:
        return []
    fading = Fading.of(channel.over)
    if fading is not None:
        return [_normal(channel, fading, bound=True), _capacity(channel, fading, bound=True)]
    reach = None
    if isinstance(channel.over, (BinarySymmetric, BinaryErasure)):
        erases = isinstance(channel.over, BinaryErasure)
        reach = theory.bec_information if erases else theory.bsc_information
    if reach is None or curves.condition is None:
        return []
    plan = channel.layout
    uses = plan.words * plan.n
    return [
        Reference(
            "normal approximation (best code of this length)",
            lambda x: 1 - (1 - theory.normal_bler(reach(x), plan.k, uses)) ** plan.blocks,
            bound=True,
        )
    ]


@_loss.register
def _(channel: IdealLink, curves: Curves) -> list[Reference]:
    fading = Fading.of(channel.over)
    if fading is None:
        return []
    if channel.law == "capacity":
        return [_capacity(channel, fading, bound=False)]
    return [_normal(channel, fading, bound=False), _capacity(channel, fading, bound=True)]


def _normal(channel: Channel, fading: Fading, bound: bool) -> Reference:
    """Return the loss of the best code of a link's length, by the normal approximation."""
    code = code_of(channel)
    assert code is not None
    inputs, bits, symbols, blocks = code
    return Reference(
        "normal approximation (best code of this length)",
        lambda x: fading.mean(
            lambda at, k: theory.fading_bler(inputs, bits, symbols, at, k, blocks), x
        ),
        bound=bound,
    )


def _capacity(channel: Channel, fading: Fading, bound: bool) -> Reference:
    """Return the loss of a code of infinite length with a link's rate."""
    code = code_of(channel)
    assert code is not None
    inputs, bits, symbols, _ = code
    return Reference(
        "capacity (endless code)" if fading.none else "outage probability",
        lambda x: fading.mean(lambda at, k: theory.outage(inputs, bits / symbols, at, k), x),
        bound=bound,
    )


def _states(channel: PacketBursts, value: float) -> theory.GilbertElliott:
    """Return the two states of a channel of bursts at a value of its condition."""
    if channel.p is not None and channel.r is not None:
        return theory.GilbertElliott(channel.p, channel.r, channel.loss_good, channel.loss_bad)
    loss = value if channel.loss is None else channel.loss
    return theory.GilbertElliott.of(loss, channel.burst)


def bit_references(curves: Curves) -> list[Reference]:
    """Return the closed form of an uncoded link's bit errors over SNR."""
    channel = curves.channel
    fading = Fading.of(medium(channel))
    if fading is None or not isinstance(channel, (BaseLink, IdealLink)):
        return []
    modulation = channel.modulation or ""

    def in_state(snr_db: Floats, k_factor: float) -> Floats:
        return theory.ber_fading(modulation, snr_db, k_factor)

    return [Reference("closed form", lambda x: fading.mean(in_state, x))]


def delay_reference(curves: Curves) -> Reference | None:
    """Return P(delay <= t) of random delays and of Poisson traffic behind a bottleneck."""
    return _delay(curves.channel, curves)


@singledispatch
def _delay(channel: Channel, curves: Curves) -> Reference | None:
    return None


@_delay.register
def _(channel: Delay, curves: Curves) -> Reference | None:
    mean, shape = channel.mean_s, channel.shape
    least, deadline = mean * (shape - 1) / shape, channel.deadline_s

    def within(t: Floats) -> Floats:
        d = np.maximum(t - channel.propagation_s, 0.0)
        if channel.law == "fixed":
            return np.asarray(d >= mean - 1e-12, dtype=np.float64)
        if channel.law == "exponential":
            return np.asarray(-np.expm1(-d / mean))
        return np.asarray(1 - (least / np.maximum(d, least)) ** shape)

    return Reference(f"{channel.law} law", within, up_to=math.inf if deadline is None else deadline)


@_delay.register
def _(channel: Bottleneck, curves: Curves) -> Reference | None:
    poisson = curves.traffic.startswith("Poisson")
    if not poisson or channel.room is not None or math.isfinite(channel.deadline_s):
        return None
    service = 8 * curves.packet_bytes / channel.bandwidth_bits_s
    load = float(curves.traffic.split()[1]) * service
    if load >= 1:
        return None
    return Reference(
        "M/D/1, stationary",
        lambda t: theory.md1_wait_cdf(load, service, t - service - channel.propagation_s),
    )


def run_reference(curves: Curves, value: float | None) -> Reference | None:
    """Return P(a run of losses has more than l packets)."""
    channel = curves.channel
    if isinstance(channel, IidErasure):
        loss = value if channel.loss is None else channel.loss
        return Reference("geometric", lambda x: np.power(float(loss or 0), x))
    if not isinstance(channel, PacketBursts) or value == 0:
        return None
    found = _states(channel, value or 0.0)
    return Reference("two states", lambda x: found.run_exceeds(int(x.max()))[x.astype(int)])
