"""Closed-form error rates, bounds and distributions, as references for channels.

    bit errors     Gray QAM on AWGN and under Rician fading     Cho and Yoon 2002; Craig 1991
    information    AWGN, QAM, binary input, BSC, BEC            Shannon 1948
    finite length  normal approximation and its inverses        Polyanskiy, Poor, Verdu 2010
    outage         block fading with Rician gain                Ozarow, Shamai, Wyner 1994
    packets        Gilbert-Elliott runs; the M/D/1 queue        Gilbert 1960; Franx 2001
    fading         J0(2 pi f tau)                               Clarke 1968; Jakes 1974

SNR is Es/N0 per complex symbol in dB; under fading it is the mean, with E|h|^2 = 1. Eb/N0 is named
so. K is the Rician factor as a ratio: 0 is Rayleigh fading, infinity is no fading. Arguments
broadcast as NumPy arrays do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import chndtr, erfc, gammaln, j0, ndtr, ndtri

from channels.fec.qam import BITS_PER_SYMBOL

Floats = NDArray[np.float64]

GAUSSIAN = "gaussian"
"""Name of the Gaussian input, which achieves capacity on AWGN, in place of a modulation."""

_ANGLES = (np.arange(256) + 0.5) * math.pi / 512
_NODES = np.arange(-9.0, 9.05, 0.1)
"""Noise in standard deviations. For an integrand that decays as a Gaussian, the sum over these
equal steps differs from the integral by less than 1e-13."""
_DENSITY = np.exp(-(_NODES**2) / 2) * 0.1 / math.sqrt(2 * math.pi)
_SNRS_AT_ONCE = 64


def from_db(decibels: ArrayLike) -> Floats:
    """Return 10^(dB / 10)."""
    return np.power(10.0, np.asarray(decibels, dtype=np.float64) / 10)


def qpsk_ber_awgn(ebno_db: float) -> float:
    """Return Q(sqrt(2 Eb/N0)), the bit error rate of BPSK and QPSK on AWGN.

    >>> round(qpsk_ber_awgn(0.0), 6)
    0.07865
    """
    return 0.5 * math.erfc(math.sqrt(10 ** (ebno_db / 10)))


def qpsk_ber_rayleigh(ebno_db: float) -> float:
    """Return (1 - sqrt(g / (1 + g))) / 2 for a mean Eb/N0 of g: QPSK, flat Rayleigh fading."""
    mean = 10 ** (ebno_db / 10)
    return 0.5 * (1 - math.sqrt(mean / (1 + mean)))


def _gray_terms(modulation: str) -> list[tuple[float, float]]:
    """Return pairs (weight, a): the bit error rate is the sum of weight erfc(sqrt(a Es/N0)).

    Cho and Yoon, "On the general BER expression of one- and two-dimensional amplitude modulations",
    IEEE Trans. Commun. 50(7), 2002, equations 14 and 16, with I = J.
    """
    if modulation == "bpsk":
        return [(0.5, 1.0)]
    bits = BITS_PER_SYMBOL[modulation] // 2
    levels = 1 << bits
    scale = 3 / (2 * (levels**2 - 1))
    terms = []
    for k in range(1, bits + 1):
        for i in range(levels - (levels >> k)):
            turn = (i << (k - 1)) // levels
            weight = (1 << (k - 1)) - math.floor((i << (k - 1)) / levels + 0.5)
            terms.append(((-1) ** turn * weight / (levels * bits), scale * (2 * i + 1) ** 2))
    return terms


def ber_awgn(modulation: str, snr_db: ArrayLike) -> Floats:
    """Return the bit error rate of Gray BPSK or square QAM on AWGN with hard decisions.

    modulation: bpsk, qpsk, 16qam, 64qam, 256qam. It is exact, with all error events and all bits
    (Cho and Yoon 2002).

    >>> float(ber_awgn("qpsk", 10 * math.log10(2)).round(6))
    0.07865
    """
    snr = from_db(snr_db)
    total = sum(weight * erfc(np.sqrt(a * snr)) for weight, a in _gray_terms(modulation))
    return np.asarray(total, dtype=np.float64)


def ber_fading(modulation: str, snr_db: ArrayLike, k_factor: float = 0.0) -> Floats:
    """Return the bit error rate of Gray BPSK or square QAM under flat Rician fading with h known.

    The terms of `ber_awgn` are averaged over the gain: in closed form for K = 0 (Rayleigh; Proakis,
    14-3-7), else by Craig's integral of the moment generating function of |h|^2 over a finite angle
    (Simon and Alouini, "Digital communication over fading channels", 2005, 5.1 and table 5.1).
    """
    snr = from_db(snr_db)
    if math.isinf(k_factor):
        return ber_awgn(modulation, snr_db)
    total = np.zeros_like(snr)
    for weight, a in _gray_terms(modulation):
        mean = a * snr
        if k_factor == 0:
            total = total + weight * (1 - np.sqrt(mean / (1 + mean)))
        else:
            s = mean[..., None] / np.sin(_ANGLES) ** 2
            spread = 1 + k_factor + s
            moments = (1 + k_factor) / spread * np.exp(-k_factor * s / spread)
            total = total + weight * moments.mean(axis=-1)
    return np.asarray(total, dtype=np.float64)


def symbol_error_awgn(modulation: str, snr_db: ArrayLike) -> Floats:
    """Return the symbol error rate of BPSK and square QAM on AWGN (Proakis, 5-2-78 and 5-2-79)."""
    if modulation == "bpsk":
        return ber_awgn(modulation, snr_db)
    levels = 1 << BITS_PER_SYMBOL[modulation] // 2
    wrong = (1 - 1 / levels) * erfc(np.sqrt(3 * from_db(snr_db) / (2 * (levels**2 - 1))))
    return np.asarray(1 - (1 - wrong) ** 2, dtype=np.float64)


def uncoded_packet_error_awgn(modulation: str, bits: int, snr_db: ArrayLike) -> Floats:
    """Return the packet error rate of `bits` uncoded bits on AWGN, in whole symbols."""
    symbols = -(-bits // BITS_PER_SYMBOL[modulation])
    right = np.log1p(-symbol_error_awgn(modulation, snr_db))
    return np.asarray(-np.expm1(symbols * right), dtype=np.float64)


@dataclass(frozen=True)
class Information:
    """The mean and the variance of the information density of one channel use, bits and bits^2.

    mean: the mutual information; with the best input, the capacity. variance: the dispersion.
    reals: number of real dimensions of a use, 1 or 2, for the third-order term (1/2) log2(reals n);
    0 if there is no such term (BEC).
    """

    mean: Floats
    variance: Floats
    reals: int


def awgn_information(snr_db: ArrayLike) -> Information:
    """Return log2(1 + g) and g (g + 2) / (g + 1)^2 log2(e)^2: complex AWGN, Gaussian input.

    The dispersion is twice that of real AWGN (Polyanskiy, Poor, Verdu 2010, theorem 54).

    >>> float(awgn_information(0.0).mean)
    1.0
    """
    snr = from_db(snr_db)
    variance = snr * (snr + 2) / (snr + 1) ** 2 * math.log2(math.e) ** 2
    return Information(np.log1p(snr) / math.log(2), np.asarray(variance), 2)


def _pam_information(levels: int, snr: Floats) -> tuple[Floats, Floats]:
    """Return mean and variance of one real dimension with equally likely, equidistant levels.

    snr: E x^2 / E n^2, [S].
    i(x; y) = log2 M - log2 sum_j exp(-((x - x_j)^2 + 2 z (x - x_j)) / 2) for unit noise z.
    """
    means, variances = [], []
    for part in np.array_split(snr, max(1, -(-len(snr) // _SNRS_AT_ONCE))):
        spacing = np.sqrt(12 * part / (levels**2 - 1))[:, None, None, None]
        sent = np.arange(levels // 2)[:, None, None]  # the other half is symmetric
        apart = (sent - np.arange(levels)[None, :, None]) * spacing  # [S, M/2, M, 1]
        exponent = -(apart**2 + 2 * apart * _NODES) / 2  # [S, M/2, M, Z]
        most = exponent.max(axis=2, keepdims=True)
        total = np.log(np.exp(exponent - most).sum(axis=2)) + most[:, :, 0]
        density = (math.log(levels) - total) / math.log(2)  # [S, M/2, Z]
        mean = (density @ _DENSITY).mean(axis=1)
        square = ((density - mean[:, None, None]) ** 2 @ _DENSITY).mean(axis=1)
        means.append(mean)
        variances.append(square)
    return np.concatenate(means), np.concatenate(variances)


def qam_information(modulation: str, snr_db: ArrayLike) -> Information:
    """Return the information of AWGN with equally likely points of BPSK or square QAM.

    modulation: also "gaussian", for a Gaussian input. Square QAM has two independent real
    dimensions. The variance is that of i(X; Y) with independent inputs. Source: Ungerboeck,
    "Channel coding with multilevel/phase signals", 1982, equation 5.

    >>> float(qam_information("16qam", 60.0).mean.round(6))
    4.0
    """
    if modulation == GAUSSIAN:
        return awgn_information(snr_db)
    snr = from_db(snr_db)
    if modulation == "bpsk":
        mean, variance = _pam_information(2, 2 * snr.ravel())
        return Information(mean.reshape(snr.shape), variance.reshape(snr.shape), 1)
    levels = 1 << BITS_PER_SYMBOL[modulation] // 2
    mean, variance = _pam_information(levels, snr.ravel())
    return Information(2 * mean.reshape(snr.shape), 2 * variance.reshape(snr.shape), 2)


def bi_awgn_information(snr_db: ArrayLike) -> Information:
    """Return the information of real AWGN with inputs +1 and -1, one dimension of QPSK.

    The SNR is that of QPSK, so Eb/N0 of a code of rate R is the SNR minus 10 log10(2 R) dB.
    """
    both = qam_information("qpsk", snr_db)
    return Information(both.mean / 2, both.variance / 2, 1)


def bsc_information(flip: ArrayLike) -> Information:
    """Return 1 - h(p) and p (1 - p) log2((1 - p) / p)^2: binary symmetric channel (theorem 52).

    >>> float(bsc_information(0.11).mean.round(3))
    0.5
    """
    p = np.asarray(flip, dtype=np.float64)
    inside = (p > 0) & (p < 1)
    q = np.where(inside, p, 0.5)
    entropy = np.where(inside, -(q * np.log2(q) + (1 - q) * np.log2(1 - q)), 0.0)
    variance = np.where(inside, q * (1 - q) * np.log2((1 - q) / q) ** 2, 0.0)
    return Information(1 - entropy, variance, 1)


def bec_information(erasure: ArrayLike) -> Information:
    """Return 1 - e and e (1 - e): binary erasure channel, without third-order term (theorem 53)."""
    e = np.asarray(erasure, dtype=np.float64)
    return Information(1 - e, e * (1 - e), 0)


def _third_order(information: Information, uses: ArrayLike) -> Floats:
    """Return the third-order term, (1/2) log2 of the number of real dimensions, bits."""
    n = np.asarray(uses, dtype=np.float64)
    if information.reals == 0:
        return np.zeros_like(n)
    return np.asarray(0.5 * np.log2(information.reals * n))


def normal_bler(information: Information, bits: ArrayLike, uses: ArrayLike) -> Floats:
    """Return the block error rate of the best code, by the normal approximation.

    Q((n C - k + (1/2) log2 n) / sqrt(n V)): Polyanskiy, Poor, Verdu, "Channel coding rate in the
    finite blocklength regime", IEEE Trans. Inf. Theory 56(5), 2010, equation 296. It is
    accurate from some hundred uses on. bits: k, with a CRC. uses: n.
    """
    n = np.asarray(uses, dtype=np.float64)
    margin = n * information.mean - np.asarray(bits) + _third_order(information, n)
    spread = np.sqrt(n * information.variance)
    sure = np.where(margin >= 0, np.inf, -np.inf)
    certain = spread < 1e-9
    return np.asarray(ndtr(-np.where(certain, sure, margin / np.where(certain, 1.0, spread))))


def normal_rate(information: Information, uses: ArrayLike, bler: ArrayLike) -> Floats:
    """Return the bits per use of the best code of n uses at a block error rate (inverse in k)."""
    n = np.asarray(uses, dtype=np.float64)
    quantile = ndtri(np.asarray(bler, dtype=np.float64))
    bits = n * information.mean + np.sqrt(n * information.variance) * quantile
    return np.asarray(np.maximum(bits + _third_order(information, n), 0.0) / n)


def normal_snr_db(modulation: str, bits: int, symbols: int, bler: float) -> float:
    """Return the Es/N0 in dB at which the best code has the block error rate `bler`.

    The code carries `bits` bits in `symbols` symbols. modulation: bpsk, qpsk, 16qam, 64qam, 256qam
    or gaussian. Raises ValueError if the modulation cannot carry so many bits, or if bler is not
    above 0 and below 1.

    >>> round(normal_snr_db("qpsk", 1000, 1000, 1e-2), 2)  # rate 1/2: Eb/N0 is Es/N0
    0.7
    """
    if not 0 < bler < 1:
        raise ValueError(f"bler={bler} must be above 0 and below 1")
    return _snr_where(
        lambda snr_db: (
            bler - float(normal_bler(qam_information(modulation, snr_db), bits, symbols))
        ),
        f"{bits} bits in {symbols} symbols of {modulation}",
    )


def snr_db_for(modulation: str, bits_per_symbol: float) -> float:
    """Return the Es/N0 in dB at which the mutual information is `bits_per_symbol`.

    This is Shannon's limit. Raises ValueError if the modulation cannot carry so many bits.

    >>> round(snr_db_for("qpsk", 1.0), 3)  # rate 1/2: Eb/N0 is Es/N0
    0.187
    """
    return _snr_where(
        lambda snr_db: float(qam_information(modulation, snr_db).mean) - bits_per_symbol,
        f"{bits_per_symbol} bits per symbol of {modulation}",
    )


def _snr_where(rises: Callable[[float], float], what: str) -> float:
    """Return the zero of a rising function of the SNR in dB. Raises ValueError if there is none."""
    low, high = -60.0, 100.0
    if not rises(low) < 0 < rises(high):
        raise ValueError(f"no SNR from {low:g} to {high:g} dB carries {what}")
    return float(brentq(rises, low, high, xtol=1e-9))


def gain_cdf(gain: ArrayLike, k_factor: float = 0.0) -> Floats:
    """Return P(|h|^2 <= gain) under Rician fading with E|h|^2 = 1.

    The distribution is noncentral chi-squared with 2 degrees of freedom.
    """
    g = np.asarray(gain, dtype=np.float64)
    if k_factor == 0:
        return np.asarray(-np.expm1(-g))
    if math.isinf(k_factor):
        return np.asarray(g >= 1, dtype=np.float64)
    return np.asarray(chndtr(2 * (1 + k_factor) * g, 2, 2 * k_factor))


def outage(
    modulation: str, bits_per_symbol: float, snr_db: ArrayLike, k_factor: float = 0.0
) -> Floats:
    """Return P(mutual information < bits per symbol) with |h|^2 constant over the block.

    Ozarow, Shamai, Wyner, "Information theoretic considerations for cellular mobile radio", 1994.

    >>> float(outage("gaussian", 1.0, 10.0).round(6))  # 1 - exp(-(2^1 - 1) / 10)
    0.095163
    """
    if modulation == GAUSSIAN:
        needed = 2.0**bits_per_symbol - 1
    else:
        needed = float(from_db(snr_db_for(modulation, bits_per_symbol)))
    return gain_cdf(needed / from_db(snr_db), k_factor)


def fading_bler(
    modulation: str,
    bits: int,
    symbols: int,
    snr_db: ArrayLike,
    k_factor: float = 0.0,
    blocks: int = 1,
) -> Floats:
    """Return the error rate of a packet of `blocks` blocks under block fading.

    All blocks have the same gain, and the normal approximation is averaged over the gain.

    Yang, Durisi, Koch, Polyanskiy, "Quasi-static multiple-antenna fading channels at finite
    blocklength", IEEE Trans. Inf. Theory 60(7), 2014, equation 59. Infinite K: AWGN.
    """

    def lost(at_db: Floats) -> Floats:
        one = normal_bler(qam_information(modulation, at_db), bits, symbols)
        return np.asarray(1 - (1 - one) ** blocks)

    mean_db = np.asarray(snr_db, dtype=np.float64)
    if math.isinf(k_factor):
        return lost(mean_db)
    edges = np.linspace(-60, 15, 1501)
    weights = np.diff(gain_cdf(from_db(edges), k_factor), prepend=0.0)
    weights[-1] += 1 - weights.sum()
    centres = np.concatenate([edges[:1], (edges[1:] + edges[:-1]) / 2])
    grid = np.arange(mean_db.min() - 60.1, mean_db.max() + 15.1, 0.02)
    table = lost(grid)
    at = np.interp(mean_db[..., None] + centres, grid, table)
    return np.asarray(at @ weights)


@dataclass(frozen=True)
class GilbertElliott:
    """A two-state Markov process of losses (Gilbert 1960; Elliott 1963).

    enter, leave: P(good -> bad) and P(bad -> good) from one packet to the next. good_loss,
    bad_loss: loss probability in each state.

    >>> chain = GilbertElliott.of(loss=0.1, burst=4)
    >>> round(chain.loss, 12), round(chain.mean_run, 12)
    (0.1, 4.0)
    """

    enter: float
    leave: float
    good_loss: float = 0.0
    bad_loss: float = 1.0

    @classmethod
    def of(cls, loss: float, burst: float) -> GilbertElliott:
        """Make a process from its loss rate and its mean run of losses, in packets.

        The bad state loses every packet, and the good state none.
        """
        return cls(loss / ((1 - loss) * burst), 1 / burst)

    @property
    def bad(self) -> float:
        """Return the stationary probability of the bad state."""
        total = self.enter + self.leave
        return self.enter / total if total > 0 else 0.0

    @property
    def loss(self) -> float:
        """Return the stationary loss rate."""
        return (1 - self.bad) * self.good_loss + self.bad * self.bad_loss

    def _run(self) -> tuple[Floats, Floats]:
        """Return the state distribution at the start of a run, [2], and a step in a run, [2, 2]."""
        step = np.array([[1 - self.enter, self.enter], [self.leave, 1 - self.leave]])
        lost = np.array([self.good_loss, self.bad_loss])
        stationary = np.array([1 - self.bad, self.bad])
        return (stationary * (1 - lost)) @ step * lost, step * lost

    def run_exceeds(self, length: int) -> Floats:
        """Return P(a run of losses has more than l packets), l = 0 .. length, [length + 1]."""
        start, step = self._run()
        start = start / start.sum()
        exceeds = []
        for _ in range(length + 1):
            exceeds.append(start.sum())
            start = start @ step
        return np.array(exceeds)

    def run_lengths(self, length: int) -> Floats:
        """Return P(a run of losses has l packets), l = 1 .. length, [length]."""
        return -np.diff(self.run_exceeds(length))

    @property
    def mean_run(self) -> float:
        """Return the mean length of a run of losses, in packets."""
        start, _ = self._run()
        return self.loss / float(start.sum()) if start.sum() > 0 else math.inf


def md1_mean_wait(load: float, service: float) -> float:
    """Return the mean wait before service in the M/D/1 queue, in the unit of `service`.

    Arrivals are Poisson, and the service time is fixed. Pollaczek and Khinchine: load service / (2
    (1 - load)), load below 1.
    """
    return load * service / (2 * (1 - load))


def md1_wait_cdf(load: float, service: float, wait: ArrayLike) -> Floats:
    """Return P(wait before service <= `wait`) in the M/D/1 queue, load below 1.

    Erlang 1909 in the form without cancellation of Franx, "A simple solution for the M/D/c waiting
    time distribution", 2001; queue lengths by level crossing, all terms positive.

    >>> float(md1_wait_cdf(0.8, 1.0, 0.0).round(12))
    0.2
    """
    waits = np.atleast_1d(np.asarray(wait, dtype=np.float64)) / service
    steps = np.floor(np.maximum(waits, 0)).astype(np.int64) + 1  # (k - 1) D <= wait < k D
    count = int(steps.max()) + 1
    number = np.arange(count + 1)
    arrivals = np.exp(number * math.log(load) - load - gammaln(number + 1)) if load > 0 else None
    if arrivals is None:
        return np.reshape((waits >= 0).astype(np.float64), np.shape(wait))
    more = 1 - np.cumsum(arrivals)  # P(arrivals in a service > i)
    states = [1 - load]
    for i in range(count):
        inflow = states[0] * more[i] + sum(states[j] * more[i + 1 - j] for j in range(1, i + 1))
        states.append(inflow / arrivals[0])
    waiting = np.cumsum(states)[1:]  # P(at most i packets wait)
    values = []
    for at, k in zip(waits, steps, strict=True):
        rest = load * (k - at)
        j = np.arange(k)
        terms = np.exp(j * math.log(rest) - rest - gammaln(j + 1))
        values.append(float(terms @ waiting[k - 1 - j]) if at >= 0 else 0.0)
    return np.reshape(np.array(values), np.shape(wait))


def jakes_autocorrelation(doppler_hz: float, lag_s: ArrayLike) -> Floats:
    """Return E[h(t) h*(t + lag)] of isotropic scattering, J0(2 pi f lag).

    Sources: Clarke 1968; Jakes 1974.
    """
    return np.asarray(j0(2 * math.pi * doppler_hz * np.asarray(lag_s, dtype=np.float64)))
