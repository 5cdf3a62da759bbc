"""Operating points of a link: modulation, code rate and protection for each SNR.

BLER tables x gains of the fading ── loss of a packet with each MCS ── with each protection ──┐
cheapest option for a picture's packets that meets the loss <── channel uses <────────────────┘
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from channels.config.checks import integer, number
from channels.errors import ConfigError
from channels.fading.base import ONE_GAIN, Flat, Timing
from channels.link.adaptive import refuse_bits
from channels.link.base import DEFAULT_PACKET_BYTES
from channels.link.bler_table import tables_of
from channels.link.coded import CodedLink
from channels.link.mcs import Mcs, mcs_table
from channels.random import Randomness

LINKS = 4000
"""Realisations of the fading for the mean of losses; fewer for very many packets."""

HIGHEST_LOSS = 0.5
LOW_TABLE = "qam64-low"
LOW_GAIN_DB = 6.0
"""The lowest code of `qam64-low` needs an SNR this much lower than that of the other tables (-12.3
and -6.3 dB for a loss of 10 % of packets of 96 bytes).
"""

COPIES = (1, 2, 3)
OVERHEADS = (0.25, 0.5, 1.0)
MOST_PACKETS = 1000


@dataclass(frozen=True)
class OperatingPoint:
    """The settings for a picture's packets at one SNR, and their losses.

    scheme: the MCS. copies: of each packet. repair: number of RaptorQ packets. loss: share of
    packets lost on the air. residual: share lost after protection, mean over realisations; error:
    its standard error. outage: share of pictures of which no packet is delivered. uses_per_picture:
    channel uses of all packets. realisations: number of realisations of the fading.
    """

    snr_db: float
    scheme: Mcs
    copies: int
    repair: int
    loss: float
    residual: float
    error: float
    outage: float
    uses_per_picture: int
    realisations: int

    @property
    def protection(self) -> str:
        """Return the protection in words."""
        if self.repair:
            return f"RaptorQ, {self.repair} repair"
        return f"{self.copies} copies" if self.copies > 1 else "none"

    def spec(self, over: object, packet_bytes: int) -> dict[str, Any]:
        """Return the channel's description, for YAML and for `channels.config.build`."""
        coded: dict[str, Any] = {
            "coded": {
                "over": over,
                "modulation": self.scheme.modulation,
                "code_rate": self.scheme.code_rate,
                "packet_bytes": packet_bytes,
            }
        }
        if self.repair:
            return {"raptorq": {"over": coded, "repair": self.repair}}
        if self.copies > 1:
            return {"unequal": {"over": coded, "classes": [{"copies": self.copies}]}}
        return coded


def operating_points(
    snr_db: Sequence[float],
    over: object = "awgn",
    packets: int = 8,
    loss: float = 0.01,
    table: str = "qam64",
    packet_bytes: int = DEFAULT_PACKET_BYTES,
    seed: int = 0,
) -> list[OperatingPoint | None]:
    """Return, for each mean Es/N0, the operating point with the fewest channel uses.

    It is None where no point meets the loss. over: a symbol channel with one known gain per packet.
    packets: per picture. loss: largest share of lost packets after protection, 1e-3 to 0.5. table:
    of MCS, see `channels.link.mcs`. Error rates come from the tables of `lookup`, averaged over
    4000 realisations of the fading with its coherence: copies and repair packets gain little if all
    packets of a picture have the same fade.

    Raises ConfigError for a value out of range and for a channel that fades within a packet.
    """
    packets = integer("plan", "packets", packets, 1, MOST_PACKETS)
    loss = number("plan", "loss", loss, 1e-3, HIGHEST_LOSS)
    snr_db = [number("plan", "snr_db", value, -60, 100) for value in snr_db]
    refuse_bits("plan", over)
    if not isinstance(CodedLink(over=over).over, Flat):
        raise ConfigError(f"plan: over={over!r} has no single known gain per packet: {ONE_GAIN}")
    integer("plan", "packet_bytes", packet_bytes, 1, 65535)
    schemes = mcs_table(table)
    links = [
        CodedLink(
            fidelity="lookup",
            over=over,
            modulation=scheme.modulation,
            code_rate=scheme.code_rate,
            packet_bytes=packet_bytes,
        )
        for scheme in schemes
    ]
    repairs = [math.ceil(packets * share) for share in OVERHEADS]
    slots = max(packets * max(COPIES), packets + max(repairs))
    fading = links[0].over
    assert isinstance(fading, Flat)
    tables = tables_of(links, "plan")
    count = max(500, min(LINKS, 2_000_000 // slots))
    streams = Randomness.derive(seed, [("plan", n) for n in range(count)])
    gains = fading.gains(streams.child("fading"), Timing.together(count, slots))
    gain_db = 10 * torch.log10(gains.to(torch.float64).clamp(min=1e-30))
    draws = streams.child("packets").uniform(slots)
    points: list[OperatingPoint | None] = []
    for snr in snr_db:
        best: OperatingPoint | None = None
        for scheme, link, known in zip(schemes, links, tables, strict=True):
            rate = known.rate(snr + gain_db)  # [count, slots]
            each = link.uses_per_packet(packet_bytes)
            for point in _protected(snr, scheme, rate, draws, packets, repairs, each):
                cheaper = best is None or point.uses_per_picture < best.uses_per_picture
                if point.residual + 2 * point.error <= loss and cheaper:
                    best = point
        points.append(best)
    return points


def remedies(
    snr_db: float,
    over: object = "awgn",
    packets: int = 8,
    loss: float = 0.01,
    table: str = "qam64",
    packet_bytes: int = DEFAULT_PACKET_BYTES,
) -> list[str]:
    """Return advice for an SNR at which `operating_points` finds none; same arguments."""

    def found(at_db: float, most: float, among: str) -> bool:
        return operating_points([at_db], over, packets, most, among, packet_bytes)[0] is not None

    ways = []
    if found(snr_db, HIGHEST_LOSS, table):
        ways.append(f"raise --loss ({loss:g} now, at most {HIGHEST_LOSS:g})")
    if table.lower() != LOW_TABLE and found(min(snr_db + LOW_GAIN_DB, 100), loss, table):
        ways.append(f"use the lower code rates of --table {LOW_TABLE}")
    return [*ways, "raise the SNR"]


def _protected(
    snr_db: float,
    scheme: Mcs,
    rate: Tensor,
    draws: Tensor,
    packets: int,
    repairs: Sequence[int],
    each: int,
) -> list[OperatingPoint]:
    """Evaluate one MCS with every protection. rate, draws: float64 [LINKS, slots]."""
    average = float(rate.mean())
    found = []
    for copies in COPIES:
        of_each = rate[:, : packets * copies].unflatten(1, (packets, copies)).prod(dim=2)
        found.append(
            OperatingPoint(
                snr_db,
                scheme,
                copies,
                0,
                average,
                *_mean(of_each.mean(dim=1)),
                float(of_each.prod(dim=1).mean()),
                packets * copies * each,
                len(rate),
            )
        )
    came = draws >= rate
    for repair in sorted(set(repairs)):
        sent = came[:, : packets + repair]
        whole = sent.sum(dim=1) >= packets
        missing = (~sent[:, :packets]).to(torch.float64).mean(dim=1).masked_fill(whole, 0.0)
        nothing = (~sent[:, :packets]).all(dim=1) & ~whole
        found.append(
            OperatingPoint(
                snr_db,
                scheme,
                1,
                repair,
                average,
                *_mean(missing),
                float(nothing.double().mean()),
                (packets + repair) * each,
                len(rate),
            )
        )
    return found


def _mean(values: Tensor) -> tuple[float, float]:
    """Return the mean of float64 [LINKS], and its standard error."""
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))


def table(points: Sequence[OperatingPoint | None], snr_db: Sequence[float], loss: float) -> str:
    """Return the points as a Markdown table, one line per SNR."""
    lines = [
        "| SNR, dB | MCS | modulation | code rate | protection | packet loss on air "
        "| after protection | outage | uses per picture |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for snr, point in zip(snr_db, points, strict=True):
        if point is None:
            lines.append(f"| {snr:g} | - | none keeps a loss of {loss:g} | | | | | | |")
            continue
        scheme = point.scheme
        lines.append(
            f"| {snr:g} | {scheme.index} | {scheme.modulation} | {scheme.code_rate:.3f} "
            f"| {point.protection} | {point.loss:.2g} | {point.residual:.2g} "
            f"| {_share(point)} | {point.uses_per_picture} |"
        )
    return "\n".join(lines)


def _share(point: OperatingPoint) -> str:
    """Return the outage as text.

    With repair packets it is counted; if it is zero, the text is the upper 95 % bound 3/n. Without
    them it is computed, and unknown below one millionth, where the tables end.
    """
    if point.repair and not point.outage:
        return f"< {3 / point.realisations:.1g}"
    return f"{point.outage:.2g}" if point.outage >= 1e-6 else "< 1e-06"
