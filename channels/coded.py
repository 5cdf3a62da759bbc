"""Packets over a symbol channel: with CRC, 5G LDPC and QAM, or uncoded.

    packet ── zero-fill to packet_bytes ── + CRC ── cut into code blocks ── LDPC ── QAM ──┐
                                                                                  symbol channel
    verdict, bytes <── CRC <── belief propagation <── bitwise LLRs <── divide by h <──────┘

One `packet_bytes` means one code for everything that the link carries. The segmentation is our own:
as few equal code blocks as TS 38.212 allows, filled up with zero bits that are sent and counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from channels.base import Conditions, Packets, Reception, register
from channels.errors import ChannelError
from channels.ldpc import (
    CRC_BITS,
    DEFAULT_ITERATIONS,
    HIGHEST_RATE,
    LOWEST_RATE,
    code,
    crc,
    in_chunks,
    layout,
)
from channels.modem import BITS_PER_SYMBOL, modem
from channels.random import Streams
from channels.ranges import choice, condition, flag, integer, number
from channels.spec import from_spec
from channels.symbols import SNR_RANGE_DB, SYMBOL_CHANNELS, Timing

DEFAULT_PACKET_BYTES = 96

_CHECK_EVERY = 4
"""Iterations of belief propagation between two looks at the CRC, where `early_stop`."""

_GROUP_SYMBOLS = 1 << 20
"""Symbols in flight at once; more links than that go one group after another."""


@dataclass(frozen=True)
class _Arrival:
    """What came out for R packets: bytes uint8 [R, B], and whether the receiver takes them."""

    payload: Tensor
    accepted: Tensor


def _to_bits(payload: Tensor) -> Tensor:
    """uint8 [R, B] to float32 [R, 8B], most significant bit first."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=payload.device)
    return ((payload[..., None] >> shifts) & 1).flatten(1).to(torch.float32)


def _to_bytes(bits: Tensor) -> Tensor:
    """float32 [R, 8B] back to uint8 [R, B]."""
    weights = torch.pow(2.0, torch.arange(7, -1, -1, device=bits.device))
    octets = bits.reshape(len(bits), bits.shape[1] // 8, 8)
    return (octets * weights).sum(dim=-1).to(torch.uint8)


def _resize(payload: Tensor, size: int) -> Tensor:
    """uint8 [..., B] cut or zero-filled to [..., size]."""
    resized: Tensor = torch.nn.functional.pad(payload, (0, size - payload.shape[-1]))
    return resized


def _name_of(device: torch.device) -> str:
    """Of a device, with its number, as Sionna wants it."""
    if device.type == "cuda" and device.index is None:
        return f"cuda:{torch.cuda.current_device()}"
    return str(device)


class _ModulatedLink:
    """What coded and uncoded links share: groups of links, conditions, verdicts, accounts."""

    name = "modulated"
    needs: tuple[str, ...] = ("snr_db",)

    def __init__(self, over: object, modulation: str) -> None:
        self.over = from_spec(SYMBOL_CHANNELS, over)
        self.modulation = choice(self.name, "modulation", modulation, BITS_PER_SYMBOL)
        self.bits_per_symbol = BITS_PER_SYMBOL[self.modulation]

    def transmit(self, packets: Packets, conditions: Conditions, randomness: Streams) -> Reception:
        """Send N x P packets; reads the condition `snr_db`, mean Es/N0, [N], SNR_RANGE_DB.

        Raises ChannelError if a packet is too long, or the SNR is missing, NaN or out of range.
        """
        links, slots = packets.lengths.shape
        device = packets.device
        snr_db = condition(self.name, conditions, "snr_db", links, *SNR_RANGE_DB, device)
        if len(randomness) != links:
            raise ValueError(f"{len(randomness)} random streams for {links} links")
        longest = int(packets.lengths.max()) if packets.lengths.numel() else 0
        symbols_per_slot = self._symbols(torch.tensor(longest)).item()
        group = int(max(1, _GROUP_SYMBOLS // max(1, slots * symbols_per_slot)))
        pieces = [
            self._send(
                packets.select(part),
                snr_db[part],
                randomness.select(part).to(device),
            )
            for part in (slice(i, i + group) for i in range(0, max(links, 1), group))
        ]
        payload, accepted, gain_db = (torch.cat(column) for column in zip(*pieces, strict=True))

        used = torch.arange(packets.payload.shape[-1], device=device) < packets.lengths[..., None]
        correct = ((payload == packets.payload) | ~used).all(dim=-1) & packets.present
        delivered = (correct if self._knows_the_truth else accepted) & packets.present
        sent = replace(packets, payload=payload * used)
        zero = torch.zeros(links, slots, dtype=torch.float64, device=device)
        return Reception(
            packets=sent.keep(delivered),
            delivered=delivered,
            correct=correct,
            channel_uses=self._symbols(packets.lengths).sum(dim=1),
            delay_s=zero.masked_fill(~delivered, torch.inf),
            ledger=self._ledger(packets.lengths),
            statistics={"snr_db": snr_db + gain_db},
        )

    def _send(
        self, packets: Packets, snr_db: Tensor, randomness: Streams
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One group of g links: payload uint8 [g, P, B], accepted bool [g, P], mean gain dB [g]."""
        present, width = packets.present, packets.payload.shape[-1]
        device = packets.device
        payload = torch.zeros_like(packets.payload)
        accepted = torch.zeros_like(present)
        gain_db = torch.zeros_like(snr_db)
        if not bool(present.any()):
            return payload, accepted, gain_db
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            rows = self._modulate(packets.payload[present], _name_of(device))  # [R, S]
            symbols = rows.new_zeros(*present.shape, rows.shape[-1])
            symbols[present] = rows
            timing = Timing(packets.pictures, packets.times_s)
            seen = self.over.apply(symbols, snr_db, randomness, timing)
            arrival = self._receive(
                seen.symbols[present], seen.noise_variance[present], _name_of(device)
            )
        payload[present] = _resize(arrival.payload, width)
        accepted[present] = arrival.accepted
        count = present.sum(dim=1)
        mean = (seen.gain.to(torch.float64) * present).sum(dim=1) / count.clamp(min=1)
        gain_db = torch.where(count > 0, 10 * torch.log10(mean), gain_db)
        return payload, accepted, gain_db

    _knows_the_truth = False

    def _symbols(self, lengths: Tensor) -> Tensor:
        """Symbols of packets of so many bytes, int64; 0 for an empty slot."""
        raise NotImplementedError

    def _ledger(self, lengths: Tensor) -> dict[str, Tensor]:
        """Bits of each kind, int64 [N], that add up to symbols x bits_per_symbol."""
        raise NotImplementedError

    def _modulate(self, payload: Tensor, device: str) -> Tensor:
        """uint8 [R, B] to complex64 [R, S]."""
        raise NotImplementedError

    def _receive(self, symbols: Tensor, noise_variance: Tensor, device: str) -> _Arrival:
        """complex64 [R, S], float32 [R, 1] to bytes and verdicts."""
        raise NotImplementedError


@register("coded")
class CodedLink(_ModulatedLink):
    """CRC + 5G LDPC + QAM over any symbol channel.

    over: a symbol channel, `awgn` or `{rayleigh: {coherence: packet}}`.
    modulation: qpsk, 16qam, 64qam, 256qam.
    code_rate: k/n, the CRC counted in k; 0.2 to 0.95. n is a whole number of symbols.
    packet_bytes: every packet is zero-filled to so many bytes, 1 to 65535; longer ones are refused.
        A packet's own length is taken as known, as from a link layer's control channel.
    crc: crc24a or crc16. iterations: of belief propagation, 1 to 1000.
    early_stop: look at the CRC every four iterations and stop where it holds, as receivers do; it
        changes what is delivered only by chance agreements of a wrong CRC (2^-24, 2^-16 a look).

    `delivered` is the CRC's verdict, `correct` whether the bytes are those sent.

    >>> link = CodedLink(modulation="16qam", code_rate=0.5)
    >>> link.uses_per_packet(96)
    396
    """

    name = "coded"

    def __init__(
        self,
        over: object = "awgn",
        modulation: str = "qpsk",
        code_rate: float = 0.5,
        packet_bytes: int = DEFAULT_PACKET_BYTES,
        crc: str = "crc24a",
        iterations: int = DEFAULT_ITERATIONS,
        early_stop: bool = True,
    ) -> None:
        super().__init__(over, modulation)
        self.code_rate = number(self.name, "code_rate", code_rate, LOWEST_RATE, HIGHEST_RATE)
        self.packet_bytes = integer(self.name, "packet_bytes", packet_bytes, 1, 65535)
        self.crc = choice(self.name, "crc", crc, CRC_BITS)
        self.iterations = integer(self.name, "iterations", iterations, 1, 1000)
        self.early_stop = flag(self.name, "early_stop", early_stop)
        self.layout = layout(
            8 * self.packet_bytes + CRC_BITS[self.crc], self.code_rate, self.bits_per_symbol
        )

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        """Complex symbols of one packet. Raises ChannelError if it is longer than the code's."""
        return int(self._symbols(torch.tensor(packet_bytes)))

    def _symbols(self, lengths: Tensor) -> Tensor:
        longest = int(lengths.max()) if lengths.numel() else 0
        if longest > self.packet_bytes:
            raise ChannelError(
                f"coded: a packet of {longest} bytes is too long, the code carries 1 to "
                f"{self.packet_bytes}; raise packet_bytes"
            )
        return (lengths > 0) * (self.layout.coded_bits // self.bits_per_symbol)

    def _ledger(self, lengths: Tensor) -> dict[str, Tensor]:
        count = (lengths > 0).sum(dim=1)
        payload = 8 * lengths.sum(dim=1)
        plan, parity = self.layout, CRC_BITS[self.crc]
        return {
            "payload": payload,
            "crc": count * parity,
            "fec": count * plan.blocks * (plan.n - plan.k),
            "padding": count * (plan.blocks * plan.k - parity) - payload,
        }

    def _modulate(self, payload: Tensor, device: str) -> Tensor:
        plan = self.layout
        encoder = code(plan.k, plan.n, self.bits_per_symbol, device)
        parity = crc(self.crc, 8 * self.packet_bytes, device)

        def encode(rows: Tensor) -> tuple[Tensor]:
            protected = parity.append(_to_bits(rows))
            blocks = torch.nn.functional.pad(protected, (0, plan.padding)).reshape(-1, plan.k)
            coded = encoder.encode(blocks).reshape(len(rows), plan.coded_bits)
            return (modem(self.modulation, device).map(coded),)

        size = max(1, encoder.chunk // plan.blocks)
        (symbols,) = in_chunks(encode, size, _resize(payload, self.packet_bytes))
        return symbols

    def _receive(self, symbols: Tensor, noise_variance: Tensor, device: str) -> _Arrival:
        plan = self.layout
        decoder = code(plan.k, plan.n, self.bits_per_symbol, device)
        parity = crc(self.crc, 8 * self.packet_bytes, device)
        every = _CHECK_EVERY if self.early_stop else self.iterations

        def decode(rows: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
            llr = modem(self.modulation, device).demap(rows, noise).reshape(-1, plan.n)
            taken = torch.zeros(len(rows), plan.bits, device=rows.device)
            accepted = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
            for blocks in decoder.iterate(llr, self.iterations, every):
                message = blocks.reshape(len(rows), -1)[:, : plan.bits]
                taken = torch.where(accepted[:, None], taken, message)
                accepted = accepted | parity.holds(message)
                if bool(accepted.all()):
                    break
            return _to_bytes(taken[:, : 8 * self.packet_bytes]), accepted

        size = max(1, decoder.chunk // plan.blocks)
        payload, accepted = in_chunks(decode, size, symbols, noise_variance)
        return _Arrival(payload, accepted)


@register("uncoded")
class UncodedLink(_ModulatedLink):
    """QAM over any symbol channel with hard decisions: a packet with any bit error is lost.

    over, modulation: as for `coded`. Error detection is ideal and costs nothing, so `delivered` and
    `correct` are the same: a bound for links without coding.
    """

    name = "uncoded"
    _knows_the_truth = True

    def __init__(self, over: object = "awgn", modulation: str = "qpsk") -> None:
        super().__init__(over, modulation)

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        """Complex symbols of one packet."""
        return int(self._symbols(torch.tensor(packet_bytes)))

    def _symbols(self, lengths: Tensor) -> Tensor:
        return (8 * lengths + self.bits_per_symbol - 1) // self.bits_per_symbol

    def _ledger(self, lengths: Tensor) -> dict[str, Tensor]:
        payload = 8 * lengths.sum(dim=1)
        sent = self._symbols(lengths).sum(dim=1) * self.bits_per_symbol
        return {"payload": payload, "padding": sent - payload}

    def _modulate(self, payload: Tensor, device: str) -> Tensor:
        bits = _to_bits(payload)
        bits = torch.nn.functional.pad(bits, (0, -bits.shape[1] % self.bits_per_symbol))
        return modem(self.modulation, device).map(bits)

    def _receive(self, symbols: Tensor, noise_variance: Tensor, device: str) -> _Arrival:
        llr = modem(self.modulation, device).demap(symbols, noise_variance)
        bits = (llr > 0).to(torch.float32)
        whole = bits.shape[1] - bits.shape[1] % 8
        accepted = torch.ones(len(bits), dtype=torch.bool, device=bits.device)
        return _Arrival(_to_bytes(bits[:, :whole]), accepted)
