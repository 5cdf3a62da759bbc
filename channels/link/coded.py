"""Packets over a symbol or a bit channel: with CRC and 5G LDPC or polar codes, or uncoded.

    packet ── zero-fill to packet_bytes ── + CRC ── cut into code blocks ── encode ── QAM ──┐
                                                                                    symbol channel
    verdict, bytes <── CRC <── decode <── + LLRs kept (HARQ) <── bitwise LLRs <─────────────┘

One `packet_bytes` means one code for everything that the link carries. The segmentation is our own:
as few equal code blocks as TS 38.212 allows, filled up with zero bits that are sent and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from channels.base import Conditions, Packets, Reception, register
from channels.config.checks import choice, condition, flag, integer, number
from channels.config.spec import construct, name_and_parameters
from channels.errors import ChannelError, ConfigError
from channels.fading.binary import BIT_CHANNELS, BitChannel
from channels.fading.block import SNR_RANGE_DB, SYMBOL_CHANNELS, Piloted, SymbolChannel, Timing
from channels.fec.ldpc import (
    CHECK_EVERY,
    CRC_BITS,
    DEFAULT_ITERATIONS,
    FIRST,
    HIGHEST_RATE,
    LOWEST_RATE,
    SCHEDULES,
    Holds,
    code,
    crc,
    in_chunks,
    layout,
)
from channels.fec.polar import DEFAULT_LIST_SIZE, polar_code, polar_layout
from channels.fec.qam import BITS_PER_SYMBOL, modem
from channels.link.harq import Airtime, Harq, versions_of
from channels.random import Streams
from channels.registry import nearest

DEFAULT_PACKET_BYTES = 96

_GROUP_SYMBOLS = 1 << 20
"""Symbols in flight at once; more links than that go one group after another."""


CODES = ("ldpc", "polar")
INPUTS = ("soft", "hard")

SYMBOL_RATES_HZ = (1.0, 1e12)


@dataclass(frozen=True)
class _Arrival:
    """What came out for R packets: bytes uint8 [R, B], and whether the receiver takes them.

    kept: float32 [R, L], the LLRs added up so far; None where no attempt can follow.
    """

    payload: Tensor
    accepted: Tensor
    kept: Tensor | None = None


class _BlockCode(Protocol):
    """What LDPC and polar codes have in common."""

    chunk: int
    fewest: int

    def encode(self, bits: Tensor, versions: Sequence[int] = FIRST) -> Tensor: ...

    def decode_until(
        self,
        llr: Tensor,
        iterations: int,
        every: int,
        holds: Holds,
        versions: Sequence[int] = FIRST,
        together: int = 1,
    ) -> tuple[Tensor, Tensor]: ...


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


def _hard(llr: Tensor) -> Tensor:
    """float32 [R, L] to hard decisions: the sign, and one magnitude log((1 - p) / p) a packet.

    p: the packet's share of wrong decisions, as its receiver expects it.
    """
    wrong = torch.sigmoid(-llr.abs()).mean(dim=-1, keepdim=True).clamp(1e-9, 0.5)
    return torch.sign(llr) * torch.log((1 - wrong) / wrong)


class _SymbolAir:
    """Bits by QAM over a symbol channel; `level` is the SNR in dB."""

    def __init__(self, over: SymbolChannel, modulation: str) -> None:
        self.over, self.modulation = over, modulation
        self.order = BITS_PER_SYMBOL[modulation]
        self.streams = over.streams if isinstance(over, Piloted) else 1
        self.needs: tuple[str, ...] = ("snr_db",)

    def level(self, owner: str, conditions: Conditions, links: int, device: torch.device) -> Tensor:
        return condition(owner, conditions, "snr_db", links, *SNR_RANGE_DB, device)

    def occupied(self, symbols: int) -> tuple[int, int]:
        """Resource elements of so many data symbols, and how many of them are pilots."""
        return self.over.occupied(symbols) if isinstance(self.over, Piloted) else (symbols, 0)

    def send(
        self, bits: Tensor, sent: Tensor, level: Tensor, randomness: Streams, timing: Timing
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """bits: float32 [R, L] of the R slots of `sent`, bool [g, P].

        Returns symbols complex64 [R, S] and noise variances float32 [R, 1] or [R, S], and the gain
        float32 [g, P].
        """
        rows = modem(self.modulation, _name_of(bits.device)).map(bits)  # [R, S]
        symbols = rows.new_zeros(*sent.shape, rows.shape[-1])
        symbols[sent] = rows
        seen = self.over.apply(symbols, level, randomness, timing)
        return (seen.symbols[sent], seen.noise_variance[sent]), seen.gain

    def llr(self, symbols: Tensor, noise_variance: Tensor) -> Tensor:
        """What `send` returned, for some rows, to LLRs float32 [R, L]."""
        return modem(self.modulation, _name_of(symbols.device)).demap(symbols, noise_variance)

    def statistics(self, level: Tensor, gain_db: Tensor) -> dict[str, Tensor]:
        return {"snr_db": level + gain_db}


class _BitAir:
    """Bits as they are over a bit channel; `level` is its probability."""

    def __init__(self, over: BitChannel) -> None:
        self.over = over
        self.order = self.streams = 1
        self.needs = over.needs

    def level(self, owner: str, conditions: Conditions, links: int, device: torch.device) -> Tensor:
        return self.over.probability(conditions, links, device)

    def occupied(self, symbols: int) -> tuple[int, int]:
        return symbols, 0

    def send(
        self, bits: Tensor, sent: Tensor, level: Tensor, randomness: Streams, timing: Timing
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """As for symbols; returns LLRs float32 [R, L]."""
        whole = bits.new_zeros(*sent.shape, bits.shape[-1])
        whole[sent] = bits
        llr = self.over.apply_bits(whole, level, randomness, timing)
        return (llr[sent],), torch.ones(sent.shape, device=bits.device)

    def llr(self, *rows: Tensor) -> Tensor:
        return rows[0]

    def statistics(self, level: Tensor, gain_db: Tensor) -> dict[str, Tensor]:
        return {}


def _air(owner: str, over: object, modulation: object) -> _SymbolAir | _BitAir:
    """What `over` names, under the modulation; None is QPSK, and all that a bit channel takes."""
    name, parameters = name_and_parameters("symbol channel", over)
    if name in BIT_CHANNELS.names():
        if modulation is not None:
            raise ConfigError(
                f"{owner}: modulation={modulation!r} must be left out over {name}, a bit channel"
            )
        return _BitAir(construct(BIT_CHANNELS, name, parameters))
    if name not in SYMBOL_CHANNELS.names():
        known = [*SYMBOL_CHANNELS.names(), *BIT_CHANNELS.names()]
        raise ConfigError(f"unknown symbol or bit channel '{name}': {nearest(name, known)}")
    chosen = "qpsk" if modulation is None else modulation
    key = choice(owner, "modulation", chosen, BITS_PER_SYMBOL)
    return _SymbolAir(construct(SYMBOL_CHANNELS, name, parameters), key)


class _Link:
    """What coded and uncoded links share: groups of links, attempts, verdicts, accounts."""

    name = "link"

    def __init__(self, over: object, modulation: str | None, symbol_rate_hz: float | None) -> None:
        self._air = _air(self.name, over, modulation)
        self.over = self._air.over
        self.modulation = self._air.modulation if isinstance(self._air, _SymbolAir) else None
        self.order = self._air.order
        """Bits of one data symbol."""
        self.bits_per_symbol = self.order * self._air.streams
        """Bits of one channel use, which carries a data symbol of every stream."""
        self.needs = self._air.needs
        self.symbol_rate_hz = (
            None
            if symbol_rate_hz is None
            else number(self.name, "symbol_rate_hz", symbol_rate_hz, *SYMBOL_RATES_HZ)
        )
        own = getattr(self.over, "symbol_rate_hz", None)
        if self.symbol_rate_hz is not None and own not in (None, self.symbol_rate_hz):
            raise ConfigError(
                f"{self.name}: symbol_rate_hz={self.symbol_rate_hz:.12g} must be that of "
                f"over={self.over.name}, {own:.12g}"
            )
        self.harq: Harq | None = None

    def transmit(self, packets: Packets, conditions: Conditions, randomness: Streams) -> Reception:
        """Send N x P packets; reads `snr_db`, mean Es/N0, [N], SNR_RANGE_DB.

        Over a bit channel it reads that one's condition instead. Raises ChannelError if a packet is
        too long, or the condition is missing, NaN or out of range.
        """
        links, slots = packets.lengths.shape
        device = packets.device
        level = self._air.level(self.name, conditions, links, device)
        if len(randomness) != links:
            raise ValueError(f"{len(randomness)} random streams for {links} links")
        longest = int(packets.lengths.max()) if packets.lengths.numel() else 0
        group = max(1, self._group(max(1, slots), self.uses_per_packet(longest)))
        pieces = [
            self._send(
                packets.select(part),
                level[part],
                randomness.select(part).to(device),
            )
            for part in (slice(i, i + group) for i in range(0, max(links, 1), group))
        ]
        columns = (torch.cat(column) for column in zip(*pieces, strict=True))
        accepted, gain_db, attempts, delay, *payload = columns
        received, delivered, correct = self._verdict(packets, accepted, *payload)
        elements, pilots = self._occupied(packets.lengths)
        total = (elements * attempts).sum(dim=1)
        ledger = self._ledger(packets.lengths, attempts)
        if isinstance(self.over, Piloted):
            bits = self.bits_per_symbol
            symbols = (self._symbols(packets.lengths) * attempts).sum(dim=1)
            ledger["pilots"] = (pilots * attempts).sum(dim=1) * bits
            idle = total * bits - ledger["pilots"] - symbols * self.order
            ledger["padding"] = ledger["padding"] + idle
        statistics = self._air.statistics(level, gain_db)
        if self.harq is not None:
            count = packets.present.sum(dim=1).clamp(min=1)
            statistics["rounds"] = attempts.sum(dim=1).to(torch.float64) / count
        return Reception(
            packets=received,
            delivered=delivered,
            correct=correct,
            channel_uses=total,
            delay_s=delay.masked_fill(~delivered, torch.inf),
            ledger=ledger,
            statistics=statistics,
        )

    def _group(self, slots: int, uses: int) -> int:
        """Links to send at once, of so many packets each of so many channel uses."""
        return _GROUP_SYMBOLS // max(1, slots * uses)

    def _send(self, packets: Packets, level: Tensor, randomness: Streams) -> tuple[Tensor, ...]:
        """One group of g links, every attempt of it.

        Returns accepted bool [g, P], mean gain dB float64 [g], attempts int64 [g, P], delay float64
        [g, P], and payload uint8 [g, P, B] where `_verdict` needs it.
        """
        width = packets.payload.shape[-1]
        payload = torch.zeros_like(packets.payload)
        accepted = torch.zeros_like(packets.present)
        attempts = torch.zeros_like(packets.lengths)
        delay = torch.zeros_like(packets.times_s)
        gain = torch.zeros_like(level)
        elements, _ = self._occupied(packets.lengths)
        airtime = Airtime(self.symbol_rate_hz)
        ready = packets.times_s
        kept: Tensor | None = None
        for attempt in range(1 if self.harq is None else self.harq.rounds):
            pending = packets.present & ~accepted
            if not bool(pending.any()):
                break
            start, end = airtime.book(ready, elements * pending)
            some = pending.any(dim=1)
            sent = pending[some]
            timing = Timing(packets.pictures[some], start[some], attempt)
            keys = randomness.select(some)
            with torch.no_grad(), torch.autocast(packets.device.type, enabled=False):
                bits = self._bits(packets.payload[pending], attempt)  # [R, L]
                rows, power = self._air.send(bits, sent, level[some], keys, timing)
                arrival = self._receive(rows, packets.lengths[pending], kept, attempt)
            payload[pending] = _resize(arrival.payload, width)
            accepted[pending] = arrival.accepted
            attempts = attempts + pending
            delay = torch.where(pending, end - packets.times_s, delay)
            gain[some] += (power.to(torch.float64) * sent).sum(dim=1)
            if self.harq is not None:
                ready = end + self.harq.round_trip_s
                kept = None if arrival.kept is None else arrival.kept[~arrival.accepted]
        count = attempts.sum(dim=1)
        gain_db = torch.where(count > 0, 10 * torch.log10(gain / count.clamp(min=1)), 0.0)
        return accepted, gain_db, attempts, delay, payload

    _knows_the_truth = False

    def _verdict(
        self, packets: Packets, accepted: Tensor, *payload: Tensor
    ) -> tuple[Packets, Tensor, Tensor]:
        """Of packets sent and what `_send` returned: what is received, delivered and correct."""
        (bytes_received,) = payload
        width = packets.payload.shape[-1]
        used = torch.arange(width, device=packets.device) < packets.lengths[..., None]
        correct = ((bytes_received == packets.payload) | ~used).all(dim=-1) & packets.present
        delivered = accepted & (correct if self._knows_the_truth else packets.present)
        received = replace(packets, payload=bytes_received * used).keep(delivered)
        return received, delivered, correct

    def uses_per_packet(self, packet_bytes: int) -> int:
        """Channel uses of one packet sent once. Raises ChannelError if it is too long."""
        return int(self._occupied(torch.tensor([packet_bytes]))[0])

    def _occupied(self, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Resource elements of packets of so many bytes, and pilots among them, int64 each."""
        symbols = self._symbols(lengths)
        if not isinstance(self.over, Piloted):
            return symbols, torch.zeros_like(symbols)
        counts, which = symbols.unique(return_inverse=True)
        table = [self._air.occupied(count) if count else (0, 0) for count in counts.tolist()]
        pairs = torch.tensor(table, dtype=torch.int64, device=lengths.device).reshape(-1, 2)[which]
        return pairs[..., 0], pairs[..., 1]

    def _symbols(self, lengths: Tensor) -> Tensor:
        """Data symbols of packets of so many bytes, int64; 0 for an empty slot."""
        raise NotImplementedError

    def _ledger(self, lengths: Tensor, attempts: Tensor) -> dict[str, Tensor]:
        """Bits of each kind, int64 [N], that add up to data symbols x order."""
        raise NotImplementedError

    def _bits(self, payload: Tensor, attempt: int) -> Tensor:
        """uint8 [R, B] to the bits on the air, float32 [R, L], whole symbols."""
        raise NotImplementedError

    def _receive(
        self, rows: tuple[Tensor, ...], lengths: Tensor, kept: Tensor | None, attempt: int
    ) -> _Arrival:
        """What the air's `send` returned for R packets of int64 [R] bytes, to their bytes."""
        raise NotImplementedError


@register("coded")
class CodedLink(_Link):
    """CRC + 5G LDPC or polar code + QAM over a symbol channel, or without QAM over a bit channel.

    over: a symbol channel, `awgn` or `{rayleigh: {coherence: packet}}`, or a bit channel, `bsc` or
        `{bec: {erasure: 0.1}}`.
    modulation: bpsk, qpsk (the default), 16qam, 64qam, 256qam; to be left out over a bit channel.
    code_rate: k/n, the CRC counted in k; 1/40 to 0.95. n is a whole number of symbols. Below 1/5
        the code's redundancy versions are sent one after another (LDPC) or its word is repeated.
    packet_bytes: every packet is zero-filled to so many bytes, 1 to 65535; longer ones are refused.
        A packet's own length is taken as known, as from a link layer's control channel.
    crc: crc24a or crc16. iterations: of belief propagation, 1 to 1000.
    schedule: of the messages, `layered`, or `flooding`, Sionna's decoder, slower and needing more
        iterations, by which most published curves were made.
    early_stop: look at the CRC every two iterations (flooding: four) and stop where it holds, as
        receivers do; it changes what is delivered only by chance agreements of a wrong CRC (2^-24,
        2^-16 a look).
    code: ldpc, or polar with successive cancellation lists of list_size paths (1, 2, 4 ... 32), to
        which iterations and early_stop mean nothing.
    input: of the decoder, soft LLRs, or hard decisions of which it knows only how often they fail.
    harq: None, or the parameters of `Harq`: packets whose CRC failed are sent again.
    symbol_rate_hz: symbols, or resource elements, a second, 1 to 1e12; a link's packets then wait
        for one another, and delays hold their time on the air. None: sending takes no time.

    `delivered` is the CRC's verdict, `correct` whether the bytes are those sent.

    >>> link = CodedLink(modulation="16qam", code_rate=0.5)
    >>> link.uses_per_packet(96)
    396
    """

    name = "coded"

    def __init__(
        self,
        over: object = "awgn",
        modulation: str | None = None,
        code_rate: float = 0.5,
        packet_bytes: int = DEFAULT_PACKET_BYTES,
        crc: str = "crc24a",
        iterations: int = DEFAULT_ITERATIONS,
        early_stop: bool = True,
        schedule: str = SCHEDULES[0],
        code: str = "ldpc",
        list_size: int = DEFAULT_LIST_SIZE,
        input: str = "soft",
        harq: object = None,
        symbol_rate_hz: float | None = None,
    ) -> None:
        super().__init__(over, modulation, symbol_rate_hz)
        self.code_rate = number(self.name, "code_rate", code_rate, LOWEST_RATE, HIGHEST_RATE)
        self.packet_bytes = integer(self.name, "packet_bytes", packet_bytes, 1, 65535)
        self.crc = choice(self.name, "crc", crc, CRC_BITS)
        self.iterations = integer(self.name, "iterations", iterations, 1, 1000)
        self.early_stop = flag(self.name, "early_stop", early_stop)
        self.schedule = choice(self.name, "schedule", schedule, SCHEDULES)
        self.code = choice(self.name, "code", code, CODES)
        self.list_size = integer(self.name, "list_size", list_size, 1, 32)
        if self.list_size & (self.list_size - 1):
            raise ConfigError(f"{self.name}: list_size={list_size} must be 1, 2, 4, 8, 16 or 32")
        self.input = choice(self.name, "input", input, INPUTS)
        self.harq = None if harq is None else Harq.from_spec(self.name, harq)
        if self.code == "polar" and self.harq is not None and self.harq.type == "ir":
            raise ConfigError(
                f"{self.name}: harq type='ir' must be chase with polar, which has no redundancy "
                "versions"
            )
        bits = 8 * self.packet_bytes + CRC_BITS[self.crc]
        self.layout = (
            polar_layout(self.name, bits, self.code_rate, self.order)
            if self.code == "polar"
            else layout(bits, self.code_rate, self.order)
        )

    def _symbols(self, lengths: Tensor) -> Tensor:
        longest = int(lengths.max()) if lengths.numel() else 0
        if longest > self.packet_bytes:
            raise ChannelError(
                f"coded: a packet of {longest} bytes is too long, the code carries 1 to "
                f"{self.packet_bytes}; raise packet_bytes"
            )
        return (lengths > 0) * (self.layout.coded_bits // self.order)

    def _ledger(self, lengths: Tensor, attempts: Tensor) -> dict[str, Tensor]:
        count = (lengths > 0).sum(dim=1)
        payload = 8 * lengths.sum(dim=1)
        plan, parity = self.layout, CRC_BITS[self.crc]
        return {
            "payload": payload,
            "crc": count * (parity + plan.blocks * plan.check),
            "fec": attempts.sum(dim=1) * plan.coded_bits
            - count * plan.blocks * (plan.k + plan.check),
            "padding": count * (plan.blocks * plan.k - parity) - payload,
        }

    def _versions(self, attempt: int) -> tuple[int, ...]:
        """Redundancy versions of the words that an attempt sends; polar codes have but one."""
        if self.code == "polar":
            return FIRST * self.layout.words
        type = "chase" if self.harq is None else self.harq.type
        return versions_of(attempt, self.layout.words, type)

    def _block_code(self, device: str) -> _BlockCode:
        plan = self.layout
        if self.code == "polar":
            return polar_code(plan.k, plan.n, self.list_size, device)
        return code(plan.k, plan.n, self.order, device, plan.words, self.schedule)

    def _bits(self, payload: Tensor, attempt: int) -> Tensor:
        plan = self.layout
        device = _name_of(payload.device)
        encoder = self._block_code(device)
        parity = crc(self.crc, 8 * self.packet_bytes, device)
        versions = self._versions(attempt)

        def encode(rows: Tensor) -> tuple[Tensor]:
            protected = parity.append(_to_bits(rows))
            blocks = torch.nn.functional.pad(protected, (0, plan.padding)).reshape(-1, plan.k)
            return (encoder.encode(blocks, versions).reshape(len(rows), plan.coded_bits),)

        size = max(1, encoder.chunk // plan.blocks)
        rows = _resize(payload, self.packet_bytes)
        (bits,) = in_chunks(encode, size, rows, fewest=-(-encoder.fewest // plan.blocks))
        return bits

    def _receive(
        self, rows: tuple[Tensor, ...], lengths: Tensor, kept: Tensor | None, attempt: int
    ) -> _Arrival:
        plan = self.layout
        device = _name_of(rows[0].device)
        decoder = self._block_code(device)
        parity = crc(self.crc, 8 * self.packet_bytes, device)
        every = CHECK_EVERY[self.schedule] if self.early_stop else self.iterations
        rounds = 1 if self.harq is None else self.harq.rounds
        versions = self._versions(attempt)
        heard = tuple(dict.fromkeys(v for a in range(attempt + 1) for v in self._versions(a)))

        def decode(*pieces: Tensor) -> tuple[Tensor, ...]:
            count = len(pieces[0])
            llr = self._air.llr(*pieces[: len(rows)])
            if self.input == "hard" and isinstance(self._air, _SymbolAir):
                llr = _hard(llr)
            before = pieces[len(rows)] if kept is not None else None
            llr = _combine(llr.reshape(-1, len(versions), plan.n), versions, heard, before)
            taken, accepted = decoder.decode_until(
                llr,
                self.iterations,
                every,
                lambda message: parity.holds(message[:, : plan.bits]),
                heard,
                plan.blocks,
            )
            payload = _to_bytes(taken[:, : 8 * self.packet_bytes])
            if attempt + 1 == rounds:
                return payload, accepted
            return payload, accepted, llr.reshape(count, -1)

        size = max(1, decoder.chunk // plan.blocks)
        inputs = rows if kept is None else (*rows, kept)
        return _Arrival(*in_chunks(decode, size, *inputs, fewest=-(-decoder.fewest // plan.blocks)))


def _combine(
    llr: Tensor, versions: Sequence[int], heard: Sequence[int], kept: Tensor | None
) -> Tensor:
    """Add up what was heard of each redundancy version.

    llr: float32 [B, len(versions), n], of this attempt; kept: float32 [..., n], blocks and then the
    versions of earlier attempts, the first ones of `heard`. Returns float32 [B, len(heard) n].
    """
    if kept is None and tuple(versions) == tuple(heard):
        return llr.flatten(1)
    blocks, _, n = llr.shape
    total = llr.new_zeros(blocks, len(heard), n)
    if kept is not None:
        earlier = kept.reshape(blocks, -1, n)
        total[:, : earlier.shape[1]] = earlier
    for word, version in enumerate(versions):
        total[:, heard.index(version)] += llr[:, word]
    return total.flatten(1)


@register("uncoded")
class UncodedLink(_Link):
    """QAM with hard decisions, or a bare bit channel: a packet with any bit error is lost.

    over, modulation, symbol_rate_hz: as for `coded`. Error detection is ideal and costs nothing, so
    `delivered` and `correct` are the same, but where an erased bit was guessed right: a bound for
    links without coding.
    """

    name = "uncoded"
    _knows_the_truth = True

    def __init__(
        self,
        over: object = "awgn",
        modulation: str | None = None,
        symbol_rate_hz: float | None = None,
    ) -> None:
        super().__init__(over, modulation, symbol_rate_hz)

    def _symbols(self, lengths: Tensor) -> Tensor:
        return (8 * lengths + self.order - 1) // self.order

    def _ledger(self, lengths: Tensor, attempts: Tensor) -> dict[str, Tensor]:
        payload = 8 * lengths.sum(dim=1)
        sent = self._symbols(lengths).sum(dim=1) * self.order
        return {"payload": payload, "padding": sent - payload}

    def _bits(self, payload: Tensor, attempt: int) -> Tensor:
        bits = _to_bits(payload)
        return torch.nn.functional.pad(bits, (0, -bits.shape[1] % self.order))

    def _receive(
        self, rows: tuple[Tensor, ...], lengths: Tensor, kept: Tensor | None, attempt: int
    ) -> _Arrival:
        llr = self._air.llr(*rows)
        bits = (llr > 0).to(torch.float32)
        whole = bits.shape[1] - bits.shape[1] % 8
        accepted = torch.ones(len(bits), dtype=torch.bool, device=bits.device)
        if isinstance(self._air, _BitAir):  # an erased bit is known to be no bit
            beyond = torch.arange(llr.shape[1], device=llr.device) >= 8 * lengths[:, None]
            accepted = ((llr != 0) | beyond).all(dim=1)
        return _Arrival(_to_bytes(bits[:, :whole]), accepted)
