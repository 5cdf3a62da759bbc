"""Packets over a symbol or a bit channel, with CRC and 5G LDPC or polar codes.

    packet ── zero-pad to packet_bytes ── + CRC ── cut into code blocks ── encode ── QAM ──┐
                                                                                    symbol channel
    verdict, bytes <── CRC <── decode <── + LLRs kept (HARQ) <── bitwise LLRs <─────────────┘

One `packet_bytes` means one code for all packets of the link. The segmentation is not that of the
standard: a packet is divided into the smallest number of equal code blocks that TS 38.212 allows,
and zero bits, which are sent and counted, fill the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from channels.base import Packets, register
from channels.config.checks import choice, flag, integer, number
from channels.errors import ChannelError, ConfigError
from channels.fec.crc import CRC_BITS, crc
from channels.fec.ldpc import (
    CHECK_EVERY,
    DEFAULT_ITERATIONS,
    FIRST,
    HIGHEST_RATE,
    LOWEST_RATE,
    SCHEDULES,
    Holds,
    code,
    in_chunks,
    layout,
)
from channels.fec.polar import DEFAULT_LIST_SIZE, polar_code, polar_layout
from channels.link.air import SymbolAir, device_name, hard_decisions
from channels.link.base import DEFAULT_PACKET_BYTES, Arrival, BaseLink, resize, to_bits, to_bytes
from channels.link.bler_table import BlerTable
from channels.link.harq import Harq, versions_of
from channels.link.lookup import TableDraws
from channels.random import Randomness

CODES = ("ldpc", "polar")
INPUTS = ("soft", "hard")
FIDELITIES = ("full", "lookup")


class _BlockCode(Protocol):
    """A block code, LDPC or polar."""

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


@register("coded")
class CodedLink(BaseLink):
    """A coded link: CRC, 5G LDPC or polar code, and QAM over a symbol channel, or a bit channel.

    over: a symbol channel, `awgn` or `{rayleigh: {coherence: packet}}`, or a bit channel, `bsc` or
        `{bec: {erasure: 0.1}}`.
    modulation: bpsk, qpsk (the default), 16qam, 64qam, 256qam; not used over a bit channel.
    code_rate: k/n, 1/40 to 0.95; k includes the CRC, and n is a whole number of symbols. Below 1/5
        an LDPC code sends several redundancy versions, and a polar code repeats its word.
    packet_bytes: size to which every packet is padded with zeros, 1 to 65535; a longer packet is
        refused. The receiver knows the length of each packet, as from a control channel.
    crc: crc24a or crc16. iterations: of belief propagation, 1 to 1000.
    schedule: of belief propagation, `layered`; or `flooding`, Sionna's decoder, which is slower and
        needs more iterations, but is the decoder of most published curves.
    early_stop: check the CRC every two iterations (flooding: four) and stop when it holds, as
        receivers do. It changes results only if the CRC of a wrong word holds by chance (2^-24 or
        2^-16 per check).
    code: ldpc; or polar, with successive cancellation list decoding of list_size paths (1, 2, 4 ...
        32), for which iterations and early_stop have no effect.
    input: of the decoder, `soft` LLRs, or `hard` decisions with a known error rate.
    harq: None, or the parameters of `Harq`: packets whose CRC fails are sent again.
    symbol_rate_hz: symbols or resource elements per second, 1 to 1e12; packets of a link then wait
        for each other, and delays include their time on the air. None: sending takes no time.
    fidelity: `full` decoding; or `lookup`, about a thousand times faster: a packet is lost with the
        error rate that was measured at its SNR. `lookup` needs a symbol channel with one known gain
        per packet, and HARQ with chase combining. A table that is not in the package is measured at
        first use and kept in $SQLINK_CACHE (~/.cache/sqlink).

    `delivered` is whether the CRC holds, `correct` whether the bytes equal those sent.

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
        fidelity: str = FIDELITIES[0],
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
        self.fidelity = choice(self.name, "fidelity", fidelity, FIDELITIES)
        self._draws = TableDraws(self) if self.fidelity == "lookup" else None

    @property
    def table(self) -> BlerTable | None:
        """Return the table from which losses are drawn; None if packets are decoded."""
        return None if self._draws is None else self._draws.table

    def content_hash(self) -> str:
        """Return the SHA-256 of the table; "" if packets are decoded."""
        return "" if self._draws is None else self._draws.content_hash()

    def over_awgn(self) -> CodedLink:
        """Return a link with this code over AWGN and full decoding.

        Raises ChannelError if this link is over a bit channel.
        """
        if self.modulation is None:
            raise ChannelError(
                f"{self.name}: a bit channel has no SNR: give a symbol channel, such as awgn"
            )
        return CodedLink(
            over="awgn",
            modulation=self.modulation,
            code_rate=self.code_rate,
            packet_bytes=self.packet_bytes,
            crc=self.crc,
            iterations=self.iterations,
            schedule=self.schedule,
            code=self.code,
            list_size=self.list_size,
            input=self.input,
        )

    def occupied(self, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the resource elements of packets of some lengths, and their pilots, int64 each."""
        return self._occupied(lengths)

    def _group(self, slots: int, uses: int) -> int:
        return super()._group(slots, uses) if self._draws is None else self._draws.group(slots)

    def _send(self, packets: Packets, level: Tensor, randomness: Randomness) -> tuple[Tensor, ...]:
        if self._draws is not None:
            return self._draws.send(packets, level, randomness)
        return super()._send(packets, level, randomness)

    def _verdict(
        self, packets: Packets, accepted: Tensor, *payload: Tensor
    ) -> tuple[Packets, Tensor, Tensor]:
        if self._draws is not None:
            return packets.keep(accepted), accepted, accepted
        return super()._verdict(packets, accepted, *payload)

    def _symbols(self, lengths: Tensor) -> Tensor:
        longest = int(lengths.max()) if lengths.numel() else 0
        if longest > self.packet_bytes:
            raise ChannelError(
                f"coded: a packet of {longest} bytes is too long, the code carries 1 to "
                f"{self.packet_bytes}: raise packet_bytes"
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
        """Return the redundancy versions that an attempt sends; polar codes have one."""
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
        device = device_name(payload.device)
        encoder = self._block_code(device)
        parity = crc(self.crc, 8 * self.packet_bytes, device)
        versions = self._versions(attempt)

        def encode(rows: Tensor) -> tuple[Tensor]:
            protected = parity.append(to_bits(rows))
            blocks = torch.nn.functional.pad(protected, (0, plan.padding)).reshape(-1, plan.k)
            return (encoder.encode(blocks, versions).reshape(len(rows), plan.coded_bits),)

        size = max(1, encoder.chunk // plan.blocks)
        rows = resize(payload, self.packet_bytes)
        (bits,) = in_chunks(encode, size, rows, fewest=-(-encoder.fewest // plan.blocks))
        return bits

    def _receive(
        self, rows: tuple[Tensor, ...], lengths: Tensor, kept: Tensor | None, attempt: int
    ) -> Arrival:
        plan = self.layout
        device = device_name(rows[0].device)
        decoder = self._block_code(device)
        parity = crc(self.crc, 8 * self.packet_bytes, device)
        every = CHECK_EVERY[self.schedule] if self.early_stop else self.iterations
        rounds = 1 if self.harq is None else self.harq.rounds
        versions = self._versions(attempt)
        heard = tuple(dict.fromkeys(v for a in range(attempt + 1) for v in self._versions(a)))

        def decode(*pieces: Tensor) -> tuple[Tensor, ...]:
            count = len(pieces[0])
            llr = self._air.llr(*pieces[: len(rows)])
            if self.input == "hard" and isinstance(self._air, SymbolAir):
                llr = hard_decisions(llr)
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
            payload = to_bytes(taken[:, : 8 * self.packet_bytes])
            if attempt + 1 == rounds:
                return payload, accepted
            return payload, accepted, llr.reshape(count, -1)

        size = max(1, decoder.chunk // plan.blocks)
        inputs = rows if kept is None else (*rows, kept)
        return Arrival(*in_chunks(decode, size, *inputs, fewest=-(-decoder.fewest // plan.blocks)))


def _combine(
    llr: Tensor, versions: Sequence[int], heard: Sequence[int], kept: Tensor | None
) -> Tensor:
    """Add the LLRs of an attempt to those of earlier attempts, by redundancy version.

    llr: float32 [B, len(versions), n], of this attempt. kept: float32 [..., n], of blocks and of
    the versions received earlier, which are the first ones of `heard`. Returns float32 [B,
    len(heard) n].
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


@register("lookup")
def lookup(
    over: object = "awgn",
    modulation: str | None = None,
    code_rate: float = 0.5,
    packet_bytes: int = DEFAULT_PACKET_BYTES,
    crc: str = "crc24a",
    iterations: int = DEFAULT_ITERATIONS,
    schedule: str = SCHEDULES[0],
    code: str = "ldpc",
    list_size: int = DEFAULT_LIST_SIZE,
    input: str = "soft",
    harq: object = None,
    symbol_rate_hz: float | None = None,
) -> CodedLink:
    """Make a `coded` link of fidelity `lookup`, with the name `lookup`.

    The parameters are those of `coded`; early_stop has no effect, because nothing is decoded.
    """
    link = CodedLink(
        over=over,
        modulation=modulation,
        code_rate=code_rate,
        packet_bytes=packet_bytes,
        crc=crc,
        iterations=iterations,
        schedule=schedule,
        code=code,
        list_size=list_size,
        input=input,
        harq=harq,
        symbol_rate_hz=symbol_rate_hz,
        fidelity="lookup",
    )
    link.name = "lookup"
    return link
