"""Error rates of the physical layer, compared with theory and published curves.

    python -m channels.validation.error_rates ldpc [--blocks N] [--seed S] [--device D]
    python -m channels.validation.error_rates ber  [--bits N]   [--seed S] [--device D]

`ldpc` prints the block error rate (BLER) of two 5G LDPC codes with QPSK on AWGN, with exact 95 %
intervals, and the distance from the published curve in dB (positive: worse). `ber` prints the bit
error rate of uncoded QPSK on AWGN and under Rayleigh fading, with its closed form.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from channels.config.builder import from_spec
from channels.fading.base import SYMBOL_CHANNELS, SymbolChannel, Timing
from channels.fec.ldpc import DEFAULT_ITERATIONS, SCHEDULES, code, in_chunks
from channels.fec.qam import BITS_PER_SYMBOL, modem
from channels.random import Randomness
from channels.theory import qpsk_ber_awgn, qpsk_ber_rayleigh

__all__ = [
    "PUBLISHED",
    "Proportion",
    "PublishedCurve",
    "bit_errors",
    "block_errors",
    "main",
    "qpsk_ber_awgn",
    "qpsk_ber_rayleigh",
]

_SYMBOLS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Proportion:
    """A number of errors among independent trials."""

    errors: int
    trials: int

    @property
    def rate(self) -> float:
        return self.errors / self.trials

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the exact confidence interval of the rate by Clopper and Pearson."""
        from scipy.stats import binomtest

        found = binomtest(self.errors, self.trials).proportion_ci(confidence, "exact")
        return float(found.low), float(found.high)


@dataclass(frozen=True)
class PublishedCurve:
    """A published BLER curve: a code of k and n bits, QPSK, AWGN, BP-20, over Eb/N0 in dB."""

    source: str
    k: int
    n: int
    ebno_db: tuple[float, ...]
    bler: tuple[float, ...]

    def ebno_at(self, bler: float) -> float:
        """Return the Eb/N0 in dB at which the curve has the BLER `bler`.

        Between and beyond the points the normal quantile of the BLER is interpolated linearly in
        dB: at finite length it is nearly linear (Polyanskiy, Poor, Verdu 2010).
        """
        from scipy.stats import norm

        x, y = np.array(self.ebno_db), norm.isf(np.array(self.bler))  # y rises with x
        target = float(norm.isf(bler))
        i = int(np.clip(np.searchsorted(y, target) - 1, 0, len(x) - 2))
        return float(x[i] + (target - y[i]) * (x[i + 1] - x[i]) / (y[i + 1] - y[i]))

    def bler_at(self, ebno_db: float) -> float:
        """Return the BLER at an Eb/N0 in dB; the inverse of `ebno_at`."""
        from scipy.stats import norm

        x, y = np.array(self.ebno_db), norm.isf(np.array(self.bler))
        i = int(np.clip(np.searchsorted(x, ebno_db) - 1, 0, len(x) - 2))
        return float(norm.sf(y[i] + (ebno_db - x[i]) * (y[i + 1] - y[i]) / (x[i + 1] - x[i])))


PUBLISHED = (
    PublishedCurve(
        "Sionna 5G LDPC/Polar tutorial v1.2.1",
        64,
        128,
        (1.0, 2.0, 3.0, 3.5),
        (0.503, 0.155, 0.0225, 0.0058),
    ),
    PublishedCurve(
        "AFF3CT error_rate_references 5G BG2 SPA-20",
        512,
        1024,
        (0.5, 1.0, 1.5),
        (0.899, 0.477, 0.062),
    ),
)


def _over_the_air(
    bits: Tensor, modulation: str, over: SymbolChannel, snr_db: float, randomness: Randomness
) -> Tensor:
    """Send bits, float32 [R, S*m], one packet per link; return LLRs of the same shape."""
    device = str(bits.device)
    symbols = modem(modulation, device).map(bits)[:, None]  # [R, 1, S]
    snr = torch.full((len(bits),), snr_db, dtype=torch.float64, device=bits.device)
    seen = over.apply(symbols, snr, randomness, Timing.together(len(bits), 1, bits.device))
    return modem(modulation, device).demap(seen.symbols[:, 0], seen.noise_variance[:, 0])


def bit_errors(
    over: object,
    snr_db: float,
    bits: int,
    modulation: str = "qpsk",
    seed: int = 0,
    device: str = "cpu",
    any_bit: bool = False,
    symbols: int = 1,
) -> Proportion:
    """Count hard-decision errors of uncoded QAM in one bit of each symbol.

    over: a symbol channel, as an object, or as "awgn" or {"rayleigh": {"coherence": "packet"}}.
    snr_db: Es/N0. any_bit: count a random bit of each symbol, for the mean rate over all bits, and
        not the first one. symbols: per channel realisation. With one, trials are independent also
        under fading; more are faster, and independent only on a channel without memory.
    """
    channel = over if isinstance(over, SymbolChannel) else from_spec(SYMBOL_CHANNELS, over)
    said = channel.name if over is channel else str(over)
    m = BITS_PER_SYMBOL[modulation]
    realisations = -(-bits // symbols)
    streams = Randomness.derive(seed, [("ber", said, modulation, str(snr_db))], device).split(
        realisations
    )
    errors = 0
    step = max(1, _SYMBOLS_AT_ONCE // symbols)
    for first in range(0, realisations, step):
        part = streams.select(slice(first, first + step))
        sent = (part.child("data").uniform(m * symbols) < 0.5).to(torch.float32)
        llr = _over_the_air(sent, modulation, channel, snr_db, part)
        wrong = ((llr > 0) != (sent > 0.5)).reshape(-1, m)
        looked = torch.zeros(len(wrong), dtype=torch.int64, device=sent.device)
        if any_bit:
            looked = (m * part.child("which").uniform(symbols)).to(torch.int64).reshape(-1)
        errors += int(wrong.gather(1, looked[:, None]).sum())
    return Proportion(errors, realisations * symbols)


def block_errors(
    k: int,
    n: int,
    ebno_db: float,
    blocks: int,
    modulation: str = "qpsk",
    over: object = "awgn",
    iterations: int = DEFAULT_ITERATIONS,
    schedule: str = SCHEDULES[0],
    seed: int = 0,
    device: str = "cpu",
) -> Proportion:
    """Count the blocks of an LDPC code without CRC in which a bit is wrong after decoding."""
    channel = from_spec(SYMBOL_CHANNELS, over)
    bits_per_symbol = BITS_PER_SYMBOL[modulation]
    ldpc = code(k, n, bits_per_symbol, device, schedule=schedule)
    snr_db = ebno_db + 10 * math.log10(bits_per_symbol * k / n)

    def run(keys: Tensor) -> tuple[Tensor]:
        streams = Randomness(keys)
        sent = (streams.child("data").uniform(k) < 0.5).to(torch.float32)
        llr = _over_the_air(ldpc.encode(sent), modulation, channel, snr_db, streams)
        return ((ldpc.decode(llr, iterations) != sent).any(dim=1),)

    streams = Randomness.derive(
        seed, [("bler", str(over), modulation, k, n, str(ebno_db))], device
    ).split(blocks)
    (wrong,) = in_chunks(run, ldpc.chunk, streams.keys)
    return Proportion(int(wrong.sum()), blocks)


def _print_ldpc(blocks: int, seed: int, device: str) -> None:
    for curve in PUBLISHED:
        print(f"k={curve.k} n={curve.n} QPSK AWGN BP-{DEFAULT_ITERATIONS}, against {curve.source}")
        print("Eb/N0 dB  published  measured   95 % interval      blocks  dB from curve (interval)")
        for ebno_db, published in zip(curve.ebno_db, curve.bler, strict=True):
            found = block_errors(
                curve.k,
                curve.n,
                ebno_db,
                blocks,
                schedule="flooding",
                seed=seed,
                device=device,
            )
            low, high = found.interval()
            ends = [f"{ebno_db - curve.ebno_at(p):+.3f}" if 0 < p < 1 else "-" for p in (low, high)]
            at = f"{ebno_db - curve.ebno_at(found.rate):+.3f}" if 0 < found.rate < 1 else "-"
            print(
                f"{ebno_db:8.2f}  {published:9.4f}  {found.rate:8.5f}  [{low:.5f}, {high:.5f}]"
                f"  {blocks:6d}  {at} ({ends[0]} to {ends[1]})",
                flush=True,
            )


def _print_ber(bits: int, seed: int, device: str) -> None:
    print("channel   Eb/N0 dB  closed form  measured   99 % interval        bits")
    for name, closed_form in (("awgn", qpsk_ber_awgn), ("rayleigh", qpsk_ber_rayleigh)):
        for ebno_db in (0.0, 4.0, 7.0) if name == "awgn" else (0.0, 10.0, 20.0):
            found = bit_errors(name, ebno_db + 10 * math.log10(2), bits, seed=seed, device=device)
            low, high = found.interval(0.99)
            verdict = "within" if low <= closed_form(ebno_db) <= high else "OUTSIDE"
            print(
                f"{name:8}  {ebno_db:8.1f}  {closed_form(ebno_db):.3e}    {found.rate:.3e}"
                f"  [{low:.3e}, {high:.3e}]  {bits}  {verdict}"
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m channels.validation.error_rates", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", choices=("ldpc", "ber"))
    parser.add_argument("--blocks", type=int, default=4000, help="code blocks per point")
    parser.add_argument("--bits", type=int, default=1_000_000, help="bits per point")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0")
    chosen = parser.parse_args(arguments)
    if chosen.what == "ldpc":
        _print_ldpc(chosen.blocks, chosen.seed, chosen.device)
    else:
        _print_ber(chosen.bits, chosen.seed, chosen.device)


if __name__ == "__main__":
    main()
