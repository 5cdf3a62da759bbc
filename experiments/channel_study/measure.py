"""Measurement of a channel alone, compared with the laws and bounds that hold for it.

    channel ── packets at each value of its condition ── counts ──> figure, table
                                             reference or bound ────────────────^

    bit errors      of an uncoded link over its SNR, with the closed form
    packet loss     over the condition, with the normal approximation, the stationary loss and
                    others; if the channel reads no condition, over the packet's number in its link
    runs of losses  P(more than l consecutive losses), with that of a two-state chain
    delay           P(a packet arrives within t), with its distribution

Intervals are 95 %, exact (Clopper and Pearson). Packets of one link may be correlated; they then
count as fewer independent packets (Korn and Graubard 1998).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from channels import theory
from channels.base import Chain, Channel, FixedSize, Packets, Wrapper
from channels.errors import ConfigError
from channels.fading.base import SymbolChannel
from channels.fading.shadowing import GilbertElliott
from channels.link.coded import CodedLink
from channels.link.ideal import IdealLink
from channels.link.uncoded import UncodedLink
from channels.packet.erasure import GilbertElliott as PacketBursts
from channels.packet.unequal import Unequal
from channels.random import Randomness
from channels.validation.error_rates import bit_errors

if TYPE_CHECKING:
    pass
from experiments.channel_study.curves import (
    Curves,
    Point,
    Share,
    instants,
    shows_delay,
    shows_runs,
)
from experiments.channel_study.references import (
    Fading,
    Reference,
    bit_references,
    code_of,
    delay_reference,
    loss_references,
    medium,
    run_reference,
)

MOST_PACKETS = 10_000_000
MOST_PER_LINK = 100_000
LONGEST_RUN = 30
_BYTES_AT_ONCE = 1 << 24


def measure(
    channel: Channel,
    title: str,
    conditions: Mapping[str, Sequence[float]],
    packets: int | None = None,
    per_link: int | None = None,
    packet_bytes: int | None = None,
    packet_rate_hz: float | None = None,
    poisson: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> Curves:
    """Return the counts of losses, errors and delays at every value of a condition.

    conditions: values of each condition that the channel needs; only one may have several values.
    An SNR or a loss without values gets values that suit the channel. packets: number per point.
    per_link: number per link; links are independent. None: one if the result of a packet depends
    only on its own symbols. packet_rate_hz: rate at which packets are offered, in equal intervals
    or as a Poisson process; None: all at once. Raises ConfigError.
    """
    needs = channel.needs
    for name in conditions:
        if name not in needs:
            takes = ", ".join(needs) or "none"
            raise ConfigError(
                f"channel '{channel.name}' does not take {name or repr(name)}: it takes {takes}"
            )
    for name in needs:
        if len(conditions.get(name, [0, 0])) > 1 or name not in conditions:
            across: str | None = name
            break
    else:
        across = needs[0] if needs else None
    others = {}
    for name in needs:
        if name != across:
            if len(conditions.get(name, [])) != 1:
                raise ConfigError(
                    f"channel '{channel.name}' needs {', '.join(needs)}: give several values of "
                    f"{across} and one of {name}"
                )
            others[name] = float(conditions[name][0])
    values: list[float | None] = [None]
    if across is not None:
        values = list(conditions.get(across) or default_values(channel, across))
    alone = _alone(channel) and packet_rate_hz is None
    slots = per_link or (1 if alone else 50)
    count = packets or (1000 if _decodes(channel) else 100_000)
    if slots > MOST_PER_LINK:
        raise ConfigError(f"{slots} packets per link must be from 1 to {MOST_PER_LINK}")
    if count < slots:
        raise ConfigError(
            f"{count} packets do not fill one link of {slots}: it must be from {slots} to "
            f"{MOST_PACKETS}, or the link shorter"
        )
    if count > MOST_PACKETS:
        raise ConfigError(f"{count} packets per point must be from {slots} to {MOST_PACKETS}")
    if packet_rate_hz is not None and not 0 < packet_rate_hz < math.inf:
        raise ConfigError(f"packet rate {packet_rate_hz:g} Hz must be above 0 and finite")
    if poisson and packet_rate_hz is None:
        raise ConfigError("Poisson traffic needs a packet rate: give --packet-rate")
    links = count // slots
    size = packet_bytes or (channel.packet_bytes if isinstance(channel, FixedSize) else 96)
    traffic = "all offered at once" if slots > 1 else ""
    if packet_rate_hz is not None:
        traffic = f"{'Poisson, ' if poisson else ''}{packet_rate_hz:g} packets/s"
    curves = Curves(channel, title, across, others, links, slots, size, traffic, [])
    console = Console(stderr=True)
    shown = track(values, title, console=console, transient=True, disable=not progress)
    for value in shown:
        streams = Randomness.derive(seed, [("channel", title, str(value))]).split(links)
        curves.points.append(_point(curves, value, streams, packet_rate_hz, poisson, seed))
    return curves


def _decodes(channel: Channel) -> bool:
    """Return whether packets are decoded, which takes milliseconds per packet."""
    if channel.uses_per_packet(1) is None or isinstance(channel, (IdealLink, UncodedLink)):
        return False
    if isinstance(channel, CodedLink):
        return channel.fidelity == "full"
    return any(map(_decodes, channel.wrapped)) if isinstance(channel, Wrapper) else True


def _alone(channel: Channel) -> bool:
    """Return whether the result of a packet depends only on its own symbols."""
    if isinstance(channel, (Chain, Unequal)):
        return False
    if isinstance(channel, Wrapper):
        return bool(channel.wrapped)
    over = medium(channel)
    return over is not None and not isinstance(over, GilbertElliott)


def _offered(
    streams: Randomness, links: int, slots: int, rate_hz: float | None, poisson: bool
) -> torch.Tensor | None:
    if rate_hz is None:
        return None
    if poisson:
        gaps = -torch.log(streams.child("arrivals").uniform(slots)) / rate_hz
        return gaps.cumsum(dim=1)
    return (torch.arange(slots, dtype=torch.float64) / rate_hz).expand(links, slots)


def _point(
    curves: Curves,
    value: float | None,
    streams: Randomness,
    rate_hz: float | None,
    poisson: bool,
    seed: int,
) -> Point:
    channel, slots, size = curves.channel, curves.slots, curves.packet_bytes
    given = dict(curves.others)
    if curves.condition is not None and value is not None:
        given[curves.condition] = value
    lost_rows, delays = [], []
    step = max(1, _BYTES_AT_ONCE // (slots * max(size, 16)))
    for first in range(0, curves.links, step):
        part = streams.select(slice(first, first + step))
        links = len(part)
        payload = torch.zeros(links, slots, size, dtype=torch.uint8)
        if _decodes(channel) or isinstance(channel, UncodedLink):
            words = part.child("payload").integers(slots * size)
            payload = (words & 255).to(torch.uint8).reshape(payload.shape)
        sent = Packets(
            payload,
            torch.full((links, slots), size),
            torch.arange(slots).expand(links, slots),
            _offered(part, links, slots, rate_hz, poisson),
        )
        settings = {
            name: torch.full((links,), number, dtype=torch.float64)
            for name, number in given.items()
        }
        got = channel.transmit(sent, settings, part.child("channel"))
        lost_rows.append((~got.delivered).numpy())
        delays.append(got.delay_s.numpy())
    lost = np.concatenate(lost_rows)
    every = np.full(len(lost), slots, dtype=np.float64)
    ones = np.ones(len(lost))
    point = Point(
        value,
        Share.of(lost.sum(axis=1).astype(np.float64), every),
        [Share.of(column.astype(np.float64), ones) for column in lost.T],
        delays_s=np.concatenate(delays),
    )
    if slots > 3:
        point.runs = _runs(lost)
    if (
        isinstance(channel, UncodedLink)
        and isinstance(channel.over, SymbolChannel)
        and (modulation := channel.modulation)
    ):
        found = bit_errors(
            channel.over, given["snr_db"], 20 * curves.links * slots, modulation, seed, any_bit=True
        )
        point.bits = Share(found.errors, found.trials, found.trials)
    return point


def _runs(lost: NDArray[np.bool_]) -> list[Share]:
    """Return the shares of runs of more than 0, 1, ... packets.

    Only runs that begin in the first half of a link are counted.
    """
    slots = lost.shape[1]
    longest = min(LONGEST_RUN, slots // 2 - 1)
    begins = ~lost[:, : slots - longest - 1] & lost[:, 1 : slots - longest]
    count = begins.sum(axis=1).astype(np.float64)
    shares = []
    for length in range(longest + 1):
        begins = begins & lost[:, length + 1 : length + 1 + begins.shape[1]]
        shares.append(Share.of(begins.sum(axis=1).astype(np.float64), count))
    return shares


def default_values(channel: Channel, condition: str) -> list[float]:
    """Return values of a condition at which losses fall from high to low. Raises ConfigError."""
    if condition == "loss":
        most = min(0.5, channel.most if isinstance(channel, PacketBursts) else 1.0)
        return [round(most * i / 10, 4) for i in range(11)]
    if condition in ("crossover", "erasure"):
        limit = 0.5
        if isinstance(channel, CodedLink):
            plan = channel.layout
            reach = theory.bsc_information if condition == "crossover" else theory.bec_information
            grid = np.linspace(0, 0.5 if condition == "crossover" else 1, 1001)
            limit = float(grid[np.argmax(reach(grid).mean < plan.code_rate)])
        return [round(limit * (0.5 + 0.06 * i), 4) for i in range(11)]
    if condition == "snr_db":
        found = Fading.of(medium(channel))
        fading = found is None or not found.none
        code = code_of(channel)
        if code is not None and not fading:
            modulation, bits, symbols, _ = code
            start = math.floor(2 * theory.normal_snr_db(modulation, bits, symbols, 0.5)) / 2
            return [start - 0.5 + 0.25 * i for i in range(13)]
        return [2.0 * i for i in range(13)] if not fading else [2.5 * i for i in range(13)]
    raise ConfigError(f"channel '{channel.name}' needs {condition}: give its values")


@dataclass(frozen=True)
class Counted:
    """One line of the table."""

    quantity: str
    condition: float | None
    at: float | None
    share: Share
    reference: float | None


def _counts(curves: Curves) -> Iterator[Counted]:
    """Yield all counts, with the value of the first reference."""

    def said(references: Sequence[Reference], x: float) -> float | None:
        if not references or references[0].target:
            return None
        return float(references[0].values(np.array([x]))[0])

    for point in curves.points:
        value = point.value
        x = 0.0 if value is None else value
        if point.bits is not None:
            yield Counted("bit errors", value, None, point.bits, said(bit_references(curves), x))
        yield Counted("packet loss", value, None, point.lost, said(loss_references(curves), x))
        if value is None and curves.slots > 1:
            for slot, share in enumerate(point.lost_by_slot, 1):
                yield Counted(
                    "packet loss at slot", None, slot, share, said(loss_references(curves), 0)
                )
        if shows_runs(point):
            reference = run_reference(curves, value)
            for length, share in enumerate(point.runs):
                known = said([reference], length) if reference else None
                yield Counted("runs longer than", value, length, share, known)
        if shows_delay(point):
            within = delay_reference(curves)
            for t in instants(point, 50).tolist():
                known = said([within], t) if within else None
                yield Counted("arrived within s", value, t, point.within(t), known)


def write_csv(curves: Curves, path: Path) -> None:
    """Write the counts: quantity, condition, at, hits, trials, rate, low, high, reference."""
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            name = curves.condition or "condition"
            writer.writerow(
                ["quantity", name, "at", "hits", "trials", "rate", "low", "high", "reference"]
            )
            for row in _counts(curves):
                ends = [f"{end:.6g}" for end in (row.share.rate, *row.share.interval)]
                cells = ["" if cell is None else f"{cell:.6g}" for cell in (row.condition, row.at)]
                reference = "" if row.reference is None else f"{row.reference:.6g}"
                counts = [row.share.hits, row.share.trials]
                writer.writerow([row.quantity, *cells, *counts, *ends, reference])
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def summary(curves: Curves) -> str:
    """Return packet loss and bit errors at every value, as text."""
    name = curves.condition or ""
    lines = [f"{name:>10}  {'quantity':<12} {'rate':>10}  {'95 % interval':<24} {'reference':>10}"]
    for row in _counts(curves):
        if row.at is None:
            low, high = row.share.interval
            law = "" if row.reference is None else f"{row.reference:.4g}"
            value = "" if row.condition is None else f"{row.condition:g}"
            ends = f"{low:.4g} to {high:.4g}"
            lines.append(
                f"{value:>10}  {row.quantity:<12} {row.share.rate:>10.4g}  {ends:<24} {law:>10}"
            )
    return "\n".join(lines)
