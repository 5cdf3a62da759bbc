"""Comparison of the layered decoder with Sionna's: time, block error rate, whole links.

    python -m channels.validation.benchmark speed|bler|link

    speed [--k K] [--n N] [--blocks B] [--repeats R] [--threads T]
    bler  [--k K] [--n N] [--blocks B] [--ebno DB [DB ...]] [--seed S]
    link  [--blocks B] [--repeats R] [--threads T]

`link` measures the time of whole links with packets of 96 bytes, QPSK 1/2, over AWGN at 1 dB:
`coded` from bytes to bytes and Sionna's decoder alone on as many code words; `lookup` and `coded`
with either decoder. `speed` and `bler` take `--layered` and `--flooding`, the iterations of each
decoder. `speed` runs both in turn in one process and prints the ratio of their times. `bler` sends
QPSK over AWGN, with the same noise for both, and prints their distance in dB (positive: the layered
decoder is worse) with a paired 95 % interval.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from channels.base import Packets
from channels.fec.layered_bp import DEFAULT_LAYERED_ITERATIONS, LayeredDecoder
from channels.fec.ldpc import DEFAULT_ITERATIONS, in_chunks
from channels.fec.sionna_isolation import untouched_random_state
from channels.random import Randomness

_QPSK_BITS = 2


@dataclass(frozen=True)
class Pair:
    """A code with Sionna's decoder (flooding, boxplus by phi) and the layered decoder.

    encode: bits float32 [B, k] to [B, n]. flooding, layered: LLRs [B, n] to bits [B, k].
    chunk: number of blocks to decode at once.
    """

    k: int
    n: int
    encode: Callable[[Tensor], Tensor]
    flooding: Callable[[Tensor], Tensor]
    layered: Callable[[Tensor], Tensor]
    chunk: int


def pair(
    k: int,
    n: int,
    layered: int = DEFAULT_LAYERED_ITERATIONS,
    flooding: int = DEFAULT_ITERATIONS,
) -> Pair:
    """Return the code of k information and n coded bits with both decoders.

    flooding, layered: iterations of each decoder.
    """
    with untouched_random_state(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Effective coderate")
        from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder

        encoder = LDPC5GEncoder(
            k, n, num_bits_per_symbol=_QPSK_BITS, precision="single", device="cpu"
        )
        theirs = LDPC5GDecoder(
            encoder,
            cn_update="boxplus-phi",
            num_iter=flooding,
            precision="single",
            device="cpu",
        )
    ours = LayeredDecoder(encoder)
    return Pair(k, n, encoder, theirs, lambda llr: ours.decode(llr, layered), ours.chunk)


def transmit_qpsk(codec: Pair, ebno_db: float, streams: Randomness) -> tuple[Tensor, Tensor]:
    """Send random blocks by Gray-mapped QPSK over AWGN; return their bits and LLRs.

    ebno_db: Eb/N0 in dB. streams: one per block. Returns float32 [B, k] and float32 [B, n].
    """
    sent = (streams.child("data").uniform(codec.k) < 0.5).to(torch.float32)
    levels = 2 * codec.encode(sent).to(torch.float64) - 1
    variance = codec.n / (codec.k * _QPSK_BITS) * 10 ** (-ebno_db / 10)  # for levels of +-1
    noisy = levels + math.sqrt(variance) * streams.child("noise").normal(codec.n)
    return sent, (2 / variance * noisy).to(torch.float32)


@dataclass(frozen=True)
class Comparison:
    """The block errors of both decoders at one Eb/N0, out of `blocks`.

    flooding, layered: block errors of each decoder. flooding_alone, layered_alone: blocks that only
    this decoder gets wrong.
    """

    ebno_db: float
    blocks: int
    flooding: int
    layered: int
    flooding_alone: int
    layered_alone: int


def compare(codec: Pair, ebno_db: float, blocks: int, seed: int = 0) -> Comparison:
    """Return the block errors of both decoders on the same noise."""

    def run(keys: Tensor) -> tuple[Tensor, Tensor]:
        sent, llr = transmit_qpsk(codec, ebno_db, Randomness(keys))
        return (codec.flooding(llr) != sent).any(dim=1), (codec.layered(llr) != sent).any(dim=1)

    parts = ("decoder", codec.k, codec.n, str(ebno_db))
    streams = Randomness.derive(seed, [parts]).split(blocks)
    flooding, layered = in_chunks(run, min(blocks, codec.chunk), streams.keys)
    return Comparison(
        ebno_db,
        blocks,
        int(flooding.sum()),
        int(layered.sum()),
        int((flooding & ~layered).sum()),
        int((layered & ~flooding).sum()),
    )


def distance_db(points: Sequence[Comparison]) -> tuple[float, float]:
    """Return how much more Eb/N0 the layered decoder needs, dB, and half of its 95 % interval.

    A line over dB is fitted to the normal quantile of flooding's BLER. Its slope, taken as known,
    converts each point's difference of quantiles to dB, and points are weighted by the inverse
    variance of their paired difference. Two or more points with 0 < BLER < 1 are needed.
    """
    from scipy.stats import norm

    blocks, flooding, layered, alone, worse = (
        np.array(column, dtype=np.float64)
        for column in zip(
            *(
                (
                    p.blocks,
                    p.flooding,
                    p.layered,
                    p.flooding_alone + p.layered_alone,
                    p.layered_alone - p.flooding_alone,
                )
                for p in points
            ),
            strict=True,
        )
    )
    quantile = norm.isf(flooding / blocks)  # rises with Eb/N0
    slope = np.polyfit([p.ebno_db for p in points], quantile, 1)[0]
    difference = (quantile - norm.isf(layered / blocks)) / slope
    spread = np.sqrt(np.maximum(alone - worse**2 / blocks, 1)) / blocks
    weight = (norm.pdf(quantile) * slope / spread) ** 2
    return (
        float((weight * difference).sum() / weight.sum()),
        float(norm.isf(0.025) / math.sqrt(weight.sum())),
    )


def times(codec: Pair, blocks: int, repeats: int) -> list[tuple[float, float]]:
    """Return pairs of seconds of one batch, with flooding and with the layered decoder."""
    _, llr = transmit_qpsk(codec, 1.0, Randomness.derive(0, [("speed",)]).split(blocks))
    pairs = []
    for turn in range(repeats + 1):
        spent = []
        for decode in (codec.flooding, codec.layered):
            start = time.perf_counter()
            decode(llr)
            spent.append(time.perf_counter() - start)
        if turn:  # the first run is a warm-up
            pairs.append((spent[0], spent[1]))
    return pairs


def _print_speed(codec: Pair, blocks: int, repeats: int) -> None:
    measured = times(codec, blocks, repeats)
    ratios = [theirs / ours for theirs, ours in measured]
    theirs, ours = (
        1e3 * statistics.median(column) / blocks for column in zip(*measured, strict=True)
    )
    print(f"k={codec.k} n={codec.n} {blocks} blocks at once, {torch.get_num_threads()} thread(s)")
    print("flooding ms/block  layered ms/block  ratio (median, least, most)  repeats")
    print(
        f"{theirs:17.3f}  {ours:16.3f}  {statistics.median(ratios):6.1f} "
        f"[{min(ratios):.1f}, {max(ratios):.1f}]  {repeats:14d}"
    )


def link_times(blocks: int, repeats: int, many: int = 200) -> dict[str, list[float]]:
    """Return the seconds per packet of Sionna's decoder alone, of `coded` with each schedule, and
    of `lookup` with `many` times as many packets, measured in turn.
    """
    from channels.link.coded import CodedLink

    def crossing(link: CodedLink, packets: int) -> Callable[[], object]:
        streams = Randomness.derive(0, [("link",)]).split(packets)
        data = Packets(
            (streams.child("data").integers(96)[:, None] & 0xFF).to(torch.uint8),
            torch.full((packets, 1), 96),
            torch.zeros(packets, 1, dtype=torch.int64),
        )
        snr_db = torch.full((packets,), 1.0, dtype=torch.float64)
        return lambda: link.transmit(data, {"snr_db": snr_db}, streams)

    plan = CodedLink().layout
    codec = pair(plan.k, plan.n)
    _, llr = transmit_qpsk(codec, 1.0, Randomness.derive(0, [("speed",)]).split(blocks))
    runs: dict[str, tuple[Callable[[], object], int]] = {
        "Sionna's decoder": (lambda: codec.flooding(llr), blocks),
        "coded": (crossing(CodedLink(), blocks), blocks),
        "coded, flooding": (crossing(CodedLink(schedule="flooding"), blocks), blocks),
        "lookup": (crossing(CodedLink(fidelity="lookup"), many * blocks), many * blocks),
    }
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, (run, packets) in runs.items():
            start = time.perf_counter()
            run()
            if turn:  # the first run is a warm-up
                spent[name].append((time.perf_counter() - start) / packets)
    return spent


def _print_link(blocks: int, repeats: int) -> None:
    spent = link_times(blocks, repeats)
    print(f"{blocks} packets of 96 bytes, QPSK 1/2, {torch.get_num_threads()} thread(s)")
    for name, seconds in spent.items():
        print(f"{name:18}  {1e6 * statistics.median(seconds):10.2f} us per packet")
    print("ratio of speeds (median, least, most)")
    for ours, theirs in (
        ("coded", "Sionna's decoder"),
        ("coded, flooding", "Sionna's decoder"),
        ("lookup", "coded"),
        ("lookup", "coded, flooding"),
    ):
        ratios = [b / a for a, b in zip(spent[ours], spent[theirs], strict=True)]
        print(
            f"{ours} to {theirs}: {statistics.median(ratios):.3g} "
            f"[{min(ratios):.3g}, {max(ratios):.3g}]"
        )


def _print_bler(codec: Pair, ebno_db: Sequence[float], blocks: int, seed: int) -> None:
    print(f"k={codec.k} n={codec.n} QPSK AWGN, both on the same noise")
    print("Eb/N0 dB  flooding   layered  flooding alone  layered alone  blocks")
    points = []
    for x in ebno_db:
        point = compare(codec, x, blocks, seed)
        print(
            f"{x:8.2f}  {point.flooding / blocks:8.5f}  {point.layered / blocks:8.5f}"
            f"  {point.flooding_alone:14d}  {point.layered_alone:13d}  {blocks:6d}",
            flush=True,
        )
        if 0 < point.flooding < blocks and 0 < point.layered < blocks:
            points.append(point)
    if len(points) > 1:
        found, half = distance_db(points)
        print(f"the layered decoder needs {found:+.3f} dB, +- {half:.3f} (95 %)")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m channels.validation.benchmark", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", choices=("speed", "bler", "link"))
    parser.add_argument("--k", type=int, default=1000)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--blocks", type=int, help="default: 64 for speed, 1024 per Eb/N0 for bler")
    parser.add_argument("--layered", type=int, default=DEFAULT_LAYERED_ITERATIONS)
    parser.add_argument("--flooding", type=int, default=DEFAULT_ITERATIONS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="threads of torch; by default unchanged")
    parser.add_argument("--ebno", type=float, nargs="+", default=[1.25, 1.5])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    if given.what == "link":
        _print_link(given.blocks or 256, given.repeats)
        return
    codec = pair(given.k, given.n, given.layered, given.flooding)
    if given.what == "speed":
        _print_speed(codec, given.blocks or 64, given.repeats)
    else:
        _print_bler(codec, given.ebno, given.blocks or 1024, given.seed)


if __name__ == "__main__":
    main()
