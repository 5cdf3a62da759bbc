"""Transmission of analogue symbols over the symbol channel of a packet link.

    symbols [k] ── in turn ──> P packets of S symbols ── symbol channel ── equalised ──> [k]

The symbol channel is the one under a packet link (`coded`, `lookup`, `uncoded`, `adaptive`,
`ideal`); its code and modulation are not used. A packet of symbols has as many channel uses as a
packet of the link, and the same fade: slot p of a picture's draw has the same h for bits and for
symbols. The symbols are distributed over the packets in turn, so that a deep fade affects all parts
of a picture equally.

Channel uses include pilots; CBR = channel uses / (3 H W).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from channels.base import Channel
from channels.errors import ChannelError
from channels.fading.base import SNR_RANGE_DB, Clocked, Piloted, SymbolChannel, Timing
from channels.link.harq import Retransmits
from channels.random import Randomness
from sqlink.analogue.base import SymbolCodec
from sqlink.codecs.base import Decoded, Rate
from sqlink.crossing import Draw
from sqlink.errors import ConfigError


@runtime_checkable
class OverSymbols(Protocol):
    """A packet link over a symbol channel."""

    name: str
    over: SymbolChannel

    def uses_per_packet(self, packet_bytes: int) -> int | None: ...


@dataclass(frozen=True)
class Frame:
    """The packets of a picture: `packets` packets of `symbols` data symbols each.

    elements: channel uses of one packet, with pilots.
    """

    packets: int
    symbols: int
    elements: int

    @property
    def total(self) -> int:
        """Return the number of data symbols of a picture."""
        return self.packets * self.symbols

    @property
    def channel_uses(self) -> int:
        return self.packets * self.elements


class SymbolLink:
    """The symbol channel under a packet link.

    packet_bytes: packet size of the link; a packet of symbols has the channel uses of such a
    packet. Raises ConfigError if the channel is not a link over a symbol channel.
    """

    def __init__(self, channel: Channel, packet_bytes: int) -> None:
        if not isinstance(channel, OverSymbols) or not isinstance(channel.over, SymbolChannel):
            raise ConfigError(
                f"channel '{channel.name}' carries packets, not symbols: an analogue codec needs a "
                "link over a symbol channel, such as {coded: {over: awgn}}"
            )
        self.name = channel.name
        self.over = channel.over
        self.packet_bytes = packet_bytes
        harq = channel.harq if isinstance(channel, Retransmits) else None
        attempts = 1 if harq is None else harq.rounds
        self.packet_uses = max(1, (channel.uses_per_packet(packet_bytes) or 1) // attempts)
        clocks = [part.symbol_rate_hz for part in (channel, self.over) if isinstance(part, Clocked)]
        self.symbol_rate_hz = next((rate for rate in clocks if rate), None)

    def uses(self, rate: Rate, height: int, width: int) -> int:
        """Return the channel uses of a rate for a picture of H×W.

        A rate in bpp or bytes gives the channel uses of the whole packets that a stream of that
        size fills. A native quality is the CBR, k / (3 H W).
        """
        if rate.channel_uses is not None:
            return int(rate.channel_uses)
        if rate.quality is not None:
            return int(rate.quality * 3 * height * width + 1e-9)
        size = rate.budget_bytes(height, width) or 0
        return -(-size // self.packet_bytes) * self.packet_uses

    def frame(self, uses: int, most_symbols: int) -> Frame:
        """Return the largest frame of at most `uses` channel uses and `most_symbols` data symbols.

        Raises ConfigError if the pilots leave no room for a symbol.
        """
        packets = max(1, -(-uses // self.packet_uses))
        while packets > 1 and packets > most_symbols:
            packets -= 1
        low, high = 0, min(uses // packets, most_symbols // packets)
        streams = self.over.streams if isinstance(self.over, Piloted) else 1
        high *= streams
        while low < high:
            middle = (low + high + 1) // 2
            if self._elements(middle) * packets <= uses and middle * packets <= most_symbols:
                low = middle
            else:
                high = middle - 1
        if low < 1:
            raise ConfigError(
                f"{uses} channel uses carry no symbol on '{self.name}': raise the rate"
            )
        return Frame(packets, low, self._elements(low))

    def transmit(
        self, symbols: Tensor, frame: Frame, snr_db: Tensor, randomness: Randomness
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Send N rows of symbols, one per link, with the keys of packet links.

        symbols: complex64 [N, frame.total], mean |s|² of 1. snr_db: [N], mean Es/N0 in dB. Returns
        the equalised symbols, complex64 [N, k], E|noise|² on each, float32 [N, k], and the mean
        |h|², float32 [N].
        Raises ChannelError for an SNR out of range.
        """
        low, high = SNR_RANGE_DB
        if not bool(((snr_db >= low) & (snr_db <= high)).all()):
            raise ChannelError(f"{self.name}: snr_db must be from {low:g} to {high:g}")
        links = len(symbols)
        dealt = symbols.reshape(links, frame.symbols, frame.packets).transpose(1, 2).contiguous()
        timing = Timing.together(links, frame.packets, symbols.device)
        if self.symbol_rate_hz:
            slot = torch.arange(frame.packets, dtype=torch.float64, device=symbols.device)
            start = (slot * frame.elements / self.symbol_rate_hz).expand(links, -1)
            timing = Timing(timing.group, start)
        seen = self.over.apply(dealt, snr_db.to(torch.float64), randomness, timing)
        variance = seen.noise_variance.expand(dealt.shape)
        return (
            seen.symbols.transpose(1, 2).reshape(links, frame.total),
            variance.transpose(1, 2).reshape(links, frame.total),
            seen.gain.mean(dim=1),
        )

    def _elements(self, symbols: int) -> int:
        """Return the channel uses of a packet of `symbols` data symbols."""
        return self.over.occupied(symbols)[0] if isinstance(self.over, Piloted) else symbols


@dataclass(frozen=True)
class SymbolsReceived:
    """The received symbols of one picture, and the noise on them.

    symbols: complex64 [k], equalised. noise_variance: float32 [k]. snr_db: the mean Es/N0, which
    both ends know.
    """

    symbols: Tensor
    noise_variance: Tensor
    snr_db: float


def cross_symbols(
    codec: SymbolCodec,
    link: SymbolLink,
    images: Tensor,
    frame: Frame,
    draws: Sequence[Draw],
    snr_db: Tensor,
    point: str,
) -> list[SymbolsReceived]:
    """Send one picture for each of L draws, with the random keys of `sqlink.crossing.cross`.

    images: float32 [N, 3, H, W]; a draw's `answer` is the number of its picture. snr_db: float64
    [L], mean Es/N0 in dB. A picture is encoded once for each SNR of its draws.
    """
    levels = snr_db.tolist()
    pairs = list(dict.fromkeys(zip((draw.answer for draw in draws), levels, strict=True)))
    place = {pair: n for n, pair in enumerate(pairs)}
    pictures = images[torch.tensor([picture for picture, _ in pairs], device=images.device)]
    met = torch.tensor([level for _, level in pairs], dtype=torch.float64)
    symbols = codec.encode(pictures, frame.total, met)
    keys = [
        Randomness.derive(draw.seed, [(point, draw.name, draw.realisation)]).keys for draw in draws
    ]
    which = torch.tensor([place[d.answer, s] for d, s in zip(draws, levels, strict=True)])
    seen, variance, _ = link.transmit(
        symbols[which.to(symbols.device)],
        frame,
        snr_db.to(symbols.device),
        Randomness(torch.cat(keys).to(symbols.device)),
    )
    return [SymbolsReceived(*row) for row in zip(seen, variance, levels, strict=True)]


def decode_symbols(
    codec: SymbolCodec, received: Sequence[SymbolsReceived], height: int, width: int
) -> Decoded:
    """Decode pictures of H×W that have equal numbers of symbols."""
    return codec.decode(
        torch.stack([one.symbols for one in received]),
        torch.stack([one.noise_variance for one in received]),
        torch.tensor([one.snr_db for one in received], dtype=torch.float64),
        height,
        width,
    )
