"""Comparison of every channel model with an independent reference.

    python -m channels.validation.against_theory [--full] [--seed S] [--out TABLE.md]

The output is a table in Markdown: the expected value, the measured value, the number of trials, and
a confidence interval. The confidence of all intervals together is 99 % (Bonferroni over the rows);
they are Clopper-Pearson intervals for proportions and normal intervals for means. A row is OUTSIDE
if its interval does not contain the expected value, and the exit status is then 1. A reduced run
takes seconds. `--full` takes minutes and counts at least a hundred errors for each rate that is
compared with a closed form.

To add a check, write a function that yields rows and add it to ROWS.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from channels import theory
from channels.base import Channel, Packets, Reception
from channels.config import builder
from channels.config.builder import from_spec
from channels.fading.base import SYMBOL_CHANNELS, Timing
from channels.fading.binary import BIT_CHANNELS
from channels.random import Randomness
from channels.validation.error_rates import PUBLISHED, Proportion, bit_errors, block_errors

CONFIDENCE = 0.99
"""Confidence of all rows together."""

ERRORS = 150
"""Expected number of errors of each point in a full run."""

PUBLISHED_DB = 0.15
"""Largest accepted distance from a published curve, dB; decoders differ."""

_MOST = 2_000_000
_PACKETS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Mean:
    """The mean of many independent numbers, with a normal interval (central limit theorem)."""

    rate: float
    deviation: float
    trials: int

    @classmethod
    def of(cls, values: Tensor) -> Mean:
        """Return the mean of values, float [n]."""
        return cls(float(values.double().mean()), float(values.double().std()), values.numel())

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the normal confidence interval."""
        from scipy.special import ndtri

        half = float(ndtri((1 + confidence) / 2)) * self.deviation / math.sqrt(self.trials)
        return self.rate - half, self.rate + half


@dataclass(frozen=True)
class Row:
    """One comparison.

    model: the channel and its parameters. quantity: what is measured. reference: source of the
    expected value. expected: the value, or an allowed range (low, high). found: the measurement.
    """

    model: str
    quantity: str
    reference: str
    expected: float | tuple[float, float]
    found: Proportion | Mean

    @property
    def allowed(self) -> tuple[float, float]:
        """Return the lowest and the highest value that the reference allows."""
        if isinstance(self.expected, tuple):
            return self.expected
        return self.expected, self.expected

    def holds(self, confidence: float) -> bool:
        """Return whether the confidence interval meets the range that the reference allows."""
        low, high = self.found.interval(confidence)
        least, most = self.allowed
        return low <= most and least <= high


@dataclass(frozen=True)
class Size:
    """The size of a run: full or reduced."""

    full: bool
    seed: int = 0

    def trials(self, expected: float, reduced: int) -> int:
        """Return the number of trials for a proportion with an expected value."""
        if not self.full:
            return reduced
        return min(_MOST, max(reduced, math.ceil(ERRORS / min(expected, 1 - expected))))

    def pick(self, full: int, reduced: int) -> int:
        return full if self.full else reduced

    def streams(self, name: str, links: int) -> Randomness:
        return Randomness.derive(self.seed, [("validate", name)]).split(links)


Rows = Callable[[Size], Iterator[Row]]


def _packets(links: int, slots: int, size: int = 1, offered_s: Tensor | None = None) -> Packets:
    shape = (links, slots)
    return Packets(
        torch.ones(*shape, size, dtype=torch.uint8),
        torch.full(shape, size),
        torch.arange(slots).expand(shape),
        offered_s,
    )


def _send(
    channel: Channel, name: str, size: Size, links: int, slots: int, packet_bytes: int = 1
) -> Iterator[Reception]:
    """Send packets over links in parts, over a channel that reads no condition."""
    streams = size.streams(name, links)
    step = max(1, _PACKETS_AT_ONCE // (slots * packet_bytes))
    for first in range(0, links, step):
        part = streams.select(slice(first, first + step))
        yield channel.transmit(_packets(len(part), slots, packet_bytes), {}, part)


def _lost(delivered: Tensor) -> Proportion:
    return Proportion(int((~delivered).sum()), delivered.numel())


def _snr_where_ber(modulation: str, ber: float) -> float:
    """Return the Es/N0 in dB, to a tenth, at which the bit error rate on AWGN is about `ber`."""
    grid = np.arange(-10, 40, 0.1)
    return float(grid[np.argmax(theory.ber_awgn(modulation, grid) < ber)].round(1))


def awgn_ber(size: Size) -> Iterator[Row]:
    """Check uncoded QAM on AWGN."""
    for modulation in ("qpsk", "16qam", "64qam", "256qam"):
        for ber in (3e-2, 1e-3) if size.full else (5e-2,):
            snr_db = _snr_where_ber(modulation, ber)
            expected = float(theory.ber_awgn(modulation, snr_db))
            count = size.trials(expected, 10_000)
            yield Row(
                f"awgn, {modulation}",
                f"BER at Es/N0 {snr_db:g} dB",
                "closed form (Cho, Yoon 2002)",
                expected,
                bit_errors("awgn", snr_db, count, modulation, size.seed, any_bit=True, symbols=50),
            )


def _bpsk_errors(over: object, snr_db: float, size: Size, count: int) -> Proportion:
    """Count the sign errors of BPSK, one symbol per packet and one packet per link."""
    channel = from_spec(SYMBOL_CHANNELS, over)
    streams = size.streams(f"bpsk {over} {snr_db}", count)
    sent = torch.where(streams.child("data").uniform(1) < 0.5, -1.0, 1.0)[..., None]
    snr = torch.full((count,), snr_db, dtype=torch.float64)
    seen = channel.apply(sent.to(torch.complex64), snr, streams, Timing.together(count, 1))
    return Proportion(int((seen.symbols.real.sign() != sent).sum()), count)


def rayleigh_ber(size: Size) -> Iterator[Row]:
    """Check uncoded BPSK and QPSK under Rayleigh fading."""
    for ebno_db in (0.0, 10.0, 20.0) if size.full else (10.0,):
        expected = theory.qpsk_ber_rayleigh(ebno_db)
        count = size.trials(expected, 50_000)
        reference = "(1 - sqrt(g / (1 + g))) / 2 (Proakis)"
        found = _bpsk_errors("rayleigh", ebno_db, size, count)
        yield Row("rayleigh, bpsk", f"BER at Eb/N0 {ebno_db:g} dB", reference, expected, found)
        snr_db = ebno_db + 10 * math.log10(2)
        found = bit_errors("rayleigh", snr_db, count, "qpsk", size.seed)
        yield Row("rayleigh, qpsk", f"BER at Eb/N0 {ebno_db:g} dB", reference, expected, found)


def rician_ber(size: Size) -> Iterator[Row]:
    """Check uncoded QPSK under Rician fading."""
    cases = (
        (-100.0, "K to 0: Rayleigh, closed form", 0.0),
        (6.0, "Craig's integral (Simon, Alouini)", 10**0.6),
        (100.0, "K to infinity: AWGN, Q(sqrt(g))", math.inf),
    )
    for k_db, reference, k_factor in cases:
        for snr_db in (6.0, 9.0) if size.full else (6.0,):
            expected = float(theory.ber_fading("qpsk", snr_db, k_factor))
            over = {"rician": {"k_db": k_db, "coherence": "packet"}}
            found = bit_errors(over, snr_db, size.trials(expected, 50_000), "qpsk", size.seed)
            model = f"rician, K {k_db:g} dB, qpsk"
            yield Row(model, f"BER at Es/N0 {snr_db:g} dB", reference, expected, found)


def attenuation_bursts(size: Size) -> Iterator[Row]:
    """Check uncoded QPSK under attenuation in bursts, and the length of the bursts."""
    burst, bad, depth_db, snr_db, longest = 6.0, 0.3, 9.0, 9.0, 12
    bursts = {"depth_db": depth_db, "bad": bad, "burst": burst}
    for fading, k_factor in (("awgn", math.inf), ("rayleigh", 0.0)):
        over = {"gilbert_elliott": {**bursts, "over": fading}}
        ratio = 10 ** (-depth_db / 10)
        good_db = snr_db - 10 * math.log10(1 - bad + bad * ratio)
        in_good, in_bad = (
            float(theory.ber_fading("qpsk", at, k_factor)) for at in (good_db, good_db - depth_db)
        )
        expected = (1 - bad) * in_good + bad * in_bad
        found = bit_errors(over, snr_db, size.trials(expected, 50_000), "qpsk", size.seed)
        model = f"gilbert_elliott, {depth_db:g} dB deeper, over {fading}, qpsk"
        reference = f"{1 - bad:g} and {bad:g} of the closed forms in the two states"
        yield Row(model, f"BER at Es/N0 {snr_db:g} dB", reference, expected, found)
    links = size.pick(200_000, 20_000)
    chain: Any = from_spec(SYMBOL_CHANNELS, {"gilbert_elliott": bursts})
    timing = Timing.together(links, longest)
    low = chain.gains(size.streams("attenuation", links), timing) < 1
    begun = low[~low[:, 0] & low[:, 1], 1:]
    model = f"gilbert_elliott, bad {bad:g}, burst {burst:g}"
    reference = "stationary distribution"
    yield Row(
        model,
        f"in the bad state in slot {longest}",
        reference,
        bad,
        Proportion(int(low[:, -1].sum()), links),
    )
    for length in (1, 4, 10) if size.full else (4,):
        beyond = Proportion(int(begun[:, : length + 1].all(dim=1).sum()), len(begun))
        expected = (1 - 1 / burst) ** length
        yield Row(model, f"stays of more than {length}", "geometric", expected, beyond)


def jakes_correlation(size: Size) -> Iterator[Row]:
    """Check E[h(0) h*(t)] of Jakes fading on the slope, at the first zero and minimum, and later.

    For symbols of 0 the receiver obtains n / h, and AWGN draws the same n, which gives h.
    """
    doppler_hz = 100.0
    points = (1.0, 2.4048, 3.8317, 7.0156) if size.full else (1.0, 3.8317)
    links = size.pick(100_000, 5000)
    jakes = {"jakes": {"doppler_hz": doppler_hz, "symbol_rate_hz": 1e6}}
    channel, noise_alone = (from_spec(SYMBOL_CHANNELS, over) for over in (jakes, "awgn"))
    start = torch.tensor([0.0, *points], dtype=torch.float64) / (2 * math.pi * doppler_hz)
    timing = Timing(torch.zeros(links, len(start), dtype=torch.int64), start.expand(links, -1))
    nothing = torch.zeros(links, len(start), 1, dtype=torch.complex64)
    streams, snr_db = size.streams("jakes", links), torch.zeros(links, dtype=torch.float64)
    noise = noise_alone.apply(nothing, snr_db, streams, timing).symbols
    h = noise / channel.apply(nothing, snr_db, streams, timing).symbols  # [N, P, 1]
    for slot, x in enumerate(points, 1):
        product = (h[:, 0] * h[:, slot].conj()).real
        expected = float(theory.jakes_autocorrelation(doppler_hz, float(start[slot])))
        what = f"E[h h*] at 2 pi f t = {x:g}"
        yield Row("jakes, 100 Hz", what, "J0 (Clarke, Jakes)", expected, Mean.of(product[:, 0]))


def block_fading_outage(size: Size) -> Iterator[Row]:
    """Check an ideal code of infinite length under Rayleigh fading."""
    over = {"rayleigh": {"coherence": "packet"}}
    for modulation, snr_db in (("qpsk", 10.0), ("16qam", 15.0)):
        channel = builder.build(
            {"ideal": {"over": over, "modulation": modulation, "law": "capacity"}}
        )
        plan_bits = 8 * 96 + 24
        rate = plan_bits / (channel.uses_per_packet(96) or 1)
        expected = float(theory.outage(modulation, rate, snr_db))
        links = size.trials(expected, 20_000)
        streams = size.streams(f"outage {modulation}", links)
        got = channel.transmit(
            _packets(links, 1, 96), {"snr_db": torch.full((links,), snr_db)}, streams
        )
        yield Row(
            f"ideal, {modulation} 1/2 over rayleigh",
            f"packets lost at Es/N0 {snr_db:g} dB",
            "1 - exp(-g0 / g), g0 from the QAM capacity",
            expected,
            _lost(got.delivered),
        )


def iid_loss(size: Size) -> Iterator[Row]:
    """Check independent losses."""
    for loss in (0.2, 0.01) if size.full else (0.2,):
        channel = builder.build({"iid_erasure": {"loss": loss}})
        count = size.trials(loss, 50_000)
        (got,) = _send(channel, f"iid {loss}", size, count // 50, 50)
        what = "packets lost"
        yield Row(f"iid_erasure, {loss:g}", what, "the parameter", loss, _lost(got.delivered))


def gilbert_elliott(size: Size) -> Iterator[Row]:
    """Check the loss rate far from the start, and the lengths of runs from the second slot on."""
    cases: tuple[tuple[dict[str, float], theory.GilbertElliott], ...] = (
        ({"loss": 0.1, "burst": 4.0}, theory.GilbertElliott.of(0.1, 4.0)),
        (
            {"p": 0.05, "r": 0.2, "loss_good": 0.02, "loss_bad": 0.6},
            theory.GilbertElliott(0.05, 0.2, 0.02, 0.6),
        ),
    )
    longest, links = 8, size.pick(1_000_000, 40_000)
    for parameters, chain in cases:
        said = ", ".join(f"{name} {value:g}" for name, value in parameters.items())
        channel = builder.build({"gilbert_elliott": parameters})
        last = begun = 0
        beyond = np.zeros(longest + 1, dtype=np.int64)
        for got in _send(channel, f"bursts {said}", size, links, 40):
            lost = ~got.delivered
            last += int(lost[:, -1].sum())
            run = lost[~lost[:, 0] & lost[:, 1], 1:].to(torch.int64).cumprod(dim=1).sum(dim=1)
            begun += len(run)
            beyond += np.array([int((run > length).sum()) for length in range(longest + 1)])
        model = f"gilbert_elliott, {said}"
        reference = "stationary distribution of the two states"
        yield Row(model, "packets lost in slot 40", reference, chain.loss, Proportion(last, links))
        exceeds = chain.run_exceeds(longest)
        for length in (1, 2, 4, 8) if size.full else (1, 4):
            yield Row(
                model,
                f"runs of more than {length}",
                "matrix power (Gilbert 1960; Elliott 1963)",
                float(exceeds[length]),
                Proportion(int(beyond[length]), begun),
            )


def random_delay(size: Size) -> Iterator[Row]:
    """Check the shares of packets later than one and three mean delays."""
    shape = 2.5
    least = (shape - 1) / shape
    laws: tuple[tuple[dict[str, object], str, Callable[[float], float]], ...] = (
        ({"law": "exponential"}, "exp(-x)", lambda x: math.exp(-x)),
        ({"law": "pareto", "shape": shape}, "(least / x)^2.5", lambda x: (least / x) ** shape),
    )
    for parameters, reference, exceeds in laws:
        channel = builder.build({"delay": {"mean_s": 0.02, **parameters}})
        links = size.pick(200_000, 20_000)
        (got,) = _send(channel, f"delay {reference}", size, links, 1)
        for x in (1.0, 3.0):
            late = Proportion(int((got.delay_s > 0.02 * x).sum()), links)
            model = f"delay, {parameters['law']}"
            yield Row(model, f"delays above {x:g} means", reference, exceeds(x), late)


def token_bucket(size: Size) -> Iterator[Row]:
    """Check that at most depth + rate x time bits pass in any window, and that no bit is missing
    in the ledger.
    """
    rate, depth, slots, links = 8000.0, 4000.0, 60, size.pick(2000, 100)
    streams = size.streams("bucket", links)
    gaps = -torch.log(streams.child("gaps").uniform(slots)) * 0.05  # 16 kbit/s offered
    sent = _packets(links, slots, 100, gaps.cumsum(dim=1))
    for shape in (False, True):
        channel = builder.build(
            {"token_bucket": {"rate_bits_s": rate, "depth_bits": depth, "shape": shape}}
        )
        got = channel.transmit(sent, {}, streams)
        leaves = (sent.times_s + got.delay_s).nan_to_num(posinf=0.0)
        bits = 8.0 * got.packets.lengths
        upto = bits.cumsum(dim=1)
        passed = upto[:, None, :] - (upto - bits)[:, :, None]  # [N, from, to]
        window = leaves[:, None, :] - leaves[:, :, None]
        both = got.delivered[:, None, :] & got.delivered[:, :, None]
        later = torch.ones(slots, slots, dtype=torch.bool).triu() & both
        over = later & (passed > depth + rate * window + 1e-3)
        model = f"token_bucket, {'shaping' if shape else 'policing'}"
        reference = "depth + rate x time"
        found = Proportion(int(over.sum()), int(later.sum()))
        yield Row(model, "windows that pass more", reference, 0.0, found)
        cut = got.statistics["cut_bits"]
        offered = 8 * sent.lengths.sum(dim=1)
        wrong = offered != 8 * got.packets.lengths.sum(dim=1) + cut
        found = Proportion(int(wrong.sum()), links)
        yield Row(model, "links where bits go missing", "offered = passed + cut", 0.0, found)


def queue_wait(size: Size) -> Iterator[Row]:
    """Check the waits of the 150th packet of Poisson traffic behind a bottleneck."""
    load, service, slots, links = 0.5, 0.01, 150, size.pick(100_000, 4000)
    channel = builder.build({"bottleneck": {"bandwidth_bits_s": 800 / service}})
    within = {0.0: 0, 1.0: 0, 2.5: 0}
    streams = size.streams("queue", links)
    for first in range(0, links, 10_000):
        part = streams.select(slice(first, first + 10_000))
        gaps = -torch.log(part.child("gaps").uniform(slots)) * service / load
        sent = _packets(len(part), slots, 100, gaps.cumsum(dim=1))
        wait = channel.transmit(sent, {}, part).delay_s[:, -1] - service
        for x in within:
            within[x] += int((wait > (x + 1e-6) * service).sum())
    for x, late in within.items():
        expected = 1 - float(theory.md1_wait_cdf(load, service, x * service))
        what = f"waits above {x:g} service times"
        yield Row(
            "bottleneck, load 0.5", what, "M/D/1 (Erlang 1909)", expected, Proportion(late, links)
        )


def binary_capacity(size: Size) -> Iterator[Row]:
    """Check the information of a bit channel's LLRs: E[1 - log2(1 + exp(-+L))]."""
    count = size.pick(1_000_000, 50_000)
    cases = (
        ("bsc", 0.11, float(theory.bsc_information(0.11).mean), "1 - h(p)"),
        ("bec", 0.3, float(theory.bec_information(0.3).mean), "1 - e"),
    )
    for name, value, expected, reference in cases:
        channel = from_spec(
            BIT_CHANNELS, {name: {"crossover" if name == "bsc" else "erasure": value}}
        )
        streams = size.streams(name, count // 100)
        bits = (streams.child("data").uniform(100) < 0.5).to(torch.float32)[:, None]
        chance = torch.full((len(bits),), value, dtype=torch.float64)
        timing = Timing.together(len(bits), 1)
        llr = channel.apply_bits(bits, chance, streams, timing).double()
        wrongness = torch.nn.functional.softplus(-(2 * bits - 1) * llr) / math.log(2)
        yield Row(
            f"{name}, {value:g}",
            "bits a use",
            reference,
            expected,
            Mean.of(1 - wrongness.flatten()),
        )


TDL_A = {
    0.3819: 0.0,
    0.4025: -2.2,
    0.5868: -4.0,
    1.8978: -6.6,
    0.7618: -7.5,
}
"""Normalised delay and power in dB of the strongest taps: TR 38.901, table 7.7.2-1."""

TDL_A_TOTAL_DB = 5.4004
"""Sum over the 23 taps of that table, for normalisation."""


def tdl_profile(size: Size) -> Iterator[Row]:
    """Check the mean power of the strongest taps of TDL-A."""
    spread_ns, count = 100.0, size.pick(20_000, 1000)
    channel: Any = from_spec(SYMBOL_CHANNELS, {"tdl": {"model": "A", "delay_spread_ns": spread_ns}})
    taps, delays = channel.multipath.take(torch.arange(count), 1)
    power = taps.abs().square().reshape(count, -1)
    for delay, power_db in TDL_A.items():
        expected = 10 ** ((power_db - TDL_A_TOTAL_DB) / 10)
        tap = (delays.flatten().double() - delay * spread_ns * 1e-9).abs() < 1e-12
        found = Mean.of(power[:, tap].sum(dim=1))
        what = f"E|h|^2 of the tap at {delay * spread_ns:.2f} ns"
        yield Row("tdl, A, 100 ns", what, "TR 38.901, table 7.7.2-1", expected, found)


def ldpc_reference(size: Size) -> Iterator[Row]:
    """Check 5G LDPC codes, QPSK, AWGN, 20 iterations, against published curves."""
    for curve in PUBLISHED:
        reduced = {64: (2.0, 1500), 512: (1.0, 150)}[curve.k]
        points = curve.ebno_db if size.full else reduced[:1]
        for ebno_db in points:
            published = curve.bler_at(ebno_db)
            most, least = (curve.bler_at(ebno_db + d) for d in (-PUBLISHED_DB, PUBLISHED_DB))
            count = min(size.trials(published, reduced[1]), 30_000)
            yield Row(
                f"LDPC k {curve.k} n {curve.n}",
                f"BLER at Eb/N0 {ebno_db:g} dB",
                f"{published:g} +- {PUBLISHED_DB} dB, {curve.source.split()[0]}",
                (least, most),
                block_errors(curve.k, curve.n, ebno_db, count, schedule="flooding", seed=size.seed),
            )
    if size.full:
        k, symbols = 1000, 1000
        ebno_db = theory.normal_snr_db("qpsk", k, symbols, 1e-2) + 1.0
        yield Row(
            "LDPC k 1000 n 2000",
            f"BLER at Eb/N0 {ebno_db:.2f} dB",
            "at most 0.01, 1 dB beyond the normal approximation",
            (0.0, 1e-2),
            block_errors(k, 2 * symbols, ebno_db, 4000, seed=size.seed),
        )


def harq_redundancy(size: Size) -> Iterator[Row]:
    """Check that two rounds of incremental redundancy fail as often as one word of both."""
    snr_db, links = -5.0, size.pick(3000, 100)
    common = {"over": "awgn", "modulation": "qpsk", "packet_bytes": 29, "crc": "crc24a"}
    twice = builder.build(
        {"coded": {**common, "code_rate": 0.3, "harq": {"type": "ir", "rounds": 2}}}
    )
    once = builder.build({"coded": {**common, "code_rate": 0.15}})
    snr = {"snr_db": torch.full((links,), snr_db)}
    found = [
        _lost(
            channel.transmit(
                _packets(links, 1, 29), snr, size.streams(f"harq {number}", links)
            ).delivered
        )
        for number, channel in enumerate((twice, once))
    ]
    yield Row(
        "coded, HARQ-IR, 2 rounds of rate 0.3",
        f"packets lost at Es/N0 {snr_db:g} dB",
        f"single shot of rate 0.15: {found[1].rate:.3g} of {links}",
        found[1].interval(CONFIDENCE),
        found[0],
    )


def lookup_tables(size: Size) -> Iterator[Row]:
    """Check the losses of `lookup` against full decoding of other packets."""
    cases = (("awgn", 0.9), ("awgn", 1.2), ("rayleigh", 8.0)) if size.full else (("awgn", 0.9),)
    for over, snr_db in cases:
        found = []
        for name, links in (
            ("lookup", size.pick(200_000, 20_000)),
            ("coded", size.pick(4000, 100)),
        ):
            channel = builder.build({name: {"over": over}})
            snr = {"snr_db": torch.full((links,), snr_db)}
            streams = size.streams(f"{name} {over} {snr_db}", links)
            found.append(_lost(channel.transmit(_packets(links, 1, 96), snr, streams).delivered))
        yield Row(
            f"lookup, qpsk 1/2 over {over}",
            f"packets lost at Es/N0 {snr_db:g} dB",
            f"full decoding: {found[1].errors} of {found[1].trials}",
            found[1].interval(CONFIDENCE),
            found[0],
        )


ROWS: list[Rows] = [
    awgn_ber,
    rayleigh_ber,
    rician_ber,
    attenuation_bursts,
    jakes_correlation,
    block_fading_outage,
    iid_loss,
    gilbert_elliott,
    random_delay,
    token_bucket,
    queue_wait,
    binary_capacity,
    tdl_profile,
    ldpc_reference,
    harq_redundancy,
    lookup_tables,
]
"""All checks, in the order of the table."""


def measure(size: Size, checks: Sequence[Rows]) -> list[Row]:
    """Return the rows of all checks; progress is printed on standard error."""
    rows = []
    for check in checks:
        print(f"{check.__name__.replace('_', ' ')} ...", file=sys.stderr, flush=True)
        rows += list(check(size))
    return rows


def confidence_of(rows: Sequence[Row]) -> float:
    """Return the confidence of each row for a confidence of CONFIDENCE of all rows together."""
    return 1 - (1 - CONFIDENCE) / max(1, len(rows))


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    each = confidence_of(rows)
    lines = [
        "| model | quantity | reference | expected | found | n | interval | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        least, most = row.allowed
        expected = f"{least:.4g}" if least == most else f"{least:.3g} to {most:.3g}"
        low, high = row.found.interval(each)
        errors = f"{row.found.errors} / " if isinstance(row.found, Proportion) else ""
        verdict = "within" if row.holds(each) else "**OUTSIDE**"
        lines.append(
            f"| {row.model} | {row.quantity} | {row.reference} | {expected} | {row.found.rate:.4g} "
            f"| {errors}{row.found.trials} | {low:.4g} to {high:.4g} | {verdict} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line of this module. Returns 1 if any row is outside."""
    parser = argparse.ArgumentParser(
        prog="python -m channels.validation.against_theory", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--full", action="store_true", help="many trials: minutes, not seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    chosen = parser.parse_args(arguments)
    rows = measure(Size(chosen.full, chosen.seed), ROWS)
    text = table(rows)
    print(text, end="")
    if chosen.out is not None:
        try:
            chosen.out.write_text(text, encoding="utf-8")
        except OSError as error:
            print(f"{chosen.out}: cannot be written: {error.strerror}", file=sys.stderr)
            return 2
    outside = [row for row in rows if not row.holds(confidence_of(rows))]
    for row in outside:
        print(f"outside: {row.model}: {row.quantity}", file=sys.stderr)
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())
