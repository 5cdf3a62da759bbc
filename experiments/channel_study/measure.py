"""Curves of a channel alone: what it does to packets, with the law or bound that holds for it.

    channel ── packets at each value of its condition ── counts ──> figure, table
                                             law or bound ────────────────^

    bit errors      of an uncoded link over its SNR, with the closed form
    packet loss     over the condition, with the normal approximation, the stationary loss and the
                    like; where a channel reads no condition, over the packet's number in its link
    runs of losses  P(more than l lost in a row), with that of the two states
    delay           P(a packet is there within t), with its law

Intervals are 95 %, exact (Clopper and Pearson). Where a link carries several packets, which may
share its fate, they count as fewer (Korn and Graubard 1998).
"""

from __future__ import annotations

import csv
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import torch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.special import betaincinv

from channels import theory
from channels.base import Chain, Channel, Packets
from channels.errors import ConfigError
from channels.fading.block import (
    SNR_RANGE_DB,
    Awgn,
    Flat,
    GilbertElliott,
    Rayleigh,
    Rician,
    SymbolChannel,
)
from channels.packet.raptorq import Unequal
from channels.random import Streams
from channels.validation.error_rates import bit_errors
from experiments.report.figures import AXES, COLOURS, GREY, MARKERS, STYLE, Axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".pdf", ".svg")
MOST_POINTS = 200
MOST_PACKETS = 10_000_000
MOST_PER_LINK = 100_000
LONGEST_RUN = 30
_BYTES_AT_ONCE = 1 << 24
_LOWEST_SHOWN = 1e-6
_FAST = ("ideal", "lookup", "uncoded")
"""Channels that count symbols and decode nothing."""

CONFIDENCE = 0.95

Floats = NDArray[np.float64]

CONDITIONS: Mapping[str, Axis] = {
    **AXES,
    "loss": Axis("Loss asked for", "%", 100),
    "crossover": Axis("Crossover probability", "per bit"),
    "erasure": Axis("Erasure probability", "per bit"),
}


RANGES: Mapping[str, tuple[float, float]] = {"--snr": SNR_RANGE_DB, "--loss": (0, 1)}
"""What an option may be at most; a channel may take less."""


@dataclass(frozen=True)
class Share:
    """Hits among trials, which count as `effective` independent ones."""

    hits: int
    trials: int
    effective: float

    @classmethod
    def of(cls, hits: Floats, trials: Floats) -> Share:
        """hits, trials: [N], of each link. Links are independent, packets of one need not be.

        The design effect is that of Korn and Graubard, "Confidence intervals for proportions with
        small expected number of positive counts", Survey Methodology 24, 1998.
        """
        total, count = float(hits.sum()), float(trials.sum())
        links = int((trials > 0).sum())
        if count == 0 or count == links:
            return cls(int(total), int(count), count)
        rate = total / count
        binomial = rate * (1 - rate) / count
        if binomial == 0:
            return cls(int(total), int(count), float(links))
        spread = ((hits - rate * trials) ** 2).sum() / count**2 * links / max(1, links - 1)
        return cls(int(total), int(count), count / max(1.0, spread / binomial))

    @property
    def rate(self) -> float:
        return self.hits / self.trials if self.trials else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper and Pearson's, by the beta law, which does not want whole numbers."""
        if not self.trials:
            return 0.0, 1.0
        tail, n = (1 - CONFIDENCE) / 2, self.effective
        x = self.rate * n
        low = float(betaincinv(x, n - x + 1, tail)) if x > 0 else 0.0
        high = float(betaincinv(x + 1, n - x, 1 - tail)) if x < n else 1.0
        return low, high


@dataclass(frozen=True)
class Law:
    """A line to draw beside what was counted: its name, its values, and whether it only bounds.

    aim: it is what a channel strives for, and says nothing of what it reaches.
    """

    name: str
    values: Callable[[Floats], Floats]
    bound: bool = False
    aim: bool = False


@dataclass
class Point:
    """What was counted at one value of the condition (None: the channel reads none)."""

    value: float | None
    lost: Share
    lost_by_slot: list[Share]
    bits: Share | None = None
    runs: list[Share] = field(default_factory=list)
    """Of the runs of losses: those of more than 0, 1, ... packets."""
    delays_s: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    """[links, slots], infinite where lost."""

    def within(self, time_s: float) -> Share:
        """Packets there by then, of all."""
        come = (self.delays_s <= time_s).sum(axis=1).astype(np.float64)
        return Share.of(come, np.full_like(come, self.delays_s.shape[1]))


@dataclass(frozen=True)
class Curves:
    """A channel, what it was measured with, and the points."""

    channel: Channel
    title: str
    condition: str | None
    others: Mapping[str, float]
    links: int
    slots: int
    packet_bytes: int
    traffic: str
    points: list[Point]


def values_of(name: str, text: str) -> list[float]:
    """`0:10:1` (both ends), `1,3,9` or `5`, rising. Raises ConfigError.

    >>> values_of("--snr", "0:1:0.25")
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    wrong = f"{name} {text}: give start:end:step, as 0:10:1, or values, as 0,5,10"
    try:
        parts = [float(part) for part in text.replace(":", ",").split(",")]
    except ValueError:
        raise ConfigError(wrong) from None
    if not all(map(math.isfinite, parts)):
        low, high = RANGES.get(name, (-math.inf, math.inf))
        ends = f", from {low:g} to {high:g}" if math.isfinite(high) else ""
        raise ConfigError(f"{name} {text}: every value must be finite{ends}")
    if ":" in text:
        if "," in text or len(parts) != 3 or parts[2] <= 0 or parts[1] < parts[0]:
            raise ConfigError(wrong)
        start, end, step = parts
        if (end - start) / step >= MOST_POINTS:
            raise ConfigError(f"{name} {text}: at most {MOST_POINTS} points")
        count = math.floor((end - start) / step + 1e-9) + 1
        return [round(start + i * step, 10) for i in range(count)]
    if len(parts) > MOST_POINTS:
        raise ConfigError(f"{name}: at most {MOST_POINTS} points")
    return sorted(set(parts))


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
    """Send packets at every value of a condition, and count.

    conditions: values of each that the channel needs; one may have several. One that has none, SNR
    or loss, gets some that suit the channel. packets: in all at a point; per_link: of a link, on
    links that are independent; one, where only each packet's own symbols decide. packet_rate_hz:
    they are offered at that rate, evenly or by a Poisson process; None: all at once.
    Raises ConfigError.
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
    over = getattr(channel, "over", None)
    alone = over is not None and not isinstance(over, GilbertElliott) and packet_rate_hz is None
    slots = per_link or (1 if alone else 50)
    count = packets or (1000 if _decodes(channel) else 100_000)
    if slots > MOST_PER_LINK:
        raise ConfigError(f"{slots} packets a link: it must be from 1 to {MOST_PER_LINK}")
    if count < slots:
        raise ConfigError(
            f"{count} packets do not fill one link of {slots}: it must be from {slots} to "
            f"{MOST_PACKETS}, or the link shorter"
        )
    if count > MOST_PACKETS:
        raise ConfigError(f"{count} packets a point: it must be from {slots} to {MOST_PACKETS}")
    if packet_rate_hz is not None and not 0 < packet_rate_hz < math.inf:
        raise ConfigError(f"packet rate {packet_rate_hz:g} Hz must be above 0 and finite")
    if poisson and packet_rate_hz is None:
        raise ConfigError("Poisson traffic needs a packet rate")
    links = count // slots
    size = packet_bytes or int(getattr(channel, "packet_bytes", 96))
    traffic = "all offered at once" if slots > 1 else ""
    if packet_rate_hz is not None:
        traffic = f"{'Poisson, ' if poisson else ''}{packet_rate_hz:g} packets/s"
    curves = Curves(channel, title, across, others, links, slots, size, traffic, [])
    console = Console(stderr=True)
    shown = track(values, title, console=console, transient=True, disable=not progress)
    for value in shown:
        streams = Streams.derive(seed, [("channel", title, str(value))]).split(links)
        curves.points.append(_point(curves, value, streams, packet_rate_hz, poisson, seed))
    return curves


def _decodes(channel: Channel) -> bool:
    """Whether a packet takes milliseconds: one that is really decoded."""
    if channel.uses_per_packet(1) is None or channel.name in _FAST:
        return False
    if isinstance(channel, Unequal):
        return any(_decodes(inner) for inner in channel.channels)
    if isinstance(channel, Chain):
        return any(_decodes(inner) for inner in channel.links)
    inner = getattr(channel, "over", None)
    return _decodes(inner) if isinstance(inner, Channel) else True


def _offered(
    streams: Streams, links: int, slots: int, rate_hz: float | None, poisson: bool
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
    streams: Streams,
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
        if _decodes(channel) or channel.name == "uncoded":
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
    over, modulation = getattr(channel, "over", None), getattr(channel, "modulation", None)
    if channel.name == "uncoded" and isinstance(over, SymbolChannel) and modulation:
        found = bit_errors(
            over, given["snr_db"], 20 * curves.links * slots, modulation, seed, any_bit=True
        )
        point.bits = Share(found.errors, found.trials, found.trials)
    return point


def _runs(lost: NDArray[np.bool_]) -> list[Share]:
    """Of the runs that begin in the first half of a link: those of more than 0, 1, ... packets."""
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
    """Some that show how the channel falls; around the bound on AWGN. Raises ConfigError."""
    if condition == "loss":
        most = min(0.5, float(getattr(channel, "most", 1.0)))
        return [round(most * i / 10, 4) for i in range(11)]
    if condition in ("crossover", "erasure"):
        limit = 0.5
        plan = getattr(channel, "layout", None)
        if plan is not None:
            reach = theory.bsc_information if condition == "crossover" else theory.bec_information
            grid = np.linspace(0, 0.5 if condition == "crossover" else 1, 1001)
            limit = float(grid[np.argmax(reach(grid).mean < plan.code_rate)])
        return [round(limit * (0.5 + 0.06 * i), 4) for i in range(11)]
    if condition == "snr_db":
        found = _Fading.of(getattr(channel, "over", None))
        fading = found is None or not found.none
        code = _code(channel)
        if code is not None and not fading:
            modulation, bits, symbols, _ = code
            start = math.floor(2 * theory.normal_snr_db(modulation, bits, symbols, 0.5)) / 2
            return [start - 0.5 + 0.25 * i for i in range(13)]
        return [2.0 * i for i in range(13)] if not fading else [2.5 * i for i in range(13)]
    raise ConfigError(f"channel '{channel.name}' needs {condition}: give its values")


@dataclass(frozen=True)
class _Fading:
    """A flat symbol channel with a known law: Rician fading in each of a few states.

    states: probability of each and its gain over the mean, dB. k_factor: of the fading in all of
    them, as a ratio; 0: Rayleigh fading, infinite: none.
    """

    states: tuple[tuple[float, float], ...]
    k_factor: float

    @classmethod
    def of(cls, over: object) -> _Fading | None:
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


def _code(channel: Channel) -> tuple[str, int, int, int] | None:
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
    chain = _chain(channel)
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
    fading, code = _Fading.of(over), _code(channel)
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


def _chain(channel: Channel) -> Callable[[float], theory.GilbertElliott] | None:
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
    fading = _Fading.of(getattr(curves.channel, "over", None))
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
    chain = _chain(curves.channel)
    if curves.channel.name == "iid_erasure":
        fixed: Any = getattr(curves.channel, "loss", None)
        loss = value if fixed is None else fixed
        return Law("geometric", lambda x: np.power(float(loss or 0), x))
    if chain is None or (value is not None and value == 0):
        return None
    found = chain(0.0 if value is None else value)
    return Law("two states", lambda x: found.run_exceeds(int(x.max()))[x.astype(int)])


@dataclass(frozen=True)
class Counted:
    """A line of the table."""

    quantity: str
    condition: float | None
    at: float | None
    share: Share
    law: float | None


def _counts(curves: Curves) -> Iterator[Counted]:
    """Everything counted, with what the first law says."""

    def said(laws: Sequence[Law], x: float) -> float | None:
        return float(laws[0].values(np.array([x]))[0]) if laws and not laws[0].aim else None

    for point in curves.points:
        value = point.value
        x = 0.0 if value is None else value
        if point.bits is not None:
            yield Counted("bit errors", value, None, point.bits, said(bit_laws(curves), x))
        yield Counted("packet loss", value, None, point.lost, said(loss_laws(curves), x))
        if value is None and curves.slots > 1:
            for slot, share in enumerate(point.lost_by_slot, 1):
                yield Counted("packet loss at slot", None, slot, share, said(loss_laws(curves), 0))
        if _shows_runs(point):
            law = run_law(curves, value)
            for length, share in enumerate(point.runs):
                known = said([law], length) if law else None
                yield Counted("runs longer than", value, length, share, known)
        if _shows_delay(point):
            within = delay_law(curves)
            for t in _instants(point, 50).tolist():
                known = said([within], t) if within else None
                yield Counted("arrived within s", value, t, point.within(t), known)


def write_csv(curves: Curves, path: Path) -> None:
    """A line a count: quantity, condition, at, hits, trials, rate, low, high, law."""
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            name = curves.condition or "condition"
            writer.writerow(
                ["quantity", name, "at", "hits", "trials", "rate", "low", "high", "law"]
            )
            for row in _counts(curves):
                ends = [f"{end:.6g}" for end in (row.share.rate, *row.share.interval)]
                cells = ["" if cell is None else f"{cell:.6g}" for cell in (row.condition, row.at)]
                law = "" if row.law is None else f"{row.law:.6g}"
                counts = [row.share.hits, row.share.trials]
                writer.writerow([row.quantity, *cells, *counts, *ends, law])
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def summary(curves: Curves) -> str:
    """Packet loss, and bit errors, at every value, to read."""
    name = curves.condition or ""
    lines = [f"{name:>10}  {'quantity':<12} {'rate':>10}  {'95 % interval':<24} {'law':>10}"]
    for row in _counts(curves):
        if row.at is None:
            low, high = row.share.interval
            law = "" if row.law is None else f"{row.law:.4g}"
            value = "" if row.condition is None else f"{row.condition:g}"
            ends = f"{low:.4g} to {high:.4g}"
            lines.append(
                f"{value:>10}  {row.quantity:<12} {row.share.rate:>10.4g}  {ends:<24} {law:>10}"
            )
    return "\n".join(lines)


def _shows_runs(point: Point) -> bool:
    return len(point.runs) > 1 and point.runs[1].hits > 0


def _shows_delay(point: Point) -> bool:
    return bool((point.delays_s[np.isfinite(point.delays_s)] > 0).any())


def _instants(point: Point, count: int) -> Floats:
    """Delays from nothing to all but the longest thousandth."""
    come = point.delays_s[np.isfinite(point.delays_s)]
    return np.linspace(0, float(np.quantile(come, 0.999)) * 1.02, count)


def check_target(path: Path) -> None:
    """Raises ConfigError if the picture could not be written there."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"{path}: name a picture that ends in {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder: name a picture")


def draw(curves: Curves, path: Path) -> None:
    """The figure, one panel a quantity, to PNG, PDF or SVG. Raises ConfigError."""
    check_target(path)
    kinds: list[Callable[[Axes, Curves], None]] = []
    if any(point.bits is not None for point in curves.points):
        kinds.append(_bit_panel)
    delayed = any(_shows_delay(point) for point in curves.points)
    if curves.condition is not None:
        kinds.append(_loss_panel)
    elif not delayed or any(point.lost.hits for point in curves.points):
        kinds.append(_slot_panel)
    if any(_shows_runs(point) for point in curves.points):
        kinds.append(_run_panel)
    if delayed:
        kinds.append(_delay_panel)
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(kinds) + 0.4, 4.3), layout="constrained")
        panels = figure.subplots(1, len(kinds), squeeze=False)
        for panel, kind in zip(panels.flat, kinds, strict=True):
            kind(panel, curves)
            panel.margins(x=0.03)
        figure.suptitle(_titled(curves), x=0.01, ha="left", fontsize=12, fontweight="bold")
        caption = textwrap.fill(_caption(curves), 88 * len(kinds))
        figure.supxlabel(caption, x=0.01, ha="left", fontsize=7.5, color=GREY)
        aside = path.with_name(f".{path.name}")
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        if path.suffix.lower() == ".pdf":
            metadata = {"CreationDate": None}
        try:
            figure.savefig(aside, format=path.suffix.lower()[1:], metadata=metadata)
            aside.replace(path)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error


def _titled(curves: Curves) -> str:
    others = [
        f"{CONDITIONS[name].title} {CONDITIONS[name].said(value)}"
        if name in CONDITIONS
        else f"{name} {value:g}"
        for name, value in curves.others.items()
    ]
    own = curves.channel.name
    named = curves.title if curves.title == own else f"{curves.title} ({own})"
    return ", ".join([named, *others])


def _caption(curves: Curves) -> str:
    each = f" on {curves.links} links of {curves.slots} packets" if curves.slots > 1 else ""
    parts = [
        f"n = {curves.links * curves.slots} packets of {curves.packet_bytes} bytes a point{each}"
    ]
    if curves.traffic:
        parts.append(curves.traffic)
    bits = next((point.bits.trials for point in curves.points if point.bits is not None), 0)
    if bits:
        parts.append(f"{bits} bits a point")
    if not any(point.lost.hits for point in curves.points):
        parts.append("none was lost")
    text = "; ".join(parts) + ". Bars: 95 % intervals, Clopper and Pearson"
    if curves.slots > 1:
        text += ", packets of a link counted as fewer where they share its fate (Korn and Graubard)"
    return text + "; a hollow triangle: none, its interval ends there."


def _axis(curves: Curves) -> Axis:
    name = curves.condition or ""
    return CONDITIONS.get(name, Axis(name))


def _marks(
    panel: Axes,
    xs: Sequence[float],
    shares: Sequence[Share],
    label: str,
    number: int = 0,
    log: bool = False,
    factor: float = 1.0,
) -> None:
    """Rates with their intervals; on a logarithmic axis a rate of 0 is the end of its interval."""
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    seen = [i for i, s in enumerate(shares) if s.trials and (s.hits or not log)]
    none = [i for i, s in enumerate(shares) if s.trials and not s.hits and log]
    if seen:
        y = np.array([shares[i].rate for i in seen])
        ends = np.array([shares[i].interval for i in seen])
        panel.errorbar(
            np.array(xs)[seen],
            factor * y,
            factor * np.stack([y - ends[:, 0], ends[:, 1] - y]).clip(min=0),
            fmt=marker,
            color=colour,
            markersize=4.5,
            elinewidth=1.1,
            capsize=2,
            label=label,
            zorder=4,
        )
    if none:
        tops = [factor * shares[i].interval[1] for i in none]
        panel.plot(np.array(xs)[none], tops, "v", color=colour, mfc="white", markersize=5, zorder=4)


def _linestyle(law: Law, number: int) -> Any:
    """Solid what should be met, dashed what bounds, dotted further laws and aims."""
    if number > 0 or law.aim:
        return (0, (1, 1.5))
    return (0, (5, 2)) if law.bound else "-"


def _lines(
    panel: Axes, laws: Sequence[Law], xs: Floats, factor_x: float = 1.0, factor_y: float = 1.0
) -> None:
    for number, law in enumerate(laws):
        panel.plot(
            xs * factor_x,
            law.values(xs) * factor_y,
            color="#1a1a1a" if number == 0 else GREY,
            linestyle=_linestyle(law, number),
            linewidth=1.3,
            label=law.name,
            zorder=2,
        )


def _span(curves: Curves) -> Floats:
    values = [point.value for point in curves.points if point.value is not None]
    return np.linspace(min(values), max(values), 400) if len(values) > 1 else np.array(values)


def _floor(shares: Sequence[Share]) -> float:
    """The lower end of a logarithmic axis: a little below the least that was seen."""
    seen = [share.interval[0] for share in shares if share.hits]
    seen += [share.interval[1] / 3 for share in shares if share.trials and not share.hits]
    seen.append(0.03)
    return max(_LOWEST_SHOWN, 10.0 ** math.floor(math.log10(max(min([*seen, 0.03]), 1e-12))))


def _finish(panel: Axes, title: str, x: str, y: str, legend: Any = "best") -> None:
    panel.set_title(title)
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    panel.legend(
        fontsize=7.5, loc=legend, frameon=True, facecolor="white", edgecolor="none", framealpha=0.9
    )


def _bit_panel(panel: Axes, curves: Curves) -> None:
    axis = _axis(curves)
    points = [point for point in curves.points if point.bits is not None]
    shares = [point.bits for point in points if point.bits is not None]
    _lines(panel, bit_laws(curves), _span(curves), axis.factor)
    xs = [axis.factor * (point.value or 0.0) for point in points]
    _marks(panel, xs, shares, "counted", log=True)
    panel.set_yscale("log")
    panel.set_ylim(_floor(shares), 1)
    _finish(panel, "Bit errors", axis.label, "Bit error rate (no unit)", "lower left")


def _loss_panel(panel: Axes, curves: Curves) -> None:
    axis = _axis(curves)
    log = curves.condition != "loss"
    factor = 1.0 if log else 100.0
    shares = [point.lost for point in curves.points]
    _lines(panel, loss_laws(curves), _span(curves), axis.factor, factor)
    xs = [axis.factor * (point.value or 0.0) for point in curves.points]
    _marks(panel, xs, shares, "counted", log=log, factor=factor)
    if log:
        panel.set_yscale("log")
        panel.set_ylim(_floor(shares), 1.3)
    _finish(
        panel,
        "Packet loss",
        axis.label,
        "Packets lost (share)" if log else "Packets lost (%)",
        "lower left" if log else "upper left",
    )


def _slot_panel(panel: Axes, curves: Curves) -> None:
    (point,) = curves.points
    slots = np.arange(1, curves.slots + 1, dtype=np.float64)
    step = -(-curves.slots // 50)
    _lines(panel, loss_laws(curves), slots, 1.0, 100.0)
    shares = point.lost_by_slot[::step]
    _marks(panel, slots[::step].tolist(), shares, "counted", factor=100.0)
    top = 108 * max(share.interval[1] for share in shares)
    panel.set_ylim(-0.03 * top, top)
    _finish(panel, "Packet loss", "Packet of its link (number)", "Packets lost (%)")


def _some(points: Sequence[Point], most: int = 3) -> list[Point]:
    """At most so many, evenly chosen, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[i] for i in np.linspace(0, len(points) - 1, most).round().astype(int)]


def _at(curves: Curves, point: Point) -> str:
    return "counted" if point.value is None else f"{_axis(curves).said(point.value)}"


def _run_panel(panel: Axes, curves: Curves) -> None:
    points = _some([point for point in curves.points if _shows_runs(point)])
    longest = 1
    for number, point in enumerate(points):
        shown = [length for length, share in enumerate(point.runs) if share.hits]
        longest = max(longest, shown[-1])
        beside = 0.12 * (number - (len(points) - 1) / 2)
        _marks(
            panel,
            [length + beside for length in shown],
            [point.runs[length] for length in shown],
            f"{_at(curves, point)}, {point.runs[0].trials} runs",
            number,
            log=True,
        )
        law = run_law(curves, point.value)
        if law is not None:
            xs = np.arange(shown[-1] + 1, dtype=np.float64)
            panel.plot(
                xs, law.values(xs), color=COLOURS[number % len(COLOURS)], linewidth=1.2, zorder=2
            )
    panel.set_yscale("log")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_ylim(_floor([share for point in points for share in point.runs if share.hits]), 1.5)
    has_law = run_law(curves, points[-1].value) is not None
    _finish(
        panel,
        "Runs of losses" + (" (lines: law of the states)" if has_law else ""),
        "Packets lost in a row, l (number)",
        "P(run longer than l)",
    )


def _delay_panel(panel: Axes, curves: Curves) -> None:
    points = _some([point for point in curves.points if _shows_delay(point)])
    longest = max(float(_instants(point, 2)[-1]) for point in points)
    unit, factor = ("s", 1.0) if longest >= 1 else ("ms", 1e3)
    grid = np.linspace(0, longest, 600)
    for number, point in enumerate(points):
        come = np.sort(point.delays_s, axis=None)
        share = np.searchsorted(come, grid, side="right") / len(come)
        marks = grid[np.linspace(0, len(grid) - 1, 16).round().astype(int)]
        colour = COLOURS[number % len(COLOURS)]
        panel.plot(grid * factor, share, color=colour, linewidth=1, alpha=0.6)
        shares = [point.within(float(t)) for t in marks]
        _marks(panel, (marks * factor).tolist(), shares, _at(curves, point), number)
    law = delay_law(curves)
    if law is not None:
        deadline = getattr(curves.channel, "deadline_s", None)
        shown = grid if deadline is None else grid[grid <= deadline]
        _lines(panel, [law], shown, factor)
    panel.set_ylim(0, 1.03)
    _finish(
        panel, "Delay", f"Delay t ({unit})", "P(there within t), lost ones never", "lower right"
    )
